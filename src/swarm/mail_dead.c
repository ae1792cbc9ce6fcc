/* SPDX-License-Identifier: MIT */
/*
 * The ends that nobody wishes for: delivered too often, refused, too old. The sender is told once,
 * by a message of the system in the mailbox of its own session, written in the same transaction.
 * For a notice that dies itself there is none, and none for a mailbox that is full.
 */
#include "base/log.h"
#include "base/secret.h"
#include "swarm/mail_int.h"

#define BATCH        200
#define NOTICE_BYTES (8 * KIB)

/* clang-format off */
#define DIES \
    "UPDATE agent_messages SET status = ?2, error = ?3, ended_at = ?4, attempts = attempts + ?5" \
    " WHERE status = 'pending' AND "
#define DEAD " RETURNING position, workflow_uuid, message_id, sender, session"
static const struct sql sql_kill = { "mail dies", DIES "position = ?1" DEAD, NULL };
/* clang-format on */

struct dead {
    int64_t position;
    struct str workflow, id, from, to;
    bool told; /* the sender has a notice */
};

struct dead_call {
    struct mail *m;
    const struct mail_death *death;
    const int64_t *positions;
    size_t n;
    struct arena arena;
    struct dead *dead;
    size_t n_dead;
};

static int take_dead(struct store_row *row, void *arg, struct err *e)
{
    struct dead_call *call = arg;

    if (call->n_dead == BATCH)
        return err_set(e, ERR_INTERNAL, "more messages died than were asked for");
    call->dead[call->n_dead++] = (struct dead){
        .position = row_int(row, 0),
        .workflow = arena_str(&call->arena, row_str(row, 1)),
        .id = arena_str(&call->arena, row_str(row, 2)),
        .from = arena_str(&call->arena, row_str(row, 3)),
        .to = arena_str(&call->arena, row_str(row, 4)),
    };
    return 0;
}

static int notice_text(const struct dead *dead, const struct mail_death *death, struct buf *out,
                       struct err *e)
{
    json_t *j = json_pack("{s:s, s:s%, s:s%, s:s%, s:s, s:s}", "event", "agent.delivery_failed",
                          "messageId", dead->id.p, dead->id.n, "workflowUuid", dead->workflow.p,
                          dead->workflow.n, "to", dead->to.p, dead->to.n, "status",
                          mail_status_names[death->status], "error", death->why);
    int r = j ? json_write(j, out, e) : err_set(e, ERR_INTERNAL, "a notice cannot be written");

    json_decref(j);
    return r;
}

static int tell(struct store_tx *tx, struct dead_call *call, struct dead *dead, struct err *e)
{
    char hex[2 * SECRET_KEY + 1], workflow[MAIL_ID], id[MAIL_ID];
    uint64_t age = (uint64_t)call->m->set->message_max_age_ms;
    AUTO(buf_done) struct buf text = { 0 };
    struct mail_accept a = { 0 };
    int64_t waiting;
    int r;

    if (str_starts(dead->workflow, STR(MAIL_NOTICE)) || str_eq_z(dead->from, MAIL_SYSTEM))
        return 0;
    r = mail_accept_count_tx(tx, dead->from, call->m->set->mailbox_max, &waiting, e);
    if (r < 0 || waiting >= call->m->set->mailbox_max)
        return r;
    buf_init(&text, NOTICE_BYTES);
    r = notice_text(dead, call->death, &text, e);
    if (r < 0)
        return r;
    sha256_hex(dead->workflow, hex);
    fmt_z(workflow, sizeof(workflow), MAIL_NOTICE "%s", hex);
    fmt_z(id, sizeof(id), "notice_%.32s", hex);
    a.row = (struct mail_row){
        .workflow = str_of(workflow),
        .id = str_of(id),
        .from = STR(MAIL_SYSTEM),
        .to = dead->from,
        .content = buf_str(&text),
        .metadata = STR("{\"event\":\"agent.delivery_failed\"}"),
        .created_ms = swarm_now(),
        .expires_ms = age ? swarm_now() + (int64_t)age : 0,
    };
    r = mail_accept_tx(tx, call->m, &a, e);
    dead->told = r == 0 && a.wrote;
    return r;
}

static int dead_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct dead_call *call = arg;
    struct sql_arg args[] = {
        SQL_NULL,
        SQL_Z(mail_status_names[call->death->status]),
        SQL_Z(call->death->why),
        SQL_INT(swarm_now()),
        SQL_INT(call->death->status == MAIL_FAILED), /* the last delivery was not counted yet */
    };
    int r = 0;

    arena_done(&call->arena);
    call->dead = arena_alloc(&call->arena, BATCH * sizeof(*call->dead));
    call->n_dead = 0;
    for (size_t i = 0; r == 0 && i < call->n; i++) {
        args[0] = SQL_INT(call->positions[i]);
        r = store_run(tx, &sql_kill, args, LEN(args), take_dead, call, e);
    }
    for (size_t i = 0; r == 0 && i < call->n_dead; i++)
        r = tell(tx, call, &call->dead[i], e);
    return r;
}

static CO int die(struct dead_call *call, struct err *e)
{
    struct mail *m = call->m;
    int r = store_do(m->store, dead_body, call, e);

    for (size_t i = 0; r >= 0 && i < call->n_dead; i++) {
        const struct dead *dead = &call->dead[i];

        metric_add(call->death->status == MAIL_EXPIRED ? &swarm_m_expired : &swarm_m_dead, 0, 1);
        mail_box_ended(m, dead->to, dead->workflow, dead->position, true);
        mail_wait_nobody(m, NULL, dead->workflow);
        if (dead->told)
            mail_sent(m, dead->from);
    }
    if (r >= 0 && call->n_dead > 0)
        log_warn("messages could not be delivered", "messages", LOG_INT(call->n_dead), "why",
                 LOG_STR(call->death->why));
    return r < 0 ? r : 0;
}

CO int mail_dead_kill(struct mail *m, const int64_t *positions, size_t n,
                      const struct mail_death *death, struct err *e)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i += BATCH) {
        struct dead_call call = { .m = m, .death = death, .positions = positions + i };

        call.n = n - i < BATCH ? n - i : BATCH;
        r = die(&call, e);
        arena_done(&call.arena);
    }
    return r;
}
