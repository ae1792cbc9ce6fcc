/* SPDX-License-Identifier: MIT */
/*
 * swarm/mail_test.c — messages: acceptance, order, keys, windows, acknowledgements, replies. On
 * SQLite or, where CHELA_TEST_PG is set, on PostgreSQL.
 */
#define TESTS_AT_ONCE 4

#include "swarm/mail_fixture.h"

POST_TEST(a_message_reaches_a_subscriber_and_does_not_come_again_after_its_ack)
{
    AUTO(taker_done) struct taker t = { 0 };
    struct mail_sub *sub;
    struct mail_out out;

    MUST(listen_to(p, "agent:a:main", false, &t, &sub, e) == 0);
    MUST(say(p, "me", "agent:a:main", "1", "hello", &out, e) == 0);
    MUST(out.live && !out.replies && !out.existed);
    BECOMES(t.n == 1);
    MUST(strcmp(t.got[0].content, "hello") == 0 && strcmp(t.got[0].from, "me") == 0);
    MUST(t.got[0].attempt == 1 && !t.got[0].notice);
    MUST(mail_ack(p->m, STR("agent:a:main"), STR("1"), e) == 0);
    MUST(mail_ack(p->m, STR("agent:a:main"), STR("1"), e) == 0); /* a repeat is fine */
    mail_unsubscribe(sub);
    MUST(listen_to(p, "agent:a:main", false, &t, &sub, e) == 0);
    MUST(say(p, "me", "agent:a:main", NULL, "next", NULL, e) == 0);
    BECOMES(t.n == 2);
    MUST(got_all(&t, "hello,next"));
    mail_unsubscribe(sub);
    return 0;
}

POST_TEST(what_waited_comes_in_order_before_what_is_new)
{
    AUTO(taker_done) struct taker t = { 0 };
    struct mail_sub *sub;

    MUST(say(p, "me", "s", NULL, "1", NULL, e) == 0);
    MUST(say(p, "me", "s", NULL, "2", NULL, e) == 0);
    MUST(say(p, "me", "other", NULL, "no", NULL, e) == 0);
    MUST(listen_to(p, "s", false, &t, &sub, e) == 0);
    MUST(say(p, "me", "s", NULL, "3", NULL, e) == 0);
    BECOMES(t.n == 3);
    MUST(say(p, "me", "s", NULL, "4", NULL, e) == 0);
    BECOMES(t.n == 4);
    MUST(got_all(&t, "1,2,3,4"));
    mail_unsubscribe(sub);
    return 0;
}

POST_TEST(one_key_is_one_message)
{
    struct mail_out first, again;
    char id[MAIL_ID];

    MUST(say(p, "me", "s", "m1", "text", &first, e) == 0);
    MUST(say(p, "me", "s", "m1", "text", &again, e) == 0);
    MUST(!first.existed && again.existed);
    MUST(strcmp(first.workflow, again.workflow) == 0 && strcmp(first.id, again.id) == 0);
    MUST(first.accepted_ms == again.accepted_ms);
    MUST(say(p, "me", "s", "m1", "other text", &again, e) == -ERR_CONFLICT);
    MUST(say(p, "me", "s2", "m1", "other text", &again, e) == 0); /* to another: another message */
    MUST(row_is(&p->f, "SELECT CAST(count(*) AS TEXT) FROM agent_messages", NULL, "2"));
    fmt_z(id, sizeof(id), "%s", first.workflow);
    MUST(mail_ack(p->m, (struct str){ 0 }, str_of(id), e) == 0);
    MUST(say(p, "me", "s", "m1", "text", &again, e) == 0 && again.existed);
    return 0;
}

struct told { /* what mail_post() says */
    int n, last, refused;
    char workflows[8][MAIL_ID];
};

static void note_told(void *arg, int r, const struct mail_out *out, const struct err *e)
{
    struct told *told = arg;

    if (told->n == LEN(told->workflows))
        told->n = 0;
    told->refused += r < 0;
    told->last = r < 0 ? -(int)e->code : out->existed;
    fmt_z(told->workflows[told->n++], MAIL_ID, "%s", r < 0 ? "" : out->workflow);
}

POST_TEST(what_is_posted_is_stored_in_order_before_its_sender_is_told)
{
    AUTO(taker_done) struct taker t = { 0 };
    struct mail_in in = { .from = STR("me"), .to = STR("s") };
    const char *const texts[] = { "1", "2", "3" };
    struct told told = { 0 };
    struct arena a = { 0 };
    struct mail_sub *sub;
    int r = 0;

    MUST(listen_to(p, "s", false, &t, &sub, e) == 0);
    MUST(mail_post(p->m, &in, &a, note_told, &told, e) == -ERR_INVALID && told.n == 0);
    in.id = STR("first");
    for (size_t i = 0; r == 0 && i < LEN(texts); i++) {
        in.content = str_of(texts[i]);
        r = mail_post(p->m, &in, &a, note_told, &told, e);
        in.id = (struct str){ 0 };
    }
    MUST(r == 0 && told.n == 0 && t.n == 0);
    BECOMES(told.n == 3);
    MUST(told.last == 0 && got_all(&t, "1,2,3"));
    MUST(strcmp(t.got[0].workflow, told.workflows[0]) == 0);
    MUST(strcmp(t.got[2].workflow, told.workflows[2]) == 0);
    MUST(row_is(&p->f, "SELECT CAST(count(*) AS TEXT) FROM agent_messages", NULL, "3"));
    in.id = STR("first");
    in.content = STR("1");
    MUST(mail_post(p->m, &in, &a, note_told, &told, e) == 0);
    BECOMES(told.n == 4);
    MUST(told.last == 1); /* existed */
    in.content = STR("other");
    MUST(mail_post(p->m, &in, &a, note_told, &told, e) == 0);
    BECOMES(told.n == 5);
    MUST(told.last == -ERR_CONFLICT && t.n == 3);
    arena_done(&a);
    mail_unsubscribe(sub);
    return 0;
}

POST_TEST(batches_that_are_on_their_way_take_room_in_a_mailbox)
{
    struct mail_in in = { .from = STR("me"), .to = STR("s"), .content = STR("text") };
    struct told told = { 0 };
    struct arena a = { 0 };

    p->set.mailbox_max = 5;
    for (int i = 0; i < 8; i++) {
        MUST(mail_post(p->m, &in, &a, note_told, &told, e) == 0);
        MUST(fiber_yield(e) == 0);
    }
    BECOMES(told.n == 8);
    MUST(told.refused == 3 && told.last == -ERR_LIMIT);
    MUST(row_is(&p->f, "SELECT CAST(count(*) AS TEXT) FROM agent_messages", NULL, "5"));
    arena_done(&a);
    return 0;
}

#define PAIRS 50

/* Two to each mailbox, of which the first has to wait until its mailbox was counted. */
static CO int post_pairs(struct post *p, struct arena *a, struct told *told, struct err *e)
{
    struct mail_in in = { .from = STR("me") };
    int r = 0;

    for (int i = 0; r == 0 && i < 2 * PAIRS; i++) {
        in.to = str_of(arena_printf(a, "s%d", i / 2));
        in.content = str_of(arena_printf(a, "%d", i));
        r = mail_post(p->m, &in, a, note_told, told, e);
        if (r == 0)
            r = fiber_yield(e); /* so the second goes with another batch */
    }
    return r;
}

static size_t place_of(const struct taker *t, int content)
{
    for (size_t i = 0; i < t->n; i++) {
        if (strtol(t->got[i].content, NULL, 10) == content)
            return i;
    }
    return SIZE_MAX;
}

POST_TEST(no_batch_overtakes_the_one_before)
{
    AUTO(taker_done) struct taker t = { 0 };
    struct mail_sub *subs[PAIRS];
    struct told told = { 0 };
    struct arena a = { 0 };

    for (int i = 0; i < PAIRS; i++)
        MUST(listen_to(p, arena_printf(&a, "s%d", i), false, &t, &subs[i], e) == 0);
    MUST(post_pairs(p, &a, &told, e) == 0);
    BECOMES(t.n == 2 * PAIRS);
    for (int i = 0; i < 2 * PAIRS; i += 2)
        MUST(place_of(&t, i) < place_of(&t, i + 1));
    MUST(row_is(&p->f,
                "SELECT CAST(count(*) AS TEXT) FROM agent_messages a, agent_messages b WHERE"
                " a.session = b.session AND a.position < b.position"
                " AND CAST(a.content AS INTEGER) > CAST(b.content AS INTEGER)",
                NULL, "0"));
    for (int i = 0; i < PAIRS; i++)
        mail_unsubscribe(subs[i]);
    arena_done(&a);
    return 0;
}

static const struct sql sql_how[] = {
    { "how it inserts",
      "EXPLAIN INSERT INTO agent_messages (position, workflow_uuid, message_id, sender, session,"
      " content, created_at) VALUES (1, 'w', 'i', 'me', 's', 'text', 1)"
      " ON CONFLICT (workflow_uuid) DO NOTHING" },
    { "how it ends", "EXPLAIN UPDATE agent_messages SET status = 'acknowledged', ended_at = 1"
                     " WHERE position = 1 AND status = 'pending'" },
};

static int count_tables(struct store_row *row, void *arg, struct err *e)
{
    int *n = arg;

    n[0]++;
    n[1] += str_eq_z(row_str(row, 1), "OpenEphemeral");
    return 0;
}

static int how_body(struct store_tx *tx, void *arg, struct err *e)
{
    int *n = arg, r = 0;

    n[0] = n[1] = 0;
    for (size_t i = 0; r == 0 && i < LEN(sql_how); i++)
        r = store_run(tx, &sql_how[i], NULL, 0, count_tables, arg, e);
    return r;
}

POST_TEST(a_row_is_written_on_sqlite_without_a_table_made_for_it)
{
    int n[2];

    if (!p->f.store->sqlite)
        return 0;
    MUST(store_read(p->m->store, how_body, n, e) == 0);
    MUST(n[0] > 20 && n[1] == 0);
    return 0;
}

POST_TEST(what_lacks_something_is_refused)
{
    struct mail_in in = { .from = STR("a"), .to = STR("b"), .content = STR("c") };
    char longer[MAIL_SESSION + 1];
    struct mail_out out;

    in.to = STR("");
    MUST(mail_send(p->m, &in, &out, e) == -ERR_INVALID);
    MUST(strcmp(e->msg, "Invalid message: missing required fields") == 0);
    in.to = STR("b\n");
    MUST(mail_send(p->m, &in, &out, e) == -ERR_INVALID);
    memset(longer, 'x', sizeof(longer));
    in.to = (struct str){ longer, MAIL_SESSION };
    MUST(mail_send(p->m, &in, &out, e) == -ERR_INVALID);
    in.to = STR("b");
    in.content = (struct str){ "a\0b", 3 };
    MUST(mail_send(p->m, &in, &out, e) == -ERR_INVALID);
    in.content = (struct str){ "\xff", 1 };
    MUST(mail_send(p->m, &in, &out, e) == -ERR_INVALID);
    in.content = STR("c");
    in.metadata = STR("{");
    MUST(mail_send(p->m, &in, &out, e) == -ERR_INVALID);
    in.metadata = (struct str){ 0 };
    in.workflow = STR("notice:x");
    MUST(mail_send(p->m, &in, &out, e) == -ERR_INVALID);
    in.workflow = (struct str){ 0 };
    p->set.max_message = 10;
    in.content = STR("0123456789a");
    MUST(mail_send(p->m, &in, &out, e) == -ERR_LIMIT && !mail_full(e));
    in.content = STR("0123456789");
    MUST(mail_send(p->m, &in, &out, e) == 0);
    MUST(mail_ack(p->m, STR("b"), STR("nope"), e) == -ERR_NOT_FOUND);
    MUST(mail_ack(p->m, STR("b"), STR(""), e) == -ERR_NOT_FOUND);
    MUST(mail_subscribe(p->m, STR(""), false, &taker_ops, NULL, NULL, e) == -ERR_INVALID);
    return 0;
}

POST_TEST(many_are_acknowledged_at_once)
{
    const struct str ids[] = { STR("1"), STR("nope"), STR("3"), STR("1"), STR("2"), STR("") };
    AUTO(taker_done) struct taker t = { 0 };
    struct mail_sub *sub;
    size_t acked;

    MUST(say(p, "me", "s", "1", "x", NULL, e) == 0);
    MUST(say(p, "me", "s", "2", "x", NULL, e) == 0);
    MUST(say(p, "me", "s2", "3", "x", NULL, e) == 0);
    MUST(mail_ack_many(p->m, STR("s"), ids, LEN(ids), &acked, e) == 0);
    MUST(acked == 3); /* one of them twice */
    MUST(listen_to(p, "s", false, &t, &sub, e) == 0);
    MUST(say(p, "me", "s", "4", "x", NULL, e) == 0);
    BECOMES(t.n == 1);
    MUST(strcmp(t.got[0].id, "4") == 0);
    MUST(mail_ack_many(p->m, STR("s"), (struct str[]){ STR("4") }, 1, &acked, e) == 0);
    MUST(acked == 1);
    MUST(
        row_is(&p->f, "SELECT message_id FROM agent_messages WHERE status = 'pending'", NULL, "3"));
    mail_unsubscribe(sub);
    return 0;
}

POST_TEST(a_full_mailbox_refuses_senders_until_something_was_taken)
{
    struct mail_out out;

    p->set.mailbox_max = 3;
    for (int i = 0; i < 3; i++) {
        char id[8];

        fmt_z(id, sizeof(id), "k%d", i);
        MUST(say(p, "me", "s", id, "x", NULL, e) == 0);
    }
    MUST(say(p, "me", "s", NULL, "x", &out, e) == -ERR_LIMIT && mail_full(e) && out.full);
    MUST(say(p, "me", "s", "k1", "x", &out, e) == 0 && out.existed); /* was accepted before */
    MUST(say(p, "me", "t", NULL, "x", NULL, e) == 0);
    MUST(mail_ack(p->m, STR("s"), STR("k0"), e) == 0);
    MUST(say(p, "me", "s", NULL, "x", NULL, e) == 0);
    MUST(say(p, "me", "s", NULL, "x", NULL, e) == -ERR_LIMIT);
    return 0;
}

struct say_call {
    struct post *p;
    const char *to;
    int i, *left;
    int r;
};

static CO int say_number(void *arg, struct err *e)
{
    struct say_call *call = arg;
    char id[16];

    fmt_z(id, sizeof(id), "%d", call->i);
    call->r = say(call->p, "me", call->to, id, id, NULL, e);
    (*call->left)--;
    return 0;
}

/* "0", "1"... at once: they are accepted in the order in which they are said. */
static CO int say_many(struct post *p, const char *to, int n, struct err *e)
{
    struct say_call *calls = xcalloc((size_t)n, sizeof(*calls));
    int left = n, r = 0;

    for (int i = 0; r == 0 && i < n; i++) {
        calls[i] = (struct say_call){ p, to, i, &left, 0 };
        r = fiber_spawn(p->m->loop, "say", say_number, &calls[i], NULL, e);
    }
    while (r == 0 && left > 0)
        r = fiber_sleep(2, e);
    for (int i = 0; r == 0 && i < n; i++)
        r = calls[i].r;
    free(calls);
    return r;
}

POST_TEST(the_window_bounds_what_is_under_way)
{
    AUTO(taker_done) struct taker t = { 0 };
    struct mail_sub *sub;
    struct str ids[100];
    size_t acked = 0, n;
    char id[16];

    MUST(say_many(p, "s", MAIL_WINDOW + 20, e) == 0);
    MUST(listen_to(p, "s", false, &t, &sub, e) == 0);
    BECOMES(t.n == MAIL_WINDOW);
    MUST(say(p, "me", "s", "last", "last", NULL, e) == 0);
    MUST(t.n == MAIL_WINDOW);
    while (acked < MAIL_WINDOW + 21) {
        BECOMES(t.n > acked);
        for (n = 0; n < 100 && acked + n < t.n; n++)
            ids[n] = str_of(t.got[acked + n].id);
        MUST(mail_ack_many(p->m, STR("s"), ids, n, &n, e) == 0);
        acked += n;
    }
    MUST(t.n == MAIL_WINDOW + 21);
    for (int i = 0; i < MAIL_WINDOW + 20; i++) {
        fmt_z(id, sizeof(id), "%d", i);
        MUST(strcmp(t.got[i].id, id) == 0 && t.got[i].attempt == 1);
    }
    MUST(strcmp(t.got[MAIL_WINDOW + 20].id, "last") == 0);
    mail_unsubscribe(sub);
    return 0;
}

POST_TEST(what_is_not_acknowledged_comes_again_and_is_dead_in_the_end)
{
    AUTO(taker_done) struct taker t = { 0 }, me = { 0 };
    struct mail_sub *sub, *mine;
    struct mail_info info;
    struct arena a = { 0 };
    struct mail_out out;

    p->set.redeliver_first_ms = 20;
    p->set.redeliver_last_ms = 40;
    p->set.message_attempts = 3;
    MUST(listen_to(p, "s", false, &t, &sub, e) == 0);
    MUST(listen_to(p, "me", false, &me, &mine, e) == 0);
    MUST(say(p, "me", "s", "m", "poison", &out, e) == 0);
    BECOMES(me.n == 1);
    MUST(t.n == 3 && t.got[0].attempt == 1 && t.got[2].attempt == 3);
    MUST(me.got[0].notice && strstr(me.got[0].content, "agent.delivery_failed"));
    MUST(mail_get(p->m, str_of(out.workflow), &a, &info, e) == 0);
    MUST(info.status == MAIL_FAILED && info.attempts == 3 && info.error.n && info.ended_ms);
    BECOMES(me.n == 3); /* a notice that dies has no notice */
    BECOMES(row_becomes(&p->f, "SELECT status FROM agent_messages WHERE sender = 'chela'", NULL,
                        "failed"));
    MUST(row_is(&p->f, "SELECT CAST(count(*) AS TEXT) FROM agent_messages", NULL, "2"));
    p->set.redeliver_first_ms = p->set.redeliver_last_ms = 60000;
    MUST(mail_replay(p->m, STR("m"), e) == 0);
    MUST(mail_replay(p->m, STR("m"), e) == -ERR_CONFLICT);
    BECOMES(t.n == 4);
    MUST(t.got[3].attempt == 1);
    MUST(mail_drop(p->m, STR("m"), e) == 0);
    MUST(mail_drop(p->m, STR("m"), e) == -ERR_CONFLICT);
    MUST(mail_replay(p->m, STR("nope"), e) == -ERR_NOT_FOUND);
    mail_unsubscribe(sub);
    mail_unsubscribe(mine);
    arena_done(&a);
    return 0;
}

POST_TEST(subscribers_take_turns_and_inherit_from_who_leaves)
{
    AUTO(taker_done) struct taker one = { 0 }, two = { 0 };
    struct mail_sub *a, *b;
    char id[16];

    MUST(listen_to(p, "s", false, &one, &a, e) == 0);
    MUST(listen_to(p, "s", false, &two, &b, e) == 0);
    BECOMES(!a->box->behind && !a->box->rescan && !a->box->pumping);
    for (int i = 0; i < 6; i++) {
        fmt_z(id, sizeof(id), "%d", i);
        MUST(say(p, "me", "s", id, id, NULL, e) == 0);
    }
    BECOMES(one.n + two.n == 6);
    MUST(one.n == 3 && two.n == 3);
    MUST(mail_ack(p->m, STR("s"), str_of(one.got[0].id), e) == 0);
    mail_unsubscribe(a);
    BECOMES(two.n == 5);
    MUST(two.got[3].attempt == 2 && two.got[4].attempt == 2);
    MUST(atoll(two.got[3].id) < atoll(two.got[4].id));
    mail_unsubscribe(b);
    /* Nobody is left: the deliveries are counted, and whoever comes gets all five again. */
    BECOMES(row_becomes(&p->f,
                        "SELECT CAST(min(attempts) AS TEXT) FROM agent_messages"
                        " WHERE status = 'pending'",
                        NULL, "1"));
    one.n = 0;
    MUST(listen_to(p, "s", false, &one, &a, e) == 0);
    BECOMES(one.n == 5);
    for (size_t i = 1; i < 5; i++)
        MUST(atoll(one.got[i - 1].id) < atoll(one.got[i].id));
    mail_unsubscribe(a);
    return 0;
}

POST_TEST(a_choked_subscriber_is_asked_again_and_loses_nothing)
{
    AUTO(taker_done) struct taker t = { .choked = true };
    struct mail_sub *sub;

    MUST(listen_to(p, "s", false, &t, &sub, e) == 0);
    MUST(say(p, "me", "s", NULL, "1", NULL, e) == 0);
    MUST(say(p, "me", "s", NULL, "2", NULL, e) == 0);
    MUST(fiber_sleep(120, e) == 0);
    MUST(t.n == 0);
    t.choked = false;
    BECOMES(t.n == 2);
    t.choked = true;
    MUST(say(p, "me", "s", NULL, "3", NULL, e) == 0);
    t.choked = false;
    mail_sub_ready(sub);
    BECOMES(t.n == 3);
    MUST(got_all(&t, "1,2,3") && t.got[0].attempt == 1);
    mail_unsubscribe(sub);
    return 0;
}

struct waiting {
    struct post *p;
    struct mail_out out;
    char reply[64];
    int r;
    bool done;
};

static CO int wait_reply(void *arg, struct err *e)
{
    struct waiting *w = arg;
    AUTO(buf_done) struct buf out;

    buf_init(&out, KIB);
    w->r = mail_reply_wait(w->p->m, str_of(w->out.workflow), deadline_in(PATIENCE_MS), &out, e);
    fmt_z(w->reply, sizeof(w->reply), STR_FMT, STR_ARG(buf_str(&out)));
    w->done = true;
    return 0;
}

POST_TEST(a_reply_reaches_who_waits_for_it)
{
    AUTO(taker_done) struct taker t = { 0 };
    struct waiting w = { .p = p }, late = { .p = p }, gone = { .p = p };
    struct mail_sub *sub;

    MUST(listen_to(p, "s", true, &t, &sub, e) == 0);
    MUST(say(p, "me", "s", "m", "ask", &w.out, e) == 0);
    MUST(w.out.replies);
    MUST(fiber_spawn(p->m->loop, "wait", wait_reply, &w, NULL, e) == 0);
    BECOMES(t.n == 1);
    MUST(mail_ack(p->m, STR("s"), STR("m"), e) == 0); /* taken; the reply comes later */
    MUST(mail_reply(p->m, STR("s"), STR("m"), STR("answer"), e) == 0);
    BECOMES(w.done);
    MUST(w.r == 0 && strcmp(w.reply, "answer") == 0);
    MUST(mail_reply(p->m, STR("s"), STR("m"), STR("second"), e) == 0); /* the first one counts */
    late.out = w.out;
    MUST(wait_reply(&late, e) == 0);
    MUST(late.r == 0 && strcmp(late.reply, "answer") == 0);
    MUST(say(p, "me", "s", "m2", "ask", &gone.out, e) == 0);
    MUST(fiber_spawn(p->m->loop, "wait", wait_reply, &gone, NULL, e) == 0);
    BECOMES(t.n == 2);
    mail_unsubscribe(sub);
    BECOMES(gone.done);
    MUST(gone.r == MAIL_NOTHING);
    return 0;
}

POST_TEST(a_message_that_nobody_took_in_time_expires_with_a_notice)
{
    AUTO(taker_done) struct taker me = { 0 };
    const struct mail_in in = {
        .id = STR("m"), .from = STR("me"), .to = STR("s"), .content = STR("x"), .max_age_ms = 30
    };
    struct mail_info info;
    struct arena a = { 0 };
    struct mail_sub *mine;
    struct mail_out out;

    MUST(mail_send(p->m, &in, &out, e) == 0);
    MUST(listen_to(p, "me", false, &me, &mine, e) == 0);
    BECOMES(me.n == 1);
    MUST(me.got[0].notice);
    MUST(mail_get(p->m, STR("m"), &a, &info, e) == 0);
    MUST(info.status == MAIL_EXPIRED);
    MUST(mail_replay(p->m, STR("m"), e) == 0);
    mail_unsubscribe(mine);
    arena_done(&a);
    return 0;
}

POST_TEST(what_has_ended_is_forgotten_in_time)
{
    struct mail_counts counts;

    MUST(say(p, "me", "s", "m1", "x", NULL, e) == 0);
    MUST(say(p, "me", "s", "m2", "x", NULL, e) == 0);
    MUST(mail_ack(p->m, STR("s"), STR("m1"), e) == 0);
    MUST(mail_overview(p->m, &counts, e) == 0);
    MUST(counts.by_status[MAIL_PENDING] == 1 && counts.by_status[MAIL_ACKED] == 1);
    p->set.message_keep_ms = 1;
    BECOMES(mail_overview(p->m, &counts, e) == 0 && counts.by_status[MAIL_ACKED] == 0);
    MUST(counts.by_status[MAIL_PENDING] == 1);
    p->set.message_keep_ms = 3600000;
    p->set.message_keep_rows = 2;
    for (int i = 0; i < 5; i++) {
        char id[8];

        fmt_z(id, sizeof(id), "n%d", i);
        MUST(say(p, "me", "s", id, "x", NULL, e) == 0 &&
             mail_ack(p->m, STR("s"), str_of(id), e) == 0);
        MUST(fiber_sleep(2, e) == 0);
    }
    BECOMES(mail_overview(p->m, &counts, e) == 0 && counts.by_status[MAIL_ACKED] == 2);
    MUST(counts.by_status[MAIL_PENDING] == 1);
    return 0;
}
