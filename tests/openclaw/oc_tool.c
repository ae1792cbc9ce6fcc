/* SPDX-License-Identifier: MIT */
/*
 * tests/openclaw/oc_tool.c — the OpenClaw client as a program that obeys lines, for the tests
 * against real gateways. Not installed.
 *
 *     oc-tool URL [TOKEN [IDENTITY-FILE]]     with a file: a device identity is shown at once
 *
 * A line of standard input is {"n":1,"do":"turn",...} with the members of struct oc_turn or oc_post
 * and "ms", the deadline; each is answered by {"n":1,"ok":true,...} in the order they end. Between
 * them come {"event":...,"payload":...} and {"state":...}. It ends with its standard input.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "openclaw/openclaw_int.h"

static struct loop *loop;
static struct oc_client *client;
static struct fiber_group *jobs;

static void print(json_t *line)
{
    struct buf out;
    struct err e;

    buf_init(&out, 64 * MIB);
    if (json_write(line, &out, &e) == 0 && buf_add_z(&out, "\n", &e) == 0)
        fwrite(buf_str(&out).p, 1, out.n, stdout);
    else
        fprintf(stderr, "oc-tool: %s\n", e.msg);
    fflush(stdout);
    buf_done(&out);
    json_decref(line);
}

static void on_event(const struct oc_event *event, void *arg)
{
    json_t *payload = event->payload ? json_deep_copy(event->payload) : json_null();

    print(json_pack("{s:s, s:o}", "event", event->name, "payload", payload));
}

static void on_changed(enum oc_state state, void *arg)
{
    print(json_pack("{s:s}", "state", oc_state_name(state)));
}

static struct str text_of(const json_t *job, const char *key)
{
    return json_member_str(job, key);
}

CO static int do_wait(const json_t *job, uint64_t deadline_ms, json_t *answer, struct err *e)
{
    return oc_wait(client, deadline_ms, e);
}

CO static int do_request(const json_t *job, uint64_t deadline_ms, json_t *answer, struct err *e)
{
    json_t *payload = NULL;
    int r;

    r = oc_request(client, json_string_value(json_object_get(job, "method")),
                   json_object_get(job, "params"), deadline_ms, &payload, e);
    if (r == 0)
        json_object_set_new(answer, "payload", payload);
    return r;
}

CO static int do_turn(const json_t *job, uint64_t deadline_ms, json_t *answer, struct err *e)
{
    const struct oc_turn turn = {
        .session = text_of(job, "session"),
        .message = text_of(job, "message"),
        .key = text_of(job, "key"),
        .agent = json_string_value(json_object_get(job, "agent")),
        .extra_prompt = json_string_value(json_object_get(job, "extra_prompt")),
        .deliver = json_is_true(json_object_get(job, "deliver")),
    };
    AUTO(buf_done) struct buf out;
    int r;

    buf_init(&out, 16 * MIB);
    r = oc_turn(client, &turn, deadline_ms, &out, e);
    if (r == 0)
        json_object_set_new(answer, "text", json_stringn(buf_str(&out).p, out.n));
    return r;
}

CO static int do_post(const json_t *job, uint64_t deadline_ms, json_t *answer, struct err *e)
{
    const struct oc_post post = {
        .channel = text_of(job, "channel"),
        .to = text_of(job, "to"),
        .message = text_of(job, "message"),
        .key = text_of(job, "key"),
        .account = json_string_value(json_object_get(job, "account")),
        .again = json_is_true(json_object_get(job, "again")),
    };
    struct arena a = { 0 };
    const char *id = NULL;
    int r;

    r = oc_post(client, &post, deadline_ms, &a, &id, e);
    if (r == 0 && id)
        json_object_set_new(answer, "id", json_string(id));
    arena_done(&a);
    return r;
}

CO static int do_status(const json_t *job, uint64_t deadline_ms, json_t *answer, struct err *e)
{
    json_t *history = json_array();
    struct oc_status now;

    oc_status(client, &now);
    for (size_t i = 0; i < now.n_history; i++)
        json_array_append_new(history,
                              json_pack("{s:s, s:s, s:s, s:s}", "command", now.history[i].command,
                                        "status", now.history[i].status, "session",
                                        now.history[i].session, "message", now.history[i].message));
    json_object_update_new(
        answer,
        json_pack("{s:s, s:s, s:b, s:s?, s:s?, s:i, s:I, s:i, s:i, s:o}", "state",
                  oc_state_name(now.state), "url", now.url, "breaker_open", now.breaker_open,
                  "last_error", now.last_error, "version", now.version, "protocol",
                  (int)now.protocol, "connected_ms", (json_int_t)now.connected_ms, "attempts",
                  (int)now.attempts, "pending", (int)now.pending, "history", history));
    return 0;
}

CO static int do_stop(const json_t *job, uint64_t deadline_ms, json_t *answer, struct err *e)
{
    oc_stop(client);
    return 0;
}

CO static int do_start(const json_t *job, uint64_t deadline_ms, json_t *answer, struct err *e)
{
    return oc_start(client, e);
}

static const struct {
    const char *name;
    CO int (*fn)(const json_t *job, uint64_t deadline_ms, json_t *answer, struct err *e);
} verbs[] = {
    { "wait", do_wait }, { "request", do_request }, { "turn", do_turn },     { "post", do_post },
    { "stop", do_stop }, { "start", do_start },     { "status", do_status },
};

CO static int obey(void *arg, struct err *e)
{
    AUTO(json_decref) json_t *job = arg;
    const char *verb = json_string_value(json_object_get(job, "do"));
    json_t *answer = json_object();
    uint64_t deadline_ms;
    struct err why;
    int r;

    deadline_ms = deadline_in(json_integer_value(json_object_get(job, "ms")));
    r = err_set(&why, ERR_INVALID, "no such verb");
    for (size_t i = 0; verb && i < LEN(verbs); i++)
        if (strcmp(verb, verbs[i].name) == 0)
            r = verbs[i].fn(job, deadline_ms, answer, &why);
    json_object_set_new(answer, "n", json_copy(json_object_get(job, "n")));
    json_object_set_new(answer, "ok", json_boolean(r == 0));
    if (r < 0) {
        json_object_set_new(answer, "code", json_string(err_name(why.code)));
        json_object_set_new(answer, "error", json_string(why.msg));
    }
    print(answer);
    return 0;
}

static int begin(struct str line, struct err *e)
{
    struct arena a = { 0 };
    json_t *job = NULL;
    int r;

    r = json_parse(line, 64, &a, &job, NULL, e);
    if (r == 0) {
        json_incref(job);
        r = fiber_group_spawn(jobs, "job", obey, job, e);
    }
    arena_done(&a);
    return r;
}

CO static int read_lines(struct err *e)
{
    AUTO(buf_done) struct buf in;
    const char *end;
    ssize_t n;
    char *to;
    int r;

    buf_init(&in, 64 * MIB);
    for (;;) {
        r = buf_reserve(&in, 64 * KIB, &to, e);
        if (r < 0)
            return r;
        n = fiber_read(STDIN_FILENO, to, 64 * KIB, DEADLINE_NONE, e);
        if (n <= 0)
            return (int)n;
        buf_commit(&in, (size_t)n);
        while ((end = memchr(buf_str(&in).p, '\n', in.n))) {
            struct str line = { buf_str(&in).p, (size_t)(end - buf_str(&in).p) };

            r = begin(line, e);
            if (r < 0)
                return r;
            buf_eat(&in, line.n + 1);
        }
    }
}

CO static int run(void *arg, struct err *e)
{
    int r;

    r = oc_start(client, e);
    if (r == 0)
        r = read_lines(e);
    fiber_group_cancel(jobs);
    (void)fiber_group_join(jobs, NULL); /* jobs tell their own errors */
    oc_stop(client);
    oc_free(client);
    fiber_group_free(jobs);
    return r;
}

int main(int argc, char **argv)
{
    struct oc_conf conf = { .event = on_event, .changed = on_changed, .subscribe = true };
    struct err e;

    if (argc < 2 || argc > 4) {
        fprintf(stderr, "usage: oc-tool URL [TOKEN [IDENTITY-FILE]]\n");
        return 2;
    }
    conf.url = argv[1];
    conf.token = argc > 2 ? argv[2] : NULL;
    conf.identity_path = argc > 3 ? argv[3] : NULL;
    log_setup(LOG_DEBUG, LOG_TEXT);
    if (fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK) < 0 || loop_new(&loop, &e) < 0 ||
        oc_new(loop, &conf, &client, &e) < 0)
        return 1;
    client->use_device = conf.identity_path != NULL;
    jobs = fiber_group_new(loop);
    if (fiber_spawn(loop, "oc-tool", run, NULL, NULL, &e) < 0)
        return 1;
    loop_run(loop);
    loop_free(loop);
    return 0;
}
