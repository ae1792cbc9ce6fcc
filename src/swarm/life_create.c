/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_create.c — a new agent: its row, its session key and the Idempotency-Key it was asked
 * for under are one transaction; its provisioning is a workflow named after it. A crash between the
 * two leaves a row whose workflow life_keep.c starts.
 */
#include <string.h>

#include "base/id.h"
#include "base/secret.h"
#include "swarm/life_int.h"

enum {
    NAMES_SOON = 8,   /* numbers tried before the others of this name are counted */
    NAMES_MAX = 1000, /* tried in all */
};

/* clang-format off */
static const struct sql sql_expire = {
    "agent key expire",
    "DELETE FROM agent_idempotency WHERE key = ?1 AND created_at < ?2",
    NULL,
};
static const struct sql sql_key = {
    "agent key put",
    "INSERT INTO agent_idempotency (key, digest, agent_id, workflow_uuid, created_at)"
    " VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (key) DO NOTHING",
    NULL,
};
static const struct sql sql_known = {
    "agent key find",
    "SELECT digest, agent_id FROM agent_idempotency WHERE key = ?1",
    NULL,
};
static const struct sql sql_namesakes = {
    "agent namesakes",
    "SELECT count(*) FROM agent_swarm_instances WHERE name = ?1",
    NULL,
};
/* clang-format on */

struct create {
    struct life *life;
    const struct agent_new *in;
    struct str key; /* with its owner before it; {0}: none */
    char digest[2 * SECRET_KEY + 1];
    char id[UUID_TEXT];
    int64_t now_ms;
    struct arena *arena;
    struct agent_info row;
    struct str known_id, known_digest;
    bool existed;
};

static struct sql_arg sql_digest(const struct create *c)
{
    return SQL_Z(c->digest);
}

static int take_known(struct store_row *row, void *arg, struct err *e)
{
    struct create *c = arg;

    c->known_digest = arena_str(c->arena, row_str(row, 0));
    c->known_id = arena_str(c->arena, row_str(row, 1));
    return 0;
}

/* 0: the key is new and ours; 1: known, and c->row is its agent's. */
static int use_key(struct store_tx *tx, struct create *c, struct err *e)
{
    const struct sql_arg old[] = { SQL_STR(c->key), SQL_INT(c->now_ms - LIFE_KEY_MS) };
    const struct sql_arg args[] = {
        SQL_STR(c->key),    sql_digest(c),
        SQL_Z(c->id),       SQL_Z(arena_printf(c->arena, "provision:%s:0", c->id)),
        SQL_INT(c->now_ms),
    };
    int r = store_run(tx, &sql_expire, old, LEN(old), NULL, NULL, e);

    if (r >= 0)
        r = store_run(tx, &sql_key, args, LEN(args), NULL, NULL, e);
    if (r < 0 || store_changed(tx) == 1)
        return r < 0 ? r : 0;
    r = store_run(tx, &sql_known, args, 1, take_known, c, e);
    if (r < 0)
        return r;
    if (!str_eq_z(c->known_digest, c->digest))
        return err_set(e, ERR_CONFLICT, "Idempotency-Key was used for another request");
    r = life_find_tx(tx, c->known_id, c->arena, &c->row, e);
    if (r == 0)
        return err_set(e, ERR_CONFLICT, "the agent of this Idempotency-Key is gone");
    return r;
}

static int take_count(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

/* The first number of this name that is free. */
static int insert_numbered(struct store_tx *tx, struct create *c, struct err *e)
{
    const struct sql_arg args[] = { SQL_STR(c->row.name) };
    int64_t namesakes = 0;
    unsigned number = 0;
    int r;

    for (unsigned i = 0; i < NAMES_MAX; i++, number++) {
        if (i == NAMES_SOON) {
            r = store_run(tx, &sql_namesakes, args, LEN(args), take_count, &namesakes, e);
            if (r < 0)
                return r;
            if (namesakes > number)
                number = (unsigned)namesakes;
        }
        life_keys(c->life->s->settings->session_key_form, c->row.name, number, c->arena,
                  &c->row.session, &c->row.openclaw_id);
        r = life_insert_tx(tx, &c->row, e);
        if (r != LIFE_STILL)
            return r;
    }
    return err_set(e, ERR_CONFLICT, "no session key is free for agents of this name");
}

static int insert(struct store_tx *tx, struct create *c, struct err *e)
{
    struct str ignored;
    int r;

    if (!c->in->session.n)
        return insert_numbered(tx, c, e);
    life_keys("agent", c->row.name, 0, c->arena, &ignored, &c->row.openclaw_id);
    c->row.session = c->in->session;
    r = life_insert_tx(tx, &c->row, e);
    if (r == LIFE_STILL)
        return err_set(e, ERR_CONFLICT, "Session key '" STR_FMT "' belongs to another agent",
                       STR_ARG(c->in->session));
    return r;
}

static int create_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct create *c = arg;
    const struct agent_new *in = c->in;
    int r = 0;

    c->existed = false;
    if (c->key.n)
        r = use_key(tx, c, e);
    if (r != 0) {
        c->existed = r > 0;
        return r < 0 ? r : 0;
    }
    c->row = (struct agent_info){
        .id = str_of(c->id),
        .name = in->name,
        .persona = in->persona,
        .model = in->model,
        .user = in->user.n ? in->user : STR(LIFE_NOBODY),
        .workspace = in->workspace,
        .heartbeat = in->heartbeat,
        .interval = in->heartbeat && !in->interval.n ? STR("5m") : in->interval,
        .checklist = in->checklist,
        .configuration = in->configuration.p ? in->configuration : STR("{}"),
        .created_ms = c->now_ms,
        .updated_ms = c->now_ms,
        .status = AGENT_PROVISIONING,
    };
    c->row.workflow = str_of(life_provision_id(&c->row, c->arena));
    return insert(tx, c, e);
}

/* What is asked for, as one text: each part with its length before it. */
static int digest(struct create *c, struct err *e)
{
    const struct agent_new *in = c->in;
    const struct str parts[] = { in->name,     in->persona,   in->model,         in->workspace,
                                 in->interval, in->checklist, in->configuration, in->session };
    AUTO(buf_done) struct buf all = { 0 };
    int r;

    buf_init(&all, LIFE_PAYLOAD);
    r = buf_add_z(&all, in->heartbeat ? "1" : "0", e);
    for (size_t i = 0; r == 0 && i < LEN(parts); i++) {
        r = buf_printf(&all, e, "%zu:", parts[i].p ? parts[i].n : SIZE_MAX);
        if (r == 0 && parts[i].n)
            r = buf_add_str(&all, parts[i], e);
    }
    if (r == 0)
        sha256_hex(buf_str(&all), c->digest);
    return r;
}

/* Wait for the provisioning of a row, and read it again. */
static CO int provision(struct life *l, const struct agent_info *row, uint64_t deadline_ms,
                        struct arena *a, struct agent_info *ret, struct err *e)
{
    AUTO(buf_done) struct buf out = { 0 };
    struct durable_started started;
    json_t *request;
    int r;

    buf_init(&out, LIFE_PAYLOAD);
    request = life_request_json(row);
    r = life_run(l, OP_PROVISION, row->workflow, request, deadline_ms, &started, &out, e);
    json_decref(request);
    return r < 0 ? r : life_get(l, row->id, a, ret, e);
}

CO int life_create(struct life *l, const struct agent_new *in, struct str key, uint64_t deadline_ms,
                   struct arena *a, struct agent_info *ret, struct err *e)
{
    struct create c = { .life = l, .in = in, .arena = a, .now_ms = swarm_now() };
    int r;

    if (l->n_agents >= l->s->settings->agents_max)
        return err_set(e, ERR_CONFLICT, "there are already %lld agents", (long long)l->n_agents);
    uuid_v4(c.id);
    if (key.n)
        c.key = str_of(arena_printf(a, STR_FMT "|" STR_FMT, STR_ARG(in->user), STR_ARG(key)));
    r = digest(&c, e);
    if (r == 0)
        r = store_do(l->s->conf.store, create_body, &c, e);
    if (r < 0)
        return r;
    if (!c.existed)
        l->n_agents++;
    if (c.row.status != AGENT_PROVISIONING)
        return life_get(l, c.row.id, a, ret, e);
    return provision(l, &c.row, deadline_ms, a, ret, e);
}

/* --- again --- */

struct again {
    struct str id;
    struct arena *arena;
    struct agent_info row;
};

static void next_generation(struct agent_info *row, void *arg)
{
    struct again *g = arg;

    row->generation++;
    row->workflow = str_of(life_provision_id(row, g->arena));
}

static int again_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct again *g = arg;
    const struct life_step step = { g->id, OP_PROVISION, swarm_now(), next_generation, g };
    bool ended = false;
    int64_t version;
    int r = life_move_tx(tx, &step, g->arena, &g->row, e);

    if (r != LIFE_STILL || g->row.status != AGENT_PROVISIONING)
        return r < 0 ? r : 0;
    r = life_ended_tx(tx, g->row.workflow, &ended, e);
    if (r < 0 || !ended)
        return r;
    version = g->row.version; /* it was cancelled, or is dead: begin anew */
    next_generation(&g->row, g);
    r = life_write_tx(tx, &g->row, version, e);
    return r == LIFE_STILL ? err_set(e, ERR_CONFLICT, "the agent is being changed") : r;
}

CO int life_provision(struct life *l, struct str id, uint64_t deadline_ms, struct arena *a,
                      struct agent_info *ret, struct err *e)
{
    struct again g = { .id = id, .arena = a };
    int r;

    r = store_do(l->s->conf.store, again_body, &g, e);
    if (r < 0)
        return r;
    if (g.row.status == AGENT_PROVISIONING)
        return provision(l, &g.row, deadline_ms, a, ret, e);
    *ret = g.row;
    beat_fill(l->beat, ret);
    return 0;
}
