/* SPDX-License-Identifier: MIT */
/*
 * bench/hub.c — the load of the hub's bench: callers and agents in one process.
 *
 *     hub --mode tasks|routes|idle --server hub|nats --http-port N --port N --agents N --callers N
 *         [--window N] [--payload BYTES] [--warmup S] [--seconds S] [--tokens FILE]
 *
 * tasks   each caller has one task in flight: it asks over HTTP and has its answer when the agent's
 *         result has come back (POST /agents/ID/task?wait=; NATS: a request and its reply);
 * routes  agents in pairs, each with `window` messages to the other on their way;
 * idle    agents connect and stay; a line on standard input ends 1,000 of them with a reset, the
 *         end of the input ends all.
 * An agent answers at once: what is measured is the hub. Agent i is "bench-i", its token line i of
 * the file. One thread, epoll; one JSON object on stdout.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "histogram.h"

enum { EVENTS = 256, READ_MAX = 64 << 10, PATIENCE_S = 20, TOKEN = 64, KILLED = 1000, TEXT = 8192 };

struct conn {
    int fd;
    unsigned index;
    bool agent, choked;
    char *in, *out;
    size_t in_len, in_size, out_len, out_size;
    uint64_t sent_ns; /* of a caller */
};

struct bench {
    bool nats;
    const char *mode, *tokens;
    unsigned http_port, port, n_agents, n_callers, window, payload;
    double warmup_s, seconds;
    int epoll;
    bool stopping;
    uint64_t from_ns, until_ns, now_ns;
    uint64_t sent, done, window_done, waiting, errors;
    struct histogram took;
    struct conn *agents, *callers;
    char first_error[256];
};

static void die(const char *what)
{
    fprintf(stderr, "hub bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *grown(void *p, size_t *size, size_t wanted)
{
    if (wanted <= *size)
        return p;
    *size = wanted * 2;
    p = realloc(p, *size);
    if (!p)
        die("memory");
    return p;
}

static void put(struct conn *c, const char *p, size_t n)
{
    c->out = grown(c->out, &c->out_size, c->out_len + n);
    memcpy(c->out + c->out_len, p, n);
    c->out_len += n;
}

__attribute__((format(printf, 2, 3))) static void putf(struct conn *c, const char *fmt, ...)
{
    char text[TEXT];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(text))
        die("text too long");
    put(c, text, (size_t)n);
}

/* A frame masked with zeros, which is allowed and costs nothing. */
static void put_frame(struct conn *c, unsigned opcode, const char *p, size_t n)
{
    unsigned char head[8] = { (unsigned char)(0x80 | opcode), (unsigned char)(0x80 | n) };
    size_t len = 2;

    if (n >= 126) {
        head[1] = 0x80 | 126;
        head[2] = (unsigned char)(n >> 8);
        head[3] = (unsigned char)n;
        len = 4;
    }
    memset(head + len, 0, 4);
    put(c, (const char *)head, len);
    put(c, "\0\0\0\0", 4);
    put(c, p, n);
}

static void failed(struct bench *b, const char *what, const char *text, size_t n)
{
    if (!b->errors++)
        snprintf(b->first_error, sizeof(b->first_error), "%s: %.*s", what, (int)(n < 200 ? n : 200),
                 text);
}

static void watch(const struct bench *b, struct conn *c, int op)
{
    struct epoll_event ev = { .events = EPOLLIN | (c->choked ? EPOLLOUT : 0), .data.ptr = c };

    if (epoll_ctl(b->epoll, op, c->fd, &ev) < 0)
        die("epoll_ctl");
}

static void flush(const struct bench *b, struct conn *c)
{
    ssize_t n;
    bool choked;

    if (!c->out_len)
        return;
    n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        die("send");
    if (n > 0) {
        c->out_len -= (size_t)n;
        memmove(c->out, c->out + n, c->out_len);
    }
    choked = c->out_len > 0;
    if (choked != c->choked) {
        c->choked = choked;
        watch(b, c, EPOLL_CTL_MOD);
    }
}

/* Write all and read until text has come; what came behind it stays. */
static void ask(struct conn *c, const char *text)
{
    char *at;

    for (size_t done = 0; done < c->out_len;) {
        ssize_t n = send(c->fd, c->out + done, c->out_len - done, MSG_NOSIGNAL);

        if (n < 0)
            die("send");
        done += (size_t)n;
    }
    c->out_len = 0;
    for (;;) {
        ssize_t n;

        c->in = grown(c->in, &c->in_size, c->in_len + 4096);
        n = recv(c->fd, c->in + c->in_len, 4096, 0);
        if (n <= 0)
            die("the server closed the connection");
        c->in_len += (size_t)n;
        at = memmem(c->in, c->in_len, text, strlen(text));
        if (at)
            break;
    }
    at += strlen(text);
    c->in_len -= (size_t)(at - c->in);
    memmove(c->in, at, c->in_len);
}

static void open_conn(struct conn *c, unsigned port, unsigned index, bool agent)
{
    /* 28,000 ports of one source address are not enough for all kinds of runs: agents use more */
    struct sockaddr_in from = { .sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK + index / 10000) };
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int on = 1;

    c->index = index;
    c->agent = agent;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
        connect(c->fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static void greet(struct bench *b, struct conn *c, const char *token)
{
    if (b->nats) {
        putf(c, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false}\r\n");
        putf(c, c->agent ? "SUB bench.%u 1\r\nPING\r\n" : "SUB _INBOX.%u 1\r\nPING\r\n", c->index);
        ask(c, "PONG\r\n");
    } else if (c->agent) {
        putf(c,
             "GET /agent/bench-%u/%.*s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
             "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
             "Sec-WebSocket-Version: 13\r\n\r\n",
             c->index, TOKEN, token, b->port);
        ask(c, "\r\n\r\n");
    }
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0)
        die("fcntl");
    watch(b, c, EPOLL_CTL_ADD);
}

/* --- what is asked --- */

static void caller_send(struct bench *b, struct conn *c)
{
    static const char body[] = "{\"type\":\"exec\",\"command\":\"true\"}";
    unsigned agent = c->index % b->n_agents;

    b->sent++;
    b->waiting++;
    c->sent_ns = now_ns();
    if (b->nats)
        putf(c, "PUB bench.%u _INBOX.%u %zu\r\n%s\r\n", agent, c->index, sizeof(body) - 1, body);
    else
        putf(c,
             "POST /agents/bench-%u/task?wait=20000 HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
             agent, b->http_port, sizeof(body) - 1, body);
    flush(b, c);
}

static bool in_window(const struct bench *b)
{
    return b->now_ns >= b->from_ns && b->now_ns < b->until_ns;
}

static void finished(struct bench *b, uint64_t since)
{
    b->done++;
    b->waiting--;
    if (!in_window(b))
        return;
    b->window_done++;
    histogram_add(&b->took, b->now_ns - since);
}

/* One message to the other of the pair; its content begins with the time it went out. */
static void route_send(struct bench *b, struct conn *c)
{
    char content[TEXT], text[TEXT];
    unsigned to = c->index ^ 1u;
    int n = snprintf(content, sizeof(content), "T%020llu ", (unsigned long long)now_ns());

    memset(content + n, 'x', b->payload - (size_t)n);
    content[b->payload] = '\0';
    b->sent++;
    b->waiting++;
    if (b->nats) {
        putf(c, "PUB bench.%u %u\r\n%s\r\n", to, b->payload, content);
        return;
    }
    n = snprintf(text, sizeof(text),
                 "{\"id\":\"%u-%llu\",\"from\":\"bench-%u\",\"to\":\"bench-%u\",\"type\":\"log\","
                 "\"timestamp\":1700000000000,\"payload\":{\"level\":\"info\",\"message\":\"%s\"}}",
                 c->index, (unsigned long long)b->sent, c->index, to, content);
    put_frame(c, 1, text, (size_t)n);
}

/* --- what comes --- */

static void routed(struct bench *b, struct conn *c, const char *p, size_t n)
{
    const char *at = memmem(p, n, "T0", 2);

    if (!at || n - (size_t)(at - p) < 21) {
        failed(b, "a strange message", p, n);
        return;
    }
    finished(b, strtoull(at + 1, NULL, 10));
    if (!b->stopping)
        route_send(b, c);
}

static void agent_text(struct bench *b, struct conn *c, char *p, size_t n)
{
    char text[TEXT], *id, *end;
    int len;

    if (memmem(p, n, "\"type\":\"log\"", 12)) {
        routed(b, c, p, n);
        return;
    }
    if (!memmem(p, n, "\"type\":\"task\"", 13))
        return; /* welcome, acknowledgements */
    id = memmem(p, n, "\"taskId\":\"", 10);
    end = id ? memchr(id + 10, '"', n - (size_t)(id + 10 - p)) : NULL;
    if (!end) {
        failed(b, "a task without an id", p, n);
        return;
    }
    len = snprintf(text, sizeof(text),
                   "{\"id\":\"r-%.*s\",\"from\":\"bench-%u\",\"to\":\"host\",\"type\":\"response\","
                   "\"timestamp\":1700000000000,\"payload\":{\"taskId\":\"%.*s\",\"success\":true,"
                   "\"result\":{\"stdout\":\"\",\"stderr\":\"\",\"exitCode\":0},\"duration\":1,"
                   "\"timestamp\":1700000000000}}",
                   (int)(end - id - 10), id + 10, c->index, (int)(end - id - 10), id + 10);
    put_frame(c, 1, text, (size_t)len);
}

static size_t take_frame(struct bench *b, struct conn *c, char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t head = 2, len;

    if (n < 2)
        return 0;
    len = u[1] & 0x7f;
    if (len == 126)
        head = 4;
    else if (len == 127)
        head = 10;
    if (n < head)
        return 0;
    if (head > 2)
        len = 0;
    for (size_t i = 2; i < head; i++)
        len = len << 8 | u[i];
    if (n - head < len)
        return 0;
    if ((u[0] & 0x0f) == 1)
        agent_text(b, c, p + head, len);
    else if ((u[0] & 0x0f) == 9)
        put_frame(c, 10, p + head, len);
    else if ((u[0] & 0x0f) == 8)
        failed(b, "closed by the hub", p + head + 2, len > 2 ? len - 2 : 0);
    return head + len;
}

static void again(struct bench *b, struct conn *c)
{
    finished(b, c->sent_ns);
    if (!b->stopping)
        caller_send(b, c);
}

static size_t take_answer(struct bench *b, struct conn *c, char *p, size_t n)
{
    char *end = memmem(p, n, "\r\n\r\n", 4), *length;
    size_t len;

    if (!end)
        return 0;
    length = strcasestr(p, "\r\ncontent-length:"); /* the buffer is terminated */
    len = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
    end += 4;
    if (n - (size_t)(end - p) < len)
        return 0;
    if (strncmp(p, "HTTP/1.1 200", 12) != 0 || !memmem(end, len, "\"exitCode\":0", 12))
        failed(b, "an answer without a result", p, (size_t)(end - p) + len);
    again(b, c);
    return (size_t)(end - p) + len;
}

/* MSG <subject> <sid> [reply] <bytes> */
static size_t take_nats(struct bench *b, struct conn *c, char *p, size_t n)
{
    char *end = memchr(p, '\n', n), reply[64] = "";
    unsigned sid;
    size_t len;

    if (!end)
        return 0;
    if (*p != 'M') {
        if (strncmp(p, "PING", 4) == 0)
            put(c, "PONG\r\n", 6);
        else if (*p == '-')
            failed(b, "NATS", p, (size_t)(end - p));
        return (size_t)(end - p) + 1;
    }
    if (sscanf(p, "MSG %*s %u %63s %zu", &sid, reply, &len) != 3) {
        reply[0] = '\0';
        if (sscanf(p, "MSG %*s %u %zu", &sid, &len) != 2)
            die("NATS");
    }
    if (n < (size_t)(end - p) + 1 + len + 2)
        return 0;
    if (!c->agent)
        again(b, c);
    else if (*reply)
        putf(c, "PUB %s 2\r\nok\r\n", reply);
    else
        routed(b, c, end + 1, len);
    return (size_t)(end - p) + 1 + len + 2;
}

static size_t take(struct bench *b, struct conn *c, char *p, size_t n)
{
    if (b->nats)
        return take_nats(b, c, p, n);
    return c->agent ? take_frame(b, c, p, n) : take_answer(b, c, p, n);
}

static void take_all(struct bench *b, struct conn *c)
{
    size_t from = 0, used;

    c->in = grown(c->in, &c->in_size, c->in_len + 1);
    c->in[c->in_len] = '\0';
    while (from < c->in_len && (used = take(b, c, c->in + from, c->in_len - from)) > 0)
        from += used;
    memmove(c->in, c->in + from, c->in_len - from);
    c->in_len -= from;
    flush(b, c);
}

static void readable(struct bench *b, struct conn *c)
{
    ssize_t n;

    c->in = grown(c->in, &c->in_size, c->in_len + READ_MAX / (b->n_agents > 2000 ? 32 : 1));
    n = recv(c->fd, c->in + c->in_len, c->in_size - c->in_len - 1, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        die("the server closed a connection");
    b->now_ns = now_ns();
    c->in_len += (size_t)n;
    take_all(b, c);
}

/* --- the loop --- */

static void turn(struct bench *b, int wait_ms)
{
    struct epoll_event events[EVENTS];
    int n = epoll_wait(b->epoll, events, EVENTS, wait_ms);

    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;

        if (!c)
            continue;
        if (events[i].events & EPOLLOUT)
            flush(b, c);
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
            readable(b, c);
    }
    b->now_ns = now_ns();
}

static void run(struct bench *b)
{
    b->now_ns = now_ns();
    b->from_ns = b->now_ns + (uint64_t)(b->warmup_s * 1e9);
    b->until_ns = b->from_ns + (uint64_t)(b->seconds * 1e9);
    for (unsigned i = 0; i < b->n_agents; i++) {
        for (unsigned k = 0; strcmp(b->mode, "routes") == 0 && k < b->window; k++)
            route_send(b, &b->agents[i]);
        take_all(b, &b->agents[i]); /* also what came with the upgrade */
    }
    for (unsigned i = 0; i < b->n_callers; i++)
        caller_send(b, &b->callers[i]);
    while (!b->stopping || b->waiting) {
        turn(b, 100);
        b->stopping = b->now_ns >= b->until_ns;
        if (b->now_ns >= b->until_ns + PATIENCE_S * 1000000000ull)
            return;
    }
}

/* Say that all are there; then wait for the line that ends some, and for the end. */
static void idle(struct bench *b)
{
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
    struct linger reset = { 1, 0 };
    unsigned killed = 0;
    char line[16];

    if (epoll_ctl(b->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &ev) < 0)
        die("epoll_ctl");
    fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
    printf("{\"connected\":%u}\n", b->n_agents);
    fflush(stdout);
    for (unsigned i = 0; i < b->n_agents; i++)
        take_all(b, &b->agents[i]);
    for (;;) {
        ssize_t n;

        turn(b, 1000);
        n = read(STDIN_FILENO, line, sizeof(line));
        if (n == 0)
            exit(0);
        if (n < 0)
            continue;
        for (unsigned i = 0; i < KILLED && killed < b->n_agents; i++, killed++) {
            setsockopt(b->agents[killed].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
            close(b->agents[killed].fd);
        }
        printf("{\"killed\":%u}\n", killed);
        fflush(stdout);
    }
}

static void print(const struct bench *b)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    printf("{\"mode\":\"%s\",\"per_s\":%.1f,\"done\":%lu,\"p50_us\":%.1f,\"p99_us\":%.1f,"
           "\"sent\":%lu,\"missing\":%lu,\"own_cpu_s\":%.3f,\"errors\":%lu,\"first_error\":\"",
           b->mode, (double)b->window_done / b->seconds, (unsigned long)b->done,
           histogram_us(&b->took, 0.5), histogram_us(&b->took, 0.99), (unsigned long)b->sent,
           (unsigned long)b->waiting,
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6,
           (unsigned long)b->errors);
    for (const char *p = b->first_error; *p; p++)
        putchar(*p < ' ' || *p == '"' || *p == '\\' ? ' ' : *p);
    printf("\"}\n");
}

static void option(struct bench *b, const char *name, const char *value)
{
    static const char *const names[] = { "--http-port", "--port",   "--agents",
                                         "--callers",   "--window", "--payload" };
    unsigned *const numbers[] = { &b->http_port, &b->port,   &b->n_agents,
                                  &b->n_callers, &b->window, &b->payload };

    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(name, names[i]) == 0)
            *numbers[i] = (unsigned)strtoul(value, NULL, 10);
    if (strcmp(name, "--mode") == 0)
        b->mode = value;
    else if (strcmp(name, "--server") == 0)
        b->nats = strcmp(value, "nats") == 0;
    else if (strcmp(name, "--tokens") == 0)
        b->tokens = value;
    else if (strcmp(name, "--warmup") == 0)
        b->warmup_s = strtod(value, NULL);
    else if (strcmp(name, "--seconds") == 0)
        b->seconds = strtod(value, NULL);
}

int main(int argc, char **argv)
{
    struct bench *b = calloc(1, sizeof(*b));
    char token[TOKEN + 2] = "";
    FILE *tokens = NULL;

    *b = (struct bench){ .window = 16, .payload = 200, .warmup_s = 1, .seconds = 4, .mode = "" };
    for (int i = 1; i + 1 < argc; i += 2)
        option(b, argv[i], argv[i + 1]);
    if (!b->port || !b->n_agents || b->payload < 32 || b->payload > 4096 ||
        (strcmp(b->mode, "routes") == 0 && b->n_agents % 2)) {
        fprintf(stderr, "usage: see the head of bench/hub.c\n");
        return 2;
    }
    if (b->tokens && !(tokens = fopen(b->tokens, "r")))
        die(b->tokens);
    signal(SIGPIPE, SIG_IGN);
    b->epoll = epoll_create1(EPOLL_CLOEXEC);
    b->agents = calloc(b->n_agents, sizeof(*b->agents));
    b->callers = calloc(b->n_callers + 1, sizeof(*b->callers));
    for (unsigned i = 0; i < b->n_agents; i++) {
        if (tokens && !fgets(token, sizeof(token), tokens))
            die("too few tokens");
        open_conn(&b->agents[i], b->port, i, true);
        greet(b, &b->agents[i], token);
    }
    for (unsigned i = 0; i < b->n_callers; i++) {
        open_conn(&b->callers[i], b->nats ? b->port : b->http_port, i, false);
        greet(b, &b->callers[i], "");
    }
    if (strcmp(b->mode, "idle") == 0)
        idle(b);
    run(b);
    print(b);
    return 0; /* memory and sockets end with the process */
}
