/* SPDX-License-Identifier: MIT */
/* machine/machine.c — the table of drivers, and what they share. */
#include "machine/machine.h"

#include <string.h>

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
