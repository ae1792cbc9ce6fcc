/* SPDX-License-Identifier: MIT */
/*
 * swarm/notify.c — see notify.h: the OpenClaw client's life, what is said durably, and what is
 * heard. openclaw.url may lead back to ourselves (the original's setting did): then there is no
 * client, and messages wait in their mailboxes for who subscribes.
 */
#include "swarm/notify_int.h"

#include "base/log.h"

void (*notify_inbound)(struct swarm *s, const struct inbound *in);

/* --- hearing --- */

static void hear(struct notify *n, const json_t *payload)
{
    const struct swarm_settings *settings = n->s->settings;
    struct arena a = { 0 };
    struct heard h;
    bool ours;

    if (notify_inbound && notify_hear(payload, &a, &h) == 0) {
        ours = notify_echo_known(n, notify_echo_of(h.key, h.in.text)) ||
               notify_echo_known(n, notify_echo_of(h.in.session, h.in.text));
        if (!ours && (!h.in_group || h.mentioned) &&
            (session_fits(h.key, settings->command_sources) ||
             session_fits(h.in.session, settings->command_sources))) {
            if (!session_fits(h.in.session, settings->openclaw_route))
                h.in.session = h.key; /* a channel that we do not send to */
            notify_inbound(n->s, &h.in);
        }
    }
    arena_done(&a);
}

static void on_event(const struct oc_event *event, void *arg)
{
    struct notify *n = arg;

    if (str_eq_z(STR("session.message"), event->name) && *n->s->settings->command_sources)
        hear(n, event->payload);
}

static bool wanted(struct str key, void *arg)
{
    const struct notify *n = arg;

    return session_fits(key, n->s->settings->command_sources);
}

/*
 * People have written while the connection was away. Whoever was heard before is heard again, which
 * does no harm: a command has the id of its message.
 */
static CO int hear_missed(void *arg, struct err *e)
{
    struct notify *n = arg;
    int64_t since = n->lost_at - UNHEARD_MS, oldest = swarm_now() - MISSED_MS;
    int r;

    n->lost_at = 0;
    r = oc_missed(n->client, since > oldest ? since : oldest, wanted, deadline_in(POST_MS), e);
    if (r == -ERR_UNAVAILABLE && !n->lost_at)
        n->lost_at = since + UNHEARD_MS; /* with the next connection */
    if (r < 0 && r != -ERR_CANCELED)
        log_warn("what was written in channels meanwhile is not known", "error", LOG_ERR(e));
    return 0;
}

static void on_changed(enum oc_state state, void *arg)
{
    struct notify *n = arg;
    bool connected = state == OC_CONNECTED;
    struct err e;

    if (!connected && n->met && !n->lost_at)
        n->lost_at = swarm_now();
    n->met = n->met || connected;
    if (!connected || !n->lost_at || n->stopping || !*n->s->settings->command_sources)
        return;
    if (fiber_group_spawn(n->chores, "openclaw: missed", hear_missed, n, &e) < 0)
        log_warn("what was written in channels meanwhile is not known", "error", LOG_ERR(&e));
}

/* --- life --- */

static int make_client(struct notify *n, struct err *e)
{
    const struct swarm_settings *settings = n->s->settings;
    AUTO(free) char *identity = xasprintf("%s/openclaw-device.key", n->s->conf.state_dir);
    const struct oc_conf conf = {
        .url = settings->openclaw_url,
        .token = settings->openclaw_token,
        .identity_path = identity,
        .subscribe = true,
        .event = on_event,
        .changed = on_changed,
        .arg = n,
    };
    int r;

    if (!*settings->openclaw_url)
        return 0;
    n->self = notify_is_self(settings->openclaw_url, n->s->conf.port);
    if (n->self)
        return 0;
    r = oc_new(n->s->conf.loop, &conf, &n->client, e);
    return r < 0 ? err_wrap(e, "openclaw.url") : 0;
}

int notify_new(struct swarm *s, struct notify **ret, struct err *e)
{
    struct notify *n = xcalloc(1, sizeof(*n));
    int r;

    n->s = s;
    n->started_ms = now_ms();
    n->started_at = swarm_now();
    n->chores = fiber_group_new(s->conf.loop);
    r = make_client(n, e);
    if (r == 0 && n->client)
        r = notify_drive(n, e);
    if (r < 0) {
        notify_free(n);
        return r;
    }
    *ret = n;
    return 0;
}

CO int notify_start(struct notify *n, struct err *e)
{
    if (n->self)
        log_info("openclaw.url is this gateway: messages stay in their mailboxes", "url",
                 LOG_STR(n->s->settings->openclaw_url));
    return n->client ? oc_start(n->client, e) : 0;
}

CO void notify_stop(struct notify *n)
{
    struct err e;

    n->stopping = true;
    fiber_group_cancel(n->chores);
    (void)fiber_group_join(n->chores, &e); /* it ends by being cancelled */
    if (n->client)
        oc_stop(n->client);
}

void notify_free(struct notify *n)
{
    if (!n)
        return;
    notify_drive_done(n);
    oc_free(n->client);
    fiber_group_free(n->chores);
    free(n);
}

struct oc_client *notify_client(struct notify *n)
{
    return n->client;
}

/* --- saying --- */

static struct mail_in mail_of(const struct notify *n, struct str to, struct str key,
                              struct str text)
{
    return (struct mail_in){
        .from = STR(NOTIFY_FROM),
        .to = to.n ? to : str_of(n->s->settings->notify_session),
        .content = text,
        .workflow = key,
    };
}

/* Another text under the key is what was said already: the key tells what it is about. */
static int said(int r, struct str key, const struct err *e)
{
    if (r != -ERR_CONFLICT)
        return r;
    log_debug("a notification was said before, in other words", "key", LOG_SLICE(key), "error",
              LOG_ERR(e));
    return 0;
}

CO int notify_send(struct notify *n, struct str to, struct str key, struct str text, struct err *e)
{
    const struct mail_in in = mail_of(n, to, key, text);
    struct mail_out out;

    return in.to.n ? said(mail_send(n->s->mail, &in, &out, e), key, e) : 0;
}

int notify_send_tx(struct store_tx *tx, const struct notify *n, struct str to, struct str key,
                   struct str text, struct err *e)
{
    const struct mail_in in = mail_of(n, to, key, text);
    struct mail_out out;

    return in.to.n ? mail_send_tx(tx, n->s->mail, &in, &out, e) : 0;
}

void notify_sent(struct notify *n, struct str to)
{
    to = to.n ? to : str_of(n->s->settings->notify_session);
    if (to.n)
        mail_sent(n->s->mail, to);
}
