/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet_shell.c — an operator's WebSocket beside a pseudo-terminal in an agent. Bytes travel as
 * binary frames here and as `shell` messages there. Nothing is kept but what is on its way: an
 * agent whose socket is full, or whose program does not read, makes us read the operator no more,
 * an operator who is slow makes us tell the agent to read its terminal no more; who does not listen
 * to that is cut off.
 */
#include <string.h>

#include "base/base64.h"
#include "base/id.h"
#include "base/log.h"
#include "hub/agents.h"
#include "hub/audit.h"
#include "hub/fleet_int.h"
#include "hub/link.h"
#include "net/url.h"
#include "net/ws.h"

#define SHELLS_MAX  256
#define CHUNK       (32 * KIB)  /* of raw bytes in one message to the agent */
#define ROOM        (64 * KIB)  /* a chunk in base64, with its envelope */
#define INPUT_MAX   (512 * KIB) /* of an operator, not passed on yet */
#define SLOW        (512 * KIB) /* unsent to an operator: the agent is told to pause */
#define QUEUE       (4 * MIB)   /* the operator is cut off */
#define WINDOW      (160 * KIB) /* passed on and not taken: the agent keeps 256 KiB */
#define RETRY_MS    20
#define COMMAND_MAX 4096

struct shell {
    struct shell *next;
    struct fleet *f;
    struct ws *ws; /* NULL: closed() has been told, or is not needed any more */
    char id[UUID_TEXT];
    char agent[HUB_ID_MAX + 1];
    struct buf input;
    struct loop_timer *retry;
    size_t passed; /* bytes that the agent has not said to have taken */
    bool paused;   /* the agent has been told to */
    bool ended;    /* the agent's side: nothing more is told to it */
};

static struct shell *find(struct fleet *f, struct str agent, struct str id)
{
    struct shell *s = f->shells;

    while (s && !(str_eq_z(id, s->id) && str_eq_z(agent, s->agent)))
        s = s->next;
    return s;
}

/* body: further keys, whose reference is taken. */
static int tell(struct shell *s, const char *op, json_t *body, struct err *e)
{
    json_t *payload = body ? body : json_object();

    json_object_set_new(payload, "shellId", json_string(s->id));
    json_object_set_new(payload, "op", json_string(op));
    return link_say(s->f->h->links, str_of(s->agent), "shell", payload, e);
}

static void tell_end(struct shell *s)
{
    struct err e;

    if (!s->ended && tell(s, "close", NULL, &e) < 0)
        log_debug("an agent did not hear of a shell's end", "agent", LOG_STR(s->agent));
    s->ended = true;
}

/* To the operator: how it ended. The socket closes behind it. */
static void end(struct shell *s, int64_t code, const char *error)
{
    AUTO(json_decref) json_t *j = json_pack("{s:I}", "exit", (json_int_t)code);
    AUTO(buf_done) struct buf b = { 0 };
    struct err e;

    tell_end(s);
    if (error)
        json_object_set_new(j, "error", json_string(error));
    buf_init(&b, 8 * KIB);
    if (json_write(j, &b, &e) < 0 || ws_send(s->ws, WS_TEXT, buf_str(&b), &e) < 0)
        log_debug("a shell's end was not told", "agent", LOG_STR(s->agent));
    ws_close(s->ws, 1000, "the shell has ended");
}

/* --- from the operator --- */

static int pass_chunk(struct shell *s, struct str bytes, struct err *e)
{
    struct arena arena = { 0 };
    struct str text = base64_encode(bytes, &arena);
    int r = tell(s, "data", json_pack("{s:s%}", "data", text.p, text.n), e);

    arena_done(&arena);
    return r;
}

/* What the agent's socket takes now; the rest waits, and so does the operator. */
static void pass_input(void *arg)
{
    struct shell *s = arg;
    struct links *links = s->f->h->links;
    struct err e;

    while (s->input.n && !s->ended && s->passed < WINDOW &&
           link_room(links, str_of(s->agent)) >= ROOM) {
        struct str bytes = buf_str(&s->input);

        bytes.n = bytes.n < CHUNK ? bytes.n : CHUNK;
        if (pass_chunk(s, bytes, &e) < 0) {
            s->ended = true;
            end(s, -1, "the agent has gone");
            return;
        }
        s->passed += bytes.n;
        buf_eat(&s->input, bytes.n);
    }
    if (s->ended)
        buf_clear(&s->input);
    if (s->input.n) {
        ws_pause_reading(s->ws);
        loop_timer_set(s->retry, now_ms() + RETRY_MS);
    } else {
        ws_resume_reading(s->ws);
    }
}

static unsigned clamp(const json_t *n, unsigned otherwise)
{
    json_int_t v = json_integer_value(n);

    return v >= 1 && v <= 10000 ? (unsigned)v : otherwise;
}

static void take_order(struct shell *s, struct str text)
{
    struct arena arena = { 0 };
    const json_t *size;
    struct err e;
    json_t *j;

    if (json_parse(text, 8, &arena, &j, NULL, &e) == 0) {
        size = json_object_get(j, "resize");
        if (json_is_object(size) && !s->ended &&
            tell(s, "resize",
                 json_pack("{s:i, s:i}", "cols", (int)clamp(json_object_get(size, "cols"), 80),
                           "rows", (int)clamp(json_object_get(size, "rows"), 24)),
                 &e) < 0)
            log_debug("a resize was lost", "agent", LOG_STR(s->agent));
    }
    arena_done(&arena);
}

static void on_message(struct ws *ws, enum ws_kind kind, struct str data, void *arg)
{
    struct shell *s = arg;
    struct err e;

    if (kind == WS_TEXT) {
        take_order(s, data);
        return;
    }
    if (buf_add_str(&s->input, data, &e) < 0) /* more than reading is paused for */
        end(s, -1, "too much input at once");
    else
        pass_input(s);
}

static void on_drained(struct ws *ws, void *arg)
{
    struct shell *s = arg;
    struct err e;

    if (!s->paused || s->ended)
        return;
    s->paused = false;
    if (tell(s, "resume", NULL, &e) < 0)
        end(s, -1, "the agent has gone");
}

static void on_closed(struct ws *ws, unsigned code, struct str reason, void *arg)
{
    struct shell *s = arg, **p = &s->f->shells;

    tell_end(s);
    audit(s->f->h, &(struct audit_line){ .event = "shell.closed", .agent = str_of(s->agent) });
    while (*p != s)
        p = &(*p)->next;
    *p = s->next;
    s->f->n_shells--;
    loop_timer_free(s->retry);
    buf_done(&s->input);
    free(s);
}

static const struct ws_ops shell_ops = {
    .message = on_message,
    .closed = on_closed,
    .drained = on_drained,
};

/* --- from the agent --- */

static void take_data(struct shell *s, const json_t *payload)
{
    struct arena arena = { 0 };
    struct str bytes;
    struct err e;
    int r = base64_decode(json_member_str(payload, "data"), &arena, &bytes, &e);

    if (r == 0 && bytes.n)
        r = ws_send(s->ws, WS_BINARY, bytes, &e);
    if (r == -ERR_LIMIT)
        end(s, -1, "the terminal is too slow");
    else if (r == 0 && ws_queued(s->ws) > SLOW && !s->paused) {
        s->paused = true;
        if (tell(s, "pause", NULL, &e) < 0)
            end(s, -1, "the agent has gone");
    }
    arena_done(&arena);
}

void fleet_shell_message(struct hub *h, struct str agent, const json_t *payload)
{
    struct shell *s = find(h->fleet, agent, json_member_str(payload, "shellId"));
    struct str op = json_member_str(payload, "op");

    if (!s || s->ended)
        return;
    if (str_eq(op, STR("data"))) {
        take_data(s, payload);
    } else if (str_eq(op, STR("taken"))) {
        json_int_t n = json_integer_value(json_object_get(payload, "bytes"));

        s->passed -= n > 0 && (size_t)n < s->passed ? (size_t)n : n > 0 ? s->passed : 0;
        pass_input(s);
    } else if (str_eq(op, STR("exit"))) {
        s->ended = true;
        end(s, json_integer_value(json_object_get(payload, "code")),
            json_string_value(json_object_get(payload, "error")));
    }
}

void fleet_shell_gone(struct hub *h, struct str agent)
{
    for (struct shell *s = h->fleet->shells; s; s = s->next)
        if (!s->ended && str_eq_z(agent, s->agent)) {
            s->ended = true;
            end(s, -1, "the agent has gone");
        }
}

void fleet_shells_end(struct fleet *f)
{
    for (struct shell *s = f->shells; s; s = s->next)
        if (!s->ended)
            end(s, -1, "the hub is stopping");
}

/* --- opening --- */

struct wish {
    unsigned cols, rows;
    const char *term, *command;
};

static int read_wish(struct http_req *req, struct wish *w, struct err *e)
{
    struct shape_pair *pairs;
    long long n;
    size_t len;
    int r = query_parse(req->query_text, req->arena, &pairs, &len, e);

    *w = (struct wish){ 80, 24, "xterm-256color", NULL };
    for (size_t i = 0; r == 0 && i < len; i++) {
        struct str name = pairs[i].name, value = pairs[i].value;
        const char *text = arena_strndup(req->arena, value.p, value.n);
        bool cols = str_eq(name, STR("cols"));

        if (cols || str_eq(name, STR("rows"))) {
            r = int_parse(value, 1, 10000, &n, e);
            if (r == 0)
                *(cols ? &w->cols : &w->rows) = (unsigned)n;
        } else if (str_eq(name, STR("term")) && value.n && value.n <= 64) {
            w->term = text;
        } else if (str_eq(name, STR("command")) && value.n) {
            w->command = value.n <= COMMAND_MAX ? text : NULL;
            if (!w->command)
                r = err_set(e, ERR_INVALID, "command: at most %d bytes", COMMAND_MAX);
        }
    }
    return r;
}

static struct shell *shell_new(struct fleet *f, struct str agent)
{
    struct shell *s = xcalloc(1, sizeof(*s));

    s->f = f;
    uuid_v4(s->id);
    fmt_z(s->agent, sizeof(s->agent), STR_FMT, STR_ARG(agent));
    buf_init(&s->input, INPUT_MAX);
    s->retry = loop_timer_new(f->h->conf.loop, pass_input, s);
    s->next = f->shells;
    f->shells = s;
    f->n_shells++;
    return s;
}

static int open_it(struct http_req *req, struct fleet *f, struct str agent, const struct wish *w,
                   struct err *e)
{
    const struct ws_limits limits = { .message = 128 * KIB, .queue = QUEUE };
    struct shell *s = shell_new(f, agent);
    json_t *body;
    int r = ws_accept(req, NULL, &limits, &shell_ops, s, &s->ws, e);

    if (r != 0) {
        f->shells = s->next;
        f->n_shells--;
        loop_timer_free(s->retry);
        free(s);
        return r < 0 ? r : 0;
    }
    body =
        json_pack("{s:i, s:i, s:s}", "cols", (int)w->cols, "rows", (int)w->rows, "term", w->term);
    if (w->command)
        json_object_set_new(body, "command", json_string(w->command));
    if (tell(s, "open", body, e) < 0) {
        s->ended = true;
        end(s, -1, "the agent has gone");
    }
    return 0;
}

CO int fleet_shell(struct http_req *req, struct hub *h, struct str agent, struct err *e)
{
    struct fleet *f = h->fleet;
    AUTO(json_decref) json_t *said = json_object();
    struct wish w;
    int r = read_wish(req, &w, e);

    if (r < 0)
        return r;
    if (f->stopping)
        return err_set(e, ERR_UNAVAILABLE, "the hub is stopping");
    if (f->n_shells >= SHELLS_MAX)
        return err_set(e, ERR_UNAVAILABLE, "%d shells are open: that is the most", SHELLS_MAX);
    if (agent.n > HUB_ID_MAX || !hub_agents_find(h->agents, agent))
        return err_set(e, ERR_NOT_FOUND, "Agent not found");
    if (!link_online(h->links, agent))
        return err_set(e, ERR_UNAVAILABLE, "the agent is offline");
    if (w.command)
        json_object_set_new(said, "command", json_string(w.command));
    audit(h, &(struct audit_line){ .event = "shell.opened",
                                   .agent = agent,
                                   .from = str_of(req->who.name),
                                   .peer = req->peer,
                                   .body = said });
    audit_flush(h);
    return open_it(req, f, agent, &w, e);
}
