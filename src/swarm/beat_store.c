/* SPDX-License-Identifier: MIT */
/*
 * swarm/beat_store.c — what heartbeats read and write: the agents that run, at the start; what
 * other processes have changed, now and then; who fell silent or came back, at once; the times of
 * the last answers, all together; and the workflows of beats with a checklist.
 */
#include <string.h>

#include "base/log.h"
#include "swarm/beat_int.h"

enum { OVERLAP_MS = 5000, RETRY_MS = 1000 };

/* clang-format off */
static const struct sql sql_running = {
    "beats load",
    "SELECT " LIFE_COLUMNS " FROM agent_swarm_instances WHERE status = 'running' AND id > ?1 ORDER BY id LIMIT ?2",
    NULL,
};
static const struct sql sql_newer = {
    "beats newer",
    "SELECT " LIFE_COLUMNS " FROM agent_swarm_instances WHERE updated_at > ?1 OR (updated_at = ?1 AND id > ?2)"
    " ORDER BY updated_at, id LIMIT ?3",
    NULL,
};
/* Unless somebody else has heard of it since. */
static const struct sql sql_silent = {
    "beat silent",
    "UPDATE agent_swarm_instances SET error_message = ?2, last_error_at = ?3, updated_at = ?3, version = version + 1"
    " WHERE id = ?1 AND status = 'running' AND COALESCE(last_heartbeat_at, 0) <= ?4",
    NULL,
};
static const struct sql sql_back = {
    "beat back",
    "UPDATE agent_swarm_instances SET error_message = NULL, last_heartbeat_at = ?2, updated_at = ?2, version = version + 1"
    " WHERE id = ?1 AND COALESCE(last_heartbeat_at, 0) < ?2",
    NULL,
};
static const struct sql sql_last = {
    "beat last",
    "UPDATE agent_swarm_instances SET last_heartbeat_at = ?2 WHERE id = ?1 AND COALESCE(last_heartbeat_at, 0) < ?2",
    "UPDATE agent_swarm_instances a SET last_heartbeat_at = v.at FROM unnest(?1::text[], ?2::int8[]) AS v(id, at)"
    " WHERE a.id = v.id AND COALESCE(a.last_heartbeat_at, 0) < v.at",
};
static const struct sql sql_before = {
    "beat before",
    "SELECT 1 FROM agent_heartbeat_executions x JOIN dbos.workflow_status w ON w.workflow_uuid = x.workflow_uuid"
    " WHERE x.agent_id = ?1 AND x.status = 'running' AND w.status IN ('PENDING', 'ENQUEUED', 'DELAYED') LIMIT 1",
    NULL,
};
/* clang-format on */

/* --- reading --- */

struct page {
    struct arena arena;
    struct agent_info *rows;
    size_t n;
    const struct sql *sql;
    struct str after;
    int64_t since_ms; /* of sql_newer */
};

static int take_row(struct store_row *row, void *arg, struct err *e)
{
    struct page *page = arg;

    life_take_row(row, &page->arena, &page->rows[page->n++]);
    return 0;
}

static int page_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct page *page = arg;
    const struct sql_arg running[] = { SQL_STR(page->after), SQL_INT(BEAT_BATCH) };
    const struct sql_arg newer[] = { SQL_INT(page->since_ms), SQL_STR(page->after),
                                     SQL_INT(BEAT_BATCH) };

    page->n = 0;
    page->rows = arena_alloc(&page->arena, BEAT_BATCH * sizeof(*page->rows));
    if (page->sql == &sql_running)
        return store_run(tx, page->sql, running, LEN(running), take_row, page, e);
    return store_run(tx, page->sql, newer, LEN(newer), take_row, page, e);
}

static CO int read_pages(struct beat *b, const struct sql *sql, int64_t since_ms, struct err *e)
{
    char after[256] = "";
    struct page page = { .sql = sql, .since_ms = since_ms };
    int r;

    do {
        page.after = str_of(after);
        r = store_read(b->life->s->conf.store, page_body, &page, e);
        for (size_t i = 0; r >= 0 && i < page.n; i++)
            beat_changed(b, &page.rows[i]);
        if (r >= 0 && page.n) {
            fmt_z(after, sizeof(after), "%.255s", page.rows[page.n - 1].id.p);
            page.since_ms = page.rows[page.n - 1].updated_ms;
            if (page.since_ms > b->seen_ms)
                b->seen_ms = page.since_ms;
        }
        arena_done(&page.arena);
    } while (r >= 0 && page.n == BEAT_BATCH);
    return r < 0 ? r : 0;
}

CO int beat_load(struct beat *b, struct err *e)
{
    int r = read_pages(b, &sql_running, 0, e);

    b->seen_ms = swarm_now();
    return r;
}

/* Clocks differ a little, and what was written first may be seen last. */
CO int beat_poll(struct beat *b, struct err *e)
{
    return read_pages(b, &sql_newer, b->seen_ms - OVERLAP_MS, e);
}

/* --- writing --- */

enum word { WORD_LAST, WORD_BACK, WORD_SILENT };
struct news { /* of one agent */
    char *id;
    enum word word;
    unsigned missed;
    int64_t at_ms, stored_ms;
    bool changed;
};
struct batch {
    struct news *v;
    size_t n;
    bool pg;
    struct str *ids; /* of WORD_LAST, for PostgreSQL */
    int64_t *times;
};

static void batch_done(struct batch *batch)
{
    for (size_t i = 0; i < batch->n; i++)
        free(batch->v[i].id);
    free(batch->v);
    free(batch->ids);
    free(batch->times);
}

static void batch_add(struct batch *batch, const struct pulse *p, enum word word)
{
    batch->v[batch->n++] = (struct news){
        .id = xstrdup(p->id),
        .word = word,
        .missed = p->missed,
        .at_ms = word == WORD_SILENT ? swarm_now() : p->alive_ms,
        .stored_ms = p->stored_ms,
    };
}

static int write_one(struct store_tx *tx, struct news *news, struct err *e)
{
    char text[128] = "";
    const struct sql_arg other[] = { SQL_Z(news->id), SQL_INT(news->at_ms) };
    int r;

    fmt_z(text, sizeof(text), BEAT_SILENT "%u heartbeats", news->missed);
    if (news->word == WORD_SILENT) {
        const struct sql_arg args[] = { SQL_Z(news->id), SQL_Z(text), SQL_INT(news->at_ms),
                                        SQL_INT(news->stored_ms) };

        r = store_run(tx, &sql_silent, args, LEN(args), NULL, NULL, e);
    } else {
        r = store_run(tx, news->word == WORD_BACK ? &sql_back : &sql_last, other, LEN(other), NULL,
                      NULL, e);
    }
    news->changed = r >= 0 && store_changed(tx) == 1;
    return r;
}

/* The times alone: one statement where there are arrays. */
static int write_times(struct store_tx *tx, struct batch *batch, struct err *e)
{
    size_t n = 0;

    for (size_t i = 0; i < batch->n; i++)
        if (batch->v[i].word == WORD_LAST) {
            batch->ids[n] = str_of(batch->v[i].id);
            batch->times[n++] = batch->v[i].at_ms;
            batch->v[i].changed = true;
        }
    if (n == 0)
        return 0;
    {
        const struct sql_arg args[] = { SQL_TEXTS(batch->ids, n), SQL_INTS(batch->times, n) };

        return store_run(tx, &sql_last, args, LEN(args), NULL, NULL, e);
    }
}

static int batch_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct batch *batch = arg;
    int r = batch->pg ? write_times(tx, batch, e) : 0;

    for (size_t i = 0; r >= 0 && i < batch->n; i++)
        if (!batch->pg || batch->v[i].word != WORD_LAST)
            r = write_one(tx, &batch->v[i], e);
    return r < 0 ? r : 0;
}

static CO int batch_write(struct beat *b, struct batch *batch, struct err *e)
{
    if (batch->n == 0)
        return 0;
    batch->pg = b->life->s->pg;
    batch->ids = xcalloc(batch->n, sizeof(*batch->ids));
    batch->times = xcalloc(batch->n, sizeof(*batch->times));
    return store_do(b->life->s->conf.store, batch_body, batch, e);
}

static struct pulse *find(const struct beat *b, const char *id)
{
    struct strmap_node *node = strmap_find(&b->ids, str_of(id));

    return node ? container_of(node, struct pulse, by_id) : NULL;
}

static void written(struct beat *b, const struct news *news)
{
    struct pulse *p = find(b, news->id);

    if (!p)
        return;
    if (news->word != WORD_SILENT) {
        if (news->at_ms > p->stored_ms)
            p->stored_ms = news->at_ms;
        p->told = news->word == WORD_BACK ? false : p->told;
        return;
    }
    p->told = news->changed;
    if (news->changed || !p->silent)
        return;
    p->silent = p->ours = false; /* another process has heard of it: it is theirs now */
    p->missed = 0;
    b->n_silent--;
    metric_set(&swarm_m_silent, 0, b->n_silent);
}

CO int beat_write(struct beat *b, struct err *e)
{
    struct batch batch = { .v = xcalloc(BEAT_BATCH, sizeof(*batch.v)) };
    int r;

    while (b->n_urgent && batch.n < BEAT_BATCH) {
        struct pulse *p = b->urgent[--b->n_urgent];

        p->write = false;
        if (p->silent != p->told)
            batch_add(&batch, p, p->silent ? WORD_SILENT : WORD_BACK);
        else if (p->alive_ms > p->stored_ms)
            batch_add(&batch, p, WORD_LAST);
    }
    r = batch_write(b, &batch, e);
    for (size_t i = 0; i < batch.n; i++) {
        struct pulse *p = find(b, batch.v[i].id);

        if (r >= 0)
            written(b, &batch.v[i]);
        else if (p)
            beat_urgent(b, p);
    }
    batch_done(&batch);
    return r < 0 ? r : 0;
}

/* Those that have answered since the last time. */
static void gather(const struct beat *b, size_t *slot, struct batch *batch)
{
    for (; *slot < b->ids.n_slots; ++*slot) {
        const struct strmap_node *node = b->ids.slots[*slot];
        size_t n = 0;

        for (; node; node = node->next)
            n++;
        if (batch->n + n > BEAT_BATCH && batch->n)
            return; /* a chain is taken whole: it is found again by its slot only */
        for (node = b->ids.slots[*slot]; node && batch->n < BEAT_BATCH; node = node->next) {
            const struct pulse *p =
                container_of((struct strmap_node *)(uintptr_t)node, struct pulse, by_id);

            if (p->alive_ms > p->stored_ms)
                batch_add(batch, p, WORD_LAST);
        }
    }
}

CO int beat_flush(struct beat *b, struct err *e)
{
    size_t slot = 0;
    int r = 0;

    while (r >= 0 && slot < b->ids.n_slots) {
        struct batch batch = { .v = xcalloc(BEAT_BATCH, sizeof(*batch.v)) };

        gather(b, &slot, &batch);
        r = batch_write(b, &batch, e);
        for (size_t i = 0; r >= 0 && i < batch.n; i++)
            written(b, &batch.v[i]);
        batch_done(&batch);
    }
    return r < 0 ? r : 0;
}

/* --- beats with a checklist --- */

struct before {
    struct str agent;
    bool runs;
};

static int take_before(struct store_row *row, void *arg, struct err *e)
{
    ((struct before *)arg)->runs = true;
    return 0;
}

static int before_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct before *before = arg;
    const struct sql_arg args[] = { SQL_STR(before->agent) };

    before->runs = false;
    return store_run(tx, &sql_before, args, LEN(args), take_before, before, e);
}

static CO int start(struct beat *b, const struct beat_job *job, struct arena *a, struct err *e)
{
    struct before before = { .agent = str_of(job->agent) };
    struct durable_started started;
    struct agent_info row;
    json_t *request;
    int r;

    r = life_get(b->life, before.agent, a, &row, e);
    if (r == 0)
        r = store_read(b->life->s->conf.store, before_body, &before, e);
    if (r < 0 || before.runs || row.status != AGENT_RUNNING)
        return r < 0 ? r : 0;
    request =
        json_pack("{s:s, s:s, s:o, s:I}", "agentId", job->agent, "executionId",
                  arena_printf(a, "hb_%s_%lld", job->agent, (long long)job->slot_ms), "checklist",
                  life_json(row.checklist, json_array()), "slot", (json_int_t)job->slot_ms);
    r = life_run(b->life, OP_HEARTBEAT,
                 str_of(arena_printf(a, "hb-sched:%s:%lld", job->agent, (long long)job->slot_ms)),
                 request, 0, &started, NULL, e);
    json_decref(request);
    return r;
}

/* A database that is away is waited for, but not into the next beat. */
static CO int start_in_time(struct beat *b, const struct beat_job *job, struct err *e)
{
    const struct pulse *p = find(b, job->agent);
    int64_t until_ms = job->slot_ms + (p ? p->every_ms : 0);
    int r;

    for (;;) {
        struct arena a = { 0 };

        r = start(b, job, &a, e);
        arena_done(&a);
        if (r != -ERR_UNAVAILABLE || swarm_now() + RETRY_MS >= until_ms)
            return r;
        r = fiber_sleep(RETRY_MS, e);
        if (r < 0)
            return r;
    }
}

CO int beat_worker(void *beat, struct err *e)
{
    struct beat *b = beat;
    void *item;
    int r;

    while (chan_recv(b->jobs, &item, DEADLINE_NONE, e) == 0) {
        struct beat_job *job = item;

        r = start_in_time(b, job, e);
        if (r < 0 && r != -ERR_CANCELED && r != -ERR_NOT_FOUND)
            log_warn("a heartbeat was not started", "agent", LOG_STR(job->agent), "error",
                     LOG_ERR(e));
        free(job->agent);
        free(job);
    }
    return 0;
}
