/* SPDX-License-Identifier: MIT */
/*
 * The client against a scripted server: plain sockets in fibers of the same loop, which answer
 * by the request's path, rightly or wrongly.
 */
#include "net/http_client.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "base/fiber.h"
#include "base/str.h"
#include "net/stream.h"
#include "test.h"

#define BIG (256 * 1024)

struct server {
    struct loop *loop;
    struct fiber_group *group;
    struct fiber *accepting;
    int fd, unix_fd;
    unsigned short port;
    unsigned connections, requests;
    unsigned posts_of_stale; /* requests that reached /stale */
    char last_head[4096];
};

struct session { /* one connection of the server */
    struct server *server;
    int fd;
    unsigned number; /* requests before this one */
    char head[8192];
    size_t n;
};

static struct server server; /* one test at a time */

static int say(struct session *s, const void *p, size_t n)
{
    struct err e;

    return fiber_write_all(s->fd, p, n, DEADLINE_NONE, &e);
}

static int say_z(struct session *s, const char *z)
{
    return say(s, z, strlen(z));
}

static int answer(struct session *s, const char *more, const void *body, size_t n)
{
    char head[512];

    fmt_z(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n%s\r\n", n, more);
    return say_z(s, head) < 0 ? -1 : say(s, body, n);
}

static void reset(struct session *s)
{
    struct linger now = { 1, 0 };

    setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
}

/* Bits of a deflate stream, lowest first. */
struct bits {
    unsigned char *out;
    size_t n; /* bits */
};

static void put_bits(struct bits *b, unsigned value, unsigned n)
{
    for (unsigned i = 0; i < n; i++, b->n++)
        b->out[b->n / 8] |= (unsigned char)((value >> i & 1) << b->n % 8);
}

/* A gzip member whose one block of fixed Huffman codes repeats a zero 8 million times. */
static size_t make_bomb(unsigned char *out)
{
    static const unsigned char head[10] = { 0x1f, 0x8b, 8 };
    struct bits b = { out, 8 * sizeof(head) };

    memcpy(out, head, sizeof(head));
    put_bits(&b, 3, 3);    /* last block, fixed codes */
    put_bits(&b, 0x0c, 8); /* literal 0, its code reversed */
    for (int i = 0; i < 32514; i++) {
        put_bits(&b, 0xa3, 8); /* length 258 */
        put_bits(&b, 0, 5);    /* distance 1 */
    }
    put_bits(&b, 0, 7); /* end of block */
    return b.n / 8 + 9;
}

static void put_le32(unsigned char *out, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        out[i] = (unsigned char)(v >> 8 * i);
}

/* A gzip member with one stored block. */
static size_t make_gzip(const char *text, unsigned char *out)
{
    static const unsigned char head[11] = { 0x1f, 0x8b, 8, [10] = 1 };
    uint32_t crc = ~0u, n = (uint32_t)strlen(text);

    memcpy(out, head, sizeof(head));
    put_le32(out + 11, n | ~n << 16);
    memcpy(out + 15, text, n);
    for (uint32_t i = 0; i < n; i++) {
        crc ^= (unsigned char)text[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    put_le32(out + 15 + n, ~crc);
    put_le32(out + 19 + n, n);
    return 23 + n;
}

static int play_hang(struct session *s, struct str body)
{
    char byte;
    struct err e;

    (void)!fiber_read(s->fd, &byte, 1, DEADLINE_NONE, &e); /* until the client goes */
    return -1;
}

static int play_echo(struct session *s, struct str body)
{
    return answer(s, "Content-Type: text/plain\r\nX-Two:  spaced \r\n", body.p, body.n);
}

static int play_half(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    return play_hang(s, body);
}

static int play_reset(struct session *s, struct str body)
{
    struct err e;

    say_z(s, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    (void)!fiber_sleep(20, &e); /* so that the head is read before the reset destroys it */
    reset(s);
    return -1;
}

static int play_short(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    return -1;
}

static int play_nothing(struct session *s, struct str body)
{
    return -1;
}

static int play_bad_chunk(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\nXYZ\r\nbad\r\n");
    return play_hang(s, body);
}

static int play_chunks(struct session *s, struct str body)
{
    return say_z(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n"
                    "7;x=y\r\n, world\r\n0\r\nX-Trailer: t\r\n\r\n");
}

static int play_garbage(struct session *s, struct str body)
{
    say_z(s, "SSH-2.0-OpenSSH_9.2\r\n\r\n");
    return play_hang(s, body);
}

static int play_big_length(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nx");
    return play_hang(s, body);
}

static int play_big_stream(struct session *s, struct str body)
{
    static char piece[65536];

    say_z(s, "HTTP/1.0 200 OK\r\n\r\n");
    memset(piece, 'x', sizeof(piece));
    for (int i = 0; i < 400; i++)
        if (say(s, piece, sizeof(piece)) < 0)
            return -1;
    return -1;
}

static int play_gzip(struct session *s, struct str body)
{
    unsigned char out[256];

    return answer(s, "Content-Encoding: gzip\r\n", out, make_gzip("unzipped text", out));
}

static int play_bomb(struct session *s, struct str body)
{
    static unsigned char out[64 * 1024];

    return answer(s, "Content-Encoding: gzip\r\n", out, make_bomb(out));
}

static int play_interim(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n");
    return answer(s, "X-Final: yes\r\n", "done", 4);
}

static int play_redirect(struct session *s, struct str body)
{
    return say_z(s, "HTTP/1.1 302 Found\r\nLocation: /echo\r\nContent-Length: 0\r\n\r\n");
}

static int play_headers(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 300; i++)
        say_z(s, "X-Many: a\r\n");
    return say_z(s, "Content-Length: 0\r\n\r\n");
}

/* The first request of a connection is answered; the second is swallowed. */
static int play_stale(struct session *s, struct str body)
{
    s->server->posts_of_stale++;
    if (s->number > 0)
        return -1;
    return answer(s, "", "ok", 2);
}

static int play_empty(struct session *s, struct str body)
{
    return say_z(s, "HTTP/1.1 204 No Content\r\n\r\n");
}

/* 1 MiB in pieces, as fast as the client takes them. */
static int play_stream(struct session *s, struct str body)
{
    static char piece[16384];
    char size[16];

    say_z(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    memset(piece, 's', sizeof(piece));
    fmt_z(size, sizeof(size), "%zx\r\n", sizeof(piece));
    for (int i = 0; i < 64; i++)
        if (say_z(s, size) < 0 || say(s, piece, sizeof(piece)) < 0 || say_z(s, "\r\n") < 0)
            return -1;
    return say_z(s, "0\r\n\r\n");
}

static int play_drip(struct session *s, struct str body)
{
    struct err e;

    say_z(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 3; i++)
        if (say_z(s, "2\r\nab\r\n") < 0 || fiber_sleep(10, &e) < 0)
            return -1;
    return say_z(s, "0\r\n\r\n");
}

static int play_big_body(struct session *s, struct str body)
{
    static char out[BIG + 100];

    memset(out, 'b', sizeof(out));
    return answer(s, "", out, sizeof(out));
}

static const struct act {
    const char *path;
    int (*play)(struct session *s, struct str body);
} acts[] = {
    { "/echo", play_echo },
    { "/hang", play_hang },
    { "/half", play_half },
    { "/reset", play_reset },
    { "/short", play_short },
    { "/nothing", play_nothing },
    { "/badchunk", play_bad_chunk },
    { "/chunks", play_chunks },
    { "/garbage", play_garbage },
    { "/biglength", play_big_length },
    { "/bigstream", play_big_stream },
    { "/gzip", play_gzip },
    { "/bomb", play_bomb },
    { "/interim", play_interim },
    { "/redirect", play_redirect },
    { "/headers", play_headers },
    { "/stale", play_stale },
    { "/empty", play_empty },
    { "/stream", play_stream },
    { "/drip", play_drip },
    { "/bigbody", play_big_body },
};

static const struct act *act_of(const char *head)
{
    const char *path = strchr(head, ' ') + 1;
    size_t n = strcspn(path, " ?");

    for (size_t i = 0; i < LEN(acts); i++)
        if (strlen(acts[i].path) == n && memcmp(acts[i].path, path, n) == 0)
            return &acts[i];
    return &acts[0];
}

/* Read one request and play the answer; <0 ends the connection. */
CO static int serve_one(struct session *s)
{
    AUTO(free) char *body = NULL;
    size_t length = 0, have;
    struct err e;
    char *end;
    ssize_t got;

    s->head[s->n] = '\0';
    while (!(end = strstr(s->head, "\r\n\r\n"))) {
        got = fiber_read(s->fd, s->head + s->n, sizeof(s->head) - 1 - s->n, DEADLINE_NONE, &e);
        if (got <= 0)
            return -1;
        s->n += (size_t)got;
        s->head[s->n] = '\0';
    }
    *end = '\0';
    if (strcasestr(s->head, "Content-Length:"))
        length = strtoul(strcasestr(s->head, "Content-Length:") + 15, NULL, 10);
    body = xmalloc(length + 1);
    have = s->n - (size_t)(end + 4 - s->head);
    memcpy(body, end + 4, have);
    while (have < length) {
        got = fiber_read(s->fd, body + have, length - have, DEADLINE_NONE, &e);
        if (got <= 0)
            return -1;
        have += (size_t)got;
    }
    s->n = 0;
    s->server->requests++;
    fmt_z(s->server->last_head, sizeof(s->server->last_head), "%s\r\n", s->head);
    return act_of(s->head)->play(s, (struct str){ body, length });
}

CO static int session_run(void *arg, struct err *e)
{
    struct session *s = arg;

    while (serve_one(s) == 0)
        s->number++;
    close(s->fd);
    free(s);
    return 0;
}

CO static int accept_run(void *arg, struct err *e)
{
    int fd = *(int *)arg;

    for (;;) {
        struct session *s;
        int peer, r;

        r = fiber_wait_fd(fd, LOOP_READ, DEADLINE_NONE, e);
        if (r < 0)
            return 0;
        peer = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (peer < 0)
            continue;
        server.connections++;
        s = xcalloc(1, sizeof(*s));
        s->server = &server;
        s->fd = peer;
        r = fiber_group_spawn(server.group, "session", session_run, s, e);
        if (r < 0)
            return r;
    }
}

/* --- harness --- */

struct run {
    int (*test)(struct http_client *c, struct arena *a, struct err *e);
    struct http_client *client;
    struct arena arena;
    struct loop *loop;
    struct http_client_conf conf;
    int result;
};

static char unix_path[64];

CO static int main_run(void *arg, struct err *e)
{
    struct run *run = arg;
    int r;

    server.group = fiber_group_new(run->loop);
    r = fiber_group_spawn(server.group, "accept", accept_run, &server.fd, e);
    CO_CHECK(r == 0);
    r = fiber_group_spawn(server.group, "accept unix", accept_run, &server.unix_fd, e);
    CO_CHECK(r == 0);
    r = http_client_new(run->loop, &run->conf, &run->client, e);
    CO_CHECK(r == 0);
    run->result = run->test(run->client, &run->arena, e);
    if (run->result < 0)
        printf("# error at the end: %s\n", e->msg);
    http_client_free(run->client);
    fiber_group_cancel(server.group);
    r = fiber_group_join(server.group, e);
    fiber_group_free(server.group);
    return r;
}

static int in_loop_with(int (*test)(struct http_client *c, struct arena *a, struct err *e),
                        struct http_client_conf conf)
{
    struct run run = { .test = test, .result = -1, .conf = conf };
    struct fiber *f = NULL;
    struct err e = { 0 };

    memset(&server, 0, sizeof(server));
    CHECK_INT(loop_new(&run.loop, &e), 0);
    CHECK_INT(listen_tcp("127.0.0.1", 0, 512, &server.fd, &server.port, &e), 0);
    fmt_z(unix_path, sizeof(unix_path), "/tmp/http_client_test.%d", (int)getpid());
    CHECK_INT(listen_unix(unix_path, &server.unix_fd, &e), 0);
    CHECK_INT(fiber_spawn(run.loop, "test", main_run, &run, NULL, &e), 0);
    loop_run(run.loop);
    (void)f;
    close(server.fd);
    close(server.unix_fd);
    unlink(unix_path);
    arena_done(&run.arena);
    loop_free(run.loop);
    return run.result;
}

static int in_loop(int (*test)(struct http_client *c, struct arena *a, struct err *e))
{
    return in_loop_with(test, (struct http_client_conf){ 0 });
}

static const char *url_of(struct arena *a, const char *path)
{
    return arena_printf(a, "http://127.0.0.1:%u%s", server.port, path);
}

static struct http_call get(struct arena *a, const char *path)
{
    return (struct http_call){
        .method = HTTP_M_GET,
        .url = url_of(a, path),
        .deadline_ms = deadline_in(5000),
    };
}

static struct http_call post(struct arena *a, const char *path, const char *body)
{
    struct http_call call = get(a, path);

    call.method = HTTP_M_POST;
    call.body = str_of(body);
    return call;
}

/* --- tests --- */

CO static int answers(struct http_client *c, struct arena *a, struct err *e)
{
    static const char *const headers[] = { "X-One: 1", "Content-Type: application/json", NULL };
    struct http_call call = post(a, "/echo", "{\"a\":1}");
    struct http_answer answer;

    call.headers = headers;
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.status == 200 && answer.fail == HTTP_FAIL_NONE);
    CO_CHECK(str_eq_z(answer.body, "{\"a\":1}") && answer.body.p[answer.body.n] == '\0');
    CO_CHECK(str_eq_z(http_answer_header(&answer, "content-type"), "text/plain"));
    CO_CHECK(str_eq_z(http_answer_header(&answer, "X-TWO"), "spaced"));
    CO_CHECK(!http_answer_header(&answer, "X-Three").p);
    CO_CHECK(strstr(server.last_head, "POST /echo HTTP/1.1\r\n") == server.last_head);
    CO_CHECK(strstr(server.last_head, "X-One: 1\r\n"));
    CO_CHECK(strstr(server.last_head, "Content-Type: application/json\r\n"));
    CO_CHECK(strstr(server.last_head, "User-Agent: chela/"));
    CO_CHECK(strstr(server.last_head, "Content-Length: 7\r\n"));
    CO_CHECK(!strstr(server.last_head, "Expect"));
    return 0;
}

TEST(a_call_gets_its_answer)
{
    CHECK_INT(in_loop(answers), 0);
}

CO static int reuses(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;

    for (int i = 0; i < 20; i++) {
        struct http_call call = i % 3 ? post(a, "/echo", "x") : get(a, "/chunks");

        CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
        CO_CHECK(str_eq_z(answer.body, i % 3 ? "x" : "Hello, world"));
    }
    CO_CHECK(server.connections == 1 && server.requests == 20);
    return 0;
}

TEST(connections_are_kept_and_used_again)
{
    CHECK_INT(in_loop(reuses), 0);
}

CO static int methods(struct http_client *c, struct arena *a, struct err *e)
{
    static const struct {
        enum http_method method;
        const char *name, *body;
        const char *line;
    } cases[] = {
        { HTTP_M_GET, "GET", "", NULL },        { HTTP_M_HEAD, "HEAD", "", NULL },
        { HTTP_M_POST, "POST", "", "0" },       { HTTP_M_DELETE, "DELETE", "", NULL },
        { HTTP_M_POST, "POST", "abc", "3" },    { HTTP_M_PUT, "PUT", "abcd", "4" },
        { HTTP_M_DELETE, "DELETE", "{}", "2" }, { HTTP_M_PATCH, "PATCH", "p", "1" },
        { HTTP_M_GET, "GET", "", NULL },        { HTTP_M_OPTIONS, "OPTIONS", "", NULL },
        { HTTP_M_POST, "POST", "abc", "3" },    { HTTP_M_HEAD, "HEAD", "", NULL },
        { HTTP_M_POST, "POST", "abc", "3" },
    };
    struct http_answer answer;

    for (size_t i = 0; i < LEN(cases); i++) {
        struct http_call call = post(a, "/echo?x=1", cases[i].body);
        const char *line = arena_printf(a, "%s /echo?x=1 HTTP/1.1\r\n", cases[i].name);

        call.method = cases[i].method;
        CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
        CO_CHECK(strstr(server.last_head, line) == server.last_head);
        CO_CHECK(!strstr(server.last_head, "Content-Type"));
        if (cases[i].line)
            CO_CHECK(
                strstr(server.last_head, arena_printf(a, "Content-Length: %s\r\n", cases[i].line)));
        else
            CO_CHECK(!strstr(server.last_head, "Content-Length"));
        CO_CHECK(str_eq_z(answer.body, cases[i].method == HTTP_M_HEAD ? "" : cases[i].body));
    }
    CO_CHECK(server.connections == 1);
    return 0;
}

TEST(methods_and_bodies_do_not_stick_to_a_pooled_handle)
{
    CHECK_INT(in_loop(methods), 0);
}

CO static int big_posts(struct http_client *c, struct arena *a, struct err *e)
{
    size_t n = 3 * MIB;
    char *body = arena_raw(a, n + 1);
    struct http_call call;
    struct http_answer answer;

    memset(body, 'p', n);
    body[n] = '\0';
    call = post(a, "/echo", body);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.body.n == n && memcmp(answer.body.p, body, n) == 0);
    CO_CHECK(!strstr(server.last_head, "Expect"));
    call = get(a, "/bigbody");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.body.n == BIG + 100);
    return 0;
}

TEST(large_bodies_pass_both_ways)
{
    CHECK_INT(in_loop(big_posts), 0);
}

CO static int odd_answers(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call;

    call = get(a, "/gzip");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(str_eq_z(answer.body, "unzipped text"));
    CO_CHECK(strstr(server.last_head, "Accept-Encoding: gzip, deflate\r\n"));

    call = get(a, "/interim");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.status == 200 && str_eq_z(answer.body, "done"));
    CO_CHECK(!http_answer_header(&answer, "Link").p && http_answer_header(&answer, "X-Final").p);

    call = get(a, "/redirect");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.status == 302 && str_eq_z(http_answer_header(&answer, "Location"), "/echo"));

    call = get(a, "/empty");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(answer.status == 204 && answer.body.n == 0 && answer.body.p);

    call = get(a, "/chunks");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(!http_answer_header(&answer, "X-Trailer").p);
    return 0;
}

TEST(gzip_interim_redirect_and_empty_answers_are_read)
{
    CHECK_INT(in_loop(odd_answers), 0);
}

struct failing {
    const char *path;
    enum http_fail fail;
    enum err_code code;
    long long wait_ms;
    int status; /* seen before it failed */
};

CO static int fails(struct http_client *c, struct arena *a, struct err *e)
{
    /* clang-format off */
    static const struct failing cases[] = {
        { "/hang", HTTP_FAIL_TIMEOUT, ERR_TIMEOUT, 60 },
        { "/half", HTTP_FAIL_TIMEOUT, ERR_TIMEOUT, 60, 200 },
        { "/reset", HTTP_FAIL_RESET, ERR_UNAVAILABLE, 5000, 200 },
        { "/short", HTTP_FAIL_RESET, ERR_UNAVAILABLE, 5000, 200 },
        { "/nothing", HTTP_FAIL_RESET, ERR_UNAVAILABLE, 5000 },
        { "/badchunk", HTTP_FAIL_PROTOCOL, ERR_UNAVAILABLE, 5000, 200 },
        { "/garbage", HTTP_FAIL_PROTOCOL, ERR_UNAVAILABLE, 5000 },
        { "/biglength", HTTP_FAIL_TOO_BIG, ERR_LIMIT, 5000, 200 },
        { "/bigstream", HTTP_FAIL_TOO_BIG, ERR_LIMIT, 5000, 200 },
        { "/bomb", HTTP_FAIL_TOO_BIG, ERR_LIMIT, 5000, 200 },
        { "/headers", HTTP_FAIL_TOO_BIG, ERR_LIMIT, 5000 },
    };
    /* clang-format on */

    for (size_t i = 0; i < LEN(cases); i++) {
        struct http_answer answer = { .status = 99 };
        struct http_call call = get(a, cases[i].path);
        int r;

        call.max_answer = 1 * MIB;
        call.deadline_ms = deadline_in(cases[i].wait_ms);
        r = http_fetch(c, &call, a, &answer, e);
        if (answer.fail != cases[i].fail || r != -(int)cases[i].code)
            printf("# %s: %d %d %s\n", cases[i].path, r, answer.fail, e->msg);
        CO_CHECK(answer.fail == cases[i].fail);
        CO_CHECK(r == -(int)cases[i].code);
        CO_CHECK(answer.status == cases[i].status);
        CO_CHECK(strstr(e->msg, "127.0.0.1:") && !strstr(e->msg, cases[i].path));
    }
    return 0;
}

TEST(each_failure_is_told_apart)
{
    CHECK_INT(in_loop(fails), 0);
}

CO static int unreachable(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call = get(a, "/");
    unsigned short port;
    int fd;

    CO_CHECK(listen_tcp("127.0.0.1", 0, 1, &fd, &port, e) == 0);
    close(fd);
    call.url = arena_printf(a, "http://127.0.0.1:%u/x?token=secret", port);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_UNAVAILABLE);
    CO_CHECK(answer.fail == HTTP_FAIL_CONNECT);
    CO_CHECK(strstr(e->msg, "refused") && !strstr(e->msg, "secret"));

    call.url = "http://no-such-name.invalid/";
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_UNAVAILABLE);
    CO_CHECK(answer.fail == HTTP_FAIL_DNS);

    call.url = "http://user:pw@127.0.0.1/";
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_INVALID);
    CO_CHECK(answer.fail == HTTP_FAIL_PROTOCOL);

    call.url = arena_printf(a, "https://127.0.0.1:%u/", server.port);
    call.deadline_ms = deadline_in(200); /* the server waits for an end of head that never comes */
    CO_CHECK(http_fetch(c, &call, a, &answer, e) < 0);
    CO_CHECK(answer.fail == HTTP_FAIL_TIMEOUT || answer.fail == HTTP_FAIL_TLS);
    return 0;
}

TEST(what_cannot_be_reached_says_why)
{
    CHECK_INT(in_loop(unreachable), 0);
}

CO static int stale(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call = post(a, "/stale", "x");

    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_UNAVAILABLE);
    CO_CHECK(answer.fail == HTTP_FAIL_RESET);
    CO_CHECK(server.posts_of_stale == 2); /* the second POST was not sent a third time */

    call = get(a, "/stale");
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(server.posts_of_stale == 5); /* a GET may be repeated */
    return 0;
}

TEST(a_post_that_may_have_arrived_is_not_sent_twice)
{
    CHECK_INT(in_loop(stale), 0);
}

CO static int refused(struct http_client *c, struct arena *a, struct err *e)
{
    static const char *const urls[] = {
        "http://127.0.0.1:1/",
        "http://localhost:1/",
        "http://[::ffff:127.0.0.1]:1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
    };

    for (size_t i = 0; i < LEN(urls); i++) {
        struct http_answer answer;
        struct http_call call = get(a, "/");

        call.url = urls[i];
        CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_FORBIDDEN);
        CO_CHECK(answer.fail == HTTP_FAIL_POLICY);
        CO_CHECK(strstr(e->msg, "not allowed"));
    }
    CO_CHECK(server.connections == 0);
    return 0;
}

TEST(addresses_are_checked_after_names_are_resolved)
{
    static struct outbound_policy policy;
    struct err e;

    CHECK_INT(outbound_policy_parse("", "127.0.0.0/8, ::1", &policy, &e), 0);
    CHECK_INT(in_loop_with(refused, (struct http_client_conf){ .policy = &policy }), 0);
}

CO static int refused_behind_proxy(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call = get(a, "/");

    call.url = "http://169.254.169.254/latest/meta-data/";
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_FORBIDDEN);
    CO_CHECK(answer.fail == HTTP_FAIL_POLICY && server.connections == 0);
    return 0;
}

TEST(a_proxy_is_not_a_way_round_the_policy)
{
    static struct outbound_policy policy;
    struct err e;

    CHECK_INT(outbound_policy_parse("", "", &policy, &e), 0);
    CHECK_INT(
        in_loop_with(refused_behind_proxy,
                     (struct http_client_conf){ .policy = &policy, .proxy = "http://127.0.0.1:1" }),
        0);
}

CO static int no_env_proxy(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call = get(a, "/echo");

    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    return 0;
}

TEST(proxies_of_the_environment_are_ignored)
{
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
    CHECK_INT(in_loop(no_env_proxy), 0);
    unsetenv("http_proxy");
    unsetenv("ALL_PROXY");
}

struct flow {
    struct http_client *client;
    const char *path;
    struct http_answer answer;
    struct arena arena;
    int result;
};

CO static int flow_run(void *arg, struct err *e)
{
    struct flow *flow = arg;
    struct http_call call = post(&flow->arena, flow->path, "flow");

    call.deadline_ms = DEADLINE_NONE;
    flow->result = http_fetch(flow->client, &call, &flow->arena, &flow->answer, e);
    return flow->result;
}

CO static int canceled(struct http_client *c, struct arena *a, struct err *e)
{
    struct flow flow = { .client = c, .path = "/hang" };
    struct http_call call = get(a, "/echo");
    struct http_answer answer;
    struct fiber *f;

    CO_CHECK(fiber_spawn(fiber_loop(), "flow", flow_run, &flow, &f, e) == 0);
    while (server.requests == 0)
        CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(f);
    CO_CHECK(fiber_join(f, e) == -ERR_CANCELED);
    CO_CHECK(flow.answer.fail == HTTP_FAIL_CANCELED);
    arena_done(&flow.arena);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(server.connections == 2); /* the cancelled one's connection was closed */
    return 0;
}

TEST(cancel_ends_a_call_at_once)
{
    CHECK_INT(in_loop(canceled), 0);
}

CO static int many(struct http_client *c, struct arena *a, struct err *e)
{
    struct flow *flows = xcalloc(200, sizeof(*flows));
    struct fiber_group *g = fiber_group_new(fiber_loop());
    int bad = 0;

    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 200; i++) {
            flows[i] = (struct flow){ .client = c, .path = "/echo", .arena = flows[i].arena };
            CO_CHECK(fiber_group_spawn(g, "flow", flow_run, &flows[i], e) == 0);
        }
        CO_CHECK(fiber_group_join(g, e) == 0);
        for (int i = 0; i < 200; i++)
            bad += flows[i].result != 0 || !str_eq_z(flows[i].answer.body, "flow");
    }
    for (int i = 0; i < 200; i++)
        arena_done(&flows[i].arena);
    fiber_group_free(g);
    free(flows);
    CO_CHECK(bad == 0);
    CO_CHECK(server.requests == 600);
    CO_CHECK(server.connections <= 32);
    return 0;
}

TEST(two_hundred_at_once_share_the_connections_of_a_host)
{
    CHECK_INT(in_loop(many), 0);
}

/* One place: a call that hangs has it, the others wait; two give up, the third gets it. */
CO static int queue_up(struct http_client *c, struct arena *a, struct err *e)
{
    struct flow hang = { .client = c, .path = "/hang" }, waits = { .client = c, .path = "/echo" },
                last = { .client = c, .path = "/echo" };
    struct fiber *first, *second, *third;
    struct http_call call = get(a, "/echo");
    struct http_answer answer;

    CO_CHECK(fiber_spawn(fiber_loop(), "hang", flow_run, &hang, &first, e) == 0);
    while (server.requests == 0)
        CO_CHECK(fiber_yield(e) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "waits", flow_run, &waits, &second, e) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "last", flow_run, &last, &third, e) == 0);
    call.deadline_ms = deadline_in(30);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_TIMEOUT);
    CO_CHECK(answer.fail == HTTP_FAIL_TIMEOUT && server.requests == 1);
    fiber_cancel(second);
    CO_CHECK(fiber_join(second, e) == -ERR_CANCELED);
    CO_CHECK(waits.answer.fail == HTTP_FAIL_CANCELED);
    fiber_cancel(first);
    CO_CHECK(fiber_join(first, e) == -ERR_CANCELED);
    CO_CHECK(fiber_join(third, e) == 0 && server.requests == 2);
    call.deadline_ms = deadline_in(5000);
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    arena_done(&hang.arena);
    arena_done(&waits.arena);
    arena_done(&last.arena);
    return 0;
}

TEST(calls_wait_their_turn_at_a_host)
{
    CHECK_INT(in_loop_with(queue_up, (struct http_client_conf){ .per_host = 1 }), 0);
}

CO static int over_unix(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_answer answer;
    struct http_call call = post(a, "/echo", "by file");
    struct http_call plain = get(a, "/echo");

    call.url = "http://localhost/echo";
    call.unix_socket = unix_path;
    for (int i = 0; i < 3; i++)
        CO_CHECK(http_fetch(c, &call, a, &answer, e) == 0);
    CO_CHECK(str_eq_z(answer.body, "by file") && server.connections == 1);
    CO_CHECK(http_fetch(c, &plain, a, &answer, e) == 0);
    CO_CHECK(server.connections == 2);
    call.unix_socket = "/nowhere/at/all";
    CO_CHECK(http_fetch(c, &call, a, &answer, e) == -ERR_UNAVAILABLE);
    CO_CHECK(answer.fail == HTTP_FAIL_CONNECT);
    return 0;
}

TEST(unix_sockets_are_reached)
{
    static struct outbound_policy policy;

    CHECK_INT(in_loop_with(over_unix, (struct http_client_conf){ .policy = &policy }), 0);
}

CO static int streams(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_exchange *x = NULL;
    struct http_call call = get(a, "/stream");
    struct http_answer head;
    size_t all = 0, n = 1;
    char piece[5000];

    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    CO_CHECK(head.status == 200);
    CO_CHECK(!strstr(server.last_head, "Accept-Encoding"));
    CO_CHECK(fiber_sleep(30, e) == 0); /* let it fill up and pause */
    while (n > 0) {
        CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == 0);
        for (size_t i = 0; i < n; i++)
            CO_CHECK(piece[i] == 's');
        all += n;
    }
    CO_CHECK(all == MIB);
    CO_CHECK(http_exchange_fail(x) == HTTP_FAIL_NONE);
    http_exchange_close(x);

    call = get(a, "/echo"); /* the connection went back to the pool */
    CO_CHECK(http_fetch(c, &call, a, &head, e) == 0);
    CO_CHECK(server.connections == 1);
    return 0;
}

TEST(a_streamed_answer_is_held_back_and_complete)
{
    CHECK_INT(in_loop(streams), 0);
}

CO static int drips(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_exchange *x = NULL;
    struct http_call call = get(a, "/drip");
    struct http_answer head;
    unsigned timeouts = 0;
    size_t all = 0, n;
    char piece[100];
    int r;

    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    for (;;) {
        r = http_exchange_read(x, piece, sizeof(piece), &n, deadline_in(3), e);
        if (r == -ERR_TIMEOUT) {
            timeouts++; /* impatience of one read does not end the exchange */
            CO_CHECK(timeouts < 1000);
            continue;
        }
        CO_CHECK(r == 0);
        if (n == 0)
            break;
        all += n;
    }
    CO_CHECK(all == 6 && timeouts > 0);
    http_exchange_close(x);
    return 0;
}

TEST(a_read_may_time_out_and_be_tried_again)
{
    CHECK_INT(in_loop(drips), 0);
}

CO static int broken_streams(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_exchange *x = NULL;
    struct http_call call = get(a, "/reset");
    struct http_answer head;
    char piece[100];
    size_t n;
    int r;

    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == 0 && n == 4);
    CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == -ERR_UNAVAILABLE);
    CO_CHECK(http_exchange_fail(x) == HTTP_FAIL_RESET);
    http_exchange_close(x);

    call = get(a, "/half");
    call.deadline_ms = deadline_in(60);
    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == 0 && n == 4);
    CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == -ERR_TIMEOUT);
    CO_CHECK(http_exchange_fail(x) == HTTP_FAIL_TIMEOUT);
    http_exchange_close(x);

    call = get(a, "/bigstream");
    call.max_answer = 100000;
    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    do
        r = http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e);
    while (r == 0 && n > 0);
    CO_CHECK(r == -ERR_LIMIT && http_exchange_fail(x) == HTTP_FAIL_TOO_BIG);
    http_exchange_close(x);

    call = get(a, "/hang");
    call.deadline_ms = deadline_in(30);
    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == -ERR_TIMEOUT);
    CO_CHECK(head.fail == HTTP_FAIL_TIMEOUT);

    call = get(a, "/stream"); /* closing in the middle */
    CO_CHECK(http_exchange_open(c, &call, a, &head, &x, e) == 0);
    CO_CHECK(http_exchange_read(x, piece, sizeof(piece), &n, DEADLINE_NONE, e) == 0);
    http_exchange_close(x);
    http_exchange_close(NULL);
    return 0;
}

TEST(a_streamed_answer_that_breaks_says_so)
{
    CHECK_INT(in_loop(broken_streams), 0);
}

static double cpu_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

CO static int cost(struct http_client *c, struct arena *a, struct err *e)
{
    struct http_call call = post(a, "/echo", "{\"message\":\"hello\"}");
    struct arena each = { 0 };
    struct http_answer answer;
    double begin = 0;

    call.deadline_ms = deadline_in(60000);
    for (int i = 0; i < 2100; i++) {
        if (i == 100)
            begin = cpu_us();
        CO_CHECK(http_fetch(c, &call, &each, &answer, e) == 0);
        arena_reset(&each);
    }
    printf("# %.1f us of CPU a fetch, the test's server included\n", (cpu_us() - begin) / 2000);
    arena_done(&each);
    return 0;
}

TEST(the_cost_of_a_fetch_is_shown)
{
    CHECK_INT(in_loop(cost), 0);
}
