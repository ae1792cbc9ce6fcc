/* SPDX-License-Identifier: MIT */
/*
 * swarm/gate_jobs.c — requests that wait for the disk. They are begun in the order in which they
 * came: a message joins its lane at once and costs no fiber while it waits for the commit, which it
 * shares with all that comes meanwhile; an acknowledgement, which may be one of many messages, has
 * a fiber. At most GATE_WORKERS are under way, the rest queues. A request that then waits for an
 * agent's reply has a fiber too and no longer counts as work: acknowledgements of the same socket
 * go on.
 */
#include <stdlib.h>

#include "base/id.h"
#include "base/log.h"
#include "base/secret.h"
#include "swarm/gate_int.h"

#define BACKEND "backend-api" /* who the sender of an agent.send is, unless it says so */

enum {
    POOL_MAX = 256,
    OWN_MAX = 64, /* subscriptions of a socket that are tried for an id without a session */
};

struct gate_job *gate_job_take(struct gate *g)
{
    struct gate_job *job = g->pool;

    if (!job)
        return xcalloc(1, sizeof(*job));
    g->pool = job->next;
    g->n_pool--;
    return job;
}

void gate_job_give(struct gate *g, struct gate_job *job)
{
    if (g->n_pool >= POOL_MAX) {
        arena_done(&job->arena);
        free(job);
        return;
    }
    arena_reset(&job->arena);
    job->next = g->pool;
    g->pool = job;
    g->n_pool++;
}

static bool is_full(const struct gate_sock *sock)
{
    return sock->n_jobs >= GATE_JOBS || sock->bytes >= GATE_JOBS_BYTES;
}

/* It is on the disk, or refused: the socket may send more. */
static void stored(struct gate_job *job)
{
    struct gate_sock *sock = job->sock;
    struct gate *g = sock->gate;

    g->n_at_work--;
    if (g->n_at_work == 0 && g->stopper)
        fiber_wake(g->stopper);
    sock->n_jobs--;
    sock->bytes -= job->bytes;
    job->bytes = 0;
    if (sock->paused && sock->n_jobs <= GATE_JOBS / 2 && sock->bytes <= GATE_JOBS_BYTES / 2) {
        sock->paused = false;
        if (sock->ws)
            ws_resume_reading(sock->ws);
    }
}

static void job_end(struct gate_job *job)
{
    struct gate *g = job->sock->gate;

    gate_sock_unref(job->sock);
    gate_job_give(g, job);
}

uint64_t gate_reply_ms(const struct gate *g, const json_t *seconds)
{
    uint64_t most = (uint64_t)g->s->settings->agent_timeout_ms;
    double ms = seconds && json_is_number(seconds) ? json_number_value(seconds) * 1000 : -1;

    if (ms < 0)
        return most;
    return ms < (double)most ? (uint64_t)ms : most;
}

/* --- agent.send and bare messages --- */

/* A message that somebody may reply to, once it is stored: what of the request is still needed. */
struct asked {
    struct gate_sock *sock; /* referred to */
    bool request;
    char id[GATE_ID + 1], to[MAIL_SESSION];
    uint64_t wait_ms;
    struct mail_out out;
};

static void key_of(const struct mail_in *in, struct str key, struct arena *a, struct str *ret)
{
    char hex[2 * SECRET_KEY + 1];

    sha256_hex(str_of(arena_printf(a, STR_FMT "|" STR_FMT "|" STR_FMT, STR_ARG(in->from),
                                   STR_ARG(in->to), STR_ARG(key))),
               hex);
    *ret = str_of(arena_printf(a, "msg:%s", hex));
}

static struct str fresh_id(struct arena *a)
{
    char id[UUID_TEXT];

    uuid_v7(id);
    return arena_str(a, str_of(id));
}

static int text_param(const json_t *params, const char *key, struct str *ret, struct err *e)
{
    const json_t *v = json_object_get(params, key);

    if (!v || json_is_null(v))
        return 0;
    if (!json_is_string(v))
        return err_set(e, ERR_INVALID, "Invalid request: %s is not a text", key);
    *ret = (struct str){ json_string_value(v), json_string_length(v) };
    return 0;
}

static int read_send_params(struct gate_job *job, struct mail_in *in, struct str *ret_key,
                            struct err *e)
{
    const json_t *p = job->frame.params, *metadata = json_object_get(p, "metadata");
    const struct gate_quick *q = job->frame.quick;
    int r;

    if (q) {
        *ret_key = q->key;
        in->to = q->session;
        in->content = q->message;
        in->from = q->from.p ? q->from : in->from;
        return 0;
    }
    r = text_param(p, "sessionKey", &in->to, e);
    if (r == 0)
        r = text_param(p, "message", &in->content, e);
    if (r == 0)
        r = text_param(p, "idempotencyKey", ret_key, e);
    if (r == 0)
        r = text_param(p, "from", &in->from, e);
    if (r == 0 && metadata && !json_is_null(metadata))
        r = json_text(metadata, SIZE_MAX / 2, &job->arena, &in->metadata, e);
    return r;
}

/* Request ids repeat ("1", "2"), so they never make two sends one: only an idempotencyKey does. */
static int read_send(struct gate_job *job, struct mail_in *in, struct err *e)
{
    struct str key = { 0 };
    int r;

    in->from = STR(BACKEND);
    r = read_send_params(job, in, &key, e);
    if (r == 0 && (!in->to.n || !in->content.n || !in->from.n))
        r = err_set(e, ERR_INVALID, "Invalid message: missing required fields");
    if (r < 0)
        return r;
    if (key.n)
        key_of(in, key, &job->arena, &in->workflow);
    else
        in->workflow = fresh_id(&job->arena);
    in->id = in->workflow;
    return 0;
}

static void copy_z(char *out, size_t size, struct str s)
{
    size_t n = s.n < size ? s.n : size - 1;

    memcpy(out, s.n ? s.p : "", n);
    out[n] = '\0';
}

static void answer_send(struct gate_sock *sock, bool request, struct str id, struct str to,
                        struct str response, const struct mail_out *out)
{
    if (request)
        gate_answer_sent(sock, id, to, response, out);
    else
        gate_answer_result(sock, id, response, out);
}

/* Somebody may reply, or has replied to the first of two that are the same. */
static bool may_be_replied_to(const struct gate_sock *sock, const struct mail_out *out,
                              uint64_t wait_ms)
{
    const struct gate *g = sock->gate;

    if (g->stopping || (!out->existed && (!out->replies || wait_ms == 0)))
        return false;
    return sock->n_waits < GATE_WAITS && g->n_waits < GATE_WAITS_ALL;
}

static CO int answer_late(void *arg, struct err *e)
{
    struct asked *asked = arg;
    struct gate_sock *sock = asked->sock;
    struct gate *g = sock->gate;
    AUTO(buf_done) struct buf text = { 0 };
    struct str response = { 0 };
    struct err why;

    buf_init(&text, (size_t)g->s->settings->max_message);
    if (mail_reply_wait(g->s->mail, str_of(asked->out.workflow),
                        now_ms() + (asked->out.replies ? asked->wait_ms : 0), &text, &why) == 0)
        response = text.n ? buf_str(&text) : STR("");
    sock->n_waits--;
    g->n_waits--;
    answer_send(sock, asked->request, str_of(asked->id), str_of(asked->to), response, &asked->out);
    gate_sock_unref(sock);
    free(asked);
    return 0;
}

/* False: nobody will wait for the reply. */
static bool wait_for_reply(const struct gate_job *job, struct str to, const struct mail_out *out,
                           uint64_t wait_ms)
{
    struct gate_sock *sock = job->sock;
    struct asked *asked;
    struct err e;

    if (!may_be_replied_to(sock, out, wait_ms))
        return false;
    asked = xcalloc(1, sizeof(*asked));
    asked->sock = sock;
    asked->request = job->frame.request;
    asked->wait_ms = wait_ms;
    asked->out = *out;
    copy_z(asked->id, sizeof(asked->id), job->frame.id);
    copy_z(asked->to, sizeof(asked->to), to);
    if (fiber_group_spawn(sock->gate->fibers, "gateway reply", answer_late, asked, &e) < 0) {
        free(asked);
        return false;
    }
    sock->refs++;
    sock->n_waits++;
    sock->gate->n_waits++;
    return true;
}

static void send_failed(struct gate_job *job, const struct err *e)
{
    stored(job);
    gate_answer_error(job->sock, &job->frame, e);
    job_end(job);
}

static void send_stored(void *arg, int r, const struct mail_out *out, const struct err *e)
{
    struct gate_job *job = arg;
    struct gate *g = job->sock->gate;
    uint64_t wait_ms = gate_reply_ms(g, json_object_get(job->frame.params, "timeout"));

    if (r < 0) {
        send_failed(job, e);
    } else {
        stored(job);
        if (!wait_for_reply(job, job->to, out, wait_ms))
            answer_send(job->sock, job->frame.request, job->frame.id, job->to, (struct str){ 0 },
                        out);
        job_end(job);
    }
    gate_jobs_go(g);
}

static void send_message(struct gate_job *job)
{
    struct mail_in in = { 0 };
    struct err e;
    int r;

    r = job->frame.request ? read_send(job, &in, &e)
                           : gate_message_read(job->frame.params, true, &job->arena, &in, &e);
    job->to = in.to;
    if (r == 0)
        r = mail_post(job->sock->gate->s->mail, &in, &job->arena, send_stored, job, &e);
    if (r < 0)
        send_failed(job, &e);
}

/* --- agent.ack and agent.reply --- */

/* The key of a socket's i-th subscription; false: it has fewer. */
static bool own_session(const struct gate_sock *sock, unsigned i, char out[MAIL_SESSION])
{
    const struct gate_sub *sub = sock->subs;

    for (; sub && i > 0; i--)
        sub = sub->next;
    if (sub)
        copy_z(out, MAIL_SESSION, sub->session->node.key);
    return sub;
}

struct acking {
    const struct str *ids;
    size_t n;
    const struct str *response; /* NULL: none */
};

/* How many of them there are in a session. One commit in any case. */
static CO int ack_in(struct mail *m, struct str session, const struct acking *what, size_t *ret,
                     struct err *e)
{
    int r;

    if (!what->response && what->n > 1)
        return mail_ack_many(m, session, what->ids, what->n, ret, e);
    r = what->response ? mail_reply(m, session, what->ids[0], *what->response, e)
                       : mail_ack(m, session, what->ids[0], e);
    if (r == 0)
        *ret = 1;
    return r;
}

/*
 * An id is the sender's, so two sessions may have the same one: what a socket acknowledges is of
 * the session it names, or else of those that it is subscribed to.
 */
static CO int ack(struct gate_sock *sock, struct str session, const struct acking *what,
                  size_t *ret, struct err *e)
{
    struct mail *m = sock->gate->s->mail;
    char own[MAIL_SESSION];
    int r = -ERR_NOT_FOUND;
    size_t n;

    if (session.n)
        return ack_in(m, session, what, ret, e);
    if (sock->n_subs == 0 || sock->n_subs > OWN_MAX)
        return err_set(e, ERR_INVALID, "Invalid request: sessionKey is missing");
    *ret = 0;
    for (unsigned i = 0; *ret < what->n && own_session(sock, i, own); i++) {
        n = 0;
        r = ack_in(m, str_of(own), what, &n, e);
        if (r < 0 && r != -ERR_NOT_FOUND)
            return r;
        *ret += n;
    }
    return *ret > 0 ? 0 : r;
}

/* The ids that a document names, into the arena. */
static int list_ids(const struct gate_frame *f, struct arena *a, struct str **ret, size_t *ret_n,
                    struct err *e)
{
    const json_t *one = json_object_get(f->params, "messageId");
    const json_t *many = json_object_get(f->params, "messageIds");
    size_t n = json_is_array(many) ? json_array_size(many) : 1;
    struct str *ids;

    if (n > GATE_ACKS)
        return err_set(e, ERR_LIMIT, "more than %d messageIds", GATE_ACKS);
    ids = arena_alloc(a, n * sizeof(*ids) + 1);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_is_array(many) ? json_array_get(many, i) : one;

        ids[i] = (struct str){ json_string_value(v), json_string_length(v) };
    }
    *ret = ids;
    *ret_n = n;
    return 0;
}

static int read_ids(struct gate_job *job, struct str **ret, size_t *ret_n, struct err *e)
{
    const struct gate_quick *q = job->frame.quick;
    int r = 0;

    if (q && q->many) {
        *ret = q->ids;
        *ret_n = q->n_ids;
    } else if (q) {
        *ret = arena_new(&job->arena, struct str);
        **ret = q->one;
        *ret_n = 1;
    } else {
        r = list_ids(&job->frame, &job->arena, ret, ret_n, e);
    }
    for (size_t i = 0; r == 0 && i < *ret_n; i++)
        if (!(*ret)[i].n)
            r = err_set(e, ERR_INVALID, "Invalid request: messageId is missing");
    return r;
}

static int read_ack_params(const struct gate_frame *f, struct str *ret_session,
                           struct str *ret_response, struct err *e)
{
    int r;

    if (f->quick) {
        *ret_session = f->quick->session;
        *ret_response = f->quick->response;
        return 0;
    }
    r = text_param(f->params, "sessionKey", ret_session, e);
    return r < 0 ? r : text_param(f->params, "response", ret_response, e);
}

static CO int acknowledge(void *arg, struct err *ignored)
{
    struct gate_job *job = arg;
    struct gate_sock *sock = job->sock;
    struct gate *g = sock->gate;
    struct str *ids = NULL, session = { 0 }, response = { 0 };
    bool reply = job->frame.method == METHOD_REPLY;
    struct acking what;
    size_t n = 0, done = 0;
    struct err e;
    int r;

    r = read_ids(job, &ids, &n, &e);
    if (r == 0)
        r = read_ack_params(&job->frame, &session, &response, &e);
    if (r == 0 && reply && !response.p)
        r = err_set(&e, ERR_INVALID, "Invalid request: response is missing");
    if (r == 0 && reply && n != 1)
        r = err_set(&e, ERR_INVALID, "Invalid request: a reply is to one message");
    what = (struct acking){ ids, n, reply ? &response : NULL };
    if (r == 0 && n > 0)
        r = ack(sock, session, &what, &done, &e);
    stored(job);
    if (r < 0)
        gate_answer_error(sock, &job->frame, &e);
    else
        gate_answer(sock, job->frame.id, "{\"status\":\"%s\",\"acknowledged\":%zu}",
                    reply ? "replied" : "acknowledged", done);
    job_end(job);
    gate_jobs_go(g);
    return 0;
}

/* --- the queue --- */

static struct gate_job *next_job(struct gate *g)
{
    struct gate_job *job = g->queue;

    if (!job)
        return NULL;
    g->queue = job->next;
    if (!g->queue)
        g->queue_end = &g->queue;
    return job;
}

void gate_jobs_drop(struct gate *g)
{
    struct gate_job *job;

    while ((job = next_job(g)))
        job_end(job);
}

/* The one at the head; false: there are too many fibers, and the next tick tries again. */
static bool begin(struct gate *g)
{
    struct gate_job *job = g->queue;
    bool send = job->frame.method == METHOD_SEND || job->frame.method == METHOD_DIRECT;
    struct err e;

    if (!send && fiber_group_spawn(g->fibers, "gateway request", acknowledge, job, &e) < 0)
        return false;
    (void)next_job(g); /* it is this one */
    g->n_at_work++;
    if (send)
        send_message(job);
    return true;
}

void gate_jobs_go(struct gate *g)
{
    if (g->going) /* what ends at once comes here again */
        return;
    g->going = true;
    while (g->queue && g->n_at_work < GATE_WORKERS && begin(g))
        continue;
    g->going = false;
}

void gate_job_start(struct gate_sock *sock, struct gate_job *job)
{
    struct gate *g = sock->gate;

    job->sock = sock;
    job->next = NULL;
    sock->refs++;
    sock->n_jobs++;
    sock->bytes += job->bytes;
    *g->queue_end = job;
    g->queue_end = &job->next;
    if (is_full(sock) && !sock->paused && sock->ws) {
        sock->paused = true;
        ws_pause_reading(sock->ws);
    }
    gate_jobs_go(g);
}
