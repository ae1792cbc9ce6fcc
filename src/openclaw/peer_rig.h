/* SPDX-License-Identifier: MIT */
/*
 * openclaw/peer_rig.h — for tests of the client: a gateway that is scripted in C, behind a real
 * WebSocket. A script is a function that runs once per connection and may tell them apart by
 * peer->number; when it returns the socket is closed, or reset when it returns PEER_RESET.
 */
#pragma once

#include "base/log.h"
#include "in_fiber.h"
#include "net/http_server.h"
#include "openclaw/openclaw_int.h"

#define PATIENCE_MS 20000

struct peer { /* the scripted side of one connection */
    struct ws *ws;
    unsigned number; /* of the connection, from 1 */
    json_t *last;    /* the last request that was taken */
};

enum { PEER_DONE = 0, PEER_RESET = 1 };
typedef int peer_script(struct peer *p, struct err *e);

struct rig {
    struct http_server *server;
    unsigned short port;
    char url[64];
    peer_script *script;
    unsigned connections, ended;
    struct fiber_group *peers;
    struct oc_client *client;
    /* what the client has told */
    unsigned events, changes;
    char last_event[64], states[400];
    size_t last_size;
};
static struct rig rig;

/* --- what scripts are made of --- */

static inline int peer_say(struct peer *p, const char *text, struct err *e)
{
    return ws_send(p->ws, WS_TEXT, str_of(text), e);
}

/* Take the next request into p->last; WS_CLOSED. */
CO static inline int peer_take(struct peer *p, struct err *e)
{
    struct arena a = { 0 };
    enum ws_kind kind;
    struct str data;
    json_t *doc;
    int r;

    r = ws_recv(p->ws, &a, &kind, &data, deadline_in(PATIENCE_MS), e);
    if (r == 0)
        r = json_parse(data, 64, &a, &doc, NULL, e);
    if (r == 0) {
        json_decref(p->last);
        p->last = json_incref(doc);
    }
    arena_done(&a);
    return r;
}

static inline const char *peer_method(const struct peer *p)
{
    const char *method = json_string_value(json_object_get(p->last, "method"));

    return method ? method : "";
}

static inline const json_t *peer_param(const struct peer *p, const char *key)
{
    return json_object_get(json_object_get(p->last, "params"), key);
}

/* Answer p->last: {"type":"res","id":...} and the rest as it is given. */
static inline int peer_answer(struct peer *p, const char *rest, struct err *e)
{
    AUTO(free) char *text = NULL;

    text = xasprintf("{\"type\":\"res\",\"id\":\"%s\",%s}",
                     json_string_value(json_object_get(p->last, "id")), rest);
    return peer_say(p, text, e);
}

#define CHALLENGE \
    "{\"type\":\"event\",\"event\":\"connect.challenge\"," \
    "\"payload\":{\"nonce\":\"n-1\",\"ts\":1700000000000}}"
#define HELLO_WITH(more) \
    "\"ok\":true,\"payload\":{\"type\":\"hello-ok\",\"protocol\":4,\"server\":{\"version\":" \
    "\"2026.9.9\"},\"features\":{\"methods\":[\"agent\",\"send\",\"sessions.subscribe\"]}," \
    "\"policy\":{\"maxPayload\":1000000" more "},\"auth\":{\"role\":\"operator\",\"scopes\":" \
    "[\"operator.read\"]}}"
#define HELLO HELLO_WITH("")

/* Greet, take connect, answer it, and the subscription. */
CO static inline int peer_greet(struct peer *p, const char *hello, struct err *e)
{
    int r;

    r = peer_say(p, CHALLENGE, e);
    if (r == 0)
        r = peer_take(p, e);
    if (r == 0)
        r = peer_answer(p, hello, e);
    if (r == 0)
        r = peer_take(p, e);
    if (r == 0 && strcmp(peer_method(p), "sessions.subscribe") == 0)
        r = peer_answer(p, "\"ok\":true,\"payload\":{}", e);
    return r;
}

/* Wait until the client goes. */
CO static inline int peer_linger(struct peer *p, struct err *e)
{
    int r;

    do {
        r = peer_take(p, e);
    } while (r == 0);
    return r == WS_CLOSED ? 0 : r;
}

/* --- the server --- */

CO static inline int peer_main(void *arg, struct err *e)
{
    struct peer p = { .ws = arg, .number = ++rig.connections };
    struct arena a = { 0 };
    enum ws_kind kind;
    struct str data;
    int r;

    r = rig.script(&p, e);
    if (r < 0 && r != -ERR_CANCELED)
        printf("# script, connection %u: %s\n", p.number, e->msg);
    if (r != PEER_RESET) {
        ws_close(p.ws, 1000, NULL);
        while (ws_recv(p.ws, &a, &kind, &data, deadline_in(1000), e) == 0)
            arena_reset(&a);
    }
    arena_done(&a);
    ws_free(p.ws);
    json_decref(p.last);
    rig.ended++;
    return 0;
}

static inline int accept_peer(struct http_req *req, struct err *e)
{
    static const struct ws_limits limits = { .message = 4 * MIB, .queue = 64 * MIB };
    struct ws *ws;
    int r;

    r = ws_accept(req, NULL, &limits, NULL, NULL, &ws, e);
    if (r != 0)
        return r;
    return fiber_group_spawn(rig.peers, "peer", peer_main, ws, e);
}

static inline bool any_host(struct str host, const struct stream_addr *peer, void *arg)
{
    return true;
}

static inline bool no_origin(struct str origin, void *arg)
{
    return false; /* as the real gateways */
}

static inline int rig_serve(struct err *e)
{
    static const struct http_route routes[] = { {
        .method = HTTP_M_GET,
        .path = "/gw",
        .run = accept_peer,
        .need = NEED_NONE,
        .flags = ROUTE_WS,
        .doc = "A gateway.",
        .tag = "gw",
    } };
    static const struct http_table table = { "/", &dialect_plain, routes, LEN(routes), NULL };
    static const struct http_table *const tables[] = { &table };
    static const struct http_limits limits = {
        .connections = 100,
        .connections_per_ip = 100,
        .header_bytes = 8192,
        .body_bytes = 1024,
        .json_depth = 16,
        .first_byte_ms = 10000,
        .body_idle_ms = 10000,
        .idle_ms = 60000,
        .write_idle_ms = 10000,
    };
    static const struct http_server_ops ops = { .host_allowed = any_host,
                                                .origin_allowed = no_origin };
    int fd, r;

    r = http_server_new(fiber_loop(), &limits, &ops, tables, LEN(tables), &rig.server, e);
    if (r == 0)
        r = listen_tcp("127.0.0.1", rig.port, 64, &fd, &rig.port, e);
    if (r == 0)
        r = http_server_listen(rig.server, fd, NULL, e);
    return r;
}

CO static inline void rig_close(void)
{
    struct err e;

    fiber_group_cancel(rig.peers);
    (void)fiber_group_join(rig.peers, &e);
    (void)http_server_shutdown(rig.server, now_ms(), &e);
    http_server_free(rig.server);
    rig.server = NULL;
}

/* --- the client's side --- */

static inline void on_event(const struct oc_event *event, void *arg)
{
    struct buf b;
    struct err e;

    buf_init(&b, 64 * MIB);
    rig.last_size = event->payload && json_write(event->payload, &b, &e) == 0 ? b.n : 0;
    buf_done(&b);
    rig.events++;
    fmt_z(rig.last_event, sizeof(rig.last_event), "%.60s", event->name);
}

static inline void on_changed(enum oc_state state, void *arg)
{
    size_t n = strlen(rig.states);

    rig.changes++;
    if (n + 16 < sizeof(rig.states))
        fmt_z(rig.states + n, sizeof(rig.states) - n, "%s%s", n ? " " : "", oc_state_name(state));
}

/* A client that is quick in everything but what a test is about. */
static inline int rig_client(const char *token, const char *identity, struct err *e)
{
    const struct oc_conf conf = { .url = rig.url,
                                  .token = token,
                                  .identity_path = identity,
                                  .subscribe = true,
                                  .event = on_event,
                                  .changed = on_changed };
    int r;

    r = oc_new(fiber_loop(), &conf, &rig.client, e);
    if (r < 0)
        return r;
    rig.client->pace.backoff_first_ms = 5;
    rig.client->pace.backoff_last_ms = 40;
    rig.client->pace.greet_ms = 2000;
    rig.client->pace.resend_ms = 100;
    return 0;
}

struct rig_test {
    CO int (*body)(struct err *e);
    peer_script *script;
};

CO static inline int rig_main(void *arg, struct err *e)
{
    const struct rig_test *test = arg;
    int r;

    rig = (struct rig){ .script = test->script, .peers = fiber_group_new(fiber_loop()) };
    r = rig_serve(e);
    fmt_z(rig.url, sizeof(rig.url), "http://127.0.0.1:%u/gw", rig.port);
    if (r == 0)
        r = test->body(e);
    if (r < -1)
        printf("# %s\n", e->msg);
    oc_stop(rig.client ? rig.client : NULL);
    oc_free(rig.client);
    if (rig.server)
        rig_close();
    fiber_group_free(rig.peers);
    return r;
}

static inline void rig_no_log(enum log_level level, const char *line, void *arg)
{
}

/* A test of the client against a script. */
#define RIG_TEST(id, peer) \
    CO static int rig_test_##id(struct err *e); \
    TEST(id) \
    { \
        struct rig_test test = { rig_test_##id, peer }; \
        log_capture(rig_no_log, NULL); \
        CHECK_INT(in_fiber(rig_main, &test), 0); \
    } \
    CO static int rig_test_##id(struct err *e)

#define UNTIL(cond) \
    do { \
        uint64_t limit_ = deadline_in(PATIENCE_MS); \
        while (!(cond)) { \
            CO_CHECK(now_ms() < limit_); \
            CO_CHECK(fiber_sleep(1, e) == 0); \
        } \
    } while (0)

#define SOON deadline_in(PATIENCE_MS)
