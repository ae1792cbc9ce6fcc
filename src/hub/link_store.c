/* SPDX-License-Identifier: MIT */
/*
 * hub/link_store.c — messages that wait for an agent (hub_messages) and dead letters (hub_dead).
 * Who sends a message does not wait for the disk: what comes while a batch is being written is
 * the next batch.
 */
#include <string.h>

#include "base/log.h"
#include "hub/agents_int.h"
#include "hub/link_int.h"

enum { BATCH = 256, BATCH_BYTES = 8 * 1024 * 1024, RETRY_MS = 1000 };

enum item_kind {
    ITEM_MESSAGE,
    ITEM_DEAD,
};

struct store_item {
    struct store_item *next;
    enum item_kind kind;
    int64_t position, now;
    int64_t shift, shift_bytes; /* so many, and so much, of the oldest make room for it */
    int64_t revived;            /* the dead letter that it was; 0: none */
    char agent[HUB_ID_MAX + 1];
    const char *error; /* of ITEM_DEAD: in the text, behind the message */
    size_t n;
    char text[];
};

/* clang-format off */
static const struct sql sql_keep = {
    "hub message keep",
    "INSERT INTO hub_messages (position, agent_id, message, created_at, bytes)"
    " SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM hub_agents WHERE id = ?2)",
    "INSERT INTO hub_messages (position, agent_id, message, created_at, bytes)"
    " SELECT ?1::bigint, ?2::text, ?3::text, ?4::bigint, ?5::bigint WHERE EXISTS (SELECT 1 FROM hub_agents WHERE id = ?2::text)",
};
static const struct sql sql_shift_dead = {
    "hub message shift",
    "INSERT INTO hub_dead (position, message, error, created_at)"
    " SELECT position," LINK_DEAD_TEXT ", 'queue full', ?2 FROM hub_messages WHERE agent_id = ?1 ORDER BY position LIMIT 1",
    "INSERT INTO hub_dead (position, message, error, created_at)"
    " SELECT position," LINK_DEAD_TEXT ", 'queue full', ?2::bigint FROM hub_messages WHERE agent_id = ?1 ORDER BY position LIMIT 1",
};
static const struct sql sql_shift = {
    "hub message shift out",
    "DELETE FROM hub_messages WHERE position = (SELECT MIN(position) FROM hub_messages WHERE agent_id = ?1) RETURNING bytes",
    NULL,
};
static const struct sql sql_dead = {
    "hub dead add",
    "INSERT INTO hub_dead (position, message, error, created_at) VALUES (?1, ?2, ?3, ?4)",
    NULL,
};
static const struct sql sql_revive = { "hub dead revive", "DELETE FROM hub_dead WHERE position = ?1", NULL };
const struct sql link_sql_trim = {
    "hub dead trim",
    "DELETE FROM hub_dead WHERE position <= (SELECT position FROM hub_dead ORDER BY position DESC LIMIT 1 OFFSET ?1)",
    NULL,
};
static const struct sql sql_dead_count = { "hub dead count", "SELECT COUNT(*) FROM hub_dead", NULL };
static const struct sql sql_counts = { "hub message counts", "SELECT agent_id, COUNT(*), CAST(SUM(bytes) AS BIGINT) FROM hub_messages GROUP BY agent_id", NULL };
/* clang-format on */

/* --- the list for the store --- */

static void push(struct links *l, struct store_item *item)
{
    *l->end = item;
    l->end = &item->next;
    l->items_bytes += item->n;
    if (l->writer)
        fiber_wake(l->writer);
}

static struct store_item *item_new(struct links *l, enum item_kind kind, size_t n)
{
    struct store_item *item = xcalloc(1, sizeof(*item) + n + 1);

    item->kind = kind;
    item->n = n;
    item->now = hub_now();
    item->position = hub_order(l->h);
    return item;
}

bool link_hold(struct links *l, struct hub_agent *agent, struct str text)
{
    const struct hub_settings *s = l->h->settings;
    bool full = agent->waiting + agent->going >= (unsigned long long)s->queue_max;
    int64_t over = agent->waiting_bytes + agent->going_bytes + (int64_t)text.n - s->queue_bytes;
    struct store_item *item;

    if (((full || over > 0) && strcmp(s->queue_full, "refuse") == 0) ||
        (int64_t)text.n > s->queue_bytes) {
        dead_later(l->h, text, "queue full");
        return false;
    }
    if (l->items_bytes + text.n > LINK_STORE_MAX) {
        log_warn("a message is dropped: too much waits for the store", "agent", LOG_STR(agent->id));
        return false;
    }
    item = item_new(l, ITEM_MESSAGE, text.n);
    item->shift = full;
    item->shift_bytes = over > 0 ? over : 0;
    memcpy(item->agent, agent->id, sizeof(item->agent));
    memcpy(item->text, text.p, text.n);
    agent->going++;
    agent->going_bytes += (int64_t)text.n - item->shift_bytes;
    push(l, item);
    return true;
}

/* A dead letter's message as JSON: what is none is quoted, what is too long is cut. */
static struct str letter(struct str message, struct buf *b)
{
    struct err e;
    size_t n = message.n;

    if (n <= LINK_DEAD_MAX && json_check(message, FRAME_DEPTH * 2, &e) == 0)
        return message;
    if (n > LINK_DEAD_MAX)
        n = LINK_DEAD_MAX;
    while (n < message.n && n > 0 && ((unsigned char)message.p[n] & 0xc0) == 0x80)
        n--; /* not within a character */
    buf_init(b, 8 * LINK_DEAD_MAX);
    if (json_write_str(b, (struct str){ message.p, n }, &e) < 0)
        return STR("null");
    return buf_str(b);
}

static struct store_item *dead_item(struct links *l, struct str text, struct str why)
{
    struct store_item *item = item_new(l, ITEM_DEAD, text.n + 1 + why.n);

    memcpy(item->text, text.p, text.n);
    memcpy(item->text + text.n + 1, why.p, why.n);
    item->error = item->text + text.n + 1;
    return item;
}

void dead_later(struct hub *h, struct str message, const char *error)
{
    struct links *l = h->links;
    AUTO(buf_done) struct buf b = { 0 };
    struct str text = letter(message, &b);

    metric_add(&hub_m_dead, 0, 1);
    /* Of more than are kept the oldest would be trimmed at once. */
    if (l->n_dead_items >= (unsigned long long)h->settings->dead_max ||
        l->items_bytes + text.n > LINK_STORE_MAX)
        return;
    l->n_dead_items++;
    push(l, dead_item(l, text, str_of(error)));
}

/* --- writing --- */

struct batch {
    struct hub *h;
    struct store_item *items[BATCH];
    bool inserted[BATCH];
    int64_t shifted[BATCH], freed[BATCH]; /* of the oldest: how many, their bytes */
    size_t n;
    int64_t dead_max, dead; /* how many more dead letters there are */
};

static int take_freed(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg += row_int(row, 0);
    return 0;
}

/* The oldest become dead letters until there is room. */
static int make_room(struct store_tx *tx, struct batch *b, size_t i, struct err *e)
{
    const struct store_item *item = b->items[i];
    const struct sql_arg args[] = { SQL_Z(item->agent), SQL_INT(item->now) };
    int r = 0;

    b->shifted[i] = b->freed[i] = 0;
    while (r >= 0 && (b->shifted[i] < item->shift || b->freed[i] < item->shift_bytes)) {
        r = store_run(tx, &sql_shift_dead, args, 2, NULL, NULL, e);
        if (r >= 0 && store_changed(tx) == 0)
            break;
        if (r >= 0)
            r = store_run(tx, &sql_shift, args, 1, take_freed, &b->freed[i], e);
        b->shifted[i]++;
        b->dead++;
    }
    return r;
}

static int put_message(struct store_tx *tx, struct batch *b, size_t i, struct err *e)
{
    const struct store_item *item = b->items[i];
    const struct sql_arg args[] = { SQL_INT(item->position), SQL_Z(item->agent),
                                    SQL_STR(((struct str){ item->text, item->n })),
                                    SQL_INT(item->now), SQL_INT((int64_t)item->n) };
    const struct sql_arg dead[] = { SQL_INT(item->revived) };
    int r = make_room(tx, b, i, e);

    b->inserted[i] = false;
    if (r >= 0 && item->revived) {
        r = store_run(tx, &sql_revive, dead, 1, NULL, NULL, e);
        if (r < 0 || store_changed(tx) == 0)
            return r;
        b->dead--;
    }
    if (r >= 0)
        r = store_run(tx, &sql_keep, args, LEN(args), NULL, NULL, e);
    b->inserted[i] = r >= 0 && store_changed(tx) > 0;
    return r;
}

static int put_dead(struct store_tx *tx, struct batch *b, size_t i, struct err *e)
{
    const struct store_item *item = b->items[i];
    const struct sql_arg args[] = { SQL_INT(item->position), SQL_Z(item->text), SQL_Z(item->error),
                                    SQL_INT(item->now) };

    b->dead++;
    return store_run(tx, &sql_dead, args, LEN(args), NULL, NULL, e);
}

static int trim(struct store_tx *tx, struct batch *b, struct err *e)
{
    const struct sql_arg args[] = { SQL_INT(b->dead_max) };
    int r = store_run(tx, &link_sql_trim, args, 1, NULL, NULL, e);

    if (r >= 0)
        b->dead -= store_changed(tx);
    return r;
}

/* The agent may be connected to another daemon. */
static int tell_kept(struct store_tx *tx, const struct batch *b, size_t i, struct err *e)
{
    const char *agent = b->items[i]->agent;

    if (i > 0 && b->inserted[i - 1] && strcmp(agent, b->items[i - 1]->agent) == 0)
        return 0; /* told with the one before */
    return agents_tell(tx, b->h->agents, "+", str_of(agent), e);
}

static int batch_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct batch *b = arg;
    int r = 0;

    b->dead = 0;
    for (size_t i = 0; i < b->n && r >= 0; i++) {
        r = b->items[i]->kind == ITEM_DEAD ? put_dead(tx, b, i, e) : put_message(tx, b, i, e);
        if (r >= 0 && b->items[i]->kind == ITEM_MESSAGE && b->inserted[i])
            r = tell_kept(tx, b, i, e);
    }
    if (r >= 0 && b->dead > 0)
        r = trim(tx, b, e);
    return r < 0 ? r : 0;
}

static void take_batch(struct links *l, struct batch *b)
{
    size_t bytes = 0;

    b->n = 0;
    b->h = l->h;
    b->dead_max = l->h->settings->dead_max;
    while (l->first && b->n < BATCH && bytes < BATCH_BYTES) {
        struct store_item *item = l->first;

        b->items[b->n++] = item;
        bytes += item->n;
        l->first = item->next;
    }
    if (!l->first)
        l->end = &l->first;
}

void link_unkept(struct hub_agent *agent, int64_t n, int64_t bytes)
{
    agent->waiting = agent->waiting > n ? agent->waiting - (unsigned)n : 0;
    agent->waiting_bytes -= bytes;
    if (!agent->waiting || agent->waiting_bytes < 0)
        agent->waiting_bytes = 0;
}

static void was_kept(struct hub_agent *agent, const struct batch *b, size_t i)
{
    const struct store_item *item = b->items[i];

    if (agent->going) {
        agent->going--;
        agent->going_bytes -= (int64_t)item->n - item->shift_bytes;
    }
    if (!agent->going)
        agent->going_bytes = 0;
    link_unkept(agent, b->shifted[i], b->freed[i]);
    if (b->inserted[i]) {
        agent->waiting++;
        agent->waiting_bytes += (int64_t)item->n;
    }
}

/* It is on disk. */
static void finish_batch(struct links *l, struct batch *b)
{
    l->dead = (size_t)((int64_t)l->dead + b->dead);
    for (size_t i = 0; i < b->n; i++) {
        struct store_item *item = b->items[i];
        struct hub_agent *agent = hub_agents_find(l->h->agents, str_of(item->agent));

        if (item->kind == ITEM_DEAD) {
            l->n_dead_items--;
        } else if (agent) {
            was_kept(agent, b, i);
        }
        l->items_bytes -= item->n;
        free(item);
    }
    b->n = 0;
}

static void put_back(struct links *l, struct batch *b)
{
    for (size_t i = b->n; i-- > 0;) {
        if (!l->first)
            l->end = &b->items[i]->next;
        b->items[i]->next = l->first;
        l->first = b->items[i];
    }
    b->n = 0;
}

static CO int write_some(struct links *l, struct batch *b, struct err *e)
{
    int r;

    take_batch(l, b);
    l->writing = true;
    r = store_do(l->h->conf.store, batch_body, b, e);
    l->writing = false;
    l->n_batch++;
    if (r < 0)
        put_back(l, b);
    else
        finish_batch(l, b);
    return r < 0 ? r : 0;
}

CO int link_store_drop_dead(struct links *l, struct err *e)
{
    uint64_t batch = l->n_batch;
    struct store_item **at = &l->first;
    int r = 0;

    while (*at) {
        struct store_item *item = *at;

        if (item->kind != ITEM_DEAD) {
            at = &item->next;
            continue;
        }
        *at = item->next;
        l->n_dead_items--;
        l->items_bytes -= item->n;
        free(item);
    }
    l->end = at;
    while (r == 0 && l->writing && l->n_batch == batch)
        r = fiber_sleep(1, e);
    return r;
}

static CO int write_all(void *arg, struct err *e)
{
    struct links *l = arg;
    AUTO(free) struct batch *b = xcalloc(1, sizeof(*b));
    int r = 0;

    l->writer = fiber_self();
    while (r != -ERR_CANCELED) {
        if (!l->first) {
            r = fiber_park(DEADLINE_NONE, e);
            continue;
        }
        r = write_some(l, b, e);
        if (r < 0 && r != -ERR_CANCELED) {
            log_warn("waiting messages could not be written", "error", LOG_ERR(e));
            r = fiber_sleep(RETRY_MS, e);
        }
    }
    l->writer = NULL;
    return r;
}

/* One dead letter, now. */
CO int dead_add(struct hub *h, struct str message, const char *error, struct err *e)
{
    struct links *l = h->links;
    AUTO(buf_done) struct buf text = { 0 };
    AUTO(free) struct batch *b = xcalloc(1, sizeof(*b));
    struct store_item *item = dead_item(l, letter(message, &text), str_of(error));
    int r;

    metric_add(&hub_m_dead, 0, 1);
    l->n_dead_items++;
    l->items_bytes += item->n;
    b->h = h;
    b->items[b->n++] = item;
    b->dead_max = h->settings->dead_max;
    r = store_do(h->conf.store, batch_body, b, e);
    if (r < 0)
        b->dead = 0;
    finish_batch(l, b);
    return r < 0 ? r : 0;
}

/* It counts as on its way, so that a connection that begins meanwhile waits for it. */
CO int link_revive(struct links *l, struct str agent, int64_t dead, struct str text, struct err *e)
{
    const struct hub_settings *s = l->h->settings;
    struct hub_agent *to = hub_agents_find(l->h->agents, agent);
    AUTO(free) struct batch *b = NULL;
    struct store_item *item;
    bool kept;
    int r;

    if (!to)
        return err_set(e, ERR_CONFLICT, "no agent '" STR_FMT "' is registered", STR_ARG(agent));
    if (to->waiting + to->going >= (unsigned long long)s->queue_max ||
        to->waiting_bytes + to->going_bytes + (int64_t)text.n > s->queue_bytes)
        return err_set(e, ERR_LIMIT, "the queue of agent '%s' is full", to->id);
    b = xcalloc(1, sizeof(*b));
    item = item_new(l, ITEM_MESSAGE, text.n);
    item->revived = dead;
    memcpy(item->agent, to->id, sizeof(item->agent));
    memcpy(item->text, text.p, text.n);
    to->going++;
    to->going_bytes += (int64_t)text.n;
    l->items_bytes += item->n;
    b->h = l->h;
    b->items[b->n++] = item;
    b->dead_max = s->dead_max;
    r = store_do(l->h->conf.store, batch_body, b, e);
    l->n_batch++;
    if (r < 0) {
        b->inserted[0] = false;
        b->dead = 0;
    }
    kept = b->inserted[0];
    finish_batch(l, b);
    return r < 0 ? r : kept;
}

/* --- the room's beginning and end --- */

struct counts {
    struct links *l;
    struct arena arena;
    struct count {
        struct strmap_node node;
        struct str agent;
        int64_t n, bytes;
        struct count *next;
    } * first;
    int64_t dead;
};

static int take_count(struct store_row *row, void *arg, struct err *e)
{
    struct counts *c = arg;
    struct count *one = arena_new(&c->arena, struct count);

    one->agent = arena_str(&c->arena, row_str(row, 0));
    one->n = row_int(row, 1);
    one->bytes = row_int(row, 2);
    one->next = c->first;
    c->first = one;
    return 0;
}

static int take_dead(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int counts_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct counts *c = arg;
    int r;

    arena_done(&c->arena);
    c->first = NULL;
    r = store_run(tx, &sql_counts, NULL, 0, take_count, c, e);
    return r < 0 ? r : store_run(tx, &sql_dead_count, NULL, 0, take_dead, &c->dead, e);
}

CO int link_store_start(struct links *l, struct err *e)
{
    struct counts c = { .l = l };
    int r = store_read(l->h->conf.store, counts_body, &c, e);

    for (struct count *one = c.first; r >= 0 && one; one = one->next) {
        struct hub_agent *agent = hub_agents_find(l->h->agents, one->agent);

        if (agent) {
            agent->waiting = (unsigned)one->n;
            agent->waiting_bytes = one->bytes;
        }
    }
    l->dead = (size_t)c.dead;
    arena_done(&c.arena);
    if (r < 0)
        return err_wrap(e, "waiting messages");
    return fiber_group_spawn(l->h->chores, "hub store", write_all, l, e);
}

/* What others have written for an agent, or have sent to it. */
static void set_count(struct links *l, struct hub_agent *agent, const struct count *one)
{
    if (agent->going || (agent->link && agent->link->flushing))
        return;
    agent->waiting = one ? (unsigned)one->n : 0;
    agent->waiting_bytes = one ? one->bytes : 0;
    if (one && agent->link)
        link_more(l, agent->node.key);
}

CO int link_recount(struct links *l, struct err *e)
{
    struct counts c = { .l = l };
    struct strmap found = { 0 };
    uint64_t batch = l->n_batch;
    int r = store_read(l->h->conf.store, counts_body, &c, e);
    bool still = r >= 0 && batch == l->n_batch && !l->writing;
    struct hub_agent *agent;

    for (struct count *one = c.first; still && one; one = one->next)
        if (!strmap_find(&found, one->agent))
            strmap_add(&found, &one->node, one->agent);
    for (size_t i = 0; still && (agent = hub_agents_at(l->h->agents, i)); i++) {
        struct strmap_node *node = strmap_find(&found, agent->node.key);

        set_count(l, agent, node ? container_of(node, struct count, node) : NULL);
    }
    if (still)
        l->dead = (size_t)c.dead;
    strmap_done(&found);
    arena_done(&c.arena);
    return r < 0 ? r : 0;
}

CO void link_store_stop(struct links *l)
{
    AUTO(free) struct batch *b = xcalloc(1, sizeof(*b));
    struct err e;
    int r = 0;

    while (r == 0 && l->first)
        r = write_some(l, b, &e);
    if (r < 0)
        log_warn("waiting messages could not be written", "error", LOG_ERR(&e));
}

void link_store_free(struct links *l)
{
    while (l->first) {
        struct store_item *item = l->first;

        l->first = item->next;
        free(item);
    }
}
