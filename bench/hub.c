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
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conn.h"
#include "histogram.h"

enum { EVENTS = 256, READ_MAX = 64 << 10, PATIENCE_S = 20, TOKEN = 64, KILLED = 1000, TEXT = 8192 };

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

static void failed(struct bench *b, const char *what, const char *text, size_t n)
{
    if (!b->errors++)
        snprintf(b->first_error, sizeof(b->first_error), "%s: %.*s", what, (int)(n < 200 ? n : 200),
                 text);
}

static void greet(struct bench *b, struct conn *c, const char *token)
{
    char path[TOKEN + 64];

    if (b->nats) {
        conn_putf(c, "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false}\r\n");
        conn_putf(c, c->receiver ? "SUB bench.%u 1\r\nPING\r\n" : "SUB _INBOX.%u 1\r\nPING\r\n",
                  c->index);
        conn_taken(c, (size_t)(conn_ask(c, "PONG\r\n", NULL) - c->in));
    } else if (c->receiver) {
        snprintf(path, sizeof(path), "/agent/bench-%u/%.*s", c->index, TOKEN, token);
        conn_put_upgrade(c, b->port, path);
        conn_taken(c, (size_t)(conn_ask(c, "\r\n\r\n", NULL) - c->in));
    }
    conn_watch(c, b->epoll);
}

static void open_conn(struct bench *b, struct conn *c, unsigned index, bool agent,
                      const char *token)
{
    c->index = index;
    c->receiver = agent;
    conn_open(c, agent || b->nats ? b->port : b->http_port, index / 10000);
    greet(b, c, token);
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
        conn_putf(c, "PUB bench.%u _INBOX.%u %zu\r\n%s\r\n", agent, c->index, sizeof(body) - 1,
                  body);
    else
        conn_putf(c,
                  "POST /agents/bench-%u/task?wait=20000 HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
                  "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                  agent, b->http_port, sizeof(body) - 1, body);
    conn_write(c, b->epoll);
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
    static char content[TEXT], text[TEXT];
    unsigned to = c->index ^ 1u;
    int n = snprintf(content, sizeof(content), "T%020llu ", (unsigned long long)now_ns());

    memset(content + n, 'x', b->payload - (size_t)n);
    content[b->payload] = '\0';
    b->sent++;
    b->waiting++;
    if (b->nats) {
        conn_putf(c, "PUB bench.%u %u\r\n%s\r\n", to, b->payload, content);
        return;
    }
    n = snprintf(text, sizeof(text),
                 "{\"id\":\"%u-%llu\",\"from\":\"bench-%u\",\"to\":\"bench-%u\",\"type\":\"log\","
                 "\"timestamp\":1700000000000,\"payload\":{\"level\":\"info\",\"message\":\"%s\"}}",
                 c->index, (unsigned long long)b->sent, c->index, to, content);
    conn_put_frame(c, 1, text, (size_t)n);
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
    static char text[TEXT];
    char *id, *end;
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
    conn_put_frame(c, 1, text, (size_t)len);
}

static size_t take_frame(struct bench *b, struct conn *c, char *p, size_t n)
{
    struct frame f;
    size_t len = conn_frame(p, n, &f);

    if (!len)
        return 0;
    if (f.opcode == 1)
        agent_text(b, c, f.p, f.n);
    else if (f.opcode == 9)
        conn_put_frame(c, 10, f.p, f.n);
    else if (f.opcode == 8)
        failed(b, "closed by the hub", f.p + 2, f.n > 2 ? f.n - 2 : 0);
    return len;
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
            conn_put(c, "PONG\r\n", 6);
        else if (*p == '-')
            failed(b, "NATS", p, (size_t)(end - p));
        return (size_t)(end - p) + 1;
    }
    if (sscanf(p, "MSG %*s %u %63s %zu", &sid, reply, &len) != 3) {
        reply[0] = '\0';
        if (sscanf(p, "MSG %*s %u %zu", &sid, &len) != 2)
            conn_die("NATS");
    }
    if (n < (size_t)(end - p) + 1 + len + 2)
        return 0;
    if (!c->receiver)
        again(b, c);
    else if (*reply)
        conn_putf(c, "PUB %s 2\r\nok\r\n", reply);
    else
        routed(b, c, end + 1, len);
    return (size_t)(end - p) + 1 + len + 2;
}

static size_t take(struct bench *b, struct conn *c, char *p, size_t n)
{
    if (b->nats)
        return take_nats(b, c, p, n);
    return c->receiver ? take_frame(b, c, p, n) : take_answer(b, c, p, n);
}

static void take_all(struct bench *b, struct conn *c)
{
    size_t from = 0, used;

    while (from < c->in_len && (used = take(b, c, c->in + from, c->in_len - from)) > 0)
        from += used;
    conn_taken(c, from);
    conn_write(c, b->epoll);
}

static void readable(struct bench *b, struct conn *c)
{
    if (!conn_read(c, READ_MAX / (b->n_agents > 2000 ? 32 : 1)))
        return;
    b->now_ns = now_ns();
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
            conn_write(c, b->epoll);
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
        conn_die("epoll_ctl");
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
        conn_die(b->tokens);
    signal(SIGPIPE, SIG_IGN);
    b->epoll = epoll_create1(EPOLL_CLOEXEC);
    b->agents = calloc(b->n_agents, sizeof(*b->agents));
    b->callers = calloc(b->n_callers + 1, sizeof(*b->callers));
    for (unsigned i = 0; i < b->n_agents; i++) {
        if (tokens && !fgets(token, sizeof(token), tokens))
            conn_die("too few tokens");
        open_conn(b, &b->agents[i], i, true, token);
    }
    for (unsigned i = 0; i < b->n_callers; i++)
        open_conn(b, &b->callers[i], i, false, "");
    if (strcmp(b->mode, "idle") == 0)
        idle(b);
    run(b);
    print(b);
    return 0; /* memory and sockets end with the process */
}
