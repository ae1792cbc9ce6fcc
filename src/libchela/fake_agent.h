/* SPDX-License-Identifier: MIT */
/*
 * libchela/fake_agent.h — an HTTP agent for the library's tests, on a loopback port and a thread of
 * its own. Each request gets the next of the scripted answers, the last one again and again.
 */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct fake_agent {
    int fd, port, quit[2];
    pthread_t thread;
    const char *const *answers; /* "200 {...}", or "hang" */
    size_t n_answers;
    atomic_int requests;
    char last_body[1024], last_head[1024];
};

/* Read one request: its head and Content-Length bytes. 0: the peer is gone. */
static inline size_t fake_read(int fd, char *buf, size_t size, char **ret_body)
{
    size_t n = 0, need = 0;

    for (;;) {
        ssize_t got = recv(fd, buf + n, size - 1 - n, 0);
        char *end, *length;

        if (got <= 0)
            return 0;
        n += (size_t)got;
        buf[n] = '\0';
        end = strstr(buf, "\r\n\r\n");
        if (!end)
            continue;
        length = strcasestr(buf, "content-length:");
        need =
            (size_t)(end + 4 - buf) + (length && length < end ? strtoul(length + 15, NULL, 10) : 0);
        *ret_body = end + 4;
        if (n >= need)
            return n;
    }
}

static inline void fake_serve(struct fake_agent *a, int fd)
{
    char buf[3072], answer[1024], *body;

    while (fake_read(fd, buf, sizeof(buf), &body)) {
        size_t i = (size_t)atomic_fetch_add(&a->requests, 1);
        const char *script = a->answers[i < a->n_answers ? i : a->n_answers - 1];
        struct pollfd wait[] = { { .fd = fd, .events = POLLIN },
                                 { .fd = a->quit[0], .events = POLLIN } };

        snprintf(a->last_body, sizeof(a->last_body), "%s", body);
        snprintf(a->last_head, sizeof(a->last_head), "%.*s", (int)(body - buf), buf);
        if (strcmp(script, "hang") == 0) {
            poll(wait, 2, -1);
            return;
        }
        snprintf(answer, sizeof(answer), "HTTP/1.1 %.3s X\r\nContent-Length: %zu\r\n\r\n%s", script,
                 strlen(script + 4), script + 4);
        if (send(fd, answer, strlen(answer), MSG_NOSIGNAL) < 0)
            return;
    }
}

/* One connection at a time is enough: the tests call one after the other. */
static inline void *fake_main(void *arg)
{
    struct fake_agent *a = arg;
    struct pollfd wait[] = { { .fd = a->fd, .events = POLLIN },
                             { .fd = a->quit[0], .events = POLLIN } };

    for (;;) {
        int fd;

        poll(wait, 2, -1);
        if (wait[1].revents)
            return NULL;
        fd = accept(a->fd, NULL, NULL);
        if (fd < 0)
            continue;
        fake_serve(a, fd);
        close(fd);
    }
}

static inline int fake_bind(int *ret_fd)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) < 0)
        abort();
    *ret_fd = fd;
    return ntohs(at.sin_port);
}

/* A port on which nobody listens. */
static inline int fake_closed_port(void)
{
    int fd, port = fake_bind(&fd);

    close(fd);
    return port;
}

static inline void fake_start(struct fake_agent *a, const char *const *answers, size_t n)
{
    memset(a, 0, sizeof(*a));
    a->answers = answers;
    a->n_answers = n;
    a->port = fake_bind(&a->fd);
    if (listen(a->fd, 16) < 0 || pipe(a->quit) < 0 ||
        pthread_create(&a->thread, NULL, fake_main, a) != 0)
        abort();
}

/* End all connections to it first: free the bridge. */
static inline void fake_stop(struct fake_agent *a)
{
    if (write(a->quit[1], "", 1) < 0)
        abort();
    pthread_join(a->thread, NULL);
    close(a->fd);
    close(a->quit[0]);
    close(a->quit[1]);
}
