/* SPDX-License-Identifier: MIT */
/* machine/machine.c — the table of drivers, and what they share. */
#include "machine/machine.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

const struct machine_driver *const machine_drivers[] = { &machine_sandbox, &machine_qemu,
                                                         &machine_multipass, NULL };

const struct machine_driver *machine_driver_find(const char *name)
{
    for (const struct machine_driver *const *d = machine_drivers; *d; d++)
        if (strcmp((*d)->name, name) == 0)
            return *d;
    return NULL;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

int machine_name_check(struct str name, struct err *e)
{
    bool good = name.n > 0 && name.n <= MACHINE_NAME_MAX && is_letter(name.p[0]) &&
                name.p[name.n - 1] != '-';

    for (size_t i = 0; good && i < name.n; i++)
        good = is_letter(name.p[i]) || (name.p[i] >= '0' && name.p[i] <= '9') || name.p[i] == '-';
    if (!good)
        return err_set(e, ERR_INVALID,
                       "'%.*s' is no name for a machine: letters, digits and hyphens, a letter "
                       "first, no hyphen last, at most %d",
                       (int)(name.n < 80 ? name.n : 80), name.p, MACHINE_NAME_MAX);
    return 0;
}

const char *machine_path(const struct machine_job *job, struct arena *a, const char *file)
{
    if (!file)
        return arena_printf(a, "%s/%s", job->host->dir, job->spec->name);
    return arena_printf(a, "%s/%s/%s", job->host->dir, job->spec->name, file);
}

int machine_size_parse(struct str text, unsigned *ret_mib, struct err *e)
{
    struct str digits = text;
    long long n, unit = 1;

    if (text.n && (text.p[text.n - 1] == 'G' || text.p[text.n - 1] == 'g'))
        unit = 1024;
    if (unit > 1 || (text.n && (text.p[text.n - 1] == 'M' || text.p[text.n - 1] == 'm')))
        digits.n--;
    if (int_parse(digits, 1, 64LL * 1024 * 1024 / unit, &n, e) < 0)
        return err_set(e, ERR_INVALID, "'%.*s' is no size: a number with M or G (4G, 512M)",
                       (int)(text.n < 40 ? text.n : 40), text.p);
    *ret_mib = (unsigned)(n * unit);
    return 0;
}

int machine_list_by_file(const struct machine_host *host, const char *file, struct arena *a,
                         const char ***ret, size_t *ret_n, struct err *e)
{
    DIR *d = opendir(host->dir);
    const char **names = NULL;
    size_t n = 0, cap = 0;
    struct dirent *entry;

    if (!d && errno != ENOENT)
        return err_sys(e, "open '%s'", host->dir);
    while (d && (entry = readdir(d))) {
        if (entry->d_name[0] == '.' ||
            access(arena_printf(a, "%s/%s/%s", host->dir, entry->d_name, file), F_OK) < 0)
            continue;
        if (n == cap) {
            const char **more = arena_alloc(a, (cap = cap ? 2 * cap : 16) * sizeof(*more));

            if (n)
                memcpy(more, names, n * sizeof(*more));
            names = more;
        }
        names[n++] = arena_strdup(a, entry->d_name);
    }
    if (d)
        closedir(d);
    *ret = names;
    *ret_n = n;
    return 0;
}
