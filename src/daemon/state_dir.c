/* SPDX-License-Identifier: MIT */
/*
 * daemon/state_dir.c — see state_dir.h.
 */
#include "daemon/state_dir.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/paths.h"

static int make_dirs(const char *path, struct err *e)
{
    AUTO(free) char *part = xstrdup(path);

    for (char *slash = strchr(part + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return err_sys(e, "create '%s'", part);
        *slash = '/';
    }
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_sys(e, "create '%s'", path);
    return 0;
}

static int check_private(const char *path, struct err *e)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return err_sys(e, "look at '%s'", path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_INVALID, "'%s' is not a directory", path);
    if (st.st_uid != geteuid())
        return err_set(e, ERR_INVALID, "'%s' belongs to uid %u, not to the user of this daemon",
                       path, st.st_uid);
    if ((st.st_mode & 077) && chmod(path, 0700) < 0)
        return err_sys(e, "close '%s' to other users", path);
    return 0;
}

/* The token file is a key file whose bytes are used in their hex form. */
static int load_token(struct state_dir *d, struct err *e)
{
    AUTO(free) char *path = xasprintf("%s/admin.token", d->path);
    unsigned char key[SECRET_KEY];
    int r;

    r = secret_key_file(path, key, e);
    if (r < 0)
        return err_wrap(e, "admin token");
    hex_format(key, sizeof(key), d->token);
    secret_wipe(key, sizeof(key));
    return 0;
}

/* Made once at random, so that it depends on no host name; a copied directory needs a new one. */
static int load_instance(struct state_dir *d, struct err *e)
{
    AUTO(free) char *path = xasprintf("%s/instance", d->path);
    unsigned char key[SECRET_KEY];
    int r;

    r = secret_key_file(path, key, e);
    if (r < 0)
        return err_wrap(e, "instance");
    hex_format(key, (STATE_INSTANCE - 1) / 2, d->instance);
    return 0;
}

int state_dir_open(const char *path, struct state_dir *ret, struct err *e)
{
    struct state_dir d = { .lock_fd = -1 };
    char real[PATH_MAX];
    int r;

    r = make_dirs(path, e);
    if (r == 0)
        r = check_private(path, e);
    if (r < 0)
        return err_wrap(e, "state directory");
    if (!realpath(path, real))
        return err_sys(e, "resolve '%s'", path);
    d.path = xstrdup(real);
    d.db = xasprintf("%s/chela.db", real);
    d.conf = xasprintf("%s/chelad.conf", real);
    d.socket = xasprintf("%s/chelad.sock", real);
    r = path_state_lock(d.path, &d.lock_fd, e);
    if (r == 0)
        r = load_token(&d, e);
    if (r == 0)
        r = load_instance(&d, e);
    if (r < 0) {
        state_dir_close(&d);
        return r;
    }
    *ret = d;
    return 0;
}

void state_dir_close(struct state_dir *d)
{
    if (d->lock_fd >= 0)
        close(d->lock_fd);
    secret_wipe(d->token, sizeof(d->token));
    free(d->path);
    free(d->db);
    free(d->conf);
    free(d->socket);
    *d = (struct state_dir){ .lock_fd = -1 };
}
