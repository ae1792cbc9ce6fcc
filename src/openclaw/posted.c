/* SPDX-License-Identifier: MIT */
/*
 * openclaw/posted.c — was a text sent already? Gateways remember the keys of what they have sent in
 * memory only, so after the death of one its successor would send it again. But they write what
 * they send into the transcript of the channel's session, with its key: it is looked for there.
 */
#include "openclaw/openclaw_int.h"

#define SESSIONS 200 /* that are looked through for those of the channel */
#define MESSAGES 100 /* the newest of a session */
#define MATCHES  4   /* sessions of one peer */

static bool is_peer(const json_t *place, const char *channel_key, const char *to_key,
                    const struct oc_post *post)
{
    struct str channel = json_member_str(place, channel_key), to = json_member_str(place, to_key);

    if (!str_eq(channel, post->channel))
        return false;
    if (str_eq(to, post->to))
        return true;
    /* "telegram:12345" */
    return to.n == channel.n + 1 + post->to.n && str_starts(to, channel) &&
           to.p[channel.n] == ':' && str_ends(to, post->to);
}

static bool is_session_of(const json_t *session, const struct oc_post *post)
{
    return is_peer(json_object_get(session, "deliveryContext"), "channel", "to", post) ||
           is_peer(json_object_get(session, "origin"), "provider", "to", post) ||
           is_peer(session, "lastChannel", "lastTo", post);
}

static bool has_key(const json_t *history, struct str key)
{
    const json_t *message;
    size_t i;

    json_array_foreach(json_object_get(history, "messages"), i,
                       message) if (str_eq(json_member_str(message, "idempotencyKey"), key) ||
                                    str_eq(json_member_str(json_object_get(message, "__openclaw"),
                                                           "idempotencyKey"),
                                           key)) return true;
    return false;
}

CO static int in_session(struct oc_client *c, const json_t *session, struct str key,
                         uint64_t deadline_ms, struct err *e)
{
    AUTO(json_decref) json_t *params = NULL, *history = NULL;
    struct oc_call call = { 0 };
    struct str name = json_member_str(session, "key");
    int r;

    if (!name.n)
        return 0;
    params = json_pack("{s:s%, s:i}", "sessionKey", name.p, name.n, "limit", MESSAGES);
    r = oc_call(c, "chat.history", params, deadline_ms, &call, e);
    history = call.payload;
    if (r < 0)
        return r;
    return has_key(history, key) ? OC_POSTED : 0;
}

CO int oc_posted(struct oc_client *c, const struct oc_post *post, uint64_t deadline_ms,
                 struct err *e)
{
    AUTO(json_decref) json_t *params = json_pack("{s:i}", "limit", SESSIONS), *listed = NULL;
    const json_t *sessions, *session;
    struct oc_call call = { 0 };
    unsigned matches = 0;
    size_t i;
    int r;

    r = oc_call(c, "sessions.list", params, deadline_ms, &call, e);
    listed = call.payload;
    if (r < 0)
        return r;
    sessions = json_object_get(listed, "sessions");
    json_array_foreach(sessions, i, session)
    {
        if (!is_session_of(session, post) || matches++ == MATCHES)
            continue;
        r = in_session(c, session, post->key, deadline_ms, e);
        if (r != 0)
            return r;
    }
    return 0;
}
