/* SPDX-License-Identifier: MIT */
/*
 * net/listen.c — listening sockets. Done once at start, so a name is resolved right here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/str.h"
#include "net/stream.h"
#include "net/stream_int.h"

DEFINE_AUTO(freeaddrinfo, struct addrinfo *);

static int listen_at(const struct addrinfo *ai, int backlog, int *ret_fd, struct err *e)
{
    AUTO(close_fd) int fd = -1;
    int on = 1, off = 0;

    fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, "socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        return err_sys(e, "SO_REUSEADDR");
    /* Accepted sockets inherit it, which saves each of them a call. */
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0)
        return err_sys(e, "TCP_NODELAY");
    if (ai->ai_family == AF_INET6 &&
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) < 0)
        return err_sys(e, "IPV6_V6ONLY");
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0)
        return err_sys(e, "bind");
    if (listen(fd, backlog) < 0)
        return err_sys(e, "listen");
    *ret_fd = take_fd(&fd);
    return 0;
}

static unsigned short port_of(int fd)
{
    struct sockaddr_storage sa = { 0 };
    socklen_t len = sizeof(sa);
    struct stream_addr addr;

    (void)getsockname(fd, (struct sockaddr *)&sa, &len); /* cannot fail on a bound socket of ours */
    stream_addr_of((struct sockaddr *)&sa, &addr);
    return addr.port;
}

int listen_tcp(const char *host, unsigned short port, int backlog, int *ret_fd,
               unsigned short *ret_port, struct err *e)
{
    struct addrinfo hints = { .ai_flags = AI_PASSIVE | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM };
    AUTO(freeaddrinfo) struct addrinfo *all = NULL;
    char service[8];
    int fd = -1, r;

    fmt_z(service, sizeof(service), "%u", port);
    r = getaddrinfo(host && host[0] ? host : NULL, service, &hints, &all);
    if (r != 0)
        return err_set(e, ERR_INVALID, "listen on '%s': %s", host ? host : "", gai_strerror(r));

    r = -1;
    for (const struct addrinfo *ai = all; ai && r < 0; ai = ai->ai_next)
        r = listen_at(ai, backlog, &fd, e);
    if (r < 0)
        return err_wrap(e, "listen on %s:%u", host && host[0] ? host : "*", port);
    *ret_port = port_of(fd);
    *ret_fd = fd;
    return 0;
}

int unix_addr_of(const char *path, struct sockaddr_un *ret, int *ret_dir_fd, struct err *e)
{
    AUTO(free) char *dir = NULL;
    const char *name = strrchr(path, '/');
    int fd;

    memset(ret, 0, sizeof(*ret));
    ret->sun_family = AF_UNIX;
    if (strlen(path) < sizeof(ret->sun_path)) {
        memcpy(ret->sun_path, path, strlen(path));
        *ret_dir_fd = -1;
        return 0;
    }
    if (!name || strlen(name) >= sizeof(ret->sun_path) - 32)
        return err_set(e, ERR_INVALID, "socket name '%s' is too long", path);
    dir = xstrndup(path, (size_t)(name - path) + 1);
    fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "open '%s'", dir);
    fmt_z(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d%s", fd, name);
    *ret_dir_fd = fd;
    return 0;
}

/* A socket file that nobody serves is left over from a crash and may go; anything else stays. */
static int remove_dead(const char *path, const struct sockaddr_un *sa, struct err *e)
{
    AUTO(close_fd) int fd = -1;
    struct stat st;

    if (lstat(sa->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : err_sys(e, "look at '%s'", path);
    if (!S_ISSOCK(st.st_mode))
        return err_set(e, ERR_CONFLICT, "'%s' exists and is not a socket", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, "socket");
    if (connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 || errno != ECONNREFUSED)
        return err_set(e, ERR_CONFLICT, "'%s' is in use by another process", path);
    if (unlink(sa->sun_path) < 0 && errno != ENOENT)
        return err_sys(e, "remove '%s'", path);
    return 0;
}

int listen_unix(const char *path, int *ret_fd, struct err *e)
{
    AUTO(close_fd) int fd = -1;
    AUTO(close_fd) int dir_fd = -1;
    struct sockaddr_un sa;
    int r;

    r = unix_addr_of(path, &sa, &dir_fd, e);
    if (r < 0)
        return r;
    r = remove_dead(path, &sa, e);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(e, "socket");
    /* On Linux the mode set before bind is the file's, so there is no moment at which it is open.
     */
    if (fchmod(fd, 0600) < 0)
        return err_sys(e, "chmod '%s'", path);
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
        return err_sys(e, "bind '%s'", path);
    if (listen(fd, 128) < 0)
        return err_sys(e, "listen '%s'", path);
    *ret_fd = take_fd(&fd);
    return 0;
}

bool addr_is_loopback(const char *host)
{
    unsigned char a[16];

    if (inet_pton(AF_INET, host, a) == 1)
        return a[0] == 127;
    if (inet_pton(AF_INET6, host, a) == 1) {
        struct in6_addr in6;

        memcpy(&in6, a, sizeof(in6));
        return IN6_IS_ADDR_V4MAPPED(&in6) ? a[12] == 127 : IN6_IS_ADDR_LOOPBACK(&in6);
    }
    return strcasecmp(host, "localhost") == 0;
}
