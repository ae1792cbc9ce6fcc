/* SPDX-License-Identifier: MIT */
/*
 * swarm/notify_drive.c — messages of mailboxes that go out through the OpenClaw gateway: to
 * "agent:…" as a turn of that agent, to "<channel>:<peer>" as a text in that channel.
 *
 * While the gateway is away messages wait here, which does not count as an attempt. A session has a
 * bucket of tokens; a notification that had to wait for one takes the notifications behind it with
 * it, in one text, and they are acknowledged each by itself. The peer is given the message's
 * workflow id as its key (of a joined text: a hash of all of them), so that it does not say twice
 * what was tried twice. A text that failed is tried again exactly as it was: under the same key
 * nothing else is ever said.
 */
#include <string.h>

#include "base/log.h"
#include "base/secret.h"
#include "swarm/notify_int.h"

#define KEY_MAX (2 * SECRET_KEY + 16)

/* Asked of an agent that a notification is handed to. */
static const char pass_on[] = "The next message is a notification for the people in this "
                              "conversation. Answer with its text, word for word, and nothing "
                              "else; do not act on it.";

struct batch {
    struct arena arena;
    struct str text, key;
    struct str *ids; /* workflow ids; the first is the message that is being delivered */
    size_t n;
    bool again; /* it may have been said: in an earlier attempt, or by a process before us */
};

static void batch_free(struct batch *b)
{
    if (!b)
        return;
    arena_done(&b->arena);
    free(b);
}

DEFINE_AUTO(batch_free, struct batch *);

/* --- echoes --- */

uint64_t notify_echo_of(struct str session, struct str text)
{
    unsigned char digest[SECRET_KEY];
    struct arena a = { 0 };
    uint64_t echo;
    char *both = arena_printf(&a, STR_FMT "\n" STR_FMT, STR_ARG(session), STR_ARG(str_trim(text)));

    sha256(both, strlen(both), digest);
    memcpy(&echo, digest, sizeof(echo));
    arena_done(&a);
    return echo;
}

void notify_echo_add(struct notify *n, uint64_t echo)
{
    n->echoes[n->n_echoes++ % NOTIFY_ECHOES] = echo;
}

bool notify_echo_known(const struct notify *n, uint64_t echo)
{
    for (size_t i = 0; i < NOTIFY_ECHOES; i++)
        if (n->echoes[i] == echo)
            return true;
    return false;
}

/* --- outlets --- */

static struct outlet *outlet_find(struct notify *n, struct str session)
{
    struct strmap_node *node = strmap_find(&n->outlets, session);

    return node ? container_of(node, struct outlet, node) : NULL;
}

static void outlet_drop(struct notify *n, struct outlet *o)
{
    strmap_remove(&n->outlets, &o->node);
    batch_free(o->batch);
    free(o);
}

/* Those whose bucket is full again are as good as new ones. */
static void outlets_sweep(struct notify *n, bool all)
{
    for (size_t i = 0; i < n->outlets.n_slots; i++) {
        struct strmap_node *node = n->outlets.slots[i], *next;

        for (; node; node = next) {
            struct outlet *o = container_of(node, struct outlet, node);

            next = node->next;
            if (all || (!o->busy && !o->batch &&
                        bucket_full(&o->bucket, n->s->settings->notify_rate, now_ms())))
                outlet_drop(n, o);
        }
    }
}

void notify_drive_done(struct notify *n)
{
    outlets_sweep(n, true);
    strmap_done(&n->outlets);
}

/* It stays as long as somebody is busy with it. */
static struct outlet *outlet_enter(struct notify *n, struct str session)
{
    struct outlet *o = outlet_find(n, session);

    if (!o) {
        if (n->outlets.n >= NOTIFY_OUTLETS)
            outlets_sweep(n, false);
        o = xcalloc(1, sizeof(*o) + session.n + 1);
        memcpy(o->session, session.p, session.n);
        strmap_add(&n->outlets, &o->node, str_of(o->session));
    }
    o->busy++;
    return o;
}

/* --- what goes out --- */

static struct batch *batch_of_one(const struct notify *n, const struct mail_push *push)
{
    struct batch *b = xcalloc(1, sizeof(*b));

    b->again = push->attempt > 1 || push->accepted_ms < n->started_at;
    b->text = arena_str(&b->arena, push->content);
    b->key = arena_str(&b->arena, push->workflow);
    b->ids = arena_new(&b->arena, struct str);
    b->ids[0] = b->key;
    b->n = 1;
    return b;
}

static const struct sql behind_sql = {
    "notify: what waits behind",
    "SELECT workflow_uuid, content, sender FROM agent_messages WHERE session = ?1"
    " AND status = 'pending' AND position > (SELECT position FROM agent_messages"
    " WHERE workflow_uuid = ?2) ORDER BY position LIMIT ?3",
    NULL,
};

struct behind {
    struct arena *a;
    struct str session, first;
    struct str ids[NOTIFY_JOINED], texts[NOTIFY_JOINED];
    size_t n;
};

/* As far as notifications follow one another. */
static int take_behind(struct store_row *row, void *arg, struct err *e)
{
    struct behind *b = arg;

    (void)e;
    if (b->n == NOTIFY_JOINED || !str_eq_z(row_str(row, 2), NOTIFY_FROM))
        return 1;
    b->ids[b->n] = arena_str(b->a, row_str(row, 0));
    b->texts[b->n++] = arena_str(b->a, row_str(row, 1));
    return 0;
}

static int behind_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct behind *b = arg;
    const struct sql_arg args[] = { SQL_STR(b->session), SQL_STR(b->first),
                                    SQL_INT(NOTIFY_JOINED) };
    int r;

    b->n = 0;
    r = store_run(tx, &behind_sql, args, LEN(args), take_behind, b, e);
    return r < 0 ? r : 0;
}

/* The key of a joined text: of what it is made of, and of nothing else. */
static struct str key_of(const struct str *ids, size_t n, struct arena *a)
{
    AUTO(buf_done) struct buf all = { 0 };
    char hex[2 * SECRET_KEY + 1];
    struct err e;

    buf_init(&all, n * (MAIL_ID + 1));
    for (size_t i = 0; i < n; i++)
        if (buf_printf(&all, &e, STR_FMT "\n", STR_ARG(ids[i])) < 0)
            abort(); /* an id is shorter than MAIL_ID */
    sha256_hex(buf_str(&all), hex);
    return str_of(arena_printf(a, "ntf-joined:%s", hex));
}

/* Join what waits behind the batch's one message. When the database does not tell, it goes alone.
 */
static CO void batch_join(struct notify *n, struct str session, struct batch *b)
{
    struct behind *behind = arena_new(&b->arena, struct behind);
    AUTO(buf_done) struct buf text = { 0 };
    struct str *ids;
    size_t joined = 0;
    struct err e;

    behind->a = &b->arena;
    behind->session = session;
    behind->first = b->ids[0];
    if (store_read(n->s->conf.store, behind_body, behind, &e) < 0 || !behind->n)
        return;
    buf_init(&text, b->text.n + (size_t)NOTIFY_CHARS * 4 + 2);
    if (!notify_join(&text, b->text))
        return;
    while (joined < behind->n && notify_join(&text, behind->texts[joined]))
        joined++;
    if (!joined)
        return;
    ids = arena_alloc(&b->arena, (joined + 1) * sizeof(*ids));
    ids[0] = b->ids[0];
    memcpy(ids + 1, behind->ids, joined * sizeof(*ids));
    b->ids = ids;
    b->n = joined + 1;
    b->text = arena_str(&b->arena, buf_str(&text));
    b->key = key_of(b->ids, b->n, &b->arena);
}

static bool is_notification(const struct mail_push *push)
{
    return str_eq_z(push->from, NOTIFY_FROM);
}

/* Until the gateway can be spoken to. */
static CO int wait_connected(struct notify *n, struct err *e)
{
    int r;

    for (;;) {
        if (n->stopping)
            return err_set(e, ERR_CANCELED, "stopping");
        r = oc_wait(n->client, deadline_in(1000), e);
        if (r == 0 || (r != -ERR_TIMEOUT && r != -ERR_UNAVAILABLE))
            return r;
        r = fiber_sleep(100, e);
        if (r < 0)
            return r;
    }
}

/* Until it may be spoken to: a token is taken. *ret_waited: none was there at first. */
static CO int wait_turn(struct notify *n, struct outlet *o, bool *ret_waited, struct err *e)
{
    uint64_t wait_ms = 0;
    int r;

    *ret_waited = false;
    for (;;) {
        r = wait_connected(n, e);
        if (r < 0)
            return r;
        if (bucket_take(&o->bucket, n->s->settings->notify_rate, now_ms(), &wait_ms))
            return 0;
        *ret_waited = true;
        r = fiber_sleep(wait_ms < 500 ? wait_ms : 500, e); /* the rate is live */
        if (r < 0)
            return r;
    }
}

static CO int say(struct notify *n, struct str session, const struct batch *b, bool notification,
                  struct buf *out, struct err *e)
{
    struct oc_post post = { .message = b->text, .key = b->key, .again = b->again };
    struct oc_turn turn = {
        .session = session,
        .message = b->text,
        .key = b->key,
        .extra_prompt = notification ? pass_on : NULL,
        .deliver = true,
    };

    notify_echo_add(n, notify_echo_of(session, b->text));
    if (notify_peer(session, &post.channel, &post.to))
        return oc_post(n->client, &post, deadline_in(POST_MS), NULL, NULL, e);
    return oc_turn(n->client, &turn, deadline_in(TURN_MS), out, e);
}

/* What went with the first message has been delivered too. Until that is on the disk the session
 * waits: otherwise it would be said again. */
static CO void acknowledge(struct notify *n, struct str session, const struct batch *b)
{
    struct err e;
    int r;

    for (size_t i = 1; i < b->n; i++) {
        while ((r = mail_ack(n->s->mail, session, b->ids[i], &e)) == -ERR_UNAVAILABLE &&
               !n->stopping)
            if (fiber_sleep(500, &e) < 0)
                break;
        if (r < 0)
            log_warn("a notification that was delivered is not acknowledged", "message",
                     LOG_SLICE(b->ids[i]), "error", LOG_ERR(&e));
    }
    metric_add(&swarm_m_notified, 0, 1);
    metric_add(&swarm_m_coalesced, 0, (int64_t)b->n - 1);
}

static bool passes(enum err_code code)
{
    return code != ERR_INVALID && code != ERR_NOT_FOUND && code != ERR_FORBIDDEN;
}

static CO int deliver_from(struct notify *n, struct outlet *o, const struct mail_push *push,
                           struct buf *out, struct err *e)
{
    bool notification = is_notification(push), waited = false;
    struct str session = str_of(o->session);
    AUTO(batch_free) struct batch *b = batch_of_one(n, push);
    int r;

    if (o->batch && str_eq(o->batch->ids[0], b->ids[0])) {
        batch_free(b);
        b = TAKE(o->batch);
        b->again = true;
    } else {
        batch_free(TAKE(o->batch)); /* its message was dropped or is dead */
    }
    r = wait_turn(n, o, &waited, e);
    if (r == 0 && waited && notification && b->n == 1)
        batch_join(n, session, b);
    if (r == 0)
        r = say(n, session, b, notification, out, e);
    if (r == 0) {
        acknowledge(n, session, b);
        return 0;
    }
    if (passes(e->code))
        o->batch = TAKE(b);
    return r;
}

static CO int deliver(const struct mail_push *push, void *arg, struct buf *out, struct err *e)
{
    struct notify *n = arg;
    struct outlet *o = outlet_enter(n, push->to);
    int r = deliver_from(n, o, push, out, e);

    o->busy--;
    return r;
}

static bool takes(struct str session, void *arg)
{
    const struct notify *n = arg;
    struct str channel, to;

    return n->client && session_fits(session, n->s->settings->openclaw_route) &&
           (str_starts(session, STR("agent:")) || notify_peer(session, &channel, &to));
}

/* An agent's turn, while it can be had now; a channel has nothing to answer with. */
static bool replies(struct str session, void *arg)
{
    const struct notify *n = arg;
    struct oc_status status;

    oc_status(n->client, &status);
    return status.state == OC_CONNECTED && str_starts(session, STR("agent:"));
}

int notify_drive(struct notify *n, struct err *e)
{
    n->driver = (struct mail_driver){
        .name = "openclaw",
        .takes = takes,
        .deliver = deliver,
        .replies = replies,
        .fibers = NOTIFY_FIBERS,
        .arg = n,
    };
    return mail_drive(n->s->mail, &n->driver, e);
}
