/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet_api.c — /machines: operations are begun and answered 202; GET …?wait=ms is how to wait
 * for their end.
 */
#include <string.h>

#include "base/log.h"
#include "hub/agents.h"
#include "hub/api.h"
#include "hub/audit.h"
#include "hub/fleet_int.h"

#define LOGS_MAX (1 * MIB)
enum { WAIT_MAX = 60000, LANE_MS = 10000, SNAPSHOT_NAME_MAX = 40 };

/* clang-format off */
#define WISH(member, ...) FIELD(struct machine_wish, member, .nullable = true, __VA_ARGS__)
static const struct shape_field wish_fields[] = {
    FIELD(struct machine_wish, name, .required = true, .doc = "Also its agent's id: letters, digits and hyphens, a letter first."),
    WISH(driver, .doc = "sandbox, qemu or multipass; machine.driver otherwise."),
    WISH(type, .doc = "Of its agent; generic otherwise."),
    WISH(cpus, .coerce = true), WISH(memory, .doc = "4G, 512M, or MiB as a number."), WISH(disk, .doc = "As memory."),
    WISH(image, .doc = "Of the driver: a file, or a name."),
    WISH(capabilities, .doc = "A list, or a text with commas."),
    WISH(allow, .doc = "Hosts it may reach besides the hub: host, host:port, *.host. machine.allow otherwise."),
    WISH(env, .doc = "Variables of its tasks."), WISH(profile, .doc = "Kept beside it."),
    WISH(hubUrl, .doc = "How its agent reaches the hub, if not by the driver's own way."),
};
static const struct shape wish_shape = SHAPE(struct machine_wish, "MachineWish", wish_fields);

struct wait_query { int64_t wait; };
static const struct shape_field wait_fields[] = {
    FIELD(struct wait_query, wait, .coerce = true, .min = 0, .max = WAIT_MAX, .doc = "Until nothing is under way, at most so many ms."),
};
static const struct shape wait_shape = SHAPE(struct wait_query, "MachineWait", wait_fields);

struct stop_body { bool force; };
static const struct shape_field stop_fields[] = {
    FIELD(struct stop_body, force, .doc = "Do not wait for the machine to shut itself down."),
};
static const struct shape stop_shape = SHAPE(struct stop_body, "MachineStop", stop_fields);

struct snap_body { const char *name; };
static const struct shape_field snap_fields[] = {
    FIELD(struct snap_body, name, .nullable = true, .doc = "Letters, digits, '.', '_' and '-'; one with the time otherwise."),
};
static const struct shape snap_shape = SHAPE(struct snap_body, "MachineSnapshot", snap_fields);

struct restore_body { const char *snapshot; };
static const struct shape_field restore_fields[] = { FIELD(struct restore_body, snapshot, .required = true) };
static const struct shape restore_shape = SHAPE(struct restore_body, "MachineRestore", restore_fields);

struct logs_query { int64_t lines; };
static const struct shape_field logs_fields[] = {
    FIELD(struct logs_query, lines, .coerce = true, .def = "100", .min = 1, .max = 100000),
};
static const struct shape logs_shape = SHAPE(struct logs_query, "MachineLogs", logs_fields);
/* clang-format on */

/* --- pieces --- */

static int find(struct http_req *req, struct machine **ret, struct err *e)
{
    struct machine *m = machine_find(req->room, req->args[0]);

    if (!m)
        return err_set(e, ERR_NOT_FOUND, "Machine not found");
    *ret = m;
    return 0;
}

static int reply_machine(struct http_req *req, int status, struct machine *m, struct err *e)
{
    return hub_reply_json(req, status, json_pack("{s:o}", "machine", machine_json(m)), e);
}

/* Who asked for what: on the disk's way before it is answered. */
static CO void note(struct http_req *req, const struct machine *m, enum machine_op op,
                    const char *more)
{
    struct fleet *f = req->room;
    AUTO(free) char *event = xasprintf("machine.%s", machine_rules[op].name);

    audit(f->h, &(struct audit_line){ .event = event,
                                      .agent = str_of(m->name),
                                      .type = str_of(m->driver->name),
                                      .from = str_of(req->who.name),
                                      .peer = req->peer,
                                      .reason = more });
    audit_flush(f->h);
}

static CO int begin(struct http_req *req, enum machine_op op, json_t *args, struct err *e)
{
    AUTO(json_decref) json_t *owned = args;
    AUTO(machine_unref) struct machine *held = NULL;
    struct machine *m;
    int r = find(req, &m, e);

    if (r < 0)
        return r;
    held = machine_ref(m);
    m->deaths = 0;
    r = machine_begin(m, op, TAKE(owned), e);
    if (r < 0)
        return r;
    note(req, m, op, NULL);
    return reply_machine(req, 202, m, e);
}

/* --- look --- */

static CO int list_machines(struct http_req *req, struct err *e)
{
    struct fleet *f = req->room;
    json_t *list = json_array();

    for (size_t i = 0; i < f->n; i++)
        json_array_append_new(list, machine_json(f->list[i]));
    return hub_reply_json(req, 200, json_pack("{s:o}", "machines", list), e);
}

static bool busy(const struct machine *m)
{
    return !m->gone && (*m->operation || machine_state_transient(m->state));
}

static CO int get_machine(struct http_req *req, struct err *e)
{
    const struct wait_query *query = req->query;
    AUTO(machine_unref) struct machine *held = NULL;
    struct fleet *f = req->room;
    uint64_t until = now_ms() + (uint64_t)query->wait;
    struct machine *m;
    int r = find(req, &m, e);

    if (r < 0)
        return r;
    held = machine_ref(m);
    while (busy(m) && now_ms() < until && !f->stopping) {
        r = fleet_wait(f, until, e);
        if (r < 0 && r != -ERR_TIMEOUT)
            return r;
    }
    if (m->gone)
        return err_set(e, ERR_NOT_FOUND, "Machine not found");
    return reply_machine(req, 200, m, e);
}

static CO int list_drivers(struct http_req *req, struct err *e)
{
    struct fleet *f = req->room;
    AUTO(json_decref) json_t *list = json_array();

    for (const struct machine_driver *const *d = machine_drivers; *d; d++) {
        struct err why = { 0 };
        int r = (*d)->probe(&f->host, &why);

        if (r == -ERR_CANCELED)
            return err_set(e, ERR_CANCELED, "%s", why.msg);
        json_array_append_new(list, json_pack("{s:s, s:s?, s:b, s:o}", "name", (*d)->name, "doc",
                                              (*d)->doc, "available", r == 0, "reason",
                                              r == 0 ? json_null() : json_string(why.msg)));
    }
    return hub_reply_json(req, 200, json_pack("{s:O}", "drivers", list), e);
}

static struct str last_lines(struct str text, int64_t lines)
{
    size_t at = text.n;

    while (at > 0) {
        if (text.p[at - 1] == '\n' && at < text.n && --lines == 0)
            break;
        at--;
    }
    return (struct str){ text.p + at, text.n - at };
}

static CO int get_logs(struct http_req *req, struct err *e)
{
    const struct logs_query *query = req->query;
    AUTO(machine_unref) struct machine *held = NULL;
    AUTO(buf_done) struct buf text = { 0 };
    struct machine_job job;
    struct machine *m;
    int r = find(req, &m, e);

    if (r < 0)
        return r;
    held = machine_ref(m);
    buf_init(&text, 2 * LOGS_MAX);
    machine_job_make(m, req->arena, NULL, now_ms() + LANE_MS, &job);
    r = m->driver->logs(&job, LOGS_MAX, &text, e);
    if (r == 0)
        http_reply_text(
            req, 200, "text/plain; charset=utf-8",
            arena_str(req->arena, text.n ? last_lines(buf_str(&text), query->lines) : STR("")));
    return r;
}

/* --- create --- */

static int check_new(struct fleet *f, const struct machine_wish *wish,
                     const struct machine_driver **driver, json_t **ret_spec, struct err *e)
{
    const struct hub_agent *agent;
    int r = machine_spec_make(f, wish, driver, ret_spec, e);

    if (r < 0)
        return r;
    agent = hub_agents_find(f->h->agents, str_of(wish->name));
    if (machine_find(f, str_of(wish->name)))
        return err_set(e, ERR_CONFLICT, "there is a machine '%s' already", wish->name);
    if (agent && !agent->machine)
        return err_set(e, ERR_CONFLICT, "an agent '%s' is registered already", wish->name);
    return 0;
}

/* The row, or nothing. */
static CO int add_machine(struct machine *m, struct err *e)
{
    struct err ignored;
    int r = machine_begin(m, MO_CREATE, NULL, e);

    if (r == 0 || m->gone)
        return r;
    if (machine_delete(m, &ignored) < 0)
        log_warn("the row of a machine that was not made stays", "machine", LOG_STR(m->name),
                 "error", LOG_ERR(&ignored));
    if (!m->gone)
        machine_remove(m);
    return r;
}

static CO int create_machine(struct http_req *req, struct err *e)
{
    struct fleet *f = req->room;
    AUTO(machine_unref) struct machine *held = NULL;
    AUTO(json_decref) json_t *spec = NULL;
    const struct machine_driver *driver;
    struct machine *m;
    int r = check_new(f, req->in, &driver, &spec, e);

    if (r == 0)
        r = driver->probe(&f->host, e);
    if (r == 0) { /* while it was probed somebody may have been faster */
        json_decref(TAKE(spec));
        r = check_new(f, req->in, &driver, &spec, e);
    }
    if (r < 0)
        return r;
    if (f->n >= (size_t)f->h->settings->machines_max) {
        hub_refuse(req, 429, "there are as many machines as machine.max allows");
        return 0;
    }
    if (!f->ready)
        return err_set(e, ERR_UNAVAILABLE, "machines are being looked after: ask again");
    m = machine_new(f, str_of(((const struct machine_wish *)req->in)->name), driver, TAKE(spec));
    held = machine_ref(m);
    machine_add(m);
    r = add_machine(m, e);
    if (r < 0)
        return r;
    note(req, m, MO_CREATE, NULL);
    return reply_machine(req, 202, m, e);
}

/* --- operations --- */

static CO int start_machine(struct http_req *req, struct err *e)
{
    return begin(req, MO_START, NULL, e);
}

static CO int stop_machine(struct http_req *req, struct err *e)
{
    const struct stop_body *in = req->in;

    return begin(req, MO_STOP, json_pack("{s:b}", "force", in->force), e);
}

static CO int restart_machine(struct http_req *req, struct err *e)
{
    return begin(req, MO_RESTART, NULL, e);
}

static CO int destroy_machine(struct http_req *req, struct err *e)
{
    return begin(req, MO_DESTROY, NULL, e);
}

/* --- snapshots --- */

static int check_snapshot_name(const char *name, struct err *e)
{
    size_t n = strlen(name);

    if (n == 0 || n > SNAPSHOT_NAME_MAX || strchr(".-_", name[0]) ||
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") != n)
        return err_set(e, ERR_INVALID,
                       "'%.60s' is no name for a snapshot: letters, digits, '.', '_' and '-', a "
                       "letter or digit first, at most %d",
                       name, SNAPSHOT_NAME_MAX);
    return 0;
}

/* The driver's list. An operation that is under way has the machine for itself. */
static CO int list_of(struct http_req *req, struct machine *m, struct machine_snapshot **ret,
                      size_t *ret_n, struct err *e)
{
    struct machine_job job;
    int r;

    if (busy(m))
        return err_set(e, ERR_CONFLICT, "the machine is %s: wait for that",
                       machine_state_names[m->state]);
    r = fiber_lane_enter(&m->lane, now_ms() + LANE_MS, e);
    if (r < 0)
        return r;
    machine_job_make(m, req->arena, NULL, now_ms() + LANE_MS, &job);
    r = m->driver->snapshots(&job, req->arena, ret, ret_n, e);
    fiber_lane_leave(&m->lane);
    return r;
}

/* Is there one of that name? 1, 0 or an error. */
static CO int has_snapshot(struct http_req *req, struct machine *m, const char *name, struct err *e)
{
    struct machine_snapshot *list = NULL;
    size_t n = 0;
    int r = list_of(req, m, &list, &n, e);

    for (size_t i = 0; r == 0 && i < n; i++)
        if (strcmp(list[i].name, name) == 0)
            return 1;
    return r;
}

static CO int list_snapshots(struct http_req *req, struct err *e)
{
    AUTO(machine_unref) struct machine *held = NULL;
    struct machine_snapshot *list = NULL;
    struct machine *m;
    json_t *out;
    size_t n = 0;
    int r = find(req, &m, e);

    if (r < 0)
        return r;
    held = machine_ref(m);
    r = list_of(req, m, &list, &n, e);
    if (r < 0)
        return r;
    out = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(out, json_pack("{s:s, s:I, s:I, s:b}", "name", list[i].name,
                                             "createdAt", (json_int_t)list[i].created_at, "bytes",
                                             (json_int_t)list[i].bytes, "memory", list[i].memory));
    return hub_reply_json(req, 200, json_pack("{s:o}", "snapshots", out), e);
}

static CO int make_snapshot(struct http_req *req, struct err *e)
{
    const struct snap_body *in = req->in;
    AUTO(machine_unref) struct machine *held = NULL;
    const char *name = in->name && *in->name
                           ? in->name
                           : arena_printf(req->arena, "snapshot-%lld", (long long)hub_now());
    struct machine *m;
    int r = find(req, &m, e);

    if (r == 0)
        r = check_snapshot_name(name, e);
    if (r < 0)
        return r;
    held = machine_ref(m);
    r = has_snapshot(req, m, name, e);
    if (r == 1)
        return err_set(e, ERR_CONFLICT, "there is a snapshot '%s' already", name);
    if (r == 0)
        r = machine_begin(m, MO_SNAPSHOT, json_pack("{s:s}", "snapshot", name), e);
    if (r < 0)
        return r;
    note(req, m, MO_SNAPSHOT, name);
    return hub_reply_json(req, 202,
                          json_pack("{s:s, s:o}", "snapshot", name, "machine", machine_json(m)), e);
}

static CO int drop_snapshot(struct http_req *req, struct err *e)
{
    AUTO(machine_unref) struct machine *held = NULL;
    struct fleet *f = req->room;
    struct machine_job job;
    struct machine *m;
    int r = find(req, &m, e);

    if (r < 0)
        return r;
    held = machine_ref(m);
    r = has_snapshot(req, m, req->args[1].p, e);
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "Snapshot not found");
    if (r == 1)
        r = fiber_lane_enter(&m->lane, now_ms() + LANE_MS, e);
    if (r < 0)
        return r;
    machine_job_make(m, req->arena, NULL, deadline_in(f->h->settings->snapshot_ms), &job);
    r = busy(m) ? err_set(e, ERR_CONFLICT, "the machine is %s", machine_state_names[m->state])
                : m->driver->drop_snapshot(&job, req->args[1].p, e);
    fiber_lane_leave(&m->lane);
    if (r < 0)
        return r;
    audit(f->h, &(struct audit_line){ .event = "machine.snapshot_deleted",
                                      .agent = str_of(m->name),
                                      .from = str_of(req->who.name),
                                      .peer = req->peer,
                                      .reason = req->args[1].p });
    audit_flush(f->h);
    return hub_reply_json(req, 200, json_pack("{s:s}", "status", "deleted"), e);
}

static CO int restore_machine(struct http_req *req, struct err *e)
{
    const struct restore_body *in = req->in;
    AUTO(machine_unref) struct machine *held = NULL;
    struct machine *m;
    int r = find(req, &m, e);

    if (r < 0)
        return r;
    held = machine_ref(m);
    r = has_snapshot(req, m, in->snapshot, e);
    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "Snapshot not found");
    if (r == 1)
        r = machine_begin(m, MO_RESTORE, json_pack("{s:s}", "snapshot", in->snapshot), e);
    if (r < 0)
        return r;
    note(req, m, MO_RESTORE, in->snapshot);
    return reply_machine(req, 202, m, e);
}

/* clang-format off */
#define LOOK NEED_AGENTS | NEED_READ
const struct http_route fleet_routes[] = {
    { HTTP_M_GET, "/machines", list_machines, .need = LOOK,
      .doc = "All machines.", .tag = "machines" },
    { HTTP_M_POST, "/machines", create_machine, .need = NEED_AGENTS, .in = &wish_shape, .status = 202,
      .doc = "Make a machine, start it, wait for its agent; what fails is removed again.", .tag = "machines" },
    { HTTP_M_GET, "/machines/drivers", list_drivers, .need = LOOK,
      .doc = "What machines can be made here, and what is missing for the others.", .tag = "machines" },
    { HTTP_M_GET, "/machines/{name}", get_machine, .need = LOOK, .query = &wait_shape,
      .doc = "One machine; with wait, once nothing is under way.", .tag = "machines" },
    { HTTP_M_POST, "/machines/{name}/start", start_machine, .need = NEED_AGENTS, .status = 202,
      .doc = "Start it and wait for its agent.", .tag = "machines" },
    { HTTP_M_POST, "/machines/{name}/stop", stop_machine, .need = NEED_AGENTS, .in = &stop_shape, .status = 202,
      .flags = ROUTE_OPTIONAL, .doc = "Stop it; it stays stopped.", .tag = "machines" },
    { HTTP_M_POST, "/machines/{name}/restart", restart_machine, .need = NEED_AGENTS, .status = 202,
      .doc = "Stop it and start it.", .tag = "machines" },
    { HTTP_M_DELETE, "/machines/{name}", destroy_machine, .need = NEED_AGENTS, .status = 202,
      .doc = "Destroy it with all it holds and deregister its agent, whatever is under way.", .tag = "machines" },
    { HTTP_M_GET, "/machines/{name}/snapshots", list_snapshots, .need = LOOK,
      .doc = "Its snapshots.", .tag = "machines" },
    { HTTP_M_POST, "/machines/{name}/snapshots", make_snapshot, .need = NEED_AGENTS, .in = &snap_shape, .status = 202,
      .flags = ROUTE_OPTIONAL, .doc = "Keep it as it is now.", .tag = "machines" },
    { HTTP_M_DELETE, "/machines/{name}/snapshots/{snapshot}", drop_snapshot, .need = NEED_AGENTS,
      .doc = "Delete a snapshot.", .tag = "machines" },
    { HTTP_M_POST, "/machines/{name}/restore", restore_machine, .need = NEED_AGENTS, .in = &restore_shape, .status = 202,
      .doc = "Go back to a snapshot; what ran is lost, the agent gets a new token.", .tag = "machines" },
    { HTTP_M_GET, "/machines/{name}/logs", get_logs, .need = LOOK, .query = &logs_shape,
      .doc = "The newest lines of what it printed.", .tag = "machines" },
};
/* clang-format on */
const size_t fleet_routes_len = LEN(fleet_routes);
