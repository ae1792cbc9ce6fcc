/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet_lost.c — machines/.lost: directories that belonged to no machine, moved aside by the
 * sweep as NAME.TIME. They are for somebody whose daemon was started on the wrong database; so one
 * stays for machine.lost_keep, and where there are more than machine.lost_max the oldest go, but
 * none within a day.
 */
#include <dirent.h>
#include <string.h>

#include "base/log.h"
#include "base/offload.h"
#include "hub/fleet_int.h"
#include "machine/tool.h"

enum { SAFE_MS = 24 * 3600 * 1000, REMOVE_MS = 600 * 1000 };

struct lost {
    char *name;
    int64_t at; /* ms since 1970 */
};

struct lost_list {
    const char *dir;
    struct lost *all;
    size_t n, cap;
};

/* What we have not put there, by its name, is not ours to remove. */
static void add(struct lost_list *l, const char *name)
{
    const char *dot = strrchr(name, '.');
    long long at;
    struct err e;

    if (*name == '.' || !dot || int_parse(str_of(dot + 1), 1, INT64_MAX, &at, &e) < 0)
        return;
    if (l->n == l->cap)
        l->all = xrealloc(l->all, (l->cap = l->cap ? 2 * l->cap : 16) * sizeof(*l->all));
    l->all[l->n++] = (struct lost){ xstrdup(name), at };
}

static int newest_first(const void *a, const void *b)
{
    const struct lost *x = a, *y = b;

    return (x->at < y->at) - (x->at > y->at);
}

static int read_all(void *arg, struct err *e)
{
    struct lost_list *l = arg;
    const struct dirent *entry;
    DIR *d = opendir(l->dir);

    while (d && (entry = readdir(d)))
        add(l, entry->d_name);
    if (d)
        closedir(d);
    if (l->n)
        qsort(l->all, l->n, sizeof(*l->all), newest_first);
    return 0;
}

static CO void remove_one(const struct lost_list *l, const char *name)
{
    AUTO(free) char *path = xasprintf("%s/%s", l->dir, name);
    struct err e;

    if (tool_remove(path, deadline_in(REMOVE_MS), &e) == 0)
        log_info("what belonged to no machine was removed", "path", LOG_STR(path));
    else if (e.code != ERR_CANCELED)
        log_warn("what belonged to no machine could not be removed", "path", LOG_STR(path), "error",
                 LOG_ERR(&e));
}

CO void fleet_lost_trim(struct fleet *f)
{
    const struct hub_settings *s = f->h->settings;
    AUTO(free) char *dir = xasprintf("%s/.lost", f->dir);
    struct lost_list l = { .dir = dir };
    int64_t now = hub_now();
    struct err e;

    if (offload(read_all, &l, &e) < 0)
        log_debug("machines/.lost was not looked at", "error", LOG_ERR(&e));
    for (size_t i = 0; i < l.n; i++) {
        bool old = l.all[i].at < now - s->lost_keep_ms;
        bool many = i >= (size_t)s->lost_max && l.all[i].at < now - SAFE_MS;

        if ((old || many) && !fiber_canceled())
            remove_one(&l, l.all[i].name);
        free(l.all[i].name);
    }
    free(l.all);
}
