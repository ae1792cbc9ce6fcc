/* SPDX-License-Identifier: MIT */
#include "cli/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

int input_read(struct cli *cli, const char *path, size_t max, struct str *ret, struct err *e)
{
    bool standard = strcmp(path, "-") == 0;
    AUTO(close_fd) int fd = standard ? dup(STDIN_FILENO) : open(path, O_RDONLY | O_CLOEXEC);
    AUTO(buf_done) struct buf text;
    ssize_t n = 1;
    char *room;
    int r;

    buf_init(&text, max);
    if (fd < 0)
        return err_sys(e, "open '%s'", path);
    while (n > 0) {
        size_t want = max - text.n < 64 * KIB ? max - text.n + 1 : 64 * KIB;

        r = buf_reserve(&text, want, &room, e);
        if (r < 0)
            return err_set(e, ERR_LIMIT, "'%s' is over %zu bytes", path, max);
        n = read(fd, room, want);
        if (n < 0)
            return err_sys(e, "read '%s'", path);
        buf_commit(&text, (size_t)n);
    }
    *ret = arena_str(&cli->arena, buf_str(&text));
    return 0;
}

int print_removed(struct cli *cli, const char *name, struct err *e)
{
    AUTO(json_decref) json_t *j = NULL;

    if (!cli->json) {
        printf("removed %s\n", name);
        return 0;
    }
    j = json_pack("{s:s}", "removed", name);
    return print_json(j, e);
}

int make_dirs(const char *path, mode_t mode, struct err *e)
{
    AUTO(free) char *p = xstrdup(path);

    for (char *slash = strchr(p + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash)
            *slash = '\0';
        if (mkdir(p, mode) < 0 && errno != EEXIST)
            return err_sys(e, "make directory '%s'", p);
        if (!slash)
            return 0;
        *slash = '/';
    }
}
