/* SPDX-License-Identifier: MIT */
/* hub/link_kept.c — messages that wait for an agent, when it comes back or does not come in time.
 */
#include "hub/link_int.h"

enum { BATCH = 256, LOAD_BYTES = 2 * 1024 * 1024 };

/* clang-format off */
static const struct sql sql_load = {
    "hub message load",
    "SELECT position, message FROM hub_messages WHERE agent_id = ?1 AND position > ?2 ORDER BY position LIMIT ?3",
    NULL,
};
static const struct sql sql_forget = { "hub message forget", "DELETE FROM hub_messages WHERE agent_id = ?1 AND position <= ?2 RETURNING bytes", NULL };
static const struct sql sql_expire_dead = {
    "hub message expire",
    "INSERT INTO hub_dead (position, message, error, created_at)"
    " SELECT position," LINK_DEAD_TEXT ", 'expired', ?2 FROM hub_messages WHERE created_at < ?1",
    "INSERT INTO hub_dead (position, message, error, created_at)"
    " SELECT position," LINK_DEAD_TEXT ", 'expired', ?2::bigint FROM hub_messages WHERE created_at < ?1",
};
static const struct sql sql_expire = { "hub message expire out", "DELETE FROM hub_messages WHERE created_at < ?1 RETURNING agent_id, bytes", NULL };
static const struct sql sql_any_old = { "hub message old", "SELECT 1 FROM hub_messages WHERE created_at < ?1 LIMIT 1", NULL };
/* clang-format on */

/* --- messages for one agent --- */

struct loading {
    struct str agent;
    int64_t after;
    struct arena *a;
    struct kept *kept;
    size_t n, bytes;
};

static int take_kept(struct store_row *row, void *arg, struct err *e)
{
    struct loading *load = arg;

    load->kept[load->n++] = (struct kept){ row_int(row, 0), arena_str(load->a, row_str(row, 1)) };
    load->bytes += load->kept[load->n - 1].text.n;
    return load->bytes > LOAD_BYTES ? 1 : 0;
}

static int load_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct loading *load = arg;
    const struct sql_arg args[] = { SQL_STR(load->agent), SQL_INT(load->after), SQL_INT(BATCH) };
    int r;

    load->n = load->bytes = 0;
    load->kept = arena_alloc(load->a, BATCH * sizeof(struct kept));
    r = store_run(tx, &sql_load, args, LEN(args), take_kept, load, e);
    return r < 0 ? r : 0;
}

CO int link_load(struct links *l, struct str agent, int64_t after, struct arena *a,
                 struct kept **ret, size_t *ret_n, struct err *e)
{
    struct loading load = { .agent = agent, .after = after, .a = a };
    int r = store_read(l->h->conf.store, load_body, &load, e);

    if (r < 0)
        return r;
    *ret = load.kept;
    *ret_n = load.n;
    return 0;
}

struct forgetting {
    struct str agent;
    int64_t upto, n, bytes;
};

static int take_forgotten(struct store_row *row, void *arg, struct err *e)
{
    struct forgetting *f = arg;

    f->n++;
    f->bytes += row_int(row, 0);
    return 0;
}

static int forget_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct forgetting *f = arg;
    const struct sql_arg args[] = { SQL_STR(f->agent), SQL_INT(f->upto) };

    f->n = f->bytes = 0;
    return store_run(tx, &sql_forget, args, LEN(args), take_forgotten, f, e);
}

CO int link_forget(struct links *l, struct str agent, int64_t upto, struct err *e)
{
    struct forgetting f = { .agent = agent, .upto = upto };
    struct hub_agent *found;
    int r = store_do(l->h->conf.store, forget_body, &f, e);

    found = hub_agents_find(l->h->agents, agent);
    if (r >= 0 && found)
        link_unkept(found, f.n, f.bytes);
    return r < 0 ? r : 0;
}

/* --- age --- */

struct expiring {
    struct arena arena;
    int64_t before, now, dead, dead_max;
    bool any;
    struct expired {
        struct str agent;
        int64_t bytes;
        struct expired *next;
    } * first;
};

static int see_any(struct store_row *row, void *arg, struct err *e)
{
    *(bool *)arg = true;
    return 0;
}

static int look_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct expiring *x = arg;
    const struct sql_arg args[] = { SQL_INT(x->before) };

    x->any = false;
    return store_run(tx, &sql_any_old, args, 1, see_any, &x->any, e);
}

static int take_expired(struct store_row *row, void *arg, struct err *e)
{
    struct expiring *x = arg;
    struct expired *one = arena_new(&x->arena, struct expired);

    one->agent = arena_str(&x->arena, row_str(row, 0));
    one->bytes = row_int(row, 1);
    one->next = x->first;
    x->first = one;
    x->dead++;
    return 0;
}

static int expire_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct expiring *x = arg;
    const struct sql_arg args[] = { SQL_INT(x->before), SQL_INT(x->now) };
    const struct sql_arg max[] = { SQL_INT(x->dead_max) };
    int r;

    arena_done(&x->arena);
    x->first = NULL;
    x->dead = 0;
    r = store_run(tx, &sql_expire_dead, args, 2, NULL, NULL, e);
    if (r >= 0)
        r = store_run(tx, &sql_expire, args, 1, take_expired, x, e);
    if (r >= 0)
        r = store_run(tx, &link_sql_trim, max, 1, NULL, NULL, e);
    if (r >= 0)
        x->dead -= store_changed(tx);
    return r < 0 ? r : 0;
}

CO int link_expire(struct links *l, struct err *e)
{
    const struct hub_settings *s = l->h->settings;
    struct expiring x = { .now = hub_now(), .dead_max = s->dead_max };
    int r;

    if (!s->queue_max_age_ms)
        return 0;
    x.before = x.now - s->queue_max_age_ms;
    r = store_read(l->h->conf.store, look_body, &x, e);
    if (r < 0 || !x.any)
        return r < 0 ? r : 0;
    r = store_do(l->h->conf.store, expire_body, &x, e);
    for (struct expired *one = x.first; r >= 0 && one; one = one->next) {
        struct hub_agent *agent = hub_agents_find(l->h->agents, one->agent);

        metric_add(&hub_m_dead, 0, 1);
        if (agent)
            link_unkept(agent, 1, one->bytes);
    }
    if (r >= 0)
        l->dead = (size_t)((int64_t)l->dead + x.dead);
    arena_done(&x.arena);
    return r < 0 ? r : 0;
}
