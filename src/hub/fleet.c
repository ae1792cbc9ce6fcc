/* SPDX-License-Identifier: MIT */
/* hub/fleet.c — machines in memory, the one mover, how an operation begins, who waits for one. */
#include "hub/fleet.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/id.h"
#include "base/log.h"
#include "hub/event.h"
#include "hub/fleet_int.h"
#include "hub/link.h"

enum { OPERATIONS_AT_ONCE = 64 };

/* --- the map --- */

struct machine *machine_find(struct fleet *f, struct str name)
{
    struct strmap_node *node = strmap_find(&f->map, name);

    return node ? container_of(node, struct machine, node) : NULL;
}

struct machine *machine_ref(struct machine *m)
{
    m->refs++;
    return m;
}

void machine_unref(struct machine *m)
{
    if (--m->refs)
        return;
    json_decref(m->spec);
    free(m);
}

struct machine *machine_new(struct fleet *f, struct str name, const struct machine_driver *driver,
                            json_t *spec)
{
    struct machine *m = xcalloc(1, sizeof(*m));

    m->fleet = f;
    m->refs = 1;
    m->driver = driver;
    m->spec = spec;
    fmt_z(m->name, sizeof(m->name), STR_FMT, STR_ARG(name));
    m->created_at = m->updated_at = hub_now();
    return m;
}

void machine_add(struct machine *m)
{
    struct fleet *f = m->fleet;

    if (f->n == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 16;
        f->list = xrealloc(f->list, f->cap * sizeof(struct machine *));
    }
    f->list[f->n++] = m;
    strmap_add(&f->map, &m->node, str_of(m->name));
}

/* --- waiting --- */

void fleet_wake(struct fleet *f)
{
    for (struct fleet_waiter *w = f->waiting; w; w = w->next)
        fiber_wake(w->fiber);
}

CO int fleet_wait(struct fleet *f, uint64_t deadline_ms, struct err *e)
{
    struct fleet_waiter self = { f->waiting, fiber_self() }, **p;
    int r;

    f->waiting = &self;
    r = fiber_park(deadline_ms, e);
    for (p = &f->waiting; *p != &self;)
        p = &(*p)->next;
    *p = self.next;
    return r;
}

void fleet_agent_online(struct hub *h, struct str agent)
{
    if (machine_find(h->fleet, agent))
        fleet_wake(h->fleet);
}

/* --- moving --- */

static void count_states(struct fleet *f)
{
    int64_t n[4] = { 0 };

    for (size_t i = 0; i < f->n; i++) {
        enum machine_state s = f->list[i]->state;

        n[s == MS_RUNNING ? 0 : s == MS_STOPPED ? 1 : s == MS_FAILED ? 2 : 3]++;
    }
    for (unsigned i = 0; i < LEN(n); i++)
        metric_set(&hub_m_machines, i, n[i]);
}

static void tell(struct machine *m)
{
    struct hub *h = m->fleet->h;
    json_t *body;

    if (event_wanted(h)) {
        body = json_pack("{s:s, s:s, s:s, s:s, s:s}", "machine", m->name, "driver", m->driver->name,
                         "state", machine_state_names[m->state], "reason", m->reason, "progress",
                         m->progress);
        event(h, "machine.state", body);
    }
    fleet_wake(m->fleet);
}

void machine_remove(struct machine *m)
{
    struct fleet *f = m->fleet;
    size_t i = 0;

    while (f->list[i] != m)
        i++;
    memmove(&f->list[i], &f->list[i + 1], (f->n - i - 1) * sizeof(struct machine *));
    f->n--;
    strmap_remove(&f->map, &m->node);
    m->gone = true;
    count_states(f);
    if (event_wanted(f->h))
        event(f->h, "machine.state",
              json_pack("{s:s, s:s, s:s}", "machine", m->name, "driver", m->driver->name, "state",
                        "destroyed"));
    fleet_wake(f);
    machine_unref(m);
}

void machine_move(struct machine *m, enum machine_state to, const char *reason)
{
    enum machine_state from = m->state;

    m->state = to;
    m->updated_at = hub_now();
    snprintf(m->reason, sizeof(m->reason), "%s", reason ? reason : "");
    m->progress[0] = 0;
    if (!machine_state_transient(to)) {
        m->operation[0] = 0;
        m->deadline = 0;
    }
    if (to != from && to == MS_FAILED)
        log_warn("a machine failed", "machine", LOG_STR(m->name), "reason", LOG_STR(m->reason));
    else if (to != from)
        log_info("machine", "machine", LOG_STR(m->name), "state", LOG_STR(machine_state_names[to]));
    count_states(m->fleet);
    tell(m);
}

void machine_progress_set(struct machine *m, const char *text)
{
    snprintf(m->progress, sizeof(m->progress), "%s", text);
    tell(m);
}

/* --- beginning an operation --- */

static CO int start_flow(struct machine *m, enum machine_op op, json_t *args, struct err *e)
{
    struct fleet *f = m->fleet;
    struct durable_started started;
    struct arena arena = { 0 };
    struct durable_start start;
    AUTO(json_decref) json_t *all = json_array();
    int r;

    json_array_append_new(all, json_incref(args));
    start = (struct durable_start){
        .name = machine_rules[op].name,
        .class_name = FLEET_CLASS,
        .id = arena_str(&arena, str_of(m->operation)),
        .queue = str_of(f->queue_name),
    };
    r = json_text(all, 64 * KIB, &arena, &start.args, e);
    if (r == 0)
        r = durable_start(f->h->conf.engine, &start, &started, e);
    arena_done(&arena);
    return r;
}

/* The operation that is under way ends; what it is in the midst of is waited for by the lane. */
static CO void cancel_flow(struct fleet *f, const char *operation)
{
    const struct str id = str_of(operation);
    struct err e;
    int64_t n;

    if (durable_cancel(f->h->conf.engine, &id, 1, false, &n, &e) < 0)
        log_warn("an operation on a machine could not be cancelled", "workflow", LOG_STR(operation),
                 "error", LOG_ERR(&e));
}

/* What the workflow must know of the machine as it was: it may be run again later. */
static void note_was(struct machine *m, enum machine_op op, json_t *args)
{
    json_object_set_new(args, "machine", json_string(m->name));
    json_object_set_new(args, "op", json_string(machine_rules[op].name));
    json_object_set_new(args, "running", json_boolean(m->state == MS_RUNNING));
}

static void enter(struct machine *m, enum machine_op op)
{
    char uuid[UUID_TEXT];

    uuid_v4(uuid);
    fmt_z(m->operation, sizeof(m->operation), "machine:%s:%s:%s", machine_rules[op].name, m->name,
          uuid);
    m->deadline = hub_now() + machine_op_ms(m->fleet->h->settings, op);
    m->begun_ms = now_ms();
    m->restart_at = 0;
    if (op == MO_CREATE || op == MO_START || op == MO_RESTART)
        m->wanted_running = true;
    else if (op == MO_STOP || op == MO_DESTROY)
        m->wanted_running = false;
    machine_move(m, machine_rules[op].to, NULL);
}

/* It could not be written, or its workflow not started: as before, unless somebody was faster. */
static CO void step_back(struct machine *m, const char *operation, enum machine_state before,
                         bool wanted, const struct err *why)
{
    struct err e;

    if (m->gone || strcmp(m->operation, operation) != 0)
        return;
    m->wanted_running = wanted;
    machine_move(m, machine_state_transient(before) ? MS_FAILED : before, why->msg);
    if (machine_save(m, &e) < 0)
        log_warn("a machine's row is behind", "machine", LOG_STR(m->name), "error", LOG_ERR(&e));
}

CO int machine_begin(struct machine *m, enum machine_op op, json_t *args, struct err *e)
{
    AUTO(json_decref) json_t *owned = args ? args : json_object();
    enum machine_state before = m->state;
    bool wanted = m->wanted_running;
    char old[OPERATION_MAX], own[OPERATION_MAX];
    int r;

    if (m->fleet->stopping)
        return err_set(e, ERR_UNAVAILABLE, "the hub is stopping");
    r = m->gone ? err_set(e, ERR_NOT_FOUND, "Machine not found")
                : machine_op_judge(op, m->state, *m->operation != 0, e);
    if (r < 0)
        return r;
    memcpy(old, m->operation, sizeof(old));
    note_was(m, op, owned);
    enter(m, op);
    memcpy(own, m->operation, sizeof(own));
    r = op == MO_CREATE ? machine_insert(m, e) : machine_save(m, e);
    if (r == 0 && *old)
        cancel_flow(m->fleet, old);
    if (r == 0 && strcmp(own, m->operation) == 0)
        r = start_flow(m, op, owned, e);
    if (r < 0 && op != MO_CREATE)
        step_back(m, own, before, wanted, e);
    return r;
}

/* --- the part's life --- */

/* Where a build leaves it; else where an installation has it, whose chelad is in sbin. */
static char *beside(const char *program, const char *name)
{
    const char *slash = strrchr(program, '/');
    int dir = slash ? (int)(slash - program) : 0;
    AUTO(free) char *installed = NULL;
    char *built;

    if (!slash)
        return xstrdup(name);
    built = xasprintf("%.*s/%s", dir, program, name);
    installed = xasprintf("%.*s/../bin/%s", dir, program, name);
    if (access(built, X_OK) == 0 || access(installed, X_OK) < 0)
        return built;
    free(built);
    return xstrdup(installed);
}

static void make_host(struct fleet *f)
{
    const struct hub_conf *conf = &f->h->conf;
    const struct hub_settings *s = conf->settings;

    f->dir = xasprintf("%s/machines", conf->state_dir);
    f->images = *s->images ? xstrdup(s->images) : xasprintf("%s/images", conf->state_dir);
    f->agent = *s->agent_program ? xstrdup(s->agent_program) : beside(conf->program, "chela-agent");
    f->socket = xasprintf("%s/agents.sock", conf->state_dir);
    f->host = (struct machine_host){
        .loop = conf->loop,
        .dir = f->dir,
        .images = f->images,
        .program = conf->program,
        .agent = f->agent,
        .hub_socket = f->socket,
        .qemu = s->qemu,
        .bwrap = s->bwrap,
        .multipass = s->multipass,
        .accel = s->accel,
        .uid_first = (unsigned)s->uids,
    };
}

/* A queue that this daemon alone serves: its machines are on this host. */
static int register_flows(struct fleet *f, struct err *e)
{
    struct hub *h = f->h;
    int r;

    for (size_t i = 0; i < MO_OPS; i++)
        f->types[i] = (struct durable_type){
            .name = machine_rules[i].name,
            .class_name = FLEET_CLASS,
            .fn = machine_flow,
            .ctx = f,
            .doc = machine_rules[i].doc,
        };
    fmt_z(f->queue_name, sizeof(f->queue_name), "machines-%.16s", h->conf.instance);
    f->queue = (struct durable_queue){
        .name = f->queue_name,
        .worker_concurrency = OPERATIONS_AT_ONCE,
        .hold_slot = true,
        .doc = "Operations on the machines of this daemon.",
    };
    r = durable_register(h->conf.engine, f->types, LEN(f->types), e);
    return r < 0 ? r : durable_register_queues(h->conf.engine, &f->queue, 1, e);
}

int fleet_new(struct hub *h, struct fleet **ret, struct err *e)
{
    struct fleet *f = xcalloc(1, sizeof(*f));
    int r;

    f->h = h;
    f->group = fiber_group_new(h->conf.loop);
    make_host(f);
    r = register_flows(f, e);
    if (r < 0) {
        fleet_free(f);
        return r;
    }
    *ret = f;
    return 0;
}

CO int fleet_start(struct fleet *f, struct err *e)
{
    int r = fleet_load(f, e);

    if (r == 0)
        count_states(f);
    return r < 0 ? err_wrap(e, "machines") : 0;
}

void fleet_ready(struct fleet *f)
{
    struct err e;

    f->host.ws_port = f->h->ws_port;
    if (fiber_group_spawn(f->group, "machines", fleet_keep, f, &e) < 0)
        log_error("nobody looks after the machines", "error", LOG_ERR(&e));
}

CO void fleet_stop(struct fleet *f)
{
    struct err e;

    f->stopping = true;
    fleet_shells_end(f);
    fleet_wake(f);
    fiber_group_cancel(f->group);
    (void)fiber_group_join(f->group, &e); /* they end by being cancelled */
    fleet_end_machines(f);
}

void fleet_free(struct fleet *f)
{
    if (!f)
        return;
    while (f->n)
        machine_remove(f->list[f->n - 1]);
    fiber_group_free(f->group);
    strmap_done(&f->map);
    free(f->list);
    free(f->dir);
    free(f->images);
    free(f->agent);
    free(f->socket);
    free(f);
}

void fleet_counts(const struct fleet *f, size_t *ret_total, size_t *ret_running)
{
    *ret_total = f->n;
    *ret_running = 0;
    for (size_t i = 0; i < f->n; i++)
        *ret_running += f->list[i]->state == MS_RUNNING;
}
