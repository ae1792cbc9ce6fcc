/* SPDX-License-Identifier: MIT */
/* bench/conn.c — see conn.h. */
#include "conn.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { TEXT = 8192, CHUNK = 4096 };

void conn_die(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

static void *grown(void *p, size_t *size, size_t wanted)
{
    if (wanted <= *size)
        return p;
    *size = wanted * 2;
    p = realloc(p, *size);
    if (!p)
        conn_die("memory");
    return p;
}

/* --- setting up --- */

void conn_open(struct conn *c, unsigned port, unsigned source)
{
    struct sockaddr_in from = { .sin_family = AF_INET,
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK + source) };
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int on = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || bind(c->fd, (struct sockaddr *)&from, sizeof(from)) < 0 ||
        connect(c->fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        conn_die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

char *conn_ask(struct conn *c, const char *text, const char *bad)
{
    char *at;

    for (size_t done = 0; done < c->out_len;) {
        ssize_t n = send(c->fd, c->out + done, c->out_len - done, MSG_NOSIGNAL);

        if (n < 0)
            conn_die("send");
        done += (size_t)n;
    }
    c->out_len = 0;
    do {
        if (!conn_read(c, CHUNK))
            continue;
        if (bad && strstr(c->in, bad)) {
            fprintf(stderr, "%s: refused: %s\n", program_invocation_short_name, c->in);
            exit(1);
        }
    } while (!(at = memmem(c->in, c->in_len, text, strlen(text))));
    return at + strlen(text);
}

void conn_put_upgrade(struct conn *c, unsigned port, const char *path)
{
    conn_putf(c,
              "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\nUpgrade: websocket\r\n"
              "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
              "Sec-WebSocket-Version: 13\r\n\r\n",
              path, port);
}

static void watch(struct conn *c, int epoll, int op)
{
    struct epoll_event ev = { .events = EPOLLIN | (c->choked ? EPOLLOUT : 0), .data.ptr = c };

    if (epoll_ctl(epoll, op, c->fd, &ev) < 0)
        conn_die("epoll_ctl");
}

void conn_watch(struct conn *c, int epoll)
{
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0)
        conn_die("fcntl");
    watch(c, epoll, EPOLL_CTL_ADD);
}

/* --- bytes --- */

void conn_put(struct conn *c, const char *p, size_t n)
{
    c->out = grown(c->out, &c->out_size, c->out_len + n);
    memcpy(c->out + c->out_len, p, n);
    c->out_len += n;
}

void conn_putf(struct conn *c, const char *fmt, ...)
{
    static char text[TEXT];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(text))
        conn_die("text too long");
    conn_put(c, text, (size_t)n);
}

void conn_put_frame(struct conn *c, unsigned opcode, const char *p, size_t n)
{
    unsigned char head[14] = { (unsigned char)(0x80 | opcode) };
    size_t len = 2;

    if (n < 126) {
        head[1] = (unsigned char)(0x80 | n);
    } else if (n < 65536) {
        head[1] = 0x80 | 126;
        head[2] = (unsigned char)(n >> 8);
        head[3] = (unsigned char)n;
        len = 4;
    } else {
        head[1] = 0x80 | 127;
        for (unsigned i = 0; i < 8; i++)
            head[2 + i] = (unsigned char)(n >> (56 - 8 * i));
        len = 10;
    }
    conn_put(c, (const char *)head, len + 4);
    conn_put(c, p, n);
}

size_t conn_frame(char *p, size_t n, struct frame *ret)
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
    *ret = (struct frame){ u[0] & 0x0f, p + head, len };
    return head + len;
}

void conn_write(struct conn *c, int epoll)
{
    ssize_t n;
    bool choked;

    if (!c->out_len)
        return;
    n = send(c->fd, c->out, c->out_len, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN)
        conn_die("send");
    if (n > 0) {
        c->out_len -= (size_t)n;
        memmove(c->out, c->out + n, c->out_len);
    }
    choked = c->out_len > 0;
    if (choked != c->choked) {
        c->choked = choked;
        watch(c, epoll, EPOLL_CTL_MOD);
    }
}

bool conn_read(struct conn *c, size_t room)
{
    ssize_t n;

    c->in = grown(c->in, &c->in_size, c->in_len + room + 1);
    n = recv(c->fd, c->in + c->in_len, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0)
        conn_die("the server closed a connection");
    c->in_len += (size_t)n;
    c->in[c->in_len] = '\0';
    return true;
}

void conn_taken(struct conn *c, size_t n)
{
    memmove(c->in, c->in + n, c->in_len - n);
    c->in_len -= n;
}
