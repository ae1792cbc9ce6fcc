/* SPDX-License-Identifier: MIT */
/*
 * bench/echo_agent.c — the agent that the benchmarks call.
 *
 * One thread, epoll, plain libc: it answers POST /v1/messages with a fixed text and keeps
 * connections open, so that what is measured is the bridge in front of it. It uses nothing of
 * chela's, and trusts its callers: it is a measuring instrument, not a server.
 *
 *     echo_agent [--port N] [--status N] [--text TEXT]
 *
 * Port 0 (the default) picks a free one; the port is the first line on stdout. With --status other
 * than 200 every answer is that failure. A body that holds "stream":true is answered with events.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    REQUEST_START = 8 << 10,
    REQUEST_MAX = 4 << 20,
    ANSWER_MAX = 4096,
    EVENTS = 256,
    BACKLOG = 4096,
};

struct conn {
    int fd;
    size_t len, size;
    char *buf;
};

struct answer {
    size_t len;
    char text[ANSWER_MAX];
};

struct agent {
    int epoll, listener;
    struct answer plain, stream, alive;
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void answer_make(struct answer *a, int status, const char *type, const char *body)
{
    int n = snprintf(a->text, sizeof(a->text),
                     "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s", status,
                     status == 200 ? "OK" : "Failed", type, strlen(body), body);

    a->len = (size_t)n;
    if (a->len >= sizeof(a->text)) {
        fprintf(stderr, "echo_agent: the answer is too long\n");
        exit(2);
    }
}

/* Two pieces of text as Anthropic's events, chunked as a real server sends them. */
static void stream_make(struct answer *a, const char *text)
{
    static const char *const event = "event: content_block_delta\ndata: {\"type\":"
                                     "\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
                                     "\"text_delta\",\"text\":\"%s\"}}\n\n";
    static const char *const stop = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    char one[ANSWER_MAX / 4];
    size_t n = (size_t)snprintf(one, sizeof(one), event, text);

    if (n >= sizeof(one)) {
        fprintf(stderr, "echo_agent: the text is too long to stream\n");
        exit(2);
    }
    a->len = (size_t)snprintf(a->text, sizeof(a->text),
                              "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                              "Transfer-Encoding: chunked\r\n\r\n"
                              "%zx\r\n%s\r\n%zx\r\n%s\r\n%zx\r\n%s\r\n0\r\n\r\n",
                              n, one, n, one, strlen(stop), stop);
}

static void conn_free(struct conn *c)
{
    close(c->fd);
    free(c->buf);
    free(c);
}

static void conn_accept_all(struct agent *agent)
{
    int on = 1;

    for (;;) {
        struct epoll_event ev = { .events = EPOLLIN };
        struct conn *c;
        int fd = accept4(agent->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd < 0)
            return;
        c = calloc(1, sizeof(*c));
        if (!c)
            die("calloc");
        c->fd = fd;
        c->size = REQUEST_START;
        c->buf = malloc(c->size);
        if (!c->buf)
            die("malloc");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        ev.data.ptr = c;
        if (epoll_ctl(agent->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
            die("epoll_ctl");
    }
}

/* The length the head announces; 0 when it announces none. */
static size_t content_length(const char *head, size_t n)
{
    static const char name[] = "content-length:";
    const char *end = head + n;

    for (const char *p = memchr(head, '\n', n); p; p = memchr(p, '\n', (size_t)(end - p))) {
        p++;
        if ((size_t)(end - p) > sizeof(name) && strncasecmp(p, name, sizeof(name) - 1) == 0)
            return strtoul(p + sizeof(name) - 1, NULL, 10);
    }
    return 0;
}

/* Bytes of one whole request at the start of the buffer, 0 while some are missing. */
static size_t request_whole(const struct conn *c, size_t *ret_head)
{
    const char *end = memmem(c->buf, c->len, "\r\n\r\n", 4);
    size_t head, all;

    if (!end)
        return 0;
    head = (size_t)(end - c->buf) + 4;
    all = head + content_length(c->buf, head);
    *ret_head = head;
    return all <= c->len ? all : 0;
}

static bool answer_send(const struct conn *c, const struct answer *a)
{
    return send(c->fd, a->text, a->len, MSG_NOSIGNAL) == (ssize_t)a->len;
}

static bool requests_answer(struct agent *agent, struct conn *c)
{
    size_t head, all;

    while ((all = request_whole(c, &head)) > 0) {
        const struct answer *a = &agent->plain;

        if (strncmp(c->buf, "GET ", 4) == 0)
            a = &agent->alive;
        else if (memmem(c->buf + head, all - head, "\"stream\":true", 13))
            a = &agent->stream;
        if (!answer_send(c, a))
            return false;
        memmove(c->buf, c->buf + all, c->len - all);
        c->len -= all;
    }
    return true;
}

/* Read what is there and answer it. False: the connection is over. */
static bool conn_serve(struct agent *agent, struct conn *c)
{
    ssize_t n;

    if (c->len + 1 >= c->size) {
        if (c->size >= REQUEST_MAX)
            return false;
        c->size *= 2;
        c->buf = realloc(c->buf, c->size);
        if (!c->buf)
            die("realloc");
    }
    n = recv(c->fd, c->buf + c->len, c->size - 1 - c->len, 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    c->len += (size_t)n;
    c->buf[c->len] = '\0'; /* strtoul() on the head stays inside */
    return requests_answer(agent, c);
}

static void agent_listen(struct agent *agent, unsigned port)
{
    struct sockaddr_in addr = { .sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct epoll_event ev = { .events = EPOLLIN };
    socklen_t len = sizeof(addr);
    int on = 1;

    agent->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    agent->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (agent->listener < 0 || agent->epoll < 0)
        die("socket");
    setsockopt(agent->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(agent->listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        listen(agent->listener, BACKLOG) < 0 ||
        getsockname(agent->listener, (struct sockaddr *)&addr, &len) < 0)
        die("listen");
    if (epoll_ctl(agent->epoll, EPOLL_CTL_ADD, agent->listener, &ev) < 0)
        die("epoll_ctl");
    printf("%u\n", ntohs(addr.sin_port));
    fflush(stdout);
}

static void agent_run(struct agent *agent)
{
    struct epoll_event events[EVENTS];

    for (;;) {
        int n = epoll_wait(agent->epoll, events, EVENTS, -1);

        for (int i = 0; i < n; i++) {
            struct conn *c = events[i].data.ptr;

            if (!c)
                conn_accept_all(agent);
            else if (!conn_serve(agent, c))
                conn_free(c);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "port", required_argument, NULL, 'p' },
        { "status", required_argument, NULL, 's' },
        { "text", required_argument, NULL, 't' },
        { 0 },
    };
    static struct agent agent;
    const char *text = "A fixed answer of the usual size: the tests pass, nothing else changed.";
    unsigned port = 0, status = 200;
    char body[ANSWER_MAX / 4];
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'p')
            port = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 's')
            status = (unsigned)strtoul(optarg, NULL, 10);
        else if (option == 't')
            text = optarg;
        else
            return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    snprintf(body, sizeof(body), "{\"%s\":\"%s\"}", status == 200 ? "content" : "error", text);
    answer_make(&agent.plain, (int)status, "application/json", body);
    answer_make(&agent.alive, 200, "application/json", "{\"status\":\"ok\"}");
    if (status == 200)
        stream_make(&agent.stream, text);
    else
        agent.stream = agent.plain;
    agent_listen(&agent, port);
    agent_run(&agent);
}
