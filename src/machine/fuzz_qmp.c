/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a line of QEMU's monitor, as what qemu-img says and as what multipass says: no
 * crash, and what is read keeps its promises.
 */
#include "fuzz.h"
#include "machine/multipass_int.h"
#include "machine/qemu_int.h"
#include "machine/qmp.h"

static void must(int ok)
{
    if (!ok)
        abort();
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };
    struct arena a = { 0 };
    struct machine_snapshot *list;
    struct multipass_info info;
    struct qmp_line line;
    struct err e;
    size_t n;

    if (qmp_line_parse(text, &a, &line, &e) == 0)
        must((line.kind != QMP_ERROR && line.kind != QMP_EVENT) || line.text);
    if (qemu_snapshots_parse(text, &a, &list, &n, &e) == 0)
        for (size_t i = 0; i < n; i++)
            must(list[i].name != NULL && list[i].memory == (list[i].bytes > 0));
    if (multipass_info_parse(text, "m", &a, &info, &e) == 0)
        must(info.state && info.address && (!info.running || info.exists));
    if (multipass_snapshots_parse(text, "m", &a, &list, &n, &e) == 0)
        for (size_t i = 0; i < n; i++)
            must(list[i].name != NULL);
    arena_done(&a);
    return 0;
}
