/* SPDX-License-Identifier: MIT */
/*
 * agent/http_agent.c — see http_agent.h. One request is one run of the command: write the prompt,
 * read both pipes to their ends, reap. A client that goes away cancels the fiber, which ends the
 * command's whole process group.
 */
#include "agent/http_agent.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/offload.h"
#include "base/proc.h"
#include "base/secret.h"
#include "net/http_server.h"

#define BODY_MAX    (16 * MIB)
#define ERROR_TEXT  2000 /* bytes of stderr in a 500 */
#define STDERR_MAX  (64 * KIB)
#define GRACE_MS    2000 /* between SIGTERM and SIGKILL */
#define SHUTDOWN_MS 5000
#define ENVIRON_MAX 4096

extern char **environ;

struct http_agent {
    const struct http_agent_options *opt;
    struct loop *loop;
    struct http_server *server;
    struct fiber *flow;
    bool stopping;
    long long running;
};

struct prompt_in {
    const char *model, *session_id;
    json_t *messages;
};
static const struct shape_field prompt_fields[] = {
    FIELD(struct prompt_in, model, .nullable = true),
    FIELD(struct prompt_in, session_id, .nullable = true),
    FIELD(struct prompt_in, messages, .required = true,
          .doc = "The last message of role user is the prompt."),
};
static const struct shape prompt_shape = SHAPE(struct prompt_in, "Prompt", prompt_fields);

struct messages_out {
    const char *content, *model;
};
static const struct shape_field messages_fields[] = {
    FIELD(struct messages_out, content),
    FIELD(struct messages_out, model),
};
static const struct shape messages_shape = SHAPE(struct messages_out, "Answer", messages_fields);

struct choice_message {
    const char *role, *content;
};
static const struct shape_field choice_message_fields[] = {
    FIELD(struct choice_message, role),
    FIELD(struct choice_message, content),
};
static const struct shape choice_message_shape =
    SHAPE(struct choice_message, "ChatMessage", choice_message_fields);

struct choice {
    int64_t index;
    const void *message;
    const char *finish_reason;
};
static const struct shape_field choice_fields[] = {
    FIELD(struct choice, index),
    FIELD(struct choice, message, .of = &choice_message_shape),
    FIELD(struct choice, finish_reason),
};
static const struct shape choice_shape = SHAPE(struct choice, "ChatChoice", choice_fields);

struct chat_out {
    const char *id, *object, *model;
    int64_t created;
    struct shape_list choices;
};
static const struct shape_field chat_fields[] = {
    FIELD(struct chat_out, id),
    FIELD(struct chat_out, object),
    FIELD(struct chat_out, created),
    FIELD(struct chat_out, model),
    FIELD(struct chat_out, choices, .of = &choice_shape),
};
static const struct shape chat_shape = SHAPE(struct chat_out, "ChatCompletion", chat_fields);

struct health_out {
    const char *status;
    int64_t running, concurrency;
};
static const struct shape_field health_fields[] = {
    FIELD(struct health_out, status),
    FIELD(struct health_out, running),
    FIELD(struct health_out, concurrency),
};
static const struct shape health_shape = SHAPE(struct health_out, "AgentHealth", health_fields);

/* A string, or the texts of an array of {"type":"text","text":...} blocks. */
static const char *content_text(const json_t *content, struct arena *a)
{
    const json_t *block;
    size_t i, n = 0;
    bool any = false;
    char *text, *end;

    if (json_is_string(content))
        return json_string_value(content);
    json_array_foreach(content, i, block)
    {
        const json_t *part = json_object_get(block, "text");

        any |= json_is_string(part);
        n += json_string_length(part);
    }
    if (!any)
        return NULL;
    text = end = arena_alloc(a, n + 1);
    json_array_foreach(content, i, block)
    {
        const json_t *part = json_object_get(block, "text");

        if (json_is_string(part))
            end = mempcpy(end, json_string_value(part), json_string_length(part));
    }
    *end = '\0';
    return text;
}

static int find_prompt(const struct prompt_in *in, struct arena *a, struct str *ret, struct err *e)
{
    const char *found = NULL;
    const json_t *message;
    size_t i;

    json_array_foreach(in->messages, i, message)
    {
        const char *role = json_string_value(json_object_get(message, "role"));
        const char *text = content_text(json_object_get(message, "content"), a);

        if (role && strcmp(role, "user") == 0 && text)
            found = text;
    }
    if (!found)
        return err_set(e, ERR_INVALID, "messages: there is no message of role user with a text");
    *ret = str_of(found);
    return 0;
}

/* Our environment and the two variables, in the arena. */
static const char *const *make_env(const struct prompt_in *in, struct arena *a)
{
    const char **env;
    size_t n = 0, kept = 0;

    while (environ[n] && n < ENVIRON_MAX)
        n++;
    env = arena_alloc(a, (n + 3) * sizeof(*env));
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], "CHELA_AGENT_TOKEN=", 18) != 0)
            env[kept++] = environ[i];
    env[kept++] = arena_printf(a, "CHELA_SESSION_ID=%s", in->session_id ? in->session_id : "");
    env[kept++] = arena_printf(a, "CHELA_MODEL=%s", in->model ? in->model : "");
    return env;
}

struct feed {
    int *fd;
    struct str bytes;
    uint64_t deadline_ms;
};

/* A command may end without reading its input: that is its choice, not an error. */
static CO int feed_stdin(void *arg, struct err *e)
{
    struct feed *feed = arg;
    int r = fiber_write_all(*feed->fd, feed->bytes.p, feed->bytes.n, feed->deadline_ms, e);

    if (*feed->fd >= 0)
        close(*feed->fd);
    *feed->fd = -1;
    return r == -ERR_CANCELED ? r : 0;
}

struct drain {
    int fd;
    struct buf *into;
    bool keep_end; /* at the bound: true drops the beginning, false fails */
    uint64_t deadline_ms;
};

static int keep(struct drain *d, const char *chunk, size_t n, struct err *e)
{
    int r;

    if (d->keep_end && d->into->n + n > d->into->max)
        buf_eat(d->into, d->into->n + n - d->into->max);
    r = buf_add(d->into, chunk, n, e);
    return r < 0 ? err_wrap(e, "output of the command") : 0;
}

static CO int drain_pipe(void *arg, struct err *e)
{
    struct drain *d = arg;
    char chunk[4096];
    ssize_t n;
    int r = 0;

    do {
        n = fiber_read(d->fd, chunk, sizeof(chunk), d->deadline_ms, e);
        if (n > 0)
            r = keep(d, chunk, (size_t)n, e);
    } while (n > 0 && r == 0);
    return n < 0 ? (int)n : r;
}

/* What the pipe holds already, when nobody waits for its end any more. */
static void drain_rest(struct drain *d)
{
    char chunk[4096];
    struct err ignored;
    ssize_t n = 1;

    for (size_t most = d->into->max; n > 0 && most >= sizeof(chunk); most -= sizeof(chunk)) {
        n = read(d->fd, chunk, sizeof(chunk));
        if (n > 0 && keep(d, chunk, (size_t)n, &ignored) < 0)
            return;
    }
}

/* Move the data until both outputs are at their ends. */
static CO int pump(struct loop *loop, struct proc *p, struct str prompt, struct buf *out,
                   struct buf *errors, uint64_t deadline_ms, struct err *e)
{
    struct fiber_group *group = fiber_group_new(loop);
    struct feed feed = { &p->in, prompt, deadline_ms };
    struct drain drain_out = { p->out, out, false, deadline_ms };
    struct drain drain_err = { p->err, errors, true, deadline_ms };
    struct err ignored;
    int r;

    r = fiber_group_spawn(group, "agent stdin", feed_stdin, &feed, e);
    if (r == 0)
        r = fiber_group_spawn(group, "agent stderr", drain_pipe, &drain_err, e);
    if (r == 0)
        r = drain_pipe(&drain_out, e);
    if (r == 0)
        r = proc_wait(p, deadline_ms, e);
    fiber_group_cancel(group); /* a grandchild may hold stderr open: the command has ended */
    (void)fiber_group_join(group, &ignored);
    fiber_group_free(group);
    drain_rest(&drain_err);
    return r;
}

static int check_exit(const struct proc *p, const struct buf *errors, struct err *e)
{
    struct str text = str_trim(buf_str(errors));
    int code = proc_exit_code(p);

    if (code == 0)
        return 0;
    if (text.n > ERROR_TEXT)
        text = (struct str){ text.p + text.n - ERROR_TEXT, ERROR_TEXT };
    log_warn("the command failed", "status", LOG_INT(code));
    return err_set(e, ERR_INTERNAL, "the command ended with status %d%s" STR_FMT, code,
                   text.n ? ": " : "", STR_ARG(text));
}

static CO int run_command(struct http_agent *agent, struct http_req *req, struct str *ret,
                          struct err *e)
{
    const struct prompt_in *in = req->in;
    const struct proc_spec spec = {
        .argv = agent->opt->command,
        .env = make_env(in, req->arena),
        .in = PROC_PIPE,
        .out = PROC_PIPE,
        .err = PROC_PIPE,
    };
    uint64_t deadline_ms = deadline_in(agent->opt->timeout_ms);
    AUTO(buf_done) struct buf out, errors;
    struct proc p = { .pidfd = -1, .in = -1, .out = -1, .err = -1 };
    struct str prompt;
    int r;

    buf_init(&out, AGENT_ANSWER_MAX);
    buf_init(&errors, STDERR_MAX);
    r = find_prompt(in, req->arena, &prompt, e);
    if (r < 0)
        return r;
    if (proc_start(&spec, &p, e) < 0) {
        e->code = ERR_INTERNAL; /* a missing program is our 500, not the caller's 404 */
        return -ERR_INTERNAL;
    }
    r = pump(agent->loop, &p, prompt, &out, &errors, deadline_ms, e);
    if (r < 0)
        proc_end(&p, GRACE_MS);
    if (r == -ERR_TIMEOUT)
        err_set(e, ERR_TIMEOUT, "the command did not end within %lld ms", agent->opt->timeout_ms);
    if (r == 0)
        r = check_exit(&p, &errors, e);
    proc_done(&p);
    if (r < 0)
        return r;
    if (!utf8_valid(buf_str(&out).p, buf_str(&out).n))
        return err_set(e, ERR_INTERNAL, "the command's output is not valid UTF-8");
    if (out.n && memchr(buf_str(&out).p, 0, out.n))
        return err_set(e, ERR_INTERNAL, "the command's output holds a NUL byte");
    *ret = arena_str(req->arena, buf_str(&out));
    while (ret->n && ret->p[ret->n - 1] == '\n')
        ret->n--;
    *ret = arena_str(req->arena, *ret);
    return 0;
}

/* Run within the bound of concurrent commands. The error of a failed run is for the caller to see.
 */
static CO int answer(struct http_req *req, struct str *ret, struct err *e)
{
    struct http_agent *agent = req->room;
    int r;

    if (agent->running >= agent->opt->concurrency)
        return err_set(e, ERR_UNAVAILABLE, "%lld commands are running, the bound: try again later",
                       agent->running);
    agent->running++;
    r = run_command(agent, req, ret, e);
    agent->running--;
    return r;
}

/* The caller runs this command: unlike elsewhere the text of its failure is meant for it. */
static void fail_openly(struct http_req *req, const struct err *e)
{
    struct buf body;
    struct err lost;
    int r;

    buf_init(&body, 64 * KIB);
    r = buf_add_z(&body, "{\"error\":", &lost);
    if (r == 0)
        r = json_write_str(&body, str_of(e->msg), &lost); /* whatever bytes the command said */
    if (r == 0)
        r = buf_add_z(&body, "}", &lost);
    req->status = 500;
    if (r == 0)
        http_reply_text(req, 500, "application/json", arena_str(req->arena, buf_str(&body)));
    buf_done(&body);
}

static CO int messages(struct http_req *req, struct err *e)
{
    const struct prompt_in *in = req->in;
    struct messages_out *out = arena_new(req->arena, struct messages_out);
    struct str text;
    int r;

    r = answer(req, &text, e);
    if (r == -ERR_INTERNAL) {
        fail_openly(req, e);
        return 0;
    }
    if (r < 0)
        return r;
    *out = (struct messages_out){ .content = text.p, .model = in->model };
    req->out = out;
    return 0;
}

static CO int chat(struct http_req *req, struct err *e)
{
    const struct prompt_in *in = req->in;
    struct chat_out *out = arena_new(req->arena, struct chat_out);
    struct choice *choice = arena_new(req->arena, struct choice);
    struct choice_message *message = arena_new(req->arena, struct choice_message);
    struct str text;
    int r;

    r = answer(req, &text, e);
    if (r == -ERR_INTERNAL) {
        fail_openly(req, e);
        return 0;
    }
    if (r < 0)
        return r;
    *message = (struct choice_message){ "assistant", text.p };
    *choice = (struct choice){ 0, message, "stop" };
    *out = (struct chat_out){
        .id = arena_printf(req->arena, "chatcmpl-%s", req->id),
        .object = "chat.completion",
        .created = wall_us() / 1000000,
        .model = in->model,
        .choices = { arena_alloc(req->arena, sizeof(void *)), 1 },
    };
    out->choices.v[0] = choice;
    req->out = out;
    return 0;
}

static int health(struct http_req *req, struct err *e)
{
    const struct http_agent *agent = req->room;
    struct health_out *out = arena_new(req->arena, struct health_out);

    *out = (struct health_out){ "ok", agent->running, agent->opt->concurrency };
    req->out = out;
    return 0;
}

/* clang-format off */
static const struct http_route routes[] = {
    { HTTP_M_POST, "/v1/messages", messages, .need = NEED_BRIDGE, .in = &prompt_shape,
      .out = &messages_shape, .doc = "Run the command on a prompt." },
    { HTTP_M_POST, "/v1/chat/completions", chat, .need = NEED_BRIDGE, .in = &prompt_shape,
      .out = &chat_shape, .doc = "The same in the form of the OpenAI chat API." },
    { HTTP_M_GET, "/health", health, .need = NEED_NONE, .out = &health_shape,
      .doc = "200 when the agent serves." },
};
/* clang-format on */

static int authenticate(struct http_req *req, const struct stream_addr *peer, void *arg,
                        struct http_identity *ret, struct err *e)
{
    const struct http_agent *agent = arg;
    struct str value = http_header_get(req, "authorization");
    const char *token = agent->opt->token;

    if (token && !(str_starts(value, STR("Bearer ")) &&
                   secret_eq((struct str){ value.p + 7, value.n - 7 }, str_of(token))))
        return err_set(e, ERR_UNAUTHORIZED, "Unauthorized");
    *ret = (struct http_identity){ .name = "caller", .scopes = NEED_NONE | NEED_BRIDGE };
    return 0;
}

static bool host_allowed(struct str host, const struct stream_addr *peer, void *arg)
{
    return true;
}

/* Without a token no web page may call, and with each POST, which alone runs the command, pages
 * send an Origin: another site's as well as one whose name was made to resolve to us. */
static bool origin_allowed(struct str origin, void *arg)
{
    const struct http_agent *agent = arg;

    return agent->opt->token != NULL;
}

static int serve(struct http_agent *agent, const struct http_limits *limits,
                 struct http_table *table, struct err *e)
{
    const struct http_server_ops ops = {
        .authenticate = authenticate,
        .host_allowed = host_allowed,
        .origin_allowed = origin_allowed,
        .arg = agent,
    };
    const struct http_table *const tables[] = { table };
    const struct http_agent_options *opt = agent->opt;
    unsigned short port;
    char line[256];
    int fd, r;

    r = http_server_new(agent->loop, limits, &ops, tables, 1, &agent->server, e);
    if (r == 0)
        r = listen_tcp(opt->host, (unsigned short)opt->port, 128, &fd, &port, e);
    if (r == 0)
        r = http_server_listen(agent->server, fd, NULL, e);
    if (r < 0)
        return r;
    fmt_z(line, sizeof(line), strchr(opt->host, ':') ? "[%s]:%u" : "%s:%u", opt->host, port);
    log_info("serving", "http", LOG_STR(line), "command", LOG_STR(opt->command[0]));
    if (opt->ready_fd >= 0) {
        dprintf(opt->ready_fd,
                "{\"ready\":true,\"version\":\"%s\",\"pid\":%ld,\"listeners\":{\"http\":\"%s\"}}\n",
                CHELA_VERSION, (long)getpid(), line);
        close(opt->ready_fd);
    }
    return 0;
}

static void on_stop(void *arg)
{
    struct http_agent *agent = arg;

    agent->stopping = true;
    fiber_wake(agent->flow);
}

struct life {
    struct http_agent *agent;
    int r;
    struct err e;
};

static CO int live(void *arg, struct err *unused)
{
    struct life *life = arg;
    struct http_agent *agent = life->agent;
    const long long second = 1000;
    const struct http_limits limits = {
        .connections = 1024,
        .connections_per_ip = 1024,
        .header_bytes = (long long)(64 * KIB),
        .body_bytes = (long long)BODY_MAX,
        .json_depth = 512,
        .first_byte_ms = 10 * second,
        .body_idle_ms = 30 * second,
        .idle_ms = 75 * second,
        .write_idle_ms = 60 * second,
    };
    struct http_table table = { "/", &dialect_plain, routes, LEN(routes), agent };
    struct err e;

    agent->flow = fiber_self();
    life->r = serve(agent, &limits, &table, &life->e);
    while (life->r == 0 && !agent->stopping)
        if (fiber_park(DEADLINE_NONE, &e) < 0)
            break;
    if (agent->server && http_server_shutdown(agent->server, now_ms() + SHUTDOWN_MS, &e) < 0)
        log_warn("requests were cut off", "error", LOG_ERR(&e));
    http_server_free(agent->server);
    loop_stop(agent->loop);
    return 0;
}

int http_agent_run(const struct http_agent_options *opt, struct err *e)
{
    struct http_agent agent = { .opt = opt };
    struct life life = { .agent = &agent };
    struct loop_signal *term, *interrupt;
    int r;

    if (!addr_is_loopback(opt->host) && !opt->token)
        return err_set(e, ERR_INVALID,
                       "'%s' can be reached by others: set a token in CHELA_AGENT_TOKEN, which the "
                       "bridge sends when the agent is registered with it",
                       opt->host);
    signal(SIGPIPE, SIG_IGN);
    r = loop_new(&agent.loop, e);
    if (r == 0)
        r = fiber_spawn(agent.loop, "agent", live, &life, NULL, e);
    if (r < 0)
        return r;
    term = loop_signal_new(agent.loop, SIGTERM, on_stop, &agent);
    interrupt = loop_signal_new(agent.loop, SIGINT, on_stop, &agent);
    loop_run(agent.loop);
    loop_signal_free(term);
    loop_signal_free(interrupt);
    offload_shutdown();
    loop_free(agent.loop);
    if (life.r < 0)
        *e = life.e;
    return life.r;
}
