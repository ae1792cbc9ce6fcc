/* SPDX-License-Identifier: MIT */
/*
 * net/http_client_rig.c — the scripted server: plain sockets in fibers, an act for each path.
 */
#include "net/http_client_rig.h"

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/fiber.h"
#include "base/str.h"
#include "net/stream.h"

struct session { /* one connection of the server */
    int fd;
    unsigned number; /* requests before this one */
    char head[8192];
    size_t n;
};

struct rig rig; /* one test at a time */

CO static int say(struct session *s, const void *p, size_t n)
{
    struct err e;

    return fiber_write_all(s->fd, p, n, DEADLINE_NONE, &e);
}

CO static int say_z(struct session *s, const char *z)
{
    return say(s, z, strlen(z));
}

CO static int answer(struct session *s, const char *more, const void *body, size_t n)
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

CO static int play_hang(struct session *s, struct str body)
{
    char byte;
    struct err e;

    (void)!fiber_read(s->fd, &byte, 1, DEADLINE_NONE, &e); /* until the client goes */
    return -1;
}

CO static int play_echo(struct session *s, struct str body)
{
    return answer(s, "Content-Type: text/plain\r\nX-Two:  spaced \r\n", body.p, body.n);
}

CO static int play_half(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    return play_hang(s, body);
}

CO static int play_reset(struct session *s, struct str body)
{
    struct err e;

    say_z(s, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    (void)!fiber_sleep(20, &e); /* so that the head is read before the reset destroys it */
    reset(s);
    return -1;
}

CO static int play_short(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    return -1;
}

CO static int play_nothing(struct session *s, struct str body)
{
    return -1;
}

CO static int play_bad_chunk(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\nXYZ\r\nbad\r\n");
    return play_hang(s, body);
}

CO static int play_chunks(struct session *s, struct str body)
{
    return say_z(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nHello\r\n"
                    "7;x=y\r\n, world\r\n0\r\nX-Trailer: t\r\n\r\n");
}

CO static int play_garbage(struct session *s, struct str body)
{
    say_z(s, "SSH-2.0-OpenSSH_9.2\r\n\r\n");
    return play_hang(s, body);
}

CO static int play_big_length(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nx");
    return play_hang(s, body);
}

CO static int play_big_stream(struct session *s, struct str body)
{
    static char piece[65536];

    say_z(s, "HTTP/1.0 200 OK\r\n\r\n");
    memset(piece, 'x', sizeof(piece));
    for (int i = 0; i < 400; i++)
        if (say(s, piece, sizeof(piece)) < 0)
            return -1;
    return -1;
}

CO static int play_gzip(struct session *s, struct str body)
{
    unsigned char out[256];

    return answer(s, "Content-Encoding: gzip\r\n", out, make_gzip("unzipped text", out));
}

CO static int play_bomb(struct session *s, struct str body)
{
    static unsigned char out[64 * 1024];

    return answer(s, "Content-Encoding: gzip\r\n", out, make_bomb(out));
}

CO static int play_interim(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n");
    return answer(s, "X-Final: yes\r\n", "done", 4);
}

CO static int play_redirect(struct session *s, struct str body)
{
    return say_z(s, "HTTP/1.1 302 Found\r\nLocation: /echo\r\nContent-Length: 0\r\n\r\n");
}

CO static int play_headers(struct session *s, struct str body)
{
    say_z(s, "HTTP/1.1 200 OK\r\n");
    for (int i = 0; i < 300; i++)
        say_z(s, "X-Many: a\r\n");
    return say_z(s, "Content-Length: 0\r\n\r\n");
}

/* The first request of a connection is answered; the second is swallowed. */
CO static int play_stale(struct session *s, struct str body)
{
    rig.posts_of_stale++;
    if (s->number > 0)
        return -1;
    return answer(s, "", "ok", 2);
}

CO static int play_empty(struct session *s, struct str body)
{
    return say_z(s, "HTTP/1.1 204 No Content\r\n\r\n");
}

/* 1 MiB in pieces, as fast as the client takes them. */
CO static int play_stream(struct session *s, struct str body)
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

CO static int play_drip(struct session *s, struct str body)
{
    struct err e;

    say_z(s, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 3; i++)
        if (say_z(s, "2\r\nab\r\n") < 0 || fiber_sleep(10, &e) < 0)
            return -1;
    return say_z(s, "0\r\n\r\n");
}

CO static int play_big_body(struct session *s, struct str body)
{
    static char out[RIG_BIG];

    memset(out, 'b', sizeof(out));
    return answer(s, "", out, sizeof(out));
}

static const struct act {
    const char *path;
    CO int (*play)(struct session *s, struct str body);
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
    rig.requests++;
    fmt_z(rig.last_head, sizeof(rig.last_head), "%s\r\n", s->head);
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
        rig.connections++;
        s = xcalloc(1, sizeof(*s));
        s->fd = peer;
        r = fiber_group_spawn(rig.group, "session", session_run, s, e);
        if (r < 0)
            return r;
    }
}

/* --- a test beside the server --- */

struct run {
    rig_test *test;
    struct http_client_conf conf;
    struct loop *loop;
    int result;
};

CO static int test_with(struct run *run, struct arena *a, struct err *e)
{
    struct http_client *client;
    int r;

    r = http_client_new(run->loop, &run->conf, &client, e);
    if (r < 0)
        return r;
    r = run->test(client, a, e);
    http_client_free(client);
    return r;
}

CO static int main_run(void *arg, struct err *e)
{
    struct run *run = arg;
    struct arena a = { 0 };
    int r;

    rig.group = fiber_group_new(run->loop);
    r = fiber_group_spawn(rig.group, "accept", accept_run, &rig.fd, e);
    if (r == 0)
        r = fiber_group_spawn(rig.group, "accept unix", accept_run, &rig.unix_fd, e);
    if (r == 0)
        run->result = test_with(run, &a, e);
    if (run->result < 0)
        printf("# error at the end: %s\n", e->msg);
    arena_done(&a);
    fiber_group_cancel(rig.group);
    r = fiber_group_join(rig.group, e);
    fiber_group_free(rig.group);
    return r;
}

int rig_run_with(rig_test *test, struct http_client_conf conf)
{
    struct run run = { .test = test, .result = -1, .conf = conf };
    struct err e = { 0 };

    memset(&rig, 0, sizeof(rig));
    fmt_z(rig.unix_path, sizeof(rig.unix_path), "/tmp/http_client_test.%d", (int)getpid());
    if (loop_new(&run.loop, &e) < 0 ||
        listen_tcp("127.0.0.1", 0, 512, &rig.fd, &rig.port, &e) < 0 ||
        listen_unix(rig.unix_path, &rig.unix_fd, &e) < 0 ||
        fiber_spawn(run.loop, "test", main_run, &run, NULL, &e) < 0) {
        printf("# %s\n", e.msg);
        return -1;
    }
    loop_run(run.loop);
    close(rig.fd);
    close(rig.unix_fd);
    unlink(rig.unix_path);
    loop_free(run.loop);
    return run.result;
}

int rig_run(rig_test *test)
{
    return rig_run_with(test, (struct http_client_conf){ 0 });
}

struct http_call rig_get(struct arena *a, const char *path)
{
    return (struct http_call){
        .method = HTTP_M_GET,
        .url = arena_printf(a, "http://127.0.0.1:%u%s", rig.port, path),
        .deadline_ms = deadline_in(5000),
    };
}

struct http_call rig_post(struct arena *a, const char *path, const char *body)
{
    struct http_call call = rig_get(a, path);

    call.method = HTTP_M_POST;
    call.body = str_of(body);
    return call;
}
