/* SPDX-License-Identifier: MIT */
/* libchela/codegen.c — one model after the other until one answers. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/time.h"
#include "libchela/lib.h"

enum { REPORT_MAX = 64 * 1024, REPORT_ERROR = 80 };

#define DEFAULT_TIMEOUT 30.0

const char *const *chela_model_chain(size_t *ret_n)
{
    static const char *const chain[] = { CHELA_MODEL_DEEPSEEK_CHAT, CHELA_MODEL_DEEPSEEK_REASONER,
                                         CHELA_MODEL_CLAUDE_OPUS, CHELA_MODEL_CLAUDE_SONNET };

    *ret_n = LEN(chain);
    return chain;
}

/*
 * One generate under the timeout guard. It may outlive the guard's patience, so what it touches is
 * shared with whoever waits and freed by the last of the two.
 */
struct generating {
    atomic_uint refs;
    const struct chela_model_client *client;
    char *prompt, *code;
};

struct model_try {
    const struct chela_model_client *client;
    const char *prompt;
    double timeout_seconds;
    char *code;
};

static void generating_unref(void *arg)
{
    struct generating *g = arg;

    if (atomic_fetch_sub(&g->refs, 1) != 1)
        return;
    free(g->prompt);
    free(g->code);
    free(g);
}

static int generate(void *arg, struct chela_cancel *cancel, struct chela_error *error)
{
    struct generating *g = arg;

    return g->client->generate(g->client->client, g->prompt, cancel, &g->code, error);
}

static int try_model(void *arg, struct chela_cancel *cancel, struct chela_error *error)
{
    struct model_try *t = arg;
    struct generating *g = xcalloc(1, sizeof(*g));
    const struct chela_guard guard = { .timeout_seconds = t->timeout_seconds,
                                       .release = generating_unref };
    int r;

    (void)cancel; /* nobody cancels a chain */
    atomic_init(&g->refs, 2);
    g->client = t->client;
    g->prompt = xstrdup(t->prompt);
    r = chela_with_timeout(generate, g, &guard, error);
    if (r == 0)
        t->code = TAKE(g->code);
    if (r == CHELA_E_UNAVAILABLE) /* it never started */
        generating_unref(g);
    generating_unref(g);
    return r;
}

static const struct chela_model_client *find_client(const struct chela_model_client *clients,
                                                    size_t n, const char *model)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(clients[i].model, model) == 0)
            return &clients[i];
    return NULL;
}

static void note_error(struct chela_codegen_result *result, const char *model, unsigned attempt,
                       const struct chela_error *error)
{
    result->errors = xrealloc(result->errors, (result->n_errors + 1) * sizeof(*result->errors));
    result->errors[result->n_errors++] = (struct chela_codegen_error){
        .model = xstrdup(model),
        .error = xstrdup(error->text),
        .attempt = attempt,
        .type = error->type,
        .at_us = wall_us(),
    };
}

/* What an operator reads when no model answered. */
static char *report(const struct chela_codegen_result *result)
{
    char now[TIME_TEXT];
    struct buf b;
    struct err e;
    char *text;
    int r;

    buf_init(&b, REPORT_MAX);
    r = buf_printf(&b, &e, "ERROR: all models failed\nTotal attempts: %u\n\n",
                   result->total_attempts);
    for (size_t i = 0; r == 0 && i < result->n_errors; i++) {
        const struct chela_codegen_error *one = &result->errors[i];

        r = buf_printf(&b, &e, "%s\n  Error types: %s\n  Last error: %.*s\n", one->model,
                       chela_error_type_name(one->type), REPORT_ERROR, one->error);
    }
    time_format_naive(wall_us(), now);
    if (r == 0)
        r = buf_printf(&b, &e,
                       "\nAction: check the clients' credentials and the models' "
                       "availability, then try again.\nTime: %s\n",
                       now);
    (void)r; /* a chain too long for the report: it ends early */
    text = str_dup(buf_str(&b));
    buf_done(&b);
    return text;
}

struct chela_codegen_result *chela_codegen(const struct chela_model_client *clients, size_t n,
                                           const char *prompt,
                                           const struct chela_codegen_config *config)
{
    static const struct chela_codegen_config defaults;
    const struct chela_codegen_config *c = config ? config : &defaults;
    struct chela_retry_config retry = CHELA_RETRY_CONFIG_INIT;
    struct chela_codegen_result *result = xcalloc(1, sizeof(*result));
    size_t n_chain = c->n_chain;
    const char *const *chain = c->chain ? c->chain : chela_model_chain(&n_chain);
    uint64_t began_us = now_us();

    retry.max_retries = 2;
    result->total_attempts = (unsigned)n_chain;
    for (size_t i = 0; i < n_chain && !result->success; i++) {
        struct model_try t = {
            .client = find_client(clients, n, chain[i]),
            .prompt = prompt,
            .timeout_seconds = c->timeout_seconds > 0 ? c->timeout_seconds : DEFAULT_TIMEOUT,
        };
        struct chela_error error;
        int r;

        result->attempt_number = (unsigned)i + 1;
        if (t.client)
            r = chela_retry(try_model, &t, c->retry ? c->retry : &retry, NULL, NULL, NULL, &error);
        else
            r = lib_fail(&error, CHELA_E_FAILED, CHELA_ERROR_UNKNOWN,
                         "Model client not available: %s", chain[i]);
        if (r < 0) {
            note_error(result, chain[i], (unsigned)i + 1, &error);
            continue;
        }
        result->success = true;
        result->code = t.code ? t.code : xstrdup("");
        result->model_used = xstrdup(chain[i]);
    }
    if (!result->success) {
        result->code = report(result);
        result->model_used = xstrdup("none");
    }
    result->duration_ms = (double)(now_us() - began_us) / 1000;
    return result;
}

void chela_codegen_result_free(struct chela_codegen_result *result)
{
    if (!result)
        return;
    for (size_t i = 0; i < result->n_errors; i++) {
        free(result->errors[i].model);
        free(result->errors[i].error);
    }
    free(result->errors);
    free(result->code);
    free(result->model_used);
    free(result);
}

char *chela_codegen_result_json(const struct chela_codegen_result *result)
{
    struct out o;

    out_init(&o, SIZE_MAX / 2);
    out_z(&o, "{\"code\":");
    out_str(&o, str_of(result->code));
    out_z(&o, ",\"model_used\":");
    out_str(&o, str_of(result->model_used));
    out_z(&o, ",\"attempt_number\":");
    out_int(&o, result->attempt_number);
    out_z(&o, ",\"total_attempts\":");
    out_int(&o, result->total_attempts);
    out_z(&o, ",\"errors_encountered\":");
    out_int(&o, (long long)result->n_errors);
    out_z(&o, ",\"duration_ms\":");
    out_real(&o, result->duration_ms);
    out_z(&o, ",\"success\":");
    out_bool(&o, result->success);
    out_z(&o, "}");
    return lib_take_json(&o);
}
