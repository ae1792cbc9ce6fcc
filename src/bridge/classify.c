/* SPDX-License-Identifier: MIT */
/* bridge/classify.c — the rules as tables, first match wins. */
#include "bridge/classify.h"

#include <ctype.h>
#include <string.h>

static const char *const names[ERROR_TYPES + 1] = {
    "timeout", "rate_limit", "network", "auth", "model_error", "internal", "unknown", NULL,
};

const char *error_type_name(enum error_type t)
{
    return names[t];
}

enum error_type error_type_of(struct str name)
{
    int t = 0;

    while (t < ERROR_TYPES && !str_eq_z(name, names[t]))
        t++;
    return (enum error_type)t;
}

/* Does text hold the lower-case word, whatever text's case? A word of digits must stand alone. */
static bool holds(struct str text, const char *word)
{
    size_t n = strlen(word);
    bool number = isdigit((unsigned char)*word);

    for (size_t i = 0; i + n <= text.n; i++) {
        size_t k = 0;

        while (k < n && tolower((unsigned char)text.p[i + k]) == word[k])
            k++;
        if (k < n)
            continue;
        if (!number)
            return true;
        if ((i == 0 || !isalnum((unsigned char)text.p[i - 1])) &&
            (i + n == text.n || !isalnum((unsigned char)text.p[i + n])))
            return true;
    }
    return false;
}

static bool holds_any(struct str text, const char *const *words)
{
    for (; *words; words++)
        if (holds(text, *words))
            return true;
    return false;
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

enum error_type classify_text(struct str text, struct str class_name)
{
    if (holds_any(text, WORDS("timeout", "timed out")) || holds(class_name, "timeout"))
        return ERROR_TIMEOUT;
    if (holds_any(text, WORDS("429", "rate limit", "too many requests")))
        return ERROR_RATE_LIMIT;
    if (holds_any(class_name, WORDS("connection", "network", "refused")) ||
        holds_any(text, WORDS("connection refused", "connection reset", "no route")))
        return ERROR_NETWORK;
    if (holds_any(text, WORDS("401", "unauthorized", "authentication", "403", "forbidden")))
        return ERROR_AUTH;
    if (holds_any(text, WORDS("model not found", "invalid model", "model error")))
        return ERROR_MODEL;
    if (holds_any(text, WORDS("500", "internal")))
        return ERROR_INTERNAL;
    return ERROR_UNKNOWN;
}

/* The ways in which servers say that they do not have the model. */
static bool is_about_model(struct str body)
{
    if (holds_any(body, WORDS("model not found", "model_not_found", "invalid model",
                              "invalid_model", "model error", "unknown model", "no such model")))
        return true;
    return holds(body, "model") &&
           holds_any(body, WORDS("does not exist", "not found", "not_found"));
}

enum error_type classify_status(int status, struct str body)
{
    switch (status) {
    case 408:
    case 504:
        return ERROR_TIMEOUT;
    case 429:
        return ERROR_RATE_LIMIT;
    case 401:
    case 403:
    case 407:
        return ERROR_AUTH;
    case 400:
    case 404:
        return is_about_model(body) ? ERROR_MODEL : ERROR_UNKNOWN;
    default:
        return status >= 500 && status <= 599 ? ERROR_INTERNAL : ERROR_UNKNOWN;
    }
}

enum error_type classify_fail(enum http_fail fail)
{
    switch (fail) {
    case HTTP_FAIL_TIMEOUT:
        return ERROR_TIMEOUT;
    case HTTP_FAIL_DNS:
    case HTTP_FAIL_CONNECT:
    case HTTP_FAIL_TLS:
    case HTTP_FAIL_RESET:
    case HTTP_FAIL_PROTOCOL:
    case HTTP_FAIL_POLICY:
        return ERROR_NETWORK;
    case HTTP_FAIL_NONE:
    case HTTP_FAIL_TOO_BIG:
    case HTTP_FAIL_CANCELED:
        break;
    }
    return ERROR_UNKNOWN;
}

enum error_type classify_named(struct str name, struct str text)
{
    static const struct {
        const char *name;
        enum error_type type;
    } rows[] = {
        { "rate_limit_error", ERROR_RATE_LIMIT }, { "rate_limit_exceeded", ERROR_RATE_LIMIT },
        { "authentication_error", ERROR_AUTH },   { "permission_error", ERROR_AUTH },
        { "invalid_api_key", ERROR_AUTH },        { "model_not_found", ERROR_MODEL },
        { "overloaded_error", ERROR_INTERNAL },   { "api_error", ERROR_INTERNAL },
        { "server_error", ERROR_INTERNAL },       { "internal_error", ERROR_INTERNAL },
        { "timeout_error", ERROR_TIMEOUT },
    };

    for (size_t i = 0; i < LEN(rows); i++)
        if (str_eq_z(name, rows[i].name))
            return rows[i].type;
    return classify_text(text, (struct str){ 0 });
}

bool error_retriable(enum error_type t)
{
    return t == ERROR_TIMEOUT || t == ERROR_RATE_LIMIT || t == ERROR_NETWORK || t == ERROR_INTERNAL;
}
