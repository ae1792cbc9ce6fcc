/* SPDX-License-Identifier: MIT */
/* swarm/monitor.c — see monitor.h. */
#include "swarm/monitor.h"

#include <string.h>

#include "base/log.h"
#include "swarm/mail.h"
#include "swarm/monitor_int.h"

#define LOST_MAX 16 /* dead executors that are remembered from one look to the next */

int monitor_new(struct swarm *s, struct monitor **ret, struct err *e)
{
    struct monitor *m = xcalloc(1, sizeof(*m));

    (void)e;
    m->s = s;
    m->chores = fiber_group_new(s->conf.loop);
    *ret = m;
    return 0;
}

static void forget_lost(struct monitor *m)
{
    for (size_t i = 0; i < m->n_lost; i++)
        free(m->lost[i]);
    free(TAKE(m->lost));
    m->n_lost = 0;
}

void monitor_free(struct monitor *m)
{
    if (!m)
        return;
    forget_lost(m);
    fiber_group_free(m->chores);
    free(m);
}

/* --- the chore --- */

/* Once per change: of what is wrong, or of how much. */
static void tell(struct monitor *m, const struct monitor_look *l)
{
    char text[512] = "";
    size_t n = 0;

    metric_set(&swarm_m_unhealthy, 0, l->stuck + l->orphaned + l->dead + l->failed);
    if (l->problems == m->told && l->stuck == m->told_stuck && l->dead == m->told_dead)
        return;
    for (size_t i = 0; i < l->n_texts; i++)
        if (n + strlen(l->texts[i]) + 3 < sizeof(text)) {
            fmt_z(text + n, sizeof(text) - n, "%s%s", n ? "; " : "", l->texts[i]);
            n = strlen(text);
        }
    if (l->problems)
        log_warn("workflows need a look", "what", LOG_STR(text), "first",
                 LOG_STR(l->n_bad ? l->bad[0].id.p : NULL));
    else
        log_info("workflows are well again");
    m->told = l->problems;
    m->told_stuck = l->stuck;
    m->told_dead = l->dead;
}

static bool has(char **list, size_t n, struct str one)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq_z(one, list[i]))
            return true;
    return false;
}

/*
 * The engine looks for work of the dead several times in a lease. What was there at two of our
 * looks it has not found, or could not give back.
 */
static CO int reclaim(struct monitor *m, const struct monitor_look *l, struct arena *a,
                      struct err *e)
{
    struct str again[LOST_MAX], *ids;
    char **lost = xcalloc(LOST_MAX, sizeof(*lost));
    size_t n_again = 0, n_lost = 0, n = 0;
    int r;

    for (size_t i = 0; i < l->n_bad && n_lost < LOST_MAX; i++) {
        struct str executor = l->bad[i].executor;

        if (!l->bad[i].orphan || has(lost, n_lost, executor))
            continue;
        lost[n_lost++] = str_dup(executor);
        if (has(m->lost, m->n_lost, executor))
            again[n_again++] = executor;
    }
    forget_lost(m);
    m->lost = lost;
    m->n_lost = n_lost;
    if (!n_again)
        return 0;
    r = durable_recover(m->s->conf.engine, again, n_again, a, &ids, &n, e);
    if (r == 0 && n)
        log_warn("work of dead processes had been left; it is queued again", "number", LOG_INT(n),
                 "first", LOG_SLICE(ids[0]), "executor", LOG_SLICE(again[0]));
    return r;
}

CO int monitor_check(struct monitor *m, struct err *e)
{
    struct monitor_look look;
    struct arena a = { 0 };
    int r = monitor_look(m, &a, &look, e);

    if (r == 0) {
        tell(m, &look);
        r = reclaim(m, &look, &a, e);
    }
    arena_done(&a);
    return r;
}

static CO int check_chore(void *arg, struct err *e)
{
    struct monitor *m = arg;
    int r;

    while (!m->s->stopping) {
        r = fiber_sleep((uint64_t)m->s->settings->check_ms, e);
        if (r == 0 && !m->s->stopping)
            r = monitor_check(m, e);
        if (r == -ERR_CANCELED || fiber_canceled())
            return 0;
        if (r < 0 && !m->failing)
            log_warn("the workflows cannot be looked at", "error", LOG_ERR(e));
        m->failing = r < 0;
    }
    return 0;
}

CO int monitor_start(struct monitor *m, struct err *e)
{
    return fiber_group_spawn(m->chores, "workflow monitor", check_chore, m, e);
}

CO void monitor_stop(struct monitor *m)
{
    struct err e;

    fiber_group_cancel(m->chores);
    (void)fiber_group_join(m->chores, &e); /* it ends by being cancelled */
}

/* --- recovery by hand --- */

/* A dead message is due again. */
static CO int recover_message(struct monitor *m, struct str id, bool *ret_recovered,
                              const char **ret_status, struct arena *a, struct err *e)
{
    struct mail_info info;
    int r = mail_get(m->s->mail, id, a, &info, e);

    if (r == -ERR_NOT_FOUND) {
        *ret_status = "not_found";
        return 0;
    }
    if (r < 0)
        return r;
    if (info.status == MAIL_FAILED || info.status == MAIL_EXPIRED) {
        r = mail_replay(m->s->mail, info.workflow, e);
        if (r < 0)
            return r == -ERR_CONFLICT ? 0 : r; /* somebody else has just done it */
        *ret_recovered = true;
        info.status = MAIL_PENDING;
    }
    *ret_status = monitor_message_status((int)info.status);
    return 0;
}

static CO int recover_one(struct monitor *m, const struct durable_info *info, bool *ret,
                          struct arena *a, struct err *e)
{
    struct durable *d = m->s->conf.engine;
    struct monitor_pace pace;
    struct str *ids;
    size_t n = 0;
    int r = 0;

    switch (info->status) {
    case DURABLE_CANCELLED:
    case DURABLE_DEAD:
        r = durable_resume(d, info->id, (struct str){ 0 }, e);
        *ret = r == 0;
        return r == -ERR_CONFLICT ? 0 : r; /* it has ended otherwise meanwhile */
    case DURABLE_PENDING:
        r = monitor_pace(m, info->id, &pace, e);
        if (r == 0 && pace.orphan)
            r = durable_recover(d, &info->executor, 1, a, &ids, &n, e);
        for (size_t i = 0; r == 0 && i < n; i++)
            *ret |= str_eq(ids[i], info->id);
        return r;
    default:
        return 0;
    }
}

/* clang-format off */
/* ?1 id, ?2 our executor, ?3 now. */
static const struct sql sql_adopt = {
    "monitor adopt",
    "UPDATE dbos.workflow_status SET application_version = (SELECT x.app_version"
    " FROM durable_executors x WHERE x.executor_id = ?2), updated_at = ?3"
    " WHERE workflow_uuid = ?1 AND status IN ('ENQUEUED', 'DELAYED')"
    " AND EXISTS (SELECT 1 FROM durable_executors x WHERE x.executor_id = ?2)",
    NULL,
};
/* clang-format on */

struct adopt {
    struct sql_arg args[3];
    bool done;
};

static int adopt_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct adopt *adopt = arg;
    int r = store_run(tx, &sql_adopt, adopt->args, LEN(adopt->args), NULL, NULL, e);

    adopt->done = r == 0 && store_changed(tx) > 0;
    return r;
}

/* No living process runs its version, and this one knows its name: from now on it is ours. */
static CO int adopt(struct monitor *m, const struct durable_info *info, bool *ret, struct err *e)
{
    struct adopt adopt = {
        .args = { SQL_STR(info->id), SQL_Z(durable_executor(m->s->conf.engine)),
                  SQL_INT(swarm_now()) },
    };
    int r = store_do(m->s->conf.store, adopt_body, &adopt, e);

    *ret |= adopt.done;
    return r;
}

CO int monitor_recover(struct monitor *m, struct str id, bool *ret_recovered,
                       const char **ret_status, struct arena *a, struct err *e)
{
    const struct durable_filter filter = { .ids = &id, .n_ids = 1, .limit = 1 };
    struct durable *d = m->s->conf.engine;
    struct durable_info *info;
    size_t n;
    int r;

    *ret_recovered = false;
    *ret_status = "not_found";
    r = durable_list(d, &filter, a, &info, &n, e);
    if (r < 0)
        return r;
    if (n == 0)
        return recover_message(m, id, ret_recovered, ret_status, a, e);
    r = recover_one(m, info, ret_recovered, a, e);
    if (r == 0)
        r = durable_list(d, &filter, a, &info, &n, e);
    if (r == 0 && n && info->blocked_version)
        r = adopt(m, info, ret_recovered, e);
    if (r == 0 && n)
        *ret_status = durable_status_name(info->status);
    return r;
}
