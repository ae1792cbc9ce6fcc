/* SPDX-License-Identifier: MIT */
/*
 * net/http_client_fail.c — why a call has no answer: libcurl's codes as enum http_fail, and a
 * text that names the peer but nothing else of the URL, whose path and query may be secret.
 */
#include <string.h>

#include "base/str.h"
#include "net/http_client_int.h"

static const struct outcome {
    enum http_fail fail;
    enum err_code code;
    const char *text; /* after the peer */
} outcomes[] = {
    [HTTP_FAIL_DNS] = { HTTP_FAIL_DNS, ERR_UNAVAILABLE, "the name does not resolve" },
    [HTTP_FAIL_CONNECT] = { HTTP_FAIL_CONNECT, ERR_UNAVAILABLE, "cannot connect" },
    [HTTP_FAIL_TLS] = { HTTP_FAIL_TLS, ERR_UNAVAILABLE, "TLS failed" },
    [HTTP_FAIL_TIMEOUT] = { HTTP_FAIL_TIMEOUT, ERR_TIMEOUT, "no answer in time" },
    [HTTP_FAIL_RESET] = { HTTP_FAIL_RESET, ERR_UNAVAILABLE,
                          "the connection ended before the answer" },
    [HTTP_FAIL_PROTOCOL] = { HTTP_FAIL_PROTOCOL, ERR_UNAVAILABLE, "the answer is not proper HTTP" },
    [HTTP_FAIL_TOO_BIG] = { HTTP_FAIL_TOO_BIG, ERR_LIMIT, "the answer is too big" },
    [HTTP_FAIL_POLICY] = { HTTP_FAIL_POLICY, ERR_FORBIDDEN, "the address is not allowed" },
    [HTTP_FAIL_CANCELED] = { HTTP_FAIL_CANCELED, ERR_CANCELED, "canceled" },
};

/* Bad chunking comes as CURLE_RECV_ERROR, which is a lost connection's code too. */
static bool is_framing_error(const char *text)
{
    return strstr(text, "chunk") || strstr(text, "hexadecimal");
}

static enum http_fail fail_of(const struct http_exchange *x)
{
    if (x->fail != HTTP_FAIL_NONE)
        return x->fail;
    switch (x->code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return HTTP_FAIL_DNS;
    case CURLE_COULDNT_CONNECT:
        return x->refused && x->opened == 0 ? HTTP_FAIL_POLICY : HTTP_FAIL_CONNECT;
    case CURLE_OPERATION_TIMEDOUT:
        return HTTP_FAIL_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CIPHER:
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_USE_SSL_FAILED:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_CRL_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_ENGINE_INITFAILED:
        return HTTP_FAIL_TLS;
    case CURLE_RECV_ERROR:
        return is_framing_error(x->error) ? HTTP_FAIL_PROTOCOL : HTTP_FAIL_RESET;
    case CURLE_SEND_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
    case CURLE_HTTP2_STREAM:
    case CURLE_SSL_SHUTDOWN_FAILED:
        return HTTP_FAIL_RESET;
    case CURLE_FILESIZE_EXCEEDED:
        return HTTP_FAIL_TOO_BIG;
    default:
        return HTTP_FAIL_PROTOCOL;
    }
}

/* libcurl's own words where they say more than ours: which certificate problem, which bad byte. */
static const char *detail_of(const struct http_exchange *x, enum http_fail fail)
{
    long eno = 0;

    if (x->fail_why)
        return x->fail_why;
    if (fail == HTTP_FAIL_POLICY)
        return x->refused;
    if (fail == HTTP_FAIL_TLS || fail == HTTP_FAIL_PROTOCOL)
        return x->error[0] ? x->error : NULL;
    if (fail == HTTP_FAIL_CONNECT && curl_easy_getinfo(x->easy, CURLINFO_OS_ERRNO, &eno) == 0 &&
        eno != 0)
        return strerror((int)eno);
    return NULL;
}

int http_fail_set(struct http_exchange *x, enum http_fail fail, const char *why, struct err *e)
{
    const struct outcome *o = &outcomes[fail];
    const char *open = x->url.ipv6 ? "[" : "", *close = x->url.ipv6 ? "]" : "";

    x->fail = fail;
    return err_set(e, o->code, "%s" STR_FMT "%s:%u: %s%s%s", open, STR_ARG(x->url.host), close,
                   x->url.port, o->text, why ? ": " : "", why ? why : "");
}

int http_exchange_explain(struct http_exchange *x, enum http_fail *ret_fail, struct err *e)
{
    enum http_fail fail = fail_of(x);

    *ret_fail = fail;
    return http_fail_set(x, fail, detail_of(x, fail), e);
}
