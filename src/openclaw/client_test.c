/* SPDX-License-Identifier: MIT */
/* The client against scripted gateways: handshakes, losses, refusals, strange bytes. */
#include <malloc.h>

#include "openclaw/peer_rig.h"

/* --- handshakes --- */

static char shaken[400]; /* what the peer saw of connect */

CO static int greets(struct peer *p, struct err *e)
{
    AUTO(free) char *text = NULL;
    int r;

    r = peer_say(p, CHALLENGE, e);
    if (r == 0)
        r = peer_take(p, e);
    if (r < 0)
        return r;
    text = json_dumps(json_object_get(p->last, "params"), JSON_COMPACT | JSON_SORT_KEYS);
    fmt_z(shaken, sizeof(shaken), "%.399s", text);
    r = peer_answer(p, HELLO, e);
    if (r == 0)
        r = peer_take(p, e);
    if (r == 0 && strcmp(peer_method(p), "sessions.subscribe") != 0)
        return err_set(e, ERR_INVALID, "no subscription but %s", peer_method(p));
    if (r == 0)
        r = peer_answer(p, "\"ok\":true,\"payload\":{}", e);
    return r < 0 ? r : peer_linger(p, e);
}

RIG_TEST(a_handshake_asks_for_protocols_3_to_4_as_a_backend_and_subscribes, greets)
{
    struct oc_status now;

    CO_CHECK(rig_client("secret", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    CO_CHECK(strcmp(shaken,
                    "{\"auth\":{\"token\":\"secret\"},\"caps\":[],\"client\":{\"displayName\":"
                    "\"chela\",\"id\":\"gateway-client\",\"mode\":\"backend\",\"platform\":"
                    "\"linux\",\"version\":\"" CHELA_VERSION "\"},\"maxProtocol\":4,"
                    "\"minProtocol\":3,\"role\":\"operator\",\"scopes\":[\"operator.read\","
                    "\"operator.write\"]}") == 0);
    oc_status(rig.client, &now);
    CO_CHECK(now.state == OC_CONNECTED && now.protocol == 4 && !now.last_error);
    CO_CHECK(strcmp(now.version, "2026.9.9") == 0);
    CO_CHECK(strncmp(now.url, "ws://127.0.0.1:", 15) == 0);
    oc_stop(rig.client);
    UNTIL(rig.ended == 1);
    CO_CHECK(strcmp(rig.states, "connecting connected disconnected") == 0);
    return 0;
}

CO static int silent_backend(struct peer *p, struct err *e)
{
    int r;

    r = peer_take(p, e); /* nothing is said first */
    if (r == 0)
        r = peer_answer(p,
                        "\"ok\":true,\"payload\":{\"protocol\":3,\"server\":{\"id\":\"ours\","
                        "\"version\":\"1.0.0\"}}",
                        e);
    while (r == 0) {
        r = peer_take(p, e);
        if (r == 0 && strcmp(peer_method(p), "agent.send") != 0)
            r = err_set(e, ERR_INVALID, "%s was asked of a basic peer", peer_method(p));
        if (r == 0)
            r = peer_say(p, "{\"type\":\"evt\",\"event\":\"agent.message\",\"payload\":{\"a\":1}}",
                         e);
        if (r == 0)
            r = peer_answer(p,
                            "\"ok\":true,\"payload\":{\"response\":\"done\",\"message_id\":\"m-7\","
                            "\"status\":\"delivered\"}",
                            e);
    }
    return r == WS_CLOSED ? 0 : r;
}

RIG_TEST(a_peer_without_challenge_is_our_own_gateway_and_gets_agent_send, silent_backend)
{
    const struct oc_turn turn = { STR("agent:a:main"), STR("hi"), STR("k"), NULL, NULL, false };
    const struct oc_post post = { STR("telegram"), STR("5"), STR("hi"), STR("k2"), NULL };
    struct arena a = { 0 };
    const char *id = NULL;
    struct buf out;

    buf_init(&out, 1024);
    CO_CHECK(rig_client(NULL, NULL, e) == 0);
    rig.client->pace.greet_ms = 50;
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_turn(rig.client, &turn, SOON, &out, e) == 0);
    CO_CHECK(str_eq_z(buf_str(&out), "done"));
    CO_CHECK(rig.events == 1 && strcmp(rig.last_event, "agent.message") == 0);
    CO_CHECK(oc_post(rig.client, &post, SOON, &a, &id, e) == 0);
    CO_CHECK(strcmp(id, "m-7") == 0);
    buf_done(&out);
    arena_done(&a);
    return 0;
}

CO static int starts_slowly(struct peer *p, struct err *e)
{
    int r;

    if (p->number > 2)
        return greets(p, e);
    r = peer_say(p, CHALLENGE, e);
    if (r == 0)
        r = peer_take(p, e);
    if (p->number == 1 && r == 0)
        r = peer_answer(p,
                        "\"ok\":false,\"error\":{\"code\":\"UNAVAILABLE\",\"message\":\"starting\","
                        "\"retryable\":true,\"retryAfterMs\":60}",
                        e);
    ws_close(p->ws, 1013, "starting");
    return r;
}

RIG_TEST(a_peer_that_starts_is_tried_again_soon_and_is_no_failure, starts_slowly)
{
    CO_CHECK(rig_client("t", NULL, e) == 0);
    rig.client->pace.backoff_first_ms = rig.client->pace.backoff_last_ms = 1000000;
    rig.client->pace.refused_ms = 1000000;
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    CO_CHECK(rig.connections == 3);
    CO_CHECK(strcmp(rig.states, "connecting connected") == 0);
    return 0;
}

CO static int refuses_token(struct peer *p, struct err *e)
{
    int r;

    if (p->number > 1)
        return greets(p, e);
    r = peer_say(p, CHALLENGE, e);
    if (r == 0)
        r = peer_take(p, e);
    if (r == 0)
        r = peer_answer(p,
                        "\"ok\":false,\"error\":{\"code\":\"INVALID_REQUEST\",\"message\":"
                        "\"unauthorized: gateway token mismatch\",\"details\":{\"code\":"
                        "\"AUTH_TOKEN_MISMATCH\"}}",
                        e);
    ws_close(p->ws, 1008, "unauthorized");
    return r;
}

RIG_TEST(a_wrong_token_is_a_failure_that_is_named_and_tried_again_rarely, refuses_token)
{
    const struct oc_turn turn = { STR("s"), STR("m"), STR("k"), NULL, NULL, false };
    struct oc_status now;
    struct err why;
    struct buf out;

    buf_init(&out, 1024);
    CO_CHECK(rig_client("wrong", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(rig.client->state == OC_FAILED);
    oc_status(rig.client, &now);
    CO_CHECK(strstr(now.last_error, "token mismatch (AUTH_TOKEN_MISMATCH)"));
    CO_CHECK(oc_wait(rig.client, deadline_in(50), &why) == -ERR_TIMEOUT);
    CO_CHECK(strstr(why.msg, "token mismatch"));
    /* a turn does not wait for it */
    CO_CHECK(oc_turn(rig.client, &turn, SOON, &out, &why) == -ERR_UNAVAILABLE);
    CO_CHECK(strstr(why.msg, "refuses us"));
    CO_CHECK(rig.connections == 1);
    /* starting anew tries at once */
    oc_stop(rig.client);
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    CO_CHECK(strcmp(rig.states, "connecting failed disconnected connecting connected") == 0);
    buf_done(&out);
    return 0;
}

CO static int speaks_another(struct peer *p, struct err *e)
{
    int r;

    r = peer_say(p, CHALLENGE, e);
    if (r == 0)
        r = peer_take(p, e);
    ws_close(p->ws, 1002, "protocol mismatch");
    return r;
}

RIG_TEST(no_common_protocol_is_a_failure, speaks_another)
{
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(rig.client->state == OC_FAILED);
    CO_CHECK(strstr(rig.client->last_error, "1002"));
    CO_CHECK(rig.connections == 1);
    return 0;
}

static bool device_seen, device_good;

CO static int wants_device(struct peer *p, struct err *e)
{
    const json_t *device;
    int r;

    r = peer_say(p, CHALLENGE, e);
    if (r == 0)
        r = peer_take(p, e);
    if (r < 0)
        return r;
    device = peer_param(p, "device");
    if (!device) {
        r = peer_answer(p,
                        "\"ok\":false,\"error\":{\"code\":\"NOT_PAIRED\",\"message\":\"device "
                        "identity required\",\"details\":{\"code\":\"DEVICE_IDENTITY_REQUIRED\"}}",
                        e);
        ws_close(p->ws, 1008, "device");
        return r;
    }
    device_seen = true;
    device_good = str_eq_z(json_member_str(device, "nonce"), "n-1") &&
                  json_integer_value(json_object_get(device, "signedAt")) == 1700000000000 &&
                  json_member_str(device, "id").n == 64 &&
                  json_member_str(device, "publicKey").n == 43 &&
                  json_member_str(device, "signature").n == 86;
    r = peer_answer(p, HELLO, e);
    return r < 0 ? r : peer_linger(p, e);
}

RIG_TEST(a_device_identity_is_made_when_the_peer_wants_one, wants_device)
{
    char dir[] = "/tmp/chela-oc-XXXXXX", path[64];

    device_seen = device_good = false;
    CO_CHECK(mkdtemp(dir) != NULL);
    fmt_z(path, sizeof(path), "%s/device.key", dir);
    CO_CHECK(rig_client(NULL, path, e) == 0);
    rig.client->conf.subscribe = false;
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    CO_CHECK(rig.connections == 2 && device_seen && device_good);
    CO_CHECK(access(path, R_OK) == 0 && unlink(path) == 0 && rmdir(dir) == 0);
    return 0;
}

/* --- losses --- */

CO static int drops_twice(struct peer *p, struct err *e)
{
    int r;

    r = peer_greet(p, HELLO, e);
    if (r < 0)
        return r;
    if (p->number < 3)
        return PEER_RESET;
    return peer_linger(p, e);
}

RIG_TEST(a_lost_connection_is_made_again_with_its_subscription, drops_twice)
{
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(rig.connections == 3 && rig.client->state == OC_CONNECTED);
    CO_CHECK(strcmp(rig.states,
                    "connecting connected reconnecting connected reconnecting connected") == 0);
    return 0;
}

RIG_TEST(nobody_there_is_tried_again_with_growing_waits, greets)
{
    unsigned short port = rig.port;
    struct oc_status now;

    rig_close(); /* the port is free now */
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(rig.client->attempts >= 4);
    oc_status(rig.client, &now);
    CO_CHECK(now.state == OC_CONNECTING && now.last_error && !now.version);
    rig.port = port;
    CO_CHECK(rig_serve(e) == 0);
    CO_CHECK(oc_wait(rig.client, SOON, e) == 0);
    oc_status(rig.client, &now);
    CO_CHECK(now.attempts == 0 && !now.last_error);
    return 0;
}

CO static int restarts(struct peer *p, struct err *e)
{
    int r;

    r = peer_greet(p, HELLO, e);
    if (r == 0 && p->number == 1) {
        r = peer_say(p,
                     "{\"type\":\"event\",\"event\":\"shutdown\",\"payload\":{\"reason\":\"x\","
                     "\"restartExpectedMs\":30}}",
                     e);
        ws_close(p->ws, 1012, "service restart");
        return r;
    }
    return r < 0 ? r : peer_linger(p, e);
}

RIG_TEST(a_shutdown_event_says_when_to_come_back, restarts)
{
    CO_CHECK(rig_client("t", NULL, e) == 0);
    rig.client->pace.backoff_first_ms = rig.client->pace.backoff_last_ms = 1000000;
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(rig.connections == 2 && rig.client->state == OC_CONNECTED);
    CO_CHECK(strcmp(rig.last_event, "shutdown") == 0);
    return 0;
}

CO static int goes_silent(struct peer *p, struct err *e)
{
    int r;

    r = peer_greet(p, p->number == 1 ? HELLO_WITH(",\"tickIntervalMs\":40") : HELLO, e);
    for (int i = 0; i < 6 && r == 0; i++) { /* ticks keep it for longer than silence would */
        r = peer_say(p, "{\"type\":\"event\",\"event\":\"tick\",\"payload\":{\"ts\":1}}", e);
        if (r == 0)
            r = fiber_sleep(30, e);
    }
    return r < 0 ? r : peer_linger(p, e);
}

RIG_TEST(silence_of_two_ticks_and_a_half_is_a_loss, goes_silent)
{
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(rig.connections == 2 && rig.client->state == OC_CONNECTED);
    CO_CHECK(rig.events == 0); /* ticks are nobody's business */
    return 0;
}

/* --- strange bytes --- */

CO static int babbles(struct peer *p, struct err *e)
{
    static const char *const odd[] = {
        "",
        "not json",
        "[1,2]",
        "null",
        "{}",
        "{\"type\":7}",
        "{\"type\":\"res\"}",
        "{\"type\":\"res\",\"id\":\"1-1\",\"ok\":true}",
        "{\"type\":\"res\",\"id\":\"1-99999\",\"ok\":true}",
        "{\"type\":\"res\",\"id\":\"-\",\"ok\":true}",
        "{\"type\":\"event\"}",
        "{\"type\":\"event\",\"event\":5,\"payload\":[],\"seq\":-4}",
        "{\"type\":\"hello\"}",
    };
    int r;

    r = peer_greet(p, HELLO, e);
    for (size_t i = 0; i < LEN(odd) && r == 0; i++)
        r = peer_say(p, odd[i], e);
    if (r == 0)
        r = ws_send(p->ws, WS_BINARY, STR("\x01\x02"), e);
    if (r == 0)
        r = peer_say(p, "{\"type\":\"event\",\"event\":\"last\",\"payload\":{}}", e);
    return r < 0 ? r : peer_linger(p, e);
}

RIG_TEST(what_is_no_frame_is_passed_over, babbles)
{
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(strcmp(rig.last_event, "last") == 0);
    CO_CHECK(rig.connections == 1 && rig.client->state == OC_CONNECTED);
    return 0;
}

CO static int sends_much(struct peer *p, struct err *e)
{
    size_t n = p->number == 1 ? 20 * MIB : 30 * MIB;
    AUTO(free) char *text = xmalloc(n + 100);
    static const char head[] = "{\"type\":\"event\",\"event\":\"big\",\"payload\":{\"x\":\"";
    int r;

    r = peer_greet(p, HELLO, e);
    memcpy(text, head, sizeof(head) - 1);
    memset(text + sizeof(head) - 1, 'x', n);
    memcpy(text + sizeof(head) - 1 + n, "\"}}", 4);
    if (r == 0)
        r = ws_send_wait(p->ws, WS_TEXT, str_of(text), SOON, e);
    if (r == 0 && p->number == 1) {
        r = peer_take(p, e); /* the client has asked for more */
        return r < 0 ? r : PEER_RESET;
    }
    return r < 0 ? r : peer_linger(p, e);
}

RIG_TEST(a_frame_of_20_mib_is_read_and_one_past_the_bound_ends_the_connection, sends_much)
{
    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(rig.last_size > 20 * MIB);
    oc_call_away(rig.client, "more");
    UNTIL(rig.connections >= 3);
    CO_CHECK(rig.events == 1);
    return 0;
}

CO static int skips(struct peer *p, struct err *e)
{
    int r;

    r = peer_greet(p, HELLO, e);
    for (int seq = 1; seq <= 9 && r == 0; seq += seq == 3 ? 4 : 1) { /* 1 2 3 7 8 9 */
        AUTO(free) char *text = NULL;

        text = xasprintf("{\"type\":\"event\",\"event\":\"e\",\"payload\":{},\"seq\":%d}", seq);
        r = peer_say(p, text, e);
    }
    if (r == 0)
        r = peer_take(p, e);
    if (r == 0 && strcmp(peer_method(p), "sessions.subscribe") == 0)
        r = peer_say(p, "{\"type\":\"event\",\"event\":\"resubscribed\",\"payload\":{}}", e);
    return r < 0 ? r : peer_linger(p, e);
}

RIG_TEST(a_gap_in_the_count_of_events_is_counted_and_subscribed_again, skips)
{
    int64_t before = atomic_load(&oc_m_gaps.v[0]);

    CO_CHECK(rig_client("t", NULL, e) == 0);
    rig.client->resubscribed_at_ms = 0;
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(strcmp(rig.last_event, "resubscribed") == 0);
    CO_CHECK(atomic_load(&oc_m_gaps.v[0]) == before + 3);
    return 0;
}

CO static int counts_to_the_end(struct peer *p, struct err *e)
{
    int r = peer_greet(p, HELLO, e);

    if (r == 0)
        r = peer_say(p, "{\"type\":\"event\",\"event\":\"a\",\"seq\":9223372036854775807}", e);
    if (r == 0)
        r = peer_say(p, "{\"type\":\"event\",\"event\":\"b\",\"seq\":5}", e);
    return r < 0 ? r : peer_linger(p, e);
}

RIG_TEST(the_largest_number_of_an_event_is_no_trouble, counts_to_the_end)
{
    long long before = atomic_load(&oc_m_gaps.v[0]);

    CO_CHECK(rig_client("t", NULL, e) == 0);
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(strcmp(rig.last_event, "b") == 0);
    CO_CHECK(atomic_load(&oc_m_gaps.v[0]) == before);
    return 0;
}

enum { NOISE = 30, NOISE_BYTES = 2 * MIB };
static size_t held; /* bytes of the heap that the noise has left in use */

static size_t in_use(void)
{
    struct mallinfo2 m = mallinfo2();

    return m.uordblks + m.hblkhd;
}

/* Events without end before the challenge. */
CO static int says_much_first(struct peer *p, struct err *e)
{
    AUTO(free) char *noise = xmalloc(NOISE_BYTES);
    AUTO(free) char *text = NULL;
    size_t before;
    int r = 0;

    memset(noise, 'x', NOISE_BYTES - 1);
    noise[NOISE_BYTES - 1] = '\0';
    text = xasprintf("{\"type\":\"event\",\"event\":\"noise\",\"payload\":\"%s\"}", noise);
    before = in_use();
    for (int i = 0; r == 0 && i < NOISE; i++)
        r = ws_send_wait(p->ws, WS_TEXT, str_of(text), deadline_in(PATIENCE_MS), e);
    while (r == 0 && ws_queued(p->ws) > 0)
        r = fiber_sleep(1, e);
    held = in_use() > before ? in_use() - before : 0;
    if (r == 0)
        r = peer_greet(p, HELLO, e);
    return r < 0 ? r : peer_linger(p, e);
}

RIG_TEST(what_a_peer_says_before_its_challenge_is_not_kept, says_much_first)
{
    CO_CHECK(rig_client("t", NULL, e) == 0);
    rig.client->pace.greet_ms = rig.client->conf.connect_ms = 3 * PATIENCE_MS;
    CO_CHECK(oc_start(rig.client, e) == 0);
    CO_CHECK(oc_wait(rig.client, deadline_in(3 * PATIENCE_MS), e) == 0);
    CO_CHECK(held < (size_t)NOISE * NOISE_BYTES);
    return 0;
}

/* --- stopping --- */

CO static int never_answers(struct peer *p, struct err *e)
{
    return peer_linger(p, e);
}

RIG_TEST(a_stop_in_the_middle_of_a_handshake_is_quick_and_may_be_repeated, never_answers)
{
    CO_CHECK(rig_client("t", NULL, e) == 0);
    oc_stop(rig.client); /* not started */
    CO_CHECK(oc_start(rig.client, e) == 0);
    UNTIL(rig.connections == 1);
    oc_stop(rig.client);
    oc_stop(rig.client);
    CO_CHECK(rig.client->state == OC_DISCONNECTED);
    CO_CHECK(oc_wait(rig.client, SOON, e) == -ERR_UNAVAILABLE);
    return 0;
}

TEST(a_url_is_judged_and_http_becomes_ws)
{
    static const struct {
        const char *url, *want;
    } rows[] = {
        { "ws://127.0.0.1:18789", "ws://127.0.0.1:18789" },
        { "http://host:1/path", "ws://host:1/path" },
        { "https://host/", "wss://host/" },
        { "wss://host", "wss://host" },
        { "ws://host/?token=hush", "ws://host/?token=hush" },
        { "postgres://host/", NULL },
        { "127.0.0.1:18789", NULL },
        { "ws://user:pw@host/", NULL },
        { "", NULL },
    };
    struct oc_client *c;
    struct err e;

    for (size_t i = 0; i < LEN(rows); i++) {
        const struct oc_conf conf = { .url = rows[i].url };
        int r = oc_new(NULL, &conf, &c, &e);

        CHECK_INT(r, rows[i].want ? 0 : -ERR_INVALID);
        if (r == 0) {
            CHECK_STR(c->conf.url, rows[i].want);
            CHECK(!strchr(c->shown, '?')); /* what may be secret is in no log */
            oc_free(c);
        }
    }
    oc_free(NULL);
}
