/* SPDX-License-Identifier: MIT */
#include "daemon/sd_notify.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/str.h"

void sd_notify_send(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = { .sun_family = AF_UNIX };
    AUTO(close_fd) int fd = -1;
    size_t n = path ? strlen(path) : 0;

    if (n < 2 || n >= sizeof(addr.sun_path) || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(addr.sun_path, path, n);
    if (path[0] == '@')
        addr.sun_path[0] = '\0'; /* the abstract name space */
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    (void)sendto(fd, state, strlen(state), MSG_NOSIGNAL, (const struct sockaddr *)&addr,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n));
}

uint64_t sd_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    long long us, who;
    struct err e;

    if (!usec || int_parse(str_of(usec), 1, INT64_MAX, &us, &e) < 0)
        return 0;
    if (pid && (int_parse(str_of(pid), 1, INT64_MAX, &who, &e) < 0 || who != getpid()))
        return 0;
    return (uint64_t)(us / 2000 ? us / 2000 : 1);
}
