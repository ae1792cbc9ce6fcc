/* SPDX-License-Identifier: MIT */
/* machine/qemu_start.c — from a machine that is off to a guest that runs: seeds, accelerator, QEMU
 * under its shim, its first word on the monitor. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "machine/cloud_seed.h"
#include "machine/qemu_int.h"
#include "machine/qmp.h"
#include "machine/shim_int.h"
#include "machine/tool.h"

#define NOTE_MAX       (64 * KIB)
#define SEED_BLOCK     4096
#define MONITOR_POLL   20
#define JAIL_TEST_MS   10000
#define BWRAP_CHILD    2 /* levels below the shim's child: bubblewrap, its init, QEMU */
#define START_LEAST_MS 1000

int qemu_note_read(const struct machine_job *job, const char *file, struct arena *a, json_t **ret,
                   struct err *e)
{
    struct str text;

    if (shim_file_read(machine_path(job, a, NULL), file, NOTE_MAX, a, &text, e) < 0)
        return -(int)e->code;
    if (json_parse(text, 8, a, ret, NULL, e) < 0)
        return err_wrap(e, "%s", machine_path(job, a, file));
    return 0;
}

int qemu_note_write(const struct machine_job *job, const char *file, json_t *note, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    AUTO(json_decref) json_t *owned = note;
    struct str text;

    if (json_text(owned, NOTE_MAX, &a, &text, e) < 0)
        return -(int)e->code;
    return shim_file_write(machine_path(job, &a, NULL), file, text, true, e);
}

int qemu_link_hub(const struct machine_job *job, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *to = machine_path(job, &a, "run/hub.sock");
    const char *fresh = machine_path(job, &a, "run/.hub.sock");
    struct stat hub, now;

    if (stat(job->host->hub_socket, &hub) < 0)
        return err_sys(e, "the agents' socket '%s'", job->host->hub_socket);
    if (stat(to, &now) == 0 && now.st_ino == hub.st_ino && now.st_dev == hub.st_dev)
        return 0;
    unlink(fresh);
    if (link(job->host->hub_socket, fresh) < 0 || rename(fresh, to) < 0)
        return err_sys(e, "link '%s'", to);
    return 0;
}

/* The text of config.json, padded to whole blocks, is the content of a disk of its own. */
CO int qemu_write_seed(const struct machine_job *job, const struct qemu_image *image, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const struct machine_spec *spec = job->spec;
    const char *url = spec->hub_url && spec->hub_url[0] ? spec->hub_url : "ws://" QEMU_HUB;
    const char *dir = machine_path(job, &a, NULL);
    struct str text;
    char *padded;
    size_t n;

    if (!spec->token && access(machine_path(job, &a, "seed.raw"), R_OK) == 0)
        return 0;
    if (!spec->token)
        return err_set(e, ERR_INTERNAL, "the machine has no token");
    if (seed_agent_config(spec, url, spec->n_allow ? QEMU_PROXY : NULL, &a, &text, e) < 0)
        return -(int)e->code;
    n = (text.n + SEED_BLOCK) / SEED_BLOCK * SEED_BLOCK;
    padded = arena_raw(&a, n);
    memset(padded, '\n', n);
    memcpy(padded, text.p, text.n);
    if (shim_file_write(dir, "seed.raw", (struct str){ padded, n }, true, e) < 0)
        return err_wrap(e, "seed");
    return image->direct ? 0 : cloud_seed_write(job, machine_path(job, &a, "seed.iso"), e);
}

/* *ret: KVM is to be used. */
static CO int choose_accel(const struct machine_job *job, bool *ret, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    const char *accel = job->host->accel, *why;
    int r;

    *ret = false;
    if (strcmp(accel, "tcg") == 0)
        return 0;
    if (job->progress)
        job->progress("looking whether KVM works", job->arg);
    r = kvm_probe(job->host, &a, &why, e);
    if (r < 0)
        return r;
    *ret = r == 0;
    if (r > 0 && strcmp(accel, "kvm") == 0)
        return err_set(e, ERR_UNAVAILABLE, "machine.accel is kvm, but: %s", why);
    return 0;
}

CO bool qemu_jail_works(const struct machine_host *host)
{
    AUTO(arena_done) struct arena a = { 0 };
    const struct tool tool = { .argv = qemu_jail_test_argv(host, &a),
                               .deadline_ms = deadline_in(JAIL_TEST_MS) };
    struct err e;

    if (tool_must(&tool, NULL, &e) == 0)
        return true;
    log_warn("QEMU runs without bubblewrap around it", "error", LOG_ERR(&e));
    return false;
}

/* What a snapshot was taken of has to be there again, to the bit. */
static int plan_like_snapshot(const struct machine_job *job, struct qemu_plan *plan,
                              struct machine_spec *spec, struct arena *a, struct err *e)
{
    json_t *note;

    if (qemu_note_read(job, arena_printf(a, "snap-%s.json", plan->load), a, &note, e) < 0)
        return err_wrap(e, "snapshot '%s'", plan->load);
    plan->kvm = str_eq_z(json_member_str(note, "accel"), "kvm");
    if (json_is_string(json_object_get(note, "type")))
        plan->type = arena_strdup(a, json_string_value(json_object_get(note, "type")));
    if (json_is_integer(json_object_get(note, "cpus")))
        spec->cpus = (unsigned)json_integer_value(json_object_get(note, "cpus"));
    if (json_is_integer(json_object_get(note, "memory")))
        spec->memory_mib = (unsigned)json_integer_value(json_object_get(note, "memory"));
    return 0;
}

/* Why it has gone, from the shim's word and the last line it printed. */
static CO int say_ended(const struct machine_job *job, const char *dir, struct err *e)
{
    AUTO(buf_done) struct buf log;
    struct str words = STR("it said nothing");
    struct err ignored;

    buf_init(&log, 4 * KIB);
    if (shim_log(dir, 2 * KIB, &log, &ignored) == 0 && log.n)
        words = tool_last_words(buf_str(&log), 160);
    return err_set(e, ERR_INTERNAL, "QEMU has ended: " STR_FMT, STR_ARG(words));
}

/* Wait for the monitor; *ret_type is the machine's versioned type. */
static CO int meet(const struct machine_job *job, const char *dir, struct arena *a,
                   const char **ret_type, struct err *e)
{
    const char *socket = arena_printf(a, "%s/" QEMU_MONITOR, dir);
    AUTO(qmp_close) struct qmp *q = NULL;
    struct shim_state state;
    const json_t *type;
    size_t n;
    int r;

    while ((r = qmp_open(socket, job->deadline_ms, &q, e)) == -ERR_UNAVAILABLE) {
        if (now_ms() >= job->deadline_ms)
            return err_set(e, ERR_TIMEOUT, "QEMU does not answer on its monitor");
        if (fiber_sleep(MONITOR_POLL, e) < 0 || shim_look(fiber_loop(), dir, &state, e) < 0)
            return -(int)e->code;
        if (!state.alive)
            return say_ended(job, dir, e);
    }
    if (r == 0)
        r = qmp_call(q, "qom-get", json_pack("{s:s, s:s}", "path", "/machine", "property", "type"),
                     a, job->deadline_ms, &type, e);
    if (r < 0)
        return r;
    *ret_type = json_is_string(type) ? json_string_value(type) : "q35";
    n = strlen(*ret_type);
    if (n > 8 && strcmp(*ret_type + n - 8, "-machine") == 0)
        *ret_type = arena_strndup(a, *ret_type, n - 8);
    return 0;
}

static CO int launch(const struct machine_job *job, const struct qemu_plan *plan, struct arena *a,
                     struct err *e)
{
    const struct shim_spec shim = {
        .dir = plan->dir,
        .argv = qemu_argv(plan, a),
        .stop_depth = plan->jail ? BWRAP_CHILD : 0,
    };
    const char *type;
    json_t *note;

    unlink(arena_printf(a, "%s/" QEMU_MONITOR, plan->dir));
    if (job->progress)
        job->progress(plan->load ? "going on from the snapshot" : "booting", job->arg);
    if (shim_start(job->host->loop, job->host->program, &shim, job->deadline_ms, e) < 0 ||
        meet(job, plan->dir, a, &type, e) < 0)
        return -(int)e->code;
    note = json_pack("{s:s, s:s, s:i, s:i, s:b}", "accel", plan->kvm ? "kvm" : "tcg", "type", type,
                     "cpus", (int)plan->spec->cpus, "memory", (int)plan->spec->memory_mib, "jail",
                     plan->jail);
    return qemu_note_write(job, "now.json", note, e);
}

int qemu_own_image(const struct machine_job *job, struct arena *a, struct qemu_image *ret,
                   struct err *e)
{
    json_t *note;

    if (qemu_note_read(job, "qemu.json", a, &note, e) < 0)
        return err_wrap(e, "machine '%s'", job->spec->name);
    if (!json_is_string(json_object_get(note, "image")))
        return err_set(e, ERR_INTERNAL, "machine '%s': qemu.json names no image", job->spec->name);
    return qemu_image_open(json_string_value(json_object_get(note, "image")), a, ret, e);
}

CO int qemu_reseed(const struct machine_job *job, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct qemu_image image;

    if (qemu_own_image(job, &a, &image, e) < 0)
        return -(int)e->code;
    return qemu_write_seed(job, &image, e);
}

CO int qemu_boot(const struct machine_job *job, const char *from, struct err *e)
{
    AUTO(arena_done) struct arena a = { 0 };
    struct machine_spec spec = *job->spec;
    struct qemu_plan plan = { .host = job->host, .spec = &spec, .type = "q35", .load = from };

    plan.dir = machine_path(job, &a, NULL);
    if (qemu_own_image(job, &a, &plan.image, e) < 0 || qemu_write_seed(job, &plan.image, e) < 0 ||
        qemu_link_hub(job, e) < 0)
        return -(int)e->code;
    if (from) {
        if (plan_like_snapshot(job, &plan, &spec, &a, e) < 0)
            return -(int)e->code;
    } else if (choose_accel(job, &plan.kvm, e) < 0) {
        return -(int)e->code;
    }
    plan.agent = arena_printf(&a, "%s-static", job->host->agent);
    if (access(plan.agent, R_OK) < 0)
        return err_set(e, ERR_UNAVAILABLE,
                       "%s: %s; a virtual machine needs an agent without libraries "
                       "(tools/static_agent)",
                       plan.agent, strerror(errno));
    plan.jail = qemu_jail_works(job->host);
    return launch(job, &plan, &a, e);
}
