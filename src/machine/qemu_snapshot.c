/* SPDX-License-Identifier: MIT */
/*
 * machine/qemu_snapshot.c — snapshots inside the machine's disk: of the disk and the memory of a
 * guest that runs (QEMU's job snapshot-save), of the disk alone of one that is off (qemu-img). Each
 * is looked for after it was made. Their names carry a prefix inside the image, as QEMU would take
 * a bare number for an index.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "machine/qemu_int.h"
#include "machine/qmp.h"
#include "machine/shim.h"
#include "machine/tool.h"

#define SNAPSHOT_NAME_MAX 64
#define SNAPSHOTS_MAX     1000
#define STOP_GRACE_MS     5000

int qemu_snapshot_name_check(const char *name, struct err *e)
{
    size_t n = strlen(name);

    if (n == 0 || n > SNAPSHOT_NAME_MAX || strchr("._-", name[0]) ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != n)
        return err_set(e, ERR_INVALID,
                       "'%.80s' is no name for a snapshot: letters, digits, '.', '_' and '-', a "
                       "letter or digit first, at most %d",
                       name, SNAPSHOT_NAME_MAX);
    return 0;
}

int qemu_snapshots_parse(struct str text, struct arena *a, struct machine_snapshot **ret,
                         size_t *ret_n, struct err *e)
{
    struct machine_snapshot *list;
    const json_t *all, *one;
    size_t i, n = 0;
    json_t *j;

    if (json_parse(text, 16, a, &j, NULL, e) < 0)
        return err_wrap(e, "qemu-img");
    all = json_object_get(j, "snapshots");
    list = arena_alloc(a, (json_array_size(all) + 1) * sizeof(*list));
    json_array_foreach(all, i, one)
    {
        struct str name = json_member_str(one, "name");
        long long seconds = json_integer_value(json_object_get(one, "date-sec"));
        long long bytes = json_integer_value(json_object_get(one, "vm-state-size"));

        if (!str_starts(name, STR(QEMU_TAG)))
            continue;
        name.p += sizeof(QEMU_TAG) - 1;
        name.n -= sizeof(QEMU_TAG) - 1;
        list[n++] = (struct machine_snapshot){
            .name = arena_strndup(a, name.p, name.n),
            .created_at =
                seconds * 1000 + json_integer_value(json_object_get(one, "date-nsec")) / 1000000,
            .bytes = bytes,
            .memory = bytes > 0,
        };
    }
    *ret = list;
    *ret_n = n;
    return 0;
}

/* Run it to its end, in a jail where there is one. */
static CO int run_img(const struct machine_job *job, const char *const *words, struct buf *out,
                      struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *disk = machine_path(job, &a, "disk.qcow2");
    struct tool tool = { .argv = words, .deadline_ms = job->deadline_ms };
    struct qemu_image image;

    if (qemu_own_image(job, &a, &image, e) < 0)
        return -(int)e->code;
    if (qemu_jail_works(job->host))
        tool.argv = qemu_img_argv(job->host, image.path, disk, words, &a);
    return tool_must(&tool, out, e);
}

CO int qemu_snapshots(const struct machine_job *job, struct arena *a, struct machine_snapshot **ret,
                      size_t *ret_n, struct err *e)
{
    /* -U: a QEMU that runs holds the lock of the image */
    const char *const argv[] = { "qemu-img",
                                 "info",
                                 "-U",
                                 "-f",
                                 "qcow2",
                                 "--output=json",
                                 machine_path(job, a, "disk.qcow2"),
                                 NULL };
    AUTO(buf_done) struct buf out = { 0 };

    buf_init(&out, TOOL_OUTPUT_MAX);
    if (run_img(job, argv, &out, e) < 0)
        return -(int)e->code;
    return qemu_snapshots_parse(buf_str(&out), a, ret, ret_n, e);
}

/* 1: there, and *ret; 0: not. */
static CO int find(const struct machine_job *job, const char *name, struct arena *a,
                   struct machine_snapshot *ret, struct err *e)
{
    struct machine_snapshot *list;
    size_t n;

    if (qemu_snapshots(job, a, &list, &n, e) < 0)
        return -(int)e->code;
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i].name, name) == 0) {
            *ret = list[i];
            return 1;
        }
    return 0;
}

static CO int qemu_img(const struct machine_job *job, const char *flag, const char *name,
                       struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *const argv[] = { "qemu-img",
                                 "snapshot",
                                 flag,
                                 arena_printf(&a, QEMU_TAG "%s", name),
                                 machine_path(job, &a, "disk.qcow2"),
                                 NULL };

    return run_img(job, argv, NULL, e);
}

static CO int running(const struct machine_job *job, bool *ret, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct shim_state state;

    if (shim_look(job->host->loop, machine_path(job, &a, NULL), &state, e) < 0)
        return -(int)e->code;
    *ret = state.alive;
    return 0;
}

/* A job of the running QEMU on a snapshot of that name. */
static CO int live_job(const struct machine_job *job, const char *command, const char *name,
                       struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    AUTO(qmp_close) struct qmp *q = NULL;
    json_t *args;

    if (qmp_open(machine_path(job, &a, QEMU_MONITOR), job->deadline_ms, &q, e) < 0)
        return -(int)e->code;
    args = json_pack("{s:s, s:[s]}", "tag", arena_printf(&a, QEMU_TAG "%s", name), "devices",
                     QEMU_DISK_NODE);
    if (strcmp(command, "snapshot-save") == 0)
        json_object_set_new(args, "vmstate", json_string(QEMU_DISK_NODE));
    return qmp_job(q, command, args, job->deadline_ms, e);
}

static CO int take_live(const struct machine_job *job, const char *name, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *file = arena_printf(&a, "snap-%s.json", name);
    json_t *note;

    if (qemu_note_read(job, "now.json", &a, &note, e) < 0 ||
        qemu_note_write(job, file, json_incref(note), e) < 0)
        return -(int)e->code;
    if (live_job(job, "snapshot-save", name, e) < 0) {
        unlink(machine_path(job, &a, file));
        return -(int)e->code;
    }
    return 0;
}

CO int qemu_snapshot(const struct machine_job *job, const char *name, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct machine_snapshot found;
    bool live;
    int r;

    if (qemu_snapshot_name_check(name, e) < 0 || running(job, &live, e) < 0)
        return -(int)e->code;
    r = find(job, name, &a, &found, e);
    if (r != 0)
        return r < 0 ? r : err_set(e, ERR_CONFLICT, "a snapshot '%s' exists", name);
    r = live ? take_live(job, name, e) : qemu_img(job, "-c", name, e);
    if (r < 0)
        return err_wrap(e, "snapshot '%s'", name);
    r = find(job, name, &a, &found, e);
    if (r == 0 || (r > 0 && found.memory != live))
        return err_set(e, ERR_INTERNAL, "QEMU says that it made snapshot '%s', but it is not there",
                       name);
    return r < 0 ? r : 0;
}

CO int qemu_restore(const struct machine_job *job, const char *name, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct machine_snapshot found;
    int r;

    if (qemu_snapshot_name_check(name, e) < 0)
        return -(int)e->code;
    r = find(job, name, &a, &found, e);
    if (r <= 0)
        return r < 0 ? r : err_set(e, ERR_NOT_FOUND, "no snapshot '%s'", name);
    if (shim_stop(job->host->loop, machine_path(job, &a, NULL), STOP_GRACE_MS, job->deadline_ms,
                  e) < 0)
        return -(int)e->code;
    /* The agent in it has a token that is none any more: the seed is no part of snapshots. */
    if (qemu_reseed(job, e) < 0)
        return err_wrap(e, "restore '%s'", name);
    /* A QEMU that starts from a snapshot goes back to its disk too. */
    r = found.memory ? qemu_boot(job, name, e) : qemu_img(job, "-a", name, e);
    return r < 0 ? err_wrap(e, "restore '%s'", name) : 0;
}

CO int qemu_drop_snapshot(const struct machine_job *job, const char *name, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct machine_snapshot found;
    bool live;
    int r;

    if (qemu_snapshot_name_check(name, e) < 0 || running(job, &live, e) < 0)
        return -(int)e->code;
    r = find(job, name, &a, &found, e);
    if (r > 0)
        r = live ? live_job(job, "snapshot-delete", name, e) : qemu_img(job, "-d", name, e);
    if (r < 0)
        return err_wrap(e, "snapshot '%s'", name);
    unlink(machine_path(job, &a, arena_printf(&a, "snap-%s.json", name)));
    return 0;
}
