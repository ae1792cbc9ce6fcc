/* SPDX-License-Identifier: MIT */
/*
 * swarm/life.c — agents as the rest of the program uses them: looked up, listed, moved through
 * their workflows. Creating is in life_create.c, housekeeping in life_keep.c.
 */
#include "swarm/life.h"

#include <string.h>

#include "base/id.h"
#include "base/log.h"
#include "swarm/life_int.h"

void (*life_push)(struct swarm *s, struct str session, const char *event, const json_t *payload);

int life_new(struct swarm *s, struct life **ret, struct err *e)
{
    struct life *l = xcalloc(1, sizeof(*l));
    const struct durable_type rows[] = {
        { LIFE_PROVISION, LIFE_CLASS, life_provision_flow, l, .doc = "Bring an agent to life." },
        { LIFE_BEAT, LIFE_CLASS, life_beat_flow, l, .doc = "One heartbeat of an agent." },
        { LIFE_STEER, LIFE_CLASS, life_steer_flow, l, .doc = "Pause an agent, or resume it." },
    };
    int r;

    l->s = s;
    l->retry_ms = 1000;
    l->chores = fiber_group_new(s->conf.loop);
    _Static_assert(sizeof(rows) == sizeof(l->types), "as many as it keeps");
    memcpy(l->types, rows, sizeof(rows));
    r = life_check_auth(l, e);
    if (r == 0)
        r = beat_new(l, &l->beat, e);
    if (r == 0)
        r = durable_register(s->conf.engine, l->types, LEN(rows), e);
    if (r < 0) {
        life_free(l);
        return r;
    }
    *ret = l;
    return 0;
}

CO int life_start(struct life *l, struct err *e)
{
    int r = beat_start(l->beat, e);

    if (r == 0)
        r = fiber_group_spawn(l->chores, "agents housekeeping", life_keep_house, l, e);
    return r;
}

CO void life_stop(struct life *l)
{
    struct err e;

    fiber_group_cancel(l->chores);
    (void)fiber_group_join(l->chores, &e); /* they end by being cancelled */
    beat_stop(l->beat);
}

void life_free(struct life *l)
{
    if (!l)
        return;
    beat_free(l->beat);
    fiber_group_free(l->chores);
    free(l);
}

/* --- looking --- */

struct look {
    struct str id;
    struct arena *arena;
    struct agent_info *ret;
};

static int look_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct look *look = arg;
    int r = life_find_tx(tx, look->id, look->arena, look->ret, e);

    if (r == 0)
        return err_set(e, ERR_NOT_FOUND, "Agent " STR_FMT " not found", STR_ARG(look->id));
    return r < 0 ? r : 0;
}

CO int life_get(struct life *l, struct str id, struct arena *a, struct agent_info *ret,
                struct err *e)
{
    struct look look = { .id = id, .arena = a, .ret = ret };
    int r;

    if (!utf8_valid(id.p, id.n) || memchr(id.p, '\0', id.n))
        return err_set(e, ERR_NOT_FOUND, "Agent not found");
    r = store_read(l->s->conf.store, look_body, &look, e);
    if (r == 0)
        beat_fill(l->beat, ret);
    return r;
}

CO void life_touch(struct life *l, struct str id)
{
    struct look look = { .id = id };
    struct arena a = { 0 };
    struct agent_info row;
    struct err e;

    look.arena = &a;
    look.ret = &row;
    if (store_read(l->s->conf.store, look_body, &look, &e) == 0)
        beat_changed(l->beat, &row);
    else if (e.code != ERR_CANCELED && e.code != ERR_NOT_FOUND)
        log_warn("a changed agent could not be read again", "agent", LOG_SLICE(id), "error",
                 LOG_ERR(&e));
    arena_done(&a);
}

/* clang-format off */
#define MATCHES \
    " FROM agent_swarm_instances WHERE (CAST(?1 AS TEXT) IS NULL OR user_id = ?1)" \
    " AND (CAST(?2 AS TEXT) IS NULL OR workspace_id IS NULL OR workspace_id = ?2)" \
    " AND (CAST(?3 AS TEXT) IS NULL OR name = ?3)" \
    " AND (CAST(?4 AS TEXT) IS NULL OR CAST(status AS TEXT) = ?4)"
static const struct sql sql_list = {
    "life list",
    "SELECT " LIFE_COLUMNS MATCHES " ORDER BY created_at DESC, id DESC LIMIT ?5 OFFSET ?6",
    NULL,
};
static const struct sql sql_total = { "life total", "SELECT count(*)" MATCHES, NULL };
static const struct sql sql_counts = {
    "life counts",
    "SELECT CAST(status AS TEXT), count(*) FROM agent_swarm_instances GROUP BY status",
    NULL,
};
/* clang-format on */

struct listing {
    const struct agent_filter *f;
    struct arena *arena;
    struct agent_info *rows;
    size_t n;
    int64_t total;
};

static int take_listed(struct store_row *row, void *arg, struct err *e)
{
    struct listing *list = arg;

    life_take_row(row, list->arena, &list->rows[list->n++]);
    return 0;
}

static int take_total(struct store_row *row, void *arg, struct err *e)
{
    struct listing *list = arg;

    list->total = row_int(row, 0);
    return 0;
}

static struct sql_arg any_or(struct str s)
{
    return s.n ? SQL_STR(s) : SQL_NULL;
}

static int list_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct listing *list = arg;
    const struct agent_filter *f = list->f;
    const struct sql_arg args[] = {
        any_or(f->user),   any_or(f->workspace),
        any_or(f->name),   f->status < 0 ? SQL_NULL : SQL_Z(agent_status_names[f->status]),
        SQL_INT(f->limit), SQL_INT(f->offset),
    };
    int r;

    list->n = 0;
    list->total = 0;
    r = store_run(tx, &sql_list, args, LEN(args), take_listed, list, e);
    return r < 0 ? r : store_run(tx, &sql_total, args, LEN(args) - 2, take_total, list, e);
}

CO int life_list(struct life *l, const struct agent_filter *f, struct arena *a,
                 struct agent_info **ret, size_t *ret_n, int64_t *ret_total, struct err *e)
{
    struct listing list = { .f = f, .arena = a };
    int r;

    list.rows = arena_alloc(a, (size_t)f->limit * sizeof(*list.rows));
    r = store_read(l->s->conf.store, list_body, &list, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < list.n; i++)
        beat_fill(l->beat, &list.rows[i]);
    *ret = list.rows;
    *ret_n = list.n;
    *ret_total = list.total;
    return 0;
}

static int take_count(struct store_row *row, void *arg, struct err *e)
{
    struct life_counts *counts = arg;
    enum agent_status status;

    if (agent_status_parse(row_str(row, 0), &status) == 0)
        counts->by_status[status] = row_int(row, 1);
    return 0;
}

static int count_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct life_counts *counts = arg;

    *counts = (struct life_counts){ 0 };
    return store_run(tx, &sql_counts, NULL, 0, take_count, counts, e);
}

CO int life_overview(struct life *l, struct life_counts *ret, struct err *e)
{
    struct life_counts counts;
    int r;

    r = store_read(l->s->conf.store, count_body, &counts, e);
    if (r < 0)
        return r;
    beat_counts(l->beat, &counts.beating, &counts.silent);
    *ret = counts;
    return 0;
}

/* --- moving --- */

static int allowed(const struct agent_info *row, enum agent_op op, struct err *e)
{
    enum life_verdict verdict;

    return life_judge(op, row->status, &verdict, e);
}

/* What the workflow says of a failure, as an error. */
static int failure_of(struct str json, struct arena *a, struct err *e)
{
    json_t *result = NULL;
    struct str code;

    if (json_parse(json, 64, a, &result, NULL, e) < 0)
        return -(int)e->code;
    if (!str_eq(json_member_str(result, "status"), STR("failed")))
        return 0;
    code = json_member_str(result, "code");
    return err_set(e,
                   str_eq_z(code, err_name(ERR_NOT_FOUND))  ? ERR_NOT_FOUND
                   : str_eq_z(code, err_name(ERR_CONFLICT)) ? ERR_CONFLICT
                                                            : ERR_INTERNAL,
                   "%s", json_string_value(json_object_get(result, "error")));
}

static CO int move(struct life *l, struct str id, enum agent_op op, struct arena *a,
                   struct agent_info *ret, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    struct durable_started started;
    json_t *request;
    int r;

    r = life_get(l, id, a, ret, e);
    if (r == 0)
        r = allowed(ret, op, e);
    if (r < 0)
        return r;
    buf_init(&out, LIFE_PAYLOAD);
    request = json_pack("{s:s%, s:s, s:b}", "agentId", id.p, id.n, "action",
                        op == OP_PAUSE ? "pause" : "resume", "preserveState", 1);
    r = life_flow(l, OP_PAUSE, request, DEADLINE_NONE, &started, &out, e);
    json_decref(request);
    if (r == 0)
        r = failure_of(buf_str(&out), a, e);
    if (r == 0)
        r = life_get(l, id, a, ret, e);
    if (r == 0 && started.existed) /* of many that ask at once the first one wins */
        r = allowed(ret, op, e);
    return r;
}

CO int life_pause(struct life *l, struct str id, struct arena *a, struct agent_info *ret,
                  struct err *e)
{
    return move(l, id, OP_PAUSE, a, ret, e);
}

CO int life_resume(struct life *l, struct str id, struct arena *a, struct agent_info *ret,
                   struct err *e)
{
    return move(l, id, OP_RESUME, a, ret, e);
}

struct moving {
    struct life_step step;
    struct arena arena;
    struct agent_info row;
};

static int move_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct moving *m = arg;

    arena_done(&m->arena);
    return life_move_tx(tx, &m->step, &m->arena, &m->row, e);
}

static void set_stopped(struct agent_info *row, void *arg)
{
    row->stopped_ms = row->updated_ms;
    row->next_beat_ms = 0;
}

CO int life_delete(struct life *l, struct str id, struct err *e)
{
    struct moving m = { .step = { id, OP_DELETE, swarm_now(), set_stopped, NULL } };
    int r;

    r = store_do(l->s->conf.store, move_body, &m, e);
    if (r >= 0)
        beat_changed(l->beat, &m.row);
    arena_done(&m.arena);
    return r < 0 ? r : 0;
}

/* --- what others tell --- */

int life_alive(struct life *l, struct str session, struct err *e)
{
    return beat_alive(l->beat, session, e);
}

void life_attached(struct life *l, struct str session, bool attached)
{
    beat_attached(l->beat, session, attached);
}
