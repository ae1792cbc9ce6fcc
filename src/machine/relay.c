/* SPDX-License-Identifier: MIT */
/*
 * machine/relay.c — standard input and output to one connection and back, for QEMU's guestfwd,
 * which starts one of these for each connection of the guest. Blocking; no loop.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "machine/egress.h"
#include "net/stream.h"

static int connect_unix(const char *path, struct err *e)
{
    AUTO(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    AUTO(close_fd) int dir_fd = -1;
    struct sockaddr_un sa;
    int r;

    if (fd < 0)
        return err_sys(e, "socket");
    r = unix_addr_of(path, &sa, &dir_fd, e);
    if (r < 0)
        return r;
    if (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
        return err_sys(e, "connect to '%s'", path);
    return take_fd(&fd);
}

static int connect_tcp(const char *to, struct err *e)
{
    const struct addrinfo hints = { .ai_flags = AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    const char *colon = strrchr(to, ':');
    AUTO(free) char *host = NULL;
    struct addrinfo *all = NULL;
    int fd = -1, r;

    if (!colon)
        return err_set(e, ERR_INVALID, "'%s' is neither HOST:PORT nor a path", to);
    host = *to == '[' && colon > to + 2 ? xstrndup(to + 1, (size_t)(colon - to) - 2)
                                        : xstrndup(to, (size_t)(colon - to));
    r = getaddrinfo(host, colon + 1, &hints, &all);
    if (r != 0)
        return err_set(e, ERR_UNAVAILABLE, "'%s': %s", to, gai_strerror(r));
    for (const struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, a->ai_addr, a->ai_addrlen) < 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(all);
    return fd < 0 ? err_sys(e, "connect to '%s'", to) : fd;
}

static bool write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0 && errno == EAGAIN) { /* our output may be somebody's non-blocking socket */
            struct pollfd wait = { fd, POLLOUT, 0 };

            (void)poll(&wait, 1, -1); /* then it is tried again */
            continue;
        }
        if (done <= 0)
            return false;
        p += done;
        n -= (size_t)done;
    }
    return true;
}

/* 1: bytes went; 0: the end; -1: failed. */
static int move(int from, int to)
{
    char bytes[4096];
    ssize_t n = read(from, bytes, sizeof(bytes));

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 1 : -1;
    if (n == 0)
        return 0;
    return write_all(to, bytes, (size_t)n) ? 1 : -1;
}

/* Until the connection ends; the end of our input is passed on. */
static int copy(int fd)
{
    struct pollfd fds[2] = { { STDIN_FILENO, POLLIN, 0 }, { fd, POLLIN, 0 } };
    int r;

    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return 1;
        if (fds[0].revents) {
            r = move(STDIN_FILENO, fd);
            if (r < 0)
                return 1;
            if (r == 0) {
                shutdown(fd, SHUT_WR);
                fds[0].fd = -1;
            }
        }
        if (fds[1].revents) {
            r = move(fd, STDOUT_FILENO);
            if (r <= 0)
                return r < 0;
        }
    }
}

int relay_main(const char *to)
{
    struct err e;
    int fd;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGPIPE, SIG_IGN);
    fd = *to == '/' ? connect_unix(to, &e) : connect_tcp(to, &e);
    if (fd < 0) {
        fprintf(stderr, "chelad --relay: %s\n", e.msg);
        return 1;
    }
    return copy(fd);
}
