/* SPDX-License-Identifier: MIT */
/*
 * net/http_parse.c — three passes over a head that is in the cache: judge its bytes, let
 * http-parser cut it into fields, judge the fields that decide where the body ends.
 */
#include "net/http_parse.h"

#include <string.h>

/* http-parser has an enum of that name too. */
#define http_method http_parser_method
#include <http_parser.h>
#undef http_method

enum { TOKEN = 1, VALUE = 2, TARGET = 4, HOST = 8 };

/* clang-format off */
static const unsigned char classes[256] = {
    ['\t'] = VALUE, [' '] = VALUE,
    ['!'] = TOKEN | VALUE | TARGET | HOST, ['"'] = VALUE | TARGET, ['#'] = TOKEN | VALUE,
    ['$'] = TOKEN | VALUE | TARGET | HOST, ['%'] = TOKEN | VALUE | TARGET | HOST,
    ['&'] = TOKEN | VALUE | TARGET | HOST, ['\''] = TOKEN | VALUE | TARGET | HOST,
    ['('] = VALUE | TARGET | HOST, [')'] = VALUE | TARGET | HOST,
    ['*'] = TOKEN | VALUE | TARGET | HOST, ['+'] = TOKEN | VALUE | TARGET | HOST,
    [','] = VALUE | TARGET | HOST, ['-'] = TOKEN | VALUE | TARGET | HOST,
    ['.'] = TOKEN | VALUE | TARGET | HOST, ['/'] = VALUE | TARGET,
    ['0' ... '9'] = TOKEN | VALUE | TARGET | HOST,
    [':'] = VALUE | TARGET | HOST, [';'] = VALUE | TARGET | HOST, ['<'] = VALUE | TARGET,
    ['='] = VALUE | TARGET | HOST, ['>'] = VALUE | TARGET, ['?'] = VALUE | TARGET,
    ['@'] = VALUE | TARGET,
    ['A' ... 'Z'] = TOKEN | VALUE | TARGET | HOST,
    ['['] = VALUE | TARGET | HOST, ['\\'] = VALUE | TARGET, [']'] = VALUE | TARGET | HOST,
    ['^'] = TOKEN | VALUE | TARGET, ['_'] = TOKEN | VALUE | TARGET | HOST,
    ['`'] = TOKEN | VALUE | TARGET,
    ['a' ... 'z'] = TOKEN | VALUE | TARGET | HOST,
    ['{'] = VALUE | TARGET, ['|'] = TOKEN | VALUE | TARGET, ['}'] = VALUE | TARGET,
    ['~'] = TOKEN | VALUE | TARGET | HOST,
    [0x80 ... 0xff] = VALUE | TARGET, /* curl sends the path of a UTF-8 terminal as it was typed */
};
/* clang-format on */

struct cursor { /* of the first pass */
    const char *p, *end;
};

struct fields { /* what http-parser reports */
    struct http_header *headers;
    size_t n;
    bool too_many;
};

struct framing { /* what the fields say about the message */
    unsigned n_host, n_length, n_coding;
    bool close, keep;
};

bool http_is_token(unsigned char c)
{
    return classes[c] & TOKEN;
}

bool http_is_value(unsigned char c)
{
    return classes[c] & VALUE;
}

int http_head_find(struct str bytes, size_t *scanned, size_t *ret_len, struct err *e)
{
    const char *lf;

    if (bytes.n > 0 && !http_is_token((unsigned char)bytes.p[0]))
        return err_set(e, ERR_INVALID, "the request line does not begin with a method");
    while (*scanned < bytes.n &&
           (lf = memchr(bytes.p + *scanned, '\n', bytes.n - *scanned)) != NULL) {
        size_t at = (size_t)(lf - bytes.p);

        if (bytes.p[at - 1] != '\r') /* at > 0: the first byte is a token's */
            return err_set(e, ERR_INVALID, "a line ends without a carriage return");
        if (at >= 3 && bytes.p[at - 2] == '\n') {
            *ret_len = at + 1;
            return 0;
        }
        *scanned = at + 1;
    }
    return HTTP_HEAD_MORE;
}

static struct str take_while(struct cursor *c, unsigned char class)
{
    const char *from = c->p;

    while (c->p < c->end && (classes[(unsigned char)*c->p] & class))
        c->p++;
    return (struct str){ from, (size_t)(c->p - from) };
}

static bool take_z(struct cursor *c, const char *z)
{
    size_t n = strlen(z);

    if ((size_t)(c->end - c->p) < n || memcmp(c->p, z, n) != 0)
        return false;
    c->p += n;
    return true;
}

/* "HTTP/1.0" or "HTTP/1.1"; the versions we do not speak are told apart from what is none. */
static int take_version(struct cursor *c, int *ret_minor, int *ret_status, struct err *e)
{
    if (!take_z(c, "HTTP/") || c->end - c->p < 3 || c->p[0] < '0' || c->p[0] > '9' ||
        c->p[1] != '.' || c->p[2] < '0' || c->p[2] > '9')
        return err_set(e, ERR_INVALID, "malformed request line");
    if (c->p[0] != '1' || c->p[2] > '1') {
        *ret_status = 505;
        return err_set(e, ERR_INVALID, "HTTP version %c.%c is not spoken here", c->p[0], c->p[2]);
    }
    *ret_minor = c->p[2] - '0';
    c->p += 3;
    if (!take_z(c, "\r\n"))
        return err_set(e, ERR_INVALID, "malformed request line");
    return 0;
}

static int check_request_line(struct cursor *c, struct http_head *h, struct str *ret_target,
                              int *ret_status, struct err *e)
{
    h->method_text = take_while(c, TOKEN);
    if (h->method_text.n == 0 || h->method_text.n > HTTP_METHOD_MAX || !take_z(c, " "))
        return err_set(e, ERR_INVALID, "malformed method");
    *ret_target = take_while(c, TARGET);
    if (ret_target->n == 0 || !take_z(c, " "))
        return err_set(e, ERR_INVALID, "malformed request target");
    return take_version(c, &h->minor, ret_status, e);
}

/* Every line: a token, a colon right behind it, a value without control characters, CR LF. */
static int check_header_lines(struct cursor *c, struct err *e)
{
    for (;;) {
        if (take_z(c, "\r\n"))
            break;
        if (take_while(c, TOKEN).n == 0)
            return err_set(e, ERR_INVALID, "malformed header name or folded line");
        if (!take_z(c, ":"))
            return err_set(e, ERR_INVALID, "malformed header name");
        take_while(c, VALUE);
        if (!take_z(c, "\r\n"))
            return err_set(e, ERR_INVALID, "control character in a header");
    }
    if (c->p != c->end)
        return err_set(e, ERR_INVALID, "bytes behind the head");
    return 0;
}

static int on_field(http_parser *p, const char *at, size_t n)
{
    struct fields *f = p->data;

    if (f->n == HTTP_HEADERS_MAX) {
        f->too_many = true;
        return -1;
    }
    f->headers[f->n++] = (struct http_header){ .name = { at, n }, .value = { at, 0 } };
    return 0;
}

static int on_value(http_parser *p, const char *at, size_t n)
{
    struct fields *f = p->data;

    f->headers[f->n - 1].value = str_trim((struct str){ at, n });
    return 0;
}

/*
 * The method has been read: http-parser knows only a list of them, so it is shown a known one
 * and then the bytes from the target on.
 */
static int cut_fields(const char *target, const char *end, struct fields *f, int *ret_status,
                      struct err *e)
{
    static const http_parser_settings settings = {
        .on_header_field = on_field,
        .on_header_value = on_value,
    };
    http_parser parser;
    size_t n = (size_t)(end - target);

    http_parser_set_max_header_size(UINT32_MAX); /* the caller's limit holds */
    http_parser_init(&parser, HTTP_REQUEST);
    parser.data = f;
    if (http_parser_execute(&parser, &settings, "GET ", 4) == 4 &&
        http_parser_execute(&parser, &settings, target, n) == n &&
        HTTP_PARSER_ERRNO(&parser) == HPE_OK)
        return 0;
    if (f->too_many) {
        *ret_status = 431;
        return err_set(e, ERR_LIMIT, "more than %d header lines", HTTP_HEADERS_MAX);
    }
    if (HTTP_PARSER_ERRNO(&parser) == HPE_INVALID_TRANSFER_ENCODING)
        *ret_status = 501;
    return err_set(e, ERR_INVALID, "%s", http_errno_description(HTTP_PARSER_ERRNO(&parser)));
}

static int read_length(struct str value, struct http_head *h, struct err *e)
{
    if (value.n == 0 || value.n > 18)
        return err_set(e, ERR_INVALID, "malformed Content-Length");
    h->length = 0;
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] < '0' || value.p[i] > '9')
            return err_set(e, ERR_INVALID, "malformed Content-Length");
        h->length = h->length * 10 + (uint64_t)(value.p[i] - '0');
    }
    return 0;
}

static int read_host(struct str value, struct http_head *h, struct err *e)
{
    struct cursor c = { value.p, value.p + value.n };

    if (value.n == 0 || take_while(&c, HOST).n != value.n)
        return err_set(e, ERR_INVALID, "malformed Host");
    h->host = value;
    return 0;
}

static void read_connection(struct str value, struct framing *f)
{
    struct str part;

    while (str_split(&value, ',', &part)) {
        part = str_trim(part);
        if (str_eq_nocase(part, STR("close")))
            f->close = true;
        else if (str_eq_nocase(part, STR("keep-alive")))
            f->keep = true;
    }
}

static int read_field(const struct http_header *field, struct http_head *h, struct framing *f,
                      int *ret_status, struct err *e)
{
    struct str name = field->name, value = field->value;

    switch (name.n) {
    case 4:
        if (str_eq_nocase(name, STR("Host"))) {
            f->n_host++;
            return read_host(value, h, e);
        }
        break;
    case 6:
        if (!str_eq_nocase(name, STR("Expect")))
            break;
        if (!str_eq_nocase(value, STR("100-continue"))) {
            *ret_status = 417;
            return err_set(e, ERR_INVALID, "unknown expectation");
        }
        h->expect_continue = h->minor > 0;
        break;
    case 10:
        if (str_eq_nocase(name, STR("Connection")))
            read_connection(value, f);
        break;
    case 14:
        if (str_eq_nocase(name, STR("Content-Length"))) {
            f->n_length++;
            return read_length(value, h, e);
        }
        break;
    case 17:
        if (!str_eq_nocase(name, STR("Transfer-Encoding")))
            break;
        f->n_coding++;
        if (!str_eq_nocase(value, STR("chunked"))) {
            *ret_status = 501;
            return err_set(e, ERR_INVALID, "Transfer-Encoding is not \"chunked\"");
        }
        h->chunked = true;
        break;
    }
    return 0;
}

/* What makes the end of the message, or whose it is, doubtful. */
static int judge_framing(const struct http_head *h, const struct framing *f, int *ret_status,
                         struct err *e)
{
    *ret_status = 400;
    if (f->n_host > 1 || (f->n_host == 0 && h->minor > 0))
        return err_set(e, ERR_INVALID, "exactly one Host is needed");
    if (f->n_length > 1)
        return err_set(e, ERR_INVALID, "more than one Content-Length");
    if (f->n_coding > 1)
        return err_set(e, ERR_INVALID, "more than one Transfer-Encoding");
    if (f->n_coding > 0 && f->n_length > 0)
        return err_set(e, ERR_INVALID, "Content-Length beside Transfer-Encoding");
    if (f->n_coding > 0 && h->minor == 0)
        return err_set(e, ERR_INVALID, "Transfer-Encoding in HTTP/1.0");
    return 0;
}

/* Cut "http://authority" off *target; an authority that is not the Host's is refused. */
static int read_absolute(struct str *target, struct str host, struct err *e)
{
    size_t skip = 0;
    struct str authority;

    if (target->n > 7 && str_eq_nocase((struct str){ target->p, 7 }, STR("http://")))
        skip = 7;
    else if (target->n > 8 && str_eq_nocase((struct str){ target->p, 8 }, STR("https://")))
        skip = 8;
    else
        return err_set(e, ERR_INVALID, "malformed request target");
    authority = (struct str){ target->p + skip, 0 };
    while (skip + authority.n < target->n && authority.p[authority.n] != '/' &&
           authority.p[authority.n] != '?')
        authority.n++;
    if (host.p && !str_eq_nocase(authority, host))
        return err_set(e, ERR_INVALID, "the request target names another host than Host");
    target->p += skip + authority.n;
    target->n -= skip + authority.n;
    return 0;
}

static int read_target(struct str target, struct http_head *h, struct err *e)
{
    const char *mark;
    int r;

    if (h->method == HTTP_M_OPTIONS && str_eq(target, STR("*"))) {
        h->path = target;
        return 0;
    }
    if (target.p[0] != '/') {
        r = read_absolute(&target, h->host, e);
        if (r < 0)
            return r;
    }
    mark = target.n > 0 ? memchr(target.p, '?', target.n) : NULL;
    if (mark)
        h->query = (struct str){ mark + 1, (size_t)(target.p + target.n - mark - 1) };
    h->path = (struct str){ target.p, mark ? (size_t)(mark - target.p) : target.n };
    if (h->path.n == 0)
        h->path = STR("/");
    return 0;
}

static enum http_method method_of(struct str text)
{
    for (int m = 0; m < HTTP_M_OTHER; m++)
        if (str_eq_z(text, http_method_name((enum http_method)m)))
            return (enum http_method)m;
    return HTTP_M_OTHER;
}

int http_head_parse(struct str bytes, struct http_header *headers, struct http_head *ret,
                    int *ret_status, struct err *e)
{
    struct cursor c = { bytes.p, bytes.p + bytes.n };
    struct http_head h = { .headers = headers };
    struct fields fields = { .headers = headers };
    struct framing framing = { 0 };
    struct str target;
    int r;

    *ret_status = 400;
    r = check_request_line(&c, &h, &target, ret_status, e);
    if (r < 0)
        return r;
    r = check_header_lines(&c, e);
    if (r < 0)
        return r;
    r = cut_fields(target.p, c.end, &fields, ret_status, e);
    if (r < 0)
        return r;
    h.n_headers = fields.n;
    h.method = method_of(h.method_text);
    for (size_t i = 0; i < fields.n; i++) {
        r = read_field(&headers[i], &h, &framing, ret_status, e);
        if (r < 0)
            return r;
    }
    r = judge_framing(&h, &framing, ret_status, e);
    if (r < 0)
        return r;
    r = read_target(target, &h, e);
    if (r < 0)
        return r;

    h.keep_alive = !framing.close && (h.minor > 0 || framing.keep);
    *ret = h;
    return 0;
}
