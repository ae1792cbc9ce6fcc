/* SPDX-License-Identifier: MIT */
/*
 * swarm/mail.c — see mail.h: life, and sending.
 */
#include "swarm/mail.h"

#include <string.h>

#include "base/id.h"
#include "base/log.h"
#include "base/rand.h"
#include "base/secret.h"
#include "swarm/mail_int.h"

#define FULL "is full"

const char *const mail_status_names[MAIL_STATUSES] = { "pending", "acknowledged", "failed",
                                                       "expired", "dropped" };

/* --- life --- */

int mail_new(struct swarm *s, struct mail **ret, struct err *e)
{
    struct mail *m = xcalloc(1, sizeof(*m));
    int r;

    m->s = s;
    m->loop = s->conf.loop;
    m->store = s->conf.store;
    m->set = s->settings;
    m->pg = s->pg;
    m->seq = xcalloc(1, sizeof(*m->seq));
    fmt_z(m->self, sizeof(m->self), "%016llx", (unsigned long long)rand_u64());
    /* SQLite's one writer keeps the order of batches, and puts all that wait for it, of both lanes,
     * into one commit. On PostgreSQL the order of acceptances needs one flight at a time. */
    m->accepts = (struct lane){
        .name = "mail acceptances",
        .loop = m->loop,
        .arg = m,
        .max_n = MAIL_BATCH,
        .max_bytes = MAIL_BATCH_BYTES,
        .max_flights = m->pg ? 1 : MAIL_FLIGHTS,
        .send = mail_accept_send,
        .told = mail_accept_told,
    };
    m->ends = m->accepts;
    m->ends.name = "mail endings";
    m->ends.max_flights = m->pg ? 2 : MAIL_FLIGHTS;
    m->ends.send = mail_end_send;
    m->ends.told = NULL;
    m->chores = fiber_group_new(m->loop);
    r = mail_flow_register(m, e);
    if (r == 0)
        r = mail_hear_register(m, e);
    if (r < 0) {
        mail_free(m);
        return err_wrap(e, "messages");
    }
    *ret = m;
    return 0;
}

/* clang-format off */
static const struct sql sql_last = {
    "mail last", "SELECT COALESCE(max(position), 0) FROM agent_messages", NULL,
};
/* Rows may have been copied here from another database, whose positions the sequence never gave. */
static const struct sql sql_seed = {
    "mail seed", "",
    "SELECT setval('agent_messages_batch', (SELECT max(position) / 4096 + 1000 FROM agent_messages))"
    " WHERE (SELECT last_value FROM agent_messages_batch)"
    "  <= (SELECT COALESCE(max(position), 0) / 4096 FROM agent_messages)"
    " AND EXISTS (SELECT 1 FROM agent_messages)",
};
/* clang-format on */

static int take_last(struct store_row *row, void *arg, struct err *e)
{
    *(int64_t *)arg = row_int(row, 0);
    return 0;
}

static int seed_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct mail *m = arg;
    int64_t last = 0;
    int r = m->pg ? store_run(tx, &sql_seed, NULL, 0, NULL, NULL, e)
                  : store_run(tx, &sql_last, NULL, 0, take_last, &last, e);

    if (r >= 0 && atomic_load(m->seq) < last)
        atomic_store(m->seq, last);
    return r;
}

CO int mail_start(struct mail *m, struct err *e)
{
    int r = store_do(m->store, seed_body, m, e);

    if (r < 0)
        return err_wrap(e, "messages");
    m->running = true;
    r = fiber_group_spawn(m->chores, "mail clock", mail_clock_chore, m, e);
    if (r == 0)
        r = fiber_group_spawn(m->chores, "mail sweep", mail_sweep_chore, m, e);
    return r < 0 ? err_wrap(e, "messages") : 0;
}

/* Sending goes on: workflows that end now may send. Nothing is delivered any more. */
CO void mail_stop(struct mail *m)
{
    struct err e;

    m->running = false;
    mail_clock_wake(m);
    mail_sweep_wake(m);
    fiber_group_cancel(m->chores);
    (void)fiber_group_join(m->chores, &e); /* they end by being cancelled */
    mail_wait_all_nobody(m);
}

void mail_free(struct mail *m)
{
    if (!m)
        return;
    mail_boxes_free(m);
    fiber_group_free(m->chores);
    free(m->seq);
    free(m);
}

/* --- what is sent --- */

static int check_key(const char *what, struct str s, size_t max, struct err *e)
{
    if (s.n >= max)
        return err_set(e, ERR_INVALID, "%s is longer than %zu bytes", what, max - 1);
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return err_set(e, ERR_INVALID, "%s holds a control character", what);
    }
    if (!utf8_valid(s.p, s.n))
        return err_set(e, ERR_INVALID, "%s is not UTF-8", what);
    return 0;
}

static int check(const struct mail *m, const struct mail_in *in, struct err *e)
{
    size_t max = (size_t)m->set->max_message;
    int r;

    if (!in->from.n || !in->to.n || !in->content.n)
        return err_set(e, ERR_INVALID, "Invalid message: missing required fields");
    r = check_key("id", in->id, MAIL_ID, e);
    if (r == 0)
        r = check_key("from", in->from, MAIL_SESSION, e);
    if (r == 0)
        r = check_key("to", in->to, MAIL_SESSION, e);
    if (r == 0)
        r = check_key("the key", in->workflow, MAIL_ID, e);
    if (r < 0)
        return r;
    if (str_starts(in->workflow, STR(MAIL_NOTICE)))
        return err_set(e, ERR_INVALID, "keys that begin with " MAIL_NOTICE " are the system's");
    if (in->content.n > max || in->metadata.n > max)
        return err_set(e, ERR_LIMIT, "a message is at most %zu bytes", max);
    if (!utf8_valid(in->content.p, in->content.n))
        return err_set(e, ERR_INVALID, "content is not UTF-8");
    if (memchr(in->content.p, 0, in->content.n))
        return err_set(e, ERR_INVALID, "content holds a NUL");
    r = in->metadata.p ? json_check(in->metadata, 64, e) : 0;
    return r < 0 ? err_wrap(e, "metadata") : 0;
}

/* One text for each triple: a length before each part. */
static void key_of(const struct mail_in *in, char out[MAIL_ID])
{
    char text[3 * MAIL_ID + 64], hex[2 * SECRET_KEY + 1];

    fmt_z(text, sizeof(text), "%zu|" STR_FMT "|%zu|" STR_FMT "|" STR_FMT, in->from.n,
          STR_ARG(in->from), in->to.n, STR_ARG(in->to), STR_ARG(in->id));
    sha256_hex(str_of(text), hex);
    fmt_z(out, MAIL_ID, "msg:%s", hex);
}

static void random_key(char out[MAIL_ID])
{
    char uuid[UUID_TEXT];

    uuid_v7(uuid); /* grows with time, so the index is written at its end */
    fmt_z(out, MAIL_ID, "msg:%s", uuid);
}

static void put(char out[MAIL_ID], struct str s)
{
    memcpy(out, s.p, s.n); /* its length was checked */
    out[s.n] = '\0';
}

/* The row of a message that has been checked; ids are written into ret, which must stay. */
static void fill(const struct mail *m, const struct mail_in *in, struct mail_out *ret,
                 struct mail_accept *a)
{
    uint64_t age = in->max_age_ms ? in->max_age_ms : (uint64_t)m->set->message_max_age_ms;
    int64_t now = swarm_now();

    *ret = (struct mail_out){ 0 };
    if (in->workflow.n)
        put(ret->workflow, in->workflow);
    else if (in->id.n)
        key_of(in, ret->workflow);
    else
        random_key(ret->workflow);
    if (in->id.n)
        put(ret->id, in->id);
    else
        fmt_z(ret->id, MAIL_ID, "msg_%lld%06u", (long long)now, (unsigned)(rand_u64() % 1000000));
    *a = (struct mail_accept){
        .ride.bytes = 256 + in->content.n + in->metadata.n,
        .keyed = in->workflow.n || in->id.n,
        .row = {
            .workflow = str_of(ret->workflow),
            .id = str_of(ret->id),
            .from = in->from,
            .to = in->to,
            .content = in->content,
            .metadata = in->metadata,
            .created_ms = now,
            .expires_ms = age && age < INT64_MAX / 2 ? now + (int64_t)age : 0,
        },
    };
}

static int outcome(const struct mail_accept *a, struct mail_out *ret, struct err *e)
{
    if (a->refused < 0) {
        if (e)
            *e = a->why;
        return a->refused;
    }
    if (a->existed && a->conflict)
        return err_set(e, ERR_CONFLICT, "the key was used for another message");
    ret->existed = a->existed;
    if (a->existed)
        memcpy(ret->id, a->id, sizeof(ret->id));
    ret->accepted_ms = a->row.created_ms;
    return 0;
}

int mail_refuse_full(struct str session, struct err *e)
{
    return err_set(e, ERR_LIMIT, "the mailbox of '%.*s' " FULL,
                   (int)(session.n < 100 ? session.n : 100), session.p);
}

bool mail_full(const struct err *e)
{
    size_t n = strlen(e->msg), k = strlen(FULL);

    return e->code == ERR_LIMIT && n > k && strcmp(e->msg + n - k, FULL) == 0;
}

/* It was accepted: who will get it, as far as is known now. */
static void look_for_takers(struct mail *m, struct str session, struct mail_out *out)
{
    struct mail_box *box = mail_box_get(m, session);

    out->replies = box->n_replying > 0 || (box->n_subs == 0 && mail_drive_replies(m, box));
    out->live = box->n_subs > 0 || mail_drive_of(m, box);
}

static int landed(struct mail *m, const struct mail_accept *a, uint64_t since_us,
                  struct mail_out *ret, struct err *e)
{
    int r = outcome(a, ret, e);

    ret->full = r < 0 && mail_full(e);
    if (r < 0)
        return r;
    metric_observe(&swarm_m_accept_ms, 0, (int64_t)(now_us() - since_us));
    look_for_takers(m, a->row.to, ret);
    return 0;
}

CO int mail_send(struct mail *m, const struct mail_in *in, struct mail_out *ret, struct err *e)
{
    uint64_t since_us = now_us();
    struct mail_accept a;
    struct err own;
    int r;

    e = e ? e : &own;
    ret->full = false;
    r = check(m, in, e);
    if (r < 0)
        return r;
    fill(m, in, ret, &a);
    r = lane_ride(&m->accepts, &a.ride, e);
    return r < 0 ? r : landed(m, &a, since_us, ret, e);
}

/* --- the same for who does not wait --- */

struct posted {                /* in the sender's arena */
    struct mail_accept accept; /* first */
    struct mail *m;
    struct mail_out out;
    uint64_t since_us;
    mail_posted *done;
    void *arg;
};

static void post_told(struct mail_accept *a, int r, const struct err *why)
{
    struct posted *p = container_of(a, struct posted, accept);
    struct err e;

    if (r < 0)
        e = *why;
    else
        r = landed(p->m, a, p->since_us, &p->out, &e);
    p->done(p->arg, r, &p->out, &e);
}

int mail_post(struct mail *m, const struct mail_in *in, struct arena *a, mail_posted *done,
              void *arg, struct err *e)
{
    struct posted *p;
    int r = check(m, in, e);

    if (r < 0)
        return r;
    p = arena_raw(a, sizeof(*p));
    fill(m, in, &p->out, &p->accept);
    p->accept.told = post_told;
    p->m = m;
    p->since_us = now_us();
    p->done = done;
    p->arg = arg;
    lane_add(&m->accepts, &p->accept.ride);
    return 0;
}

int mail_send_tx(struct store_tx *tx, const struct mail *m, const struct mail_in *in,
                 struct mail_out *ret, struct err *e)
{
    struct mail_accept a;
    struct mail_out out;
    int64_t n = 0, max = m->set->mailbox_max;
    int r = check(m, in, e);

    if (r < 0)
        return r;
    fill(m, in, &out, &a);
    r = mail_accept_count_tx(tx, in->to, max, &n, e);
    if (r >= 0 && n >= max) {
        r = mail_accept_twin_tx(tx, &a, e);
        if (r >= 0 && !a.existed)
            return mail_refuse_full(in->to, e);
    } else if (r >= 0) {
        r = mail_accept_tx(tx, m, &a, e);
    }
    if (r >= 0)
        r = outcome(&a, &out, e);
    if (r == 0)
        *ret = out;
    return r < 0 ? r : 0;
}

void mail_sent(struct mail *m, struct str session)
{
    struct mail_box *box = mail_box_get(m, session);

    box->counted = false;
    mail_box_more(m, box, true);
}

int mail_result_json(const struct mail_out *out, struct str response, struct buf *ret,
                     struct err *e)
{
    int r = buf_add_z(ret, "{\"messageId\":", e);

    if (r == 0)
        r = json_write_str(ret, str_of(out->id), e);
    if (r == 0)
        r = buf_printf(ret, e,
                       ",\"status\":\"delivered\",\"deliveryAttempts\":1,\"lastAttemptTime\":%lld",
                       (long long)out->accepted_ms);
    if (r == 0 && response.p)
        r = buf_add_z(ret, ",\"response\":", e);
    if (r == 0 && response.p)
        r = json_write_str(ret, response, e);
    return r < 0 ? r : buf_add_z(ret, "}", e);
}
