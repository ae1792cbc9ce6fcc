/* SPDX-License-Identifier: MIT */
/*
 * swarm/mail_wide_test.c — messages beyond one consumer: drivers, the workflow, many senders,
 * processes that end and begin, two of them on one PostgreSQL, a database that goes away.
 */
#include "swarm/mail_fixture.h"

/* --- drivers --- */

static struct {
    unsigned calls, fail, busy, most;
    int code;
    bool hold;
    char said[512];
} drive;

static bool drives(struct str session, void *arg)
{
    return str_starts(session, STR("chan:"));
}

static CO int drive_one(const struct mail_push *push, void *arg, struct buf *out, struct err *e)
{
    size_t n = strlen(drive.said);
    int r = 0;

    drive.calls++;
    drive.busy++;
    drive.most = drive.busy > drive.most ? drive.busy : drive.most;
    while (r == 0 && drive.hold)
        r = fiber_sleep(2, e);
    drive.busy--;
    if (r < 0)
        return r;
    if (drive.fail) {
        drive.fail--;
        return err_set(e, (enum err_code)drive.code, "not now");
    }
    fmt_z(drive.said + n, sizeof(drive.said) - n, "%s" STR_FMT, n ? "," : "",
          STR_ARG(push->content));
    return buf_add_z(out, "done", e);
}

static const struct mail_driver test_driver = {
    .name = "test", .takes = drives, .deliver = drive_one, .fibers = 4
};

static void begin_drive(struct post *p)
{
    memset(&drive, 0, sizeof(drive));
    p->set.redeliver_first_ms = 20;
    p->set.redeliver_last_ms = 40;
}

POST_TEST(a_driver_delivers_in_order_what_waited_and_what_comes)
{
    struct mail_out out;

    begin_drive(p);
    MUST(say(p, "me", "chan:1", NULL, "1", NULL, e) == 0);
    MUST(say(p, "me", "chan:1", NULL, "2", &out, e) == 0 && !out.live);
    MUST(mail_drive(p->m, &test_driver, e) == 0);
    BECOMES(drive.calls == 2);
    MUST(say(p, "me", "chan:1", "m3", "3", &out, e) == 0 && out.live && out.replies);
    MUST(say(p, "me", "else", NULL, "4", &out, e) == 0 && !out.live);
    BECOMES(drive.calls == 3);
    MUST(strcmp(drive.said, "1,2,3") == 0);
    MUST(row_becomes(&p->f, "SELECT response FROM agent_messages WHERE message_id = 'm3'", NULL,
                     "done"));
    return 0;
}

POST_TEST(a_driver_tries_again_and_holds_the_order)
{
    begin_drive(p);
    drive.fail = 3;
    drive.code = ERR_UNAVAILABLE;
    MUST(mail_drive(p->m, &test_driver, e) == 0);
    MUST(say(p, "me", "chan:1", NULL, "1", NULL, e) == 0);
    MUST(say(p, "me", "chan:1", NULL, "2", NULL, e) == 0);
    BECOMES(strcmp(drive.said, "1,2") == 0);
    MUST(drive.calls == 5 && drive.most == 1);
    MUST(row_becomes(&p->f, "SELECT CAST(attempts AS TEXT) FROM agent_messages WHERE content = '1'",
                     NULL, "3"));
    return 0;
}

POST_TEST(what_a_driver_refuses_is_dead_with_a_notice)
{
    AUTO(taker_done) struct taker me = { 0 };
    struct mail_sub *mine;

    begin_drive(p);
    drive.fail = 1;
    drive.code = ERR_INVALID;
    MUST(listen_to(p, "me", false, &me, &mine, e) == 0);
    MUST(mail_drive(p->m, &test_driver, e) == 0);
    MUST(say(p, "me", "chan:1", "bad", "1", NULL, e) == 0);
    MUST(say(p, "me", "chan:1", NULL, "2", NULL, e) == 0);
    BECOMES(me.n >= 1 && strcmp(drive.said, "2") == 0);
    MUST(me.got[0].notice);
    MUST(row_is(&p->f, "SELECT status || ' ' || error FROM agent_messages WHERE message_id = ?1",
                "bad", "failed not now"));
    mail_unsubscribe(mine);
    return 0;
}

POST_TEST(a_subscriber_comes_before_a_driver)
{
    AUTO(taker_done) struct taker t = { 0 };
    struct mail_sub *sub;

    begin_drive(p);
    p->set.redeliver_first_ms = p->set.redeliver_last_ms = 60000;
    drive.hold = true;
    MUST(mail_drive(p->m, &test_driver, e) == 0);
    MUST(say(p, "me", "chan:1", NULL, "1", NULL, e) == 0);
    BECOMES(drive.busy == 1);
    MUST(listen_to(p, "chan:1", false, &t, &sub, e) == 0);
    MUST(say(p, "me", "chan:1", "m2", "2", NULL, e) == 0);
    BECOMES(t.n == 1); /* the first one is with the driver */
    MUST(strcmp(t.got[0].content, "2") == 0);
    drive.hold = false;
    BECOMES(drive.busy == 0);
    MUST(row_becomes(&p->f, "SELECT status FROM agent_messages WHERE content = '1'", NULL,
                     "acknowledged"));
    MUST(t.n == 1 && drive.calls == 1);
    mail_unsubscribe(sub); /* what it did not acknowledge is the driver's now */
    BECOMES(drive.calls == 2);
    MUST(strcmp(drive.said, "1,2") == 0);
    return 0;
}

/* --- the workflow --- */

struct reply_call {
    struct post *p;
    struct taker *t;
};

static CO int reply_soon(void *arg, struct err *e)
{
    struct reply_call *call = arg;

    while (call->t->n == 0) {
        if (fiber_sleep(2, e) < 0)
            return -ERR_CANCELED;
    }
    return mail_reply(call->p->m, STR("s"), STR("i"), STR("pong"), e);
}

static CO int route_one(struct post *p, const char *id, const char *args, enum durable_status *ret,
                        struct buf *out, struct err *e)
{
    const struct durable_start start = {
        .name = "routeAgentMessage",
        .class_name = "AgentMessageWorkflow",
        .id = str_of(id),
        .args = str_of(args),
    };
    struct durable_started started;
    int r = durable_start(p->f.d, &start, &started, e);

    buf_clear(out);
    return r < 0 ? r : durable_await(p->f.d, str_of(id), deadline_in(PATIENCE_MS), ret, out, e);
}

POST_TEST(the_workflow_sends_and_tells_the_reply)
{
    AUTO(taker_done) struct taker t = { 0 };
    AUTO(buf_done) struct buf out = { 0 };
    struct reply_call call = { p, &t };
    enum durable_status status;
    struct mail_sub *sub;
    struct arena a = { 0 };
    json_t *j;

    buf_init(&out, 64 * KIB);
    MUST(route_one(p, "w0", "[{\"id\":\"i\",\"from\":\"me\",\"to\":\"s\"}]", &status, &out, e) ==
         0);
    MUST(status == DURABLE_ERROR);
    MUST(strstr(buf_str(&out).p, "Invalid message: missing required fields"));
    MUST(listen_to(p, "s", true, &t, &sub, e) == 0);
    MUST(fiber_spawn(p->m->loop, "reply", reply_soon, &call, NULL, e) == 0);
    MUST(route_one(p, "w1",
                   "[{\"id\":\"i\",\"from\":\"me\",\"to\":\"s\",\"content\":\"ping\","
                   "\"metadata\":{\"a\":1}}]",
                   &status, &out, e) == 0);
    MUST(status == DURABLE_SUCCESS);
    MUST(json_parse(buf_str(&out), 8, &a, &j, NULL, e) == 0);
    MUST(str_eq_z(json_member_str(j, "messageId"), "i"));
    MUST(str_eq_z(json_member_str(j, "status"), "delivered"));
    MUST(str_eq_z(json_member_str(j, "response"), "pong"));
    MUST(json_integer_value(json_object_get(j, "deliveryAttempts")) == 1);
    MUST(json_integer_value(json_object_get(j, "lastAttemptTime")) > 1600000000000);
    MUST(row_is(&p->f,
                "SELECT CAST(count(*) AS TEXT) FROM dbos.operation_outputs"
                " WHERE workflow_uuid = 'w1'",
                NULL, "3"));
    MUST(t.n == 1);
    /* Said by another workflow it is the same message; the reply is known. */
    MUST(route_one(p, "w2", "[{\"id\":\"i\",\"from\":\"me\",\"to\":\"s\",\"content\":\"ping\"}]",
                   &status, &out, e) == 0);
    MUST(status == DURABLE_SUCCESS && strstr(buf_str(&out).p, "pong") && t.n == 1);
    MUST(route_one(p, "w3", "[{\"id\":\"i\",\"from\":\"me\",\"to\":\"s\",\"content\":\"no\"}]",
                   &status, &out, e) == 0);
    MUST(status == DURABLE_ERROR && t.n == 1);
    mail_unsubscribe(sub);
    arena_done(&a);
    return 0;
}

/* --- many --- */

#define SENDERS 64
#define EACH    10

struct sender {
    struct post *p;
    int number, sent;
    unsigned *left;
    enum err_code failed;
};

static CO int send_many(void *arg, struct err *e)
{
    struct sender *s = arg;

    for (int i = 0; i < EACH; i++) {
        char from[16], id[32];
        int r;

        fmt_z(from, sizeof(from), "from%d", s->number);
        fmt_z(id, sizeof(id), "%d-%d", s->number, i);
        do {
            r = say(s->p, from, "s", id, id, NULL, e);
        } while (r == -ERR_UNAVAILABLE && fiber_sleep(20, e) == 0);
        if (r < 0) {
            s->failed = e->code;
            printf("# %s\n", e->msg);
            break;
        }
        s->sent++;
    }
    (*s->left)--;
    return 0;
}

static CO int spawn_senders(struct post *p, struct sender *senders, unsigned *left, struct err *e)
{
    *left = SENDERS;
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){ .p = p, .number = i, .left = left };
        if (fiber_spawn(p->m->loop, "sender", send_many, &senders[i], NULL, e) < 0)
            return -ERR_LIMIT;
    }
    return 0;
}

/* Each sender's messages came in its order, the first time they came. */
static bool in_order(const struct taker *t)
{
    int next[SENDERS] = { 0 };

    for (size_t i = 0; i < t->n; i++) {
        int from = 0, n = 0;

        if (sscanf(t->got[i].content, "%d-%d", &from, &n) != 2 || from >= SENDERS)
            return false;
        if (n == next[from])
            next[from]++;
        else if (n > next[from])
            return false;
    }
    for (int i = 0; i < SENDERS; i++) {
        if (next[i] != EACH)
            return false;
    }
    return true;
}

static CO int ack_all(struct post *p, struct taker *t, size_t *done, struct err *e)
{
    struct str ids[100];
    size_t n, acked;
    int r = 0;

    while (r == 0 && *done < t->n) {
        for (n = 0; n < LEN(ids) && *done + n < t->n; n++)
            ids[n] = str_of(t->got[*done + n].workflow);
        r = mail_ack_many(p->m, STR("s"), ids, n, &acked, e);
        if (r == 0)
            *done += n;
    }
    return r;
}

POST_TEST(many_senders_are_all_heard_in_their_order)
{
    AUTO(taker_done) struct taker t = { 0 };
    struct sender senders[SENDERS];
    struct mail_sub *sub;
    unsigned left;
    size_t acked = 0;

    MUST(listen_to(p, "s", false, &t, &sub, e) == 0);
    MUST(spawn_senders(p, senders, &left, e) == 0);
    while (acked < SENDERS * EACH) {
        BECOMES(t.n > acked);
        MUST(ack_all(p, &t, &acked, e) == 0);
    }
    BECOMES(left == 0);
    MUST(t.n == SENDERS * EACH && in_order(&t));
    MUST(row_is(&p->f,
                "SELECT CAST(count(*) AS TEXT) FROM agent_messages"
                " WHERE status = 'acknowledged'",
                NULL, "640"));
    mail_unsubscribe(sub);
    return 0;
}

/* --- processes --- */

POST_TEST(what_was_accepted_outlives_the_process)
{
    AUTO(taker_done) struct taker t = { 0 };
    struct fixture *store = p->f.store;
    struct mail_sub *sub;

    MUST(say(p, "me", "s", NULL, "1", NULL, e) == 0);
    MUST(say(p, "me", "s", "m2", "2", NULL, e) == 0);
    MUST(say(p, "me", "s", NULL, "3", NULL, e) == 0);
    MUST(mail_ack(p->m, STR("s"), STR("m2"), e) == 0);
    post_down(p);
    memset(&p->s, 0, sizeof(p->s));
    MUST(post_up(p, store, "test", e) == 0);
    MUST(say(p, "me", "s", NULL, "4", NULL, e) == 0);
    MUST(listen_to(p, "s", false, &t, &sub, e) == 0);
    BECOMES(t.n == 3);
    MUST(got_all(&t, "1,3,4"));
    mail_unsubscribe(sub);
    return 0;
}

static CO int two_processes(struct post *p, struct post *q, struct err *e)
{
    AUTO(taker_done) struct taker t = { 0 };
    AUTO(buf_done) struct buf reply = { 0 };
    struct mail_sub *sub;
    struct mail_out out;

    buf_init(&reply, KIB);
    MUST(listen_to(q, "s", true, &t, &sub, e) == 0);
    MUST(say(p, "me", "s", NULL, "1", NULL, e) == 0);
    BECOMES(t.n == 1);
    MUST(say(q, "me", "s", NULL, "2", NULL, e) == 0);
    MUST(say(p, "me", "s", NULL, "3", &out, e) == 0);
    BECOMES(t.n == 3);
    MUST(mail_ack(p->m, STR("s"), str_of(t.got[0].workflow), e) == 0); /* by the other process */
    MUST(mail_reply(q->m, STR("s"), str_of(out.workflow), STR("yes"), e) == 0);
    MUST(mail_reply_wait(p->m, str_of(out.workflow), deadline_in(PATIENCE_MS), &reply, e) == 0);
    MUST(str_eq_z(buf_str(&reply), "yes"));
    mail_unsubscribe(sub);
    t.n = 0;
    MUST(listen_to(p, "s", false, &t, &sub, e) == 0);
    BECOMES(t.n == 1);
    MUST(got_all(&t, "2"));
    mail_unsubscribe(sub);
    return 0;
}

POST_TEST(two_processes_on_one_database_reach_each_others_subscribers)
{
    struct post *q;
    int r;

    if (!p->s.pg)
        return 0; /* SQLite has one */
    q = xcalloc(1, sizeof(*q));
    post_settings(&q->set);
    r = post_up(q, p->f.store, "other", e);
    if (r == 0)
        r = two_processes(p, q, e);
    if (q->m)
        post_down(q);
    free(q);
    return r;
}

/* --- the database goes away --- */

static CO int server(struct fixture *f, const char *what)
{
    const char *const argv[] = { getenv("CHELA_TEST_PG_CTL"), what, NULL };

    return argv[0] ? fixture_program(argv) : -1;
}

POST_TEST(nothing_is_lost_or_doubled_when_the_database_is_killed_under_senders)
{
    AUTO(taker_done) struct taker t = { 0 };
    struct sender senders[SENDERS];
    struct mail_sub *sub;
    unsigned left;
    size_t acked = 0;

    if (!p->s.pg || !getenv("CHELA_TEST_PG_CTL"))
        return 0; /* SQLite is not a server */
    p->set.redeliver_first_ms = 500;
    p->set.redeliver_last_ms = 500;
    MUST(listen_to(p, "s", false, &t, &sub, e) == 0);
    MUST(spawn_senders(p, senders, &left, e) == 0);
    BECOMES(t.n > 20);
    MUST(server(p->f.store, "kill") == 0);
    MUST(server(p->f.store, "start") == 0);
    for (uint64_t until = deadline_in(PATIENCE_MS); now_ms() < until;) {
        if (ack_all(p, &t, &acked, e) < 0)
            MUST(e->code == ERR_UNAVAILABLE || e->code == ERR_NOT_FOUND);
        if (left == 0 && row_is(&p->f,
                                "SELECT CAST(count(*) AS TEXT) FROM agent_messages"
                                " WHERE status = 'acknowledged'",
                                NULL, "640"))
            break;
        MUST(fiber_sleep(20, e) == 0);
    }
    for (int i = 0; i < SENDERS; i++)
        MUST(senders[i].sent == EACH && !senders[i].failed);
    MUST(row_is(&p->f,
                "SELECT count(*) || ' ' || count(DISTINCT content) FROM agent_messages"
                " WHERE status = 'acknowledged'",
                NULL, "640 640"));
    mail_unsubscribe(sub);
    return 0;
}
