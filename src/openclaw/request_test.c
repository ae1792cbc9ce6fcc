/* SPDX-License-Identifier: MIT */
/* Requests, turns and posts: two answers, orders, losses, keys, the breaker. */
#include "openclaw/peer_rig.h"

/* --- answers --- */

/* Takes three requests, and answers them backwards; each first by "accepted", and twice at the end.
 */
CO static int answers_backwards(struct peer *p, struct err *e)
{
    json_t *taken[3] = { 0 };
    int r, n = 0;

    r = peer_greet(p, HELLO, e);
    while (r == 0 && n < 3) {
        r = peer_take(p, e);
        if (r == 0)
            taken[n++] = json_incref(p->last);
    }
    while (r == 0 && n-- > 0) {
        AUTO(free) char *text = NULL;

        json_decref(p->last);
        p->last = taken[n];
        text = xasprintf("\"ok\":true,\"payload\":{\"you\":\"%s\"}", peer_method(p));
        r = peer_answer(p, "\"ok\":true,\"payload\":{\"status\":\"accepted\"}", e);
        if (r == 0)
            r = peer_answer(p, text, e);
        if (r == 0)
            r = peer_answer(p, text, e); /* once too often */
    }
    return r < 0 ? r : peer_linger(p, e);
}

struct ask {
    const char *method;
    int r;
    char got[100];
};

CO static int ask(void *arg, struct err *e)
{
    struct ask *a = arg;
    json_t *payload = NULL;

    a->r = oc_request(rig.client, a->method, NULL, SOON, &payload, e);
    fmt_z(a->got, sizeof(a->got), "%.99s",
          a->r == 0 ? json_string_value(json_object_get(payload, "you")) : e->msg);
    json_decref(payload);
    return 0;
}

RIG_TEST(answers_may_come_in_any_order_and_after_accepted, answers_backwards)
{
    struct ask asks[3] = { { .method = "one" }, { .method = "two" }, { .method = "three" } };
    struct fiber_group *g = fiber_group_new(fiber_loop());
    struct oc_status now;

    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    for (size_t i = 0; i < LEN(asks); i++)
        CO_CHECK(fiber_group_spawn(g, "ask", ask, &asks[i], e) == 0);
    CO_CHECK(fiber_group_join(g, e) == 0);
    for (size_t i = 0; i < LEN(asks); i++)
        CO_CHECK(asks[i].r == 0 && strcmp(asks[i].got, asks[i].method) == 0);
    oc_status(rig.client, &now);
    CO_CHECK(now.pending == 0);
    fiber_group_free(g);
    return 0;
}

/* Refuses by a code that is the method's name. */
CO static int refuses(struct peer *p, struct err *e)
{
    int r;

    r = peer_greet(p, HELLO, e);
    while (r == 0 && (r = peer_take(p, e)) == 0) {
        AUTO(free) char *text = NULL;

        text = xasprintf("\"ok\":false,\"error\":{\"code\":\"%s\",\"message\":\"no\"}",
                         peer_method(p));
        r = peer_answer(p, text, e);
    }
    return r == WS_CLOSED ? 0 : r;
}

RIG_TEST(a_refusal_has_the_code_that_fits_and_the_peers_words, refuses)
{
    static const struct {
        const char *name;
        enum err_code code;
    } rows[] = {
        { "INVALID_REQUEST", ERR_INVALID },   { "UNAVAILABLE", ERR_UNAVAILABLE },
        { "NOT_PAIRED", ERR_UNAUTHORIZED },   { "FORBIDDEN", ERR_FORBIDDEN },
        { "NOT_FOUND", ERR_NOT_FOUND },       { "AGENT_TIMEOUT", ERR_TIMEOUT },
        { "SOMETHING_NEW", ERR_UNAVAILABLE },
    };
    struct err why;

    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    for (size_t i = 0; i < LEN(rows); i++) {
        CO_CHECK(oc_request(rig.client, rows[i].name, NULL, SOON, NULL, &why) ==
                 -(int)rows[i].code);
        CO_CHECK(strstr(why.msg, ": no"));
    }
    CO_CHECK(!rig.client->breaker.open); /* answers are no failures of the transport */
    return 0;
}

CO static int answers_nothing(struct peer *p, struct err *e)
{
    int r;

    r = peer_greet(p, HELLO, e);
    return r < 0 ? r : peer_linger(p, e);
}

RIG_TEST(requests_without_an_answer_time_out_and_open_the_breaker, answers_nothing)
{
    struct oc_status now;
    struct err why;

    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    for (int i = 0; i < OC_BREAK_AFTER; i++) {
        CO_CHECK(!rig.client->breaker.open);
        CO_CHECK(oc_request(rig.client, "x", NULL, deadline_in(10), NULL, &why) == -ERR_TIMEOUT);
    }
    CO_CHECK(oc_request(rig.client, "x", NULL, SOON, NULL, &why) == -ERR_UNAVAILABLE);
    CO_CHECK(strstr(why.msg, "in a row"));
    oc_status(rig.client, &now);
    CO_CHECK(now.breaker_open && now.pending == 0);
    return 0;
}

RIG_TEST(a_request_larger_than_the_peer_takes_is_refused_here, answers_nothing)
{
    AUTO(json_decref) json_t *params = json_object();
    AUTO(free) char *text = xcalloc(1, 2 * MIB);

    memset(text, 'a', 2 * MIB - 1);
    json_object_set_new(params, "x", json_string(text));
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    CO_CHECK(oc_request(rig.client, "x", params, SOON, NULL, e) == -ERR_LIMIT);
    CO_CHECK(rig.client->calls.n == 0 && rig.client->state == OC_CONNECTED);
    return 0;
}

RIG_TEST(so_many_requests_may_be_under_way_and_no_more, answers_nothing)
{
    struct fiber_group *g = fiber_group_new(fiber_loop());
    struct ask *asks = xcalloc(OC_PENDING_MAX, sizeof(*asks));
    struct err why;

    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    for (unsigned i = 0; i < OC_PENDING_MAX; i++) {
        asks[i].method = "x";
        CO_CHECK(fiber_group_spawn(g, "ask", ask, &asks[i], e) == 0);
    }
    UNTIL(rig.client->calls.n == OC_PENDING_MAX);
    CO_CHECK(oc_request(rig.client, "x", NULL, SOON, NULL, &why) == -ERR_LIMIT);
    oc_stop(rig.client); /* all of them fail */
    CO_CHECK(fiber_group_join(g, e) == 0);
    for (unsigned i = 0; i < OC_PENDING_MAX; i++)
        CO_CHECK(asks[i].r == -ERR_UNAVAILABLE && strstr(asks[i].got, "lost"));
    CO_CHECK(rig.client->calls.n == 0);
    fiber_group_free(g);
    free(asks);
    return 0;
}

RIG_TEST(a_request_of_a_fiber_that_is_canceled_leaves_its_slot, answers_nothing)
{
    struct ask one = { .method = "x" };
    struct fiber *f;

    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "ask", ask, &one, &f, e) == 0);
    UNTIL(rig.client->calls.n == 1);
    fiber_cancel(f);
    CO_CHECK(fiber_join(f, e) == 0);
    CO_CHECK(one.r == -ERR_CANCELED && rig.client->calls.n == 0);
    return 0;
}

RIG_TEST(a_request_without_a_connection_fails_at_once, answers_nothing)
{
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_request(rig.client, "x", NULL, SOON, NULL, e) == -ERR_UNAVAILABLE);
    return 0;
}

/* --- turns --- */

#define RESULT \
    "\"ok\":true,\"payload\":{\"runId\":\"k\",\"status\":\"ok\",\"result\":{\"payloads\":[{" \
    "\"text\":\"one\"},{\"mediaUrl\":\"x\"},{\"text\":\"two\"}]}}"

static unsigned turns_begun, turns_asked;
static char turn_seen[300];

/* The first connection is lost in the middle of the turn; then it is in flight twice, accepted once
 * without a result, and done. */
CO static int loses_a_turn(struct peer *p, struct err *e)
{
    AUTO(free) char *text = NULL;
    int r;

    r = peer_greet(p, HELLO, e);
    while (r == 0) {
        r = peer_take(p, e);
        if (r != 0)
            break;
        turns_asked++;
        if (!str_eq_z(json_member_str(json_object_get(p->last, "params"), "idempotencyKey"), "k-1"))
            return err_set(e, ERR_INVALID, "another key");
        if (p->number == 1) {
            text = json_dumps(json_object_get(p->last, "params"), JSON_COMPACT | JSON_SORT_KEYS);
            fmt_z(turn_seen, sizeof(turn_seen), "%.299s", text);
            turns_begun++;
            r = peer_answer(p, "\"ok\":true,\"payload\":{\"status\":\"accepted\"}", e);
            return r < 0 ? r : PEER_RESET;
        }
        if (turns_asked < 4)
            r = peer_answer(p, "\"ok\":true,\"payload\":{\"status\":\"in_flight\"}", e);
        else if (turns_asked == 4)
            r = peer_answer(p, "\"ok\":true,\"payload\":{\"status\":\"accepted\"}", e);
        else
            r = peer_answer(p, RESULT, e);
    }
    return r == WS_CLOSED ? 0 : r;
}

RIG_TEST(a_turn_is_sent_again_under_its_key_until_its_result_is_there, loses_a_turn)
{
    const struct oc_turn turn = { STR("agent:a:main"), STR("do it"), STR("k-1"), "a",
                                  "be brief",          true };
    struct oc_status now;
    struct buf out;

    turns_begun = turns_asked = 0;
    buf_init(&out, 1024);
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_turn(rig.client, &turn, deadline_in(19500), &out, e) == 0);
    CO_CHECK(str_eq_z(buf_str(&out), "one\ntwo"));
    CO_CHECK(turns_begun == 1 && turns_asked == 5 && rig.connections == 2);
    CO_CHECK(strcmp(turn_seen,
                    "{\"agentId\":\"a\",\"deliver\":true,\"extraSystemPrompt\":\"be brief\","
                    "\"idempotencyKey\":\"k-1\",\"message\":\"do it\",\"sessionKey\":"
                    "\"agent:a:main\",\"timeout\":20}") == 0);
    oc_status(rig.client, &now);
    CO_CHECK(now.n_history == 1 && strcmp(now.history[0].status, "success") == 0);
    CO_CHECK(strcmp(now.history[0].command, "agent_turn") == 0);
    CO_CHECK(strcmp(now.history[0].session, "agent:a:main") == 0);
    buf_done(&out);
    return 0;
}

/* The model fails: "accepted", and then an error. */
CO static int fails_turns(struct peer *p, struct err *e)
{
    int r;

    r = peer_greet(p, HELLO, e);
    while (r == 0 && (r = peer_take(p, e)) == 0) {
        turns_asked++;
        r = peer_answer(p, "\"ok\":true,\"payload\":{\"status\":\"accepted\"}", e);
        if (r == 0)
            r = peer_answer(p,
                            "\"ok\":false,\"payload\":{\"status\":\"error\"},\"error\":{\"code\":"
                            "\"UNAVAILABLE\",\"message\":\"the model is away\"}",
                            e);
    }
    return r == WS_CLOSED ? 0 : r;
}

RIG_TEST(a_turn_that_fails_is_not_sent_again, fails_turns)
{
    const struct oc_turn turn = { STR("s"), STR("m"), STR("k"), NULL, NULL, false };
    struct oc_status now;
    struct buf out;

    turns_asked = 0;
    buf_init(&out, 1024);
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_turn(rig.client, &turn, SOON, &out, e) == -ERR_UNAVAILABLE);
    CO_CHECK(strcmp(e->msg, "agent: the model is away") == 0);
    CO_CHECK(turns_asked == 1 && out.n == 0);
    oc_status(rig.client, &now);
    CO_CHECK(strcmp(now.history[0].status, "failed") == 0);
    buf_done(&out);
    return 0;
}

/* Knows no channel for the session. */
CO static int cannot_deliver(struct peer *p, struct err *e)
{
    int r;

    r = peer_greet(p, HELLO, e);
    while (r == 0 && (r = peer_take(p, e)) == 0) {
        turns_asked++;
        r = peer_answer(p,
                        peer_param(p, "deliver")
                            ? "\"ok\":false,\"error\":{\"code\":\"INVALID_REQUEST\",\"message\":"
                              "\"Error: Delivering to Telegram requires target\"}"
                            : RESULT,
                        e);
    }
    return r == WS_CLOSED ? 0 : r;
}

RIG_TEST(a_turn_in_a_session_without_a_channel_is_not_delivered, cannot_deliver)
{
    const struct oc_turn turn = { STR("s"), STR("m"), STR("k"), NULL, NULL, true };
    struct buf out;

    turns_asked = 0;
    buf_init(&out, 1024);
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_turn(rig.client, &turn, SOON, &out, e) == 0);
    CO_CHECK(str_eq_z(buf_str(&out), "one\ntwo") && turns_asked == 2);
    buf_done(&out);
    return 0;
}

RIG_TEST(a_turn_ends_at_its_deadline, answers_nothing)
{
    const struct oc_turn turn = { STR("s"), STR("m"), STR("k"), NULL, NULL, false };
    const struct oc_turn bad = { STR("s"), STR("\xff"), STR("k"), NULL, NULL, false };
    struct buf out;

    buf_init(&out, 1024);
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_turn(rig.client, &turn, deadline_in(100), &out, e) == -ERR_TIMEOUT);
    CO_CHECK(oc_turn(rig.client, &bad, SOON, &out, e) == -ERR_INVALID);
    rig_close(); /* and where nobody is there any more */
    UNTIL(rig.client->state == OC_RECONNECTING);
    CO_CHECK(oc_turn(rig.client, &turn, deadline_in(100), &out, e) == -ERR_UNAVAILABLE);
    buf_done(&out);
    return 0;
}

/* --- posts --- */

CO static int takes_posts(struct peer *p, struct err *e)
{
    struct str to;
    int r;

    r = peer_greet(p, HELLO, e);
    while (r == 0 && (r = peer_take(p, e)) == 0) {
        to = json_member_str(json_object_get(p->last, "params"), "to");
        if (strcmp(peer_method(p), "sessions.list") == 0) { /* it may look, and finds nothing */
            r = peer_answer(p, "\"ok\":true,\"payload\":{\"sessions\":[]}", e);
            continue;
        }
        turns_asked++;
        if (strcmp(peer_method(p), "send") != 0)
            r = err_set(e, ERR_INVALID, "%s", peer_method(p));
        else if (str_eq_z(to, "text"))
            r = peer_answer(p, "\"ok\":true,\"payload\":{\"messageId\":\"abc\"}", e);
        else if (str_eq_z(to, "number"))
            r = peer_answer(p, "\"ok\":true,\"payload\":{\"messageId\":77}", e);
        else if (str_eq_z(to, "none"))
            r = peer_answer(p, "\"ok\":true,\"payload\":{}", e);
        else if (str_eq_z(to, "queued"))
            r = peer_answer(p,
                            "\"ok\":false,\"error\":{\"code\":\"UNAVAILABLE\",\"message\":\"later\""
                            ",\"details\":{\"code\":\"OUTBOUND_DELIVERY_QUEUED\"}}",
                            e);
        else if (str_eq_z(to, "busy") && turns_asked % 2)
            r = peer_answer(p,
                            "\"ok\":false,\"error\":{\"code\":\"UNAVAILABLE\",\"message\":\"busy\","
                            "\"retryable\":true,\"retryAfterMs\":10}",
                            e);
        else if (str_eq_z(to, "busy"))
            r = peer_answer(p, "\"ok\":true,\"payload\":{\"messageId\":\"at last\"}", e);
        else
            r = peer_answer(
                p, "\"ok\":false,\"error\":{\"code\":\"UNAVAILABLE\",\"message\":\"no\"}", e);
    }
    return r == WS_CLOSED ? 0 : r;
}

RIG_TEST(posts_have_their_ids_and_what_the_peer_queues_is_sent, takes_posts)
{
    static const struct {
        const char *to;
        int r;
        const char *id;
    } rows[] = {
        { "text", 0, "abc" },  { "number", 0, "77" },    { "none", 0, NULL },
        { "queued", 0, NULL }, { "busy", 0, "at last" }, { "nobody", -ERR_UNAVAILABLE, NULL },
    };
    struct oc_status now;

    turns_asked = 0;
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    for (size_t i = 0; i < LEN(rows); i++) {
        const struct oc_post post = { STR("telegram"), str_of(rows[i].to), STR("hi"), STR("k"),
                                      NULL };
        struct arena a = { 0 };
        const char *id = "unset";

        CO_CHECK(oc_post(rig.client, &post, SOON, &a, &id, e) == rows[i].r);
        if (rows[i].r == 0)
            CO_CHECK(rows[i].id ? id && strcmp(id, rows[i].id) == 0 : !id);
        arena_done(&a);
    }
    oc_status(rig.client, &now);
    CO_CHECK(now.n_history == LEN(rows));
    CO_CHECK(strcmp(now.history[0].session, "telegram:nobody") == 0);
    CO_CHECK(strcmp(now.history[0].status, "failed") == 0);
    CO_CHECK(strcmp(now.history[1].status, "success") == 0);
    return 0;
}

CO static int asks_for_ages(struct peer *p, struct err *e)
{
    int r = peer_greet(p, HELLO, e);

    while (r == 0 && (r = peer_take(p, e)) == 0)
        r = peer_answer(p,
                        "\"ok\":false,\"error\":{\"code\":\"UNAVAILABLE\",\"message\":\"busy\","
                        "\"retryable\":true,\"retryAfterMs\":1000000000000000}",
                        e);
    return r == WS_CLOSED ? 0 : r;
}

/* Without the bound this waits for 30,000 years. */
RIG_TEST(a_peer_that_asks_for_ages_does_not_move_the_deadline, asks_for_ages)
{
    const struct oc_post post = { STR("telegram"), STR("x"), STR("hi"), STR("k"), NULL };
    struct arena a = { 0 };
    const char *id;

    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    CO_CHECK(oc_post(rig.client, &post, deadline_in(300), &a, &id, e) < 0);
    CO_CHECK(strstr(e->msg, "busy") != NULL);
    arena_done(&a);
    return 0;
}

/* Dies after it has sent; its successor has the text in the transcript, if the test says so. */
static bool written_down;
static unsigned sends, looks;

CO static int dies_with_its_keys(struct peer *p, struct err *e)
{
    int r;

    r = peer_greet(p, HELLO, e);
    while (r == 0 && (r = peer_take(p, e)) == 0) {
        if (strcmp(peer_method(p), "send") == 0) {
            sends++;
            if (p->number == 1)
                return PEER_RESET;
            r = peer_answer(p, "\"ok\":true,\"payload\":{\"messageId\":\"2\"}", e);
        } else if (strcmp(peer_method(p), "sessions.list") == 0) {
            r = peer_answer(
                p,
                "\"ok\":true,\"payload\":{\"sessions\":[{\"key\":\"other\",\"origin\":"
                "{\"provider\":\"telegram\",\"to\":\"telegram:155\"}},{\"key\":\"this\","
                "\"deliveryContext\":{\"channel\":\"telegram\",\"to\":"
                "\"telegram:55\"}}]}",
                e);
        } else {
            looks++;
            if (!str_eq_z(json_member_str(json_object_get(p->last, "params"), "sessionKey"),
                          "this"))
                return err_set(e, ERR_INVALID, "another session");
            r = peer_answer(p,
                            written_down
                                ? "\"ok\":true,\"payload\":{\"messages\":[{\"role\":\"user\""
                                  "},{\"role\":\"assistant\",\"idempotencyKey\":\"k-9\"}]}"
                                : "\"ok\":true,\"payload\":{\"messages\":[]}",
                            e);
        }
    }
    return r == WS_CLOSED ? 0 : r;
}

CO static int post_over_a_death(bool written, const char **ret_id, struct arena *a, struct err *e)
{
    const struct oc_post post = {
        .channel = STR("telegram"), .to = STR("55"), .message = STR("hi"), .key = STR("k-9")
    };
    int r;

    written_down = written;
    sends = looks = 0;
    r = rig_client("t", NULL, e);
    if (r == 0)
        r = oc_start(rig.client, e);
    return r < 0 ? r : oc_post(rig.client, &post, SOON, a, ret_id, e);
}

RIG_TEST(a_post_that_a_dead_gateway_has_sent_is_not_sent_again, dies_with_its_keys)
{
    struct arena a = { 0 };
    const char *id = "unset";

    CO_CHECK(post_over_a_death(true, &id, &a, e) == 0);
    CO_CHECK(sends == 1 && looks == 1 && !id);
    arena_done(&a);
    return 0;
}

RIG_TEST(a_post_that_died_with_its_gateway_is_sent_again, dies_with_its_keys)
{
    struct arena a = { 0 };
    const char *id = NULL;

    CO_CHECK(post_over_a_death(false, &id, &a, e) == 0);
    CO_CHECK(sends == 2 && looks == 1 && strcmp(id, "2") == 0);
    arena_done(&a);
    return 0;
}

RIG_TEST(the_history_keeps_the_last_commands_and_cuts_them_between_characters, takes_posts)
{
    char text[400];
    struct oc_status now;

    text[0] = 'a';
    for (int i = 0; i < 130; i++)
        memcpy(text + 1 + 3 * i, "\xe2\x82\xac", 4);
    CO_CHECK(rig_client("t", NULL, e) == 0);
    for (int i = 0; i < OC_HISTORY + 3; i++)
        oc_history_end(rig.client,
                       oc_history_add(rig.client, "send_message", STR("s"), str_of(text + i % 2)),
                       i % 3 == 0);
    oc_status(rig.client, &now);
    CO_CHECK(now.n_history == OC_HISTORY);
    CO_CHECK(strlen(now.history[0].message) == 253 && strlen(now.history[1].message) == 255);
    CO_CHECK(strcmp(now.history[0].status, "success") == 0);
    CO_CHECK(strcmp(now.history[1].status, "failed") == 0);
    return 0;
}
