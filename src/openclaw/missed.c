/* SPDX-License-Identifier: MIT */
/*
 * openclaw/missed.c — what was written in channels while there was no connection: gateways do not
 * repeat events, but they keep what was said. The newest messages of the sessions that have changed
 * since then are read and told as if they came now.
 */
#include "openclaw/openclaw_int.h"

#define SESSIONS 50  /* the last that have changed */
#define MESSAGES 100 /* the newest of each */

/* When it was written down; its own timestamp is the channel's, which may have held it for long. */
static int64_t time_of(const json_t *message)
{
    const json_t *at = json_object_get(json_object_get(message, "__openclaw"), "recordTimestampMs");

    if (!json_is_integer(at))
        at = json_object_get(message, "timestamp");
    return json_is_integer(at) ? json_integer_value(at) : 0;
}

static void tell(struct oc_client *c, json_t *session, json_t *message)
{
    struct str key = json_member_str(session, "key");
    struct str id = json_member_str(json_object_get(message, "__openclaw"), "id");
    AUTO(json_decref) json_t *payload = NULL;
    struct oc_event event = { .name = "session.message" };

    if (!id.n)
        return;
    payload = json_pack("{s:s%, s:s%, s:O, s:O}", "sessionKey", key.p, key.n, "messageId", id.p,
                        id.n, "message", message, "session", session);
    event.payload = payload;
    if (payload)
        c->conf.event(&event, c->conf.arg);
}

CO static int read_session(struct oc_client *c, json_t *session, int64_t since_ms,
                           uint64_t deadline_ms, struct err *e)
{
    struct str key = json_member_str(session, "key");
    AUTO(json_decref) json_t *params = NULL, *history = NULL;
    json_t *message;
    size_t i;
    int r;

    params = json_pack("{s:s%, s:i}", "sessionKey", key.p, key.n, "limit", MESSAGES);
    r = oc_request(c, "chat.history", params, deadline_ms, &history, e);
    if (r < 0)
        return r;
    json_array_foreach(json_object_get(history, "messages"), i, message)
    {
        if (str_eq(json_member_str(message, "role"), STR("user")) && time_of(message) >= since_ms)
            tell(c, session, message);
    }
    return 0;
}

CO int oc_missed(struct oc_client *c, int64_t since_ms, bool (*wanted)(struct str key, void *arg),
                 uint64_t deadline_ms, struct err *e)
{
    AUTO(json_decref) json_t *params = json_pack("{s:i}", "limit", SESSIONS), *listed = NULL;
    json_t *session;
    size_t i;
    int r;

    if (!c->conf.event || !c->peer.subscribes)
        return 0;
    r = oc_request(c, "sessions.list", params, deadline_ms, &listed, e);
    if (r < 0)
        return r;
    json_array_foreach(json_object_get(listed, "sessions"), i, session)
    {
        const json_t *updated = json_object_get(session, "updatedAt");
        struct str key = json_member_str(session, "key");

        if (!key.n || (json_is_integer(updated) && json_integer_value(updated) < since_ms) ||
            !wanted(key, c->conf.arg))
            continue;
        r = read_session(c, session, since_ms, deadline_ms, e);
        if (r < 0)
            return r;
    }
    return 0;
}
