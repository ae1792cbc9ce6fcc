/* SPDX-License-Identifier: MIT */
/*
 * agent/link.c — the one WebSocket to the hub: connect, back off, hello, health. One fiber does it
 * all: it connects, says what is held (resync), then reports health until the socket is gone.
 *
 * Delays are the original's (1, 2, 4 … 60 s) with a fifth of jitter, so that the agents of a hub
 * that went do not come back all at once. A connection that was up and broke is tried again almost
 * at once: more often than not only the way was cut, or the machine was restored from a snapshot.
 */
#include "agent/agent_int.h"

#include <string.h>
#include <time.h>

#include "base/id.h"
#include "base/log.h"
#include "base/rand.h"
#include "base/secret.h"
#include "net/ws.h"

#define CONNECT_MS 30000
#define AT_ONCE_MS 100  /* after a connection broke that had been up */
#define UP_MS      2000 /* that it was up */
#define CLOSE_MS   3000
#define JITTER     0.2
#define CLOCK_MS   2000 /* by how much the clock of a guest may differ */

struct link {
    struct agent *agent;
    struct ws *ws;
    struct fiber *flow;
    unsigned long conn; /* of connections made */
    bool said;          /* our resync, on this one */
    bool stopping, lost;
    unsigned code;     /* how the last one ended */
    unsigned attempts; /* failed in a row */
    int protocol;
    uint64_t up_ms;
    char *token, *hub_url;   /* of the configuration, which may be read anew */
    struct tls_context *tls; /* of conf.ca_file, once it was needed */
};

struct link *link_new(struct agent *a)
{
    struct link *l = xcalloc(1, sizeof(*l));

    l->agent = a;
    l->token = xstrdup(a->conf->token);
    l->hub_url = xstrdup(a->conf->hub_url);
    return l;
}

void link_free(struct link *l)
{
    if (!l)
        return;
    secret_wipe(l->token, strlen(l->token));
    tls_context_free(l->tls);
    free(l->token);
    free(l->hub_url);
    free(l);
}

/* --- saying --- */

static int add_member(struct buf *b, const char *key, const char *value, struct err *e)
{
    int r = buf_printf(b, e, "\"%s\":", key);

    if (r == 0)
        r = json_write_str(b, str_of(value), e);
    return r == 0 ? buf_add_z(b, ",", e) : r;
}

int link_frame(const struct agent *a, const char *to, const char *type, struct str payload,
               struct buf *b, struct err *e)
{
    char id[UUID_TEXT];
    int r;

    uuid_v4(id);
    r = buf_printf(b, e, "{\"id\":\"%s\",", id);
    if (r == 0)
        r = add_member(b, "from", a->conf->id, e);
    if (r == 0)
        r = add_member(b, "to", to, e);
    if (r == 0)
        r = buf_printf(b, e, "\"timestamp\":%lld,", (long long)(wall_us() / 1000));
    if (r == 0)
        r = add_member(b, "type", type, e);
    if (r == 0)
        r = buf_add_z(b, "\"payload\":", e);
    if (r == 0)
        r = buf_add_str(b, payload, e);
    return r == 0 ? buf_add_z(b, "}", e) : r;
}

int link_send(struct link *l, struct str frame, struct err *e)
{
    if (!l->ws)
        return err_set(e, ERR_UNAVAILABLE, "not connected");
    return ws_send(l->ws, WS_TEXT, frame, e);
}

CO int link_send_wait(struct link *l, struct str frame, struct err *e)
{
    if (!l->ws)
        return err_set(e, ERR_UNAVAILABLE, "not connected");
    return ws_send_wait(l->ws, WS_TEXT, frame, DEADLINE_NONE, e);
}

int agent_say(struct agent *a, const char *to, const char *type, json_t *payload, struct err *e)
{
    AUTO(buf_done) struct buf text, frame;
    int r;

    buf_init(&text, AGENT_QUEUE_MAX);
    buf_init(&frame, AGENT_QUEUE_MAX);
    if (!payload)
        return err_set(e, ERR_INVALID, "a message without a payload");
    r = json_write(payload, &text, e);
    json_decref(payload);
    if (r == 0)
        r = link_frame(a, to, type, buf_str(&text), &frame, e);
    return r == 0 ? link_send(a->link, buf_str(&frame), e) : r;
}

unsigned long link_up(const struct link *l)
{
    return l->ws && l->said ? l->conn : 0;
}

int link_protocol(const struct link *l)
{
    return l->protocol;
}

bool agent_connected(const struct agent *a)
{
    return link_up(a->link) != 0;
}

bool agent_has_room(const struct agent *a)
{
    return a->link->ws && ws_queued(a->link->ws) < AGENT_ROOM;
}

/* --- what the socket tells --- */

static void on_message(struct ws *ws, enum ws_kind kind, struct str data, void *arg)
{
    struct link *l = arg;

    if (ws == l->ws)
        hear(l->agent, data);
}

static void on_closed(struct ws *ws, unsigned code, struct str reason, void *arg)
{
    struct link *l = arg;

    if (ws != l->ws)
        return;
    l->ws = NULL;
    l->said = false;
    l->code = code;
    log_info("disconnected", "code", LOG_INT(code), "reason", LOG_SLICE(reason));
    if (!l->agent->deaf) {
        runner_lost(l->agent->runner, code);
        shells_lost(l->agent->shells);
    }
    if (l->flow)
        fiber_wake(l->flow);
}

static void on_drained(struct ws *ws, void *arg)
{
    struct link *l = arg;

    if (ws == l->ws && !l->agent->deaf)
        runner_drained(l->agent->runner);
}

/* A guest that was frozen has a clock that stood still; only PID 1 of a machine sets it. */
static void set_clock(long long timestamp_ms)
{
    long long now = wall_us() / 1000, off = timestamp_ms - now;
    struct timespec ts = { timestamp_ms / 1000, timestamp_ms % 1000 * 1000000 };

    if (!getenv("CHELA_AGENT_INIT") || timestamp_ms <= 0 || (off < CLOCK_MS && off > -CLOCK_MS))
        return;
    if (clock_settime(CLOCK_REALTIME, &ts) == 0)
        log_info("the clock was set by the hub's", "off_ms", LOG_INT(off));
    else
        log_warn("the clock differs from the hub's and cannot be set", "off_ms", LOG_INT(off));
}

void link_welcome(struct link *l, const json_t *payload, long long timestamp_ms)
{
    const char *version = json_string_value(json_object_get(payload, "version"));

    l->protocol = (int)json_integer_value(json_object_get(payload, "protocol"));
    set_clock(timestamp_ms);
    log_info("the hub welcomes us", "protocol", LOG_INT(l->protocol), "version", LOG_STR(version));
}

/* --- connecting --- */

static const struct ws_ops ops = { .message = on_message,
                                   .closed = on_closed,
                                   .drained = on_drained };
static const struct ws_limits limits = { .message = AGENT_MESSAGE_MAX,
                                         .queue = AGENT_QUEUE_MAX,
                                         .close_ms = CLOSE_MS };

/* The system's CAs are looked up by ws_open() itself. */
static int prepare_tls(struct link *l, struct err *e)
{
    const char *ca_file = l->agent->conf->ca_file;

    if (l->tls || !ca_file || strncmp(l->hub_url, "wss:", 4) != 0)
        return 0;
    return tls_client_new(ca_file, &l->tls, e);
}

CO static int dial(struct link *l, struct ws **ret, struct err *e)
{
    const struct agent_conf *conf = l->agent->conf;
    bool is_unix = strncmp(l->hub_url, "unix:", 5) == 0;
    const char *base = is_unix ? "ws://localhost" : l->hub_url;
    AUTO(free)
    char *url = xasprintf(conf->token_in_header ? "%s/agent/%s" : "%s/agent/%s/%s", base, conf->id,
                          l->token);
    AUTO(free) char *header = xasprintf("Authorization: Bearer %s", l->token);
    AUTO(free) char *path = is_unix ? xstrdup(l->hub_url + 5) : NULL;
    const char *const headers[] = { header, NULL };
    const struct ws_connect to = {
        .url = url,
        .headers = conf->token_in_header ? headers : NULL,
        .unix_socket = path,
        .tls = l->tls,
        .keep_alive_s = (unsigned)conf->keep_alive_s,
        .deadline_ms = deadline_in(CONNECT_MS),
    };
    int r = ws_open(l->agent->loop, &to, &limits, &ops, l, ret, e);

    secret_wipe(url, strlen(url));
    secret_wipe(header, strlen(header));
    return r;
}

/* Has the configuration got another token, or hub, since? A machine that went back to a snapshot
 * runs with the token of then. */
static bool read_anew(struct link *l)
{
    struct agent_conf conf;
    struct err e;
    bool other;

    if (agent_conf_load(&conf, &e) < 0)
        return false;
    other = strcmp(conf.id, l->agent->conf->id) == 0 &&
            (strcmp(conf.token, l->token) != 0 || strcmp(conf.hub_url, l->hub_url) != 0);
    if (other) {
        secret_wipe(l->token, strlen(l->token));
        free(l->token);
        free(l->hub_url);
        l->token = xstrdup(conf.token);
        l->hub_url = xstrdup(conf.hub_url);
        log_info("the configuration has another token or hub");
    }
    agent_conf_done(&conf);
    return other;
}

static uint64_t jittered(uint64_t ms)
{
    return (uint64_t)((double)ms * (1 - JITTER + 2 * JITTER * rand_unit()));
}

/* Before attempt n of those that follow a failure, from 1 on. */
static uint64_t delay_of(const struct agent_conf *conf, unsigned n)
{
    uint64_t last = (uint64_t)conf->reconnect_last_ms, ms = (uint64_t)conf->reconnect_first_ms;

    for (unsigned i = 1; i < n && ms < last; i++)
        ms *= 2;
    return ms < last ? ms : last;
}

CO static int rest(struct link *l, uint64_t ms, struct err *e)
{
    uint64_t deadline_ms = deadline_in((long long)ms + 1);
    int r = 0;

    while (!l->stopping && r == 0)
        r = fiber_park(deadline_ms, e);
    return r == -ERR_TIMEOUT ? 0 : r;
}

/* An attempt failed: wait before the next, or give up. */
CO static int back_off(struct link *l, struct err *why, struct err *e)
{
    const struct agent_conf *conf = l->agent->conf;
    bool refused = why->code == ERR_UNAUTHORIZED;
    uint64_t ms;

    if (refused && read_anew(l))
        return rest(l, AT_ONCE_MS, e);
    if (conf->reconnect_attempts > 0 && l->attempts >= (unsigned)conf->reconnect_attempts) {
        *e = *why;
        return err_wrap(e, "given up after %u attempts", l->attempts);
    }
    l->attempts++;
    ms = jittered(refused ? (uint64_t)conf->reconnect_last_ms : delay_of(conf, l->attempts));
    if (refused)
        log_error("the hub refuses our token", "hub", LOG_STR(l->hub_url), "next_ms", LOG_INT(ms));
    else
        log_warn("cannot reach the hub", "hub", LOG_STR(l->hub_url), "error", LOG_ERR(why),
                 "attempt", LOG_INT(l->attempts), "next_ms", LOG_INT(ms));
    return rest(l, ms, e);
}

/* --- a connection --- */

static int say_resync(struct link *l, struct err *e)
{
    return agent_say(l->agent, "host", "status",
                     json_pack("{s:s, s:i, s:s, s:b, s:o}", "state", "resync", "protocol",
                               AGENT_PROTOCOL, "version", CHELA_VERSION, "dedupe", 1, "tasks",
                               runner_held(l->agent->runner)),
                     e);
}

CO static void report_health(struct link *l)
{
    unsigned long conn = l->conn;
    json_t *payload = NULL;
    struct err e;
    int r;

    r = health_report(l->agent->health, runner_active(l->agent->runner), &payload, &e);
    if (r == 0 && l->ws && l->conn == conn)
        r = agent_say(l->agent, "host", "health", payload, &e);
    else if (r == 0)
        json_decref(payload);
    if (r < 0 && !l->stopping)
        log_warn("no health report", "error", LOG_ERR(&e));
}

/* Until the socket is gone, or we are to stop. */
CO static int stay(struct link *l, struct err *e)
{
    uint64_t next_ms;
    int r;

    l->conn++;
    l->protocol = 0;
    l->up_ms = now_ms();
    r = say_resync(l, e);
    l->said = r == 0;
    if (r == 0)
        report_health(l);
    if (l->ws && r == 0)
        runner_connected(l->agent->runner);
    next_ms = deadline_in(l->agent->conf->health_ms);
    while (l->ws && !l->stopping && r == 0) {
        r = fiber_park(next_ms, e);
        if (r == -ERR_TIMEOUT) {
            report_health(l);
            next_ms = deadline_in(l->agent->conf->health_ms);
            r = 0;
        }
    }
    return r;
}

/* The first wait after a connection has ended. */
CO static int after(struct link *l, struct err *e)
{
    const struct agent_conf *conf = l->agent->conf;
    bool broke = l->code == 1006 && now_ms() - l->up_ms >= UP_MS;
    uint64_t ms = broke ? AT_ONCE_MS : (uint64_t)conf->reconnect_first_ms;

    if (!broke)
        l->attempts = 1;
    return rest(l, jittered(ms), e);
}

CO static int once(struct link *l, struct err *e)
{
    struct err why;
    int r;

    r = prepare_tls(l, &why);
    if (r == 0)
        r = dial(l, &l->ws, &why);
    if (r < 0 && l->stopping)
        return 0;
    if (r == -ERR_CANCELED) {
        *e = why;
        return r;
    }
    if (r < 0)
        return back_off(l, &why, e);
    l->attempts = 0;
    log_info("connected", "hub", LOG_STR(l->hub_url), "agent", LOG_STR(l->agent->conf->id));
    r = stay(l, e);
    return r == 0 && !l->stopping ? after(l, e) : r;
}

CO int link_keep(struct link *l, struct err *e)
{
    int r = 0;

    l->flow = fiber_self();
    while (!l->stopping && r == 0)
        r = once(l, e);
    return l->stopping ? 0 : r;
}

void link_stop(struct link *l)
{
    l->stopping = true;
    if (l->flow)
        fiber_wake(l->flow);
}

CO void link_close(struct link *l)
{
    struct err e;

    l->flow = fiber_self();
    if (l->ws)
        ws_close(l->ws, 1000, "Agent shutting down");
    while (l->ws)
        if (fiber_park(deadline_in(2 * CLOSE_MS), &e) < 0)
            break;
    if (l->ws)
        ws_abort(l->ws);
    while (ws_streams() > 0) /* it lingers for the hub to hang up, 2 s at most */
        if (fiber_sleep(5, &e) < 0)
            break;
    l->flow = NULL;
}
