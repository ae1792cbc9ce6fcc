/* SPDX-License-Identifier: MIT */
/*
 * swarm/notify_hear.c — messages in channels, as an OpenClaw gateway tells of them: the payload of
 * session.message is {sessionKey, messageId, message{role, content, …}, session{…}}. content is a
 * text or a list of blocks; the text may stand behind an envelope in brackets. Where it came from
 * is said by the session's deliveryContext, or by its key agent:<id>:<channel>:direct|group:<peer>.
 * Pure.
 */
#include "swarm/notify_int.h"

#include <string.h>

/* "[Fri 2026-11-20 17:42 UTC] ping" */
static struct str without_envelope(struct str s)
{
    const char *end;

    s = str_trim(s);
    if (!s.n || *s.p != '[')
        return s;
    end = memchr(s.p, ']', s.n);
    if (!end)
        return s;
    return str_trim((struct str){ end + 1, s.n - (size_t)(end + 1 - s.p) });
}

static struct str text_of(const json_t *content)
{
    const json_t *block;
    size_t i;

    if (json_is_string(content))
        return (struct str){ json_string_value(content), json_string_length(content) };
    json_array_foreach(content, i, block)
    {
        struct str type = json_member_str(block, "type");

        if (str_eq(type, STR("text")))
            return json_member_str(block, "text");
    }
    return (struct str){ 0 };
}

/* Parts of a session's key. */
struct key {
    struct str channel, chat, peer;
};

static struct key key_parse(struct str rest)
{
    struct str agent, id;
    struct key k = { 0 };

    if (!str_split(&rest, ':', &agent) || !str_eq(agent, STR("agent")) ||
        !str_split(&rest, ':', &id) || !str_split(&rest, ':', &k.channel) ||
        !str_split(&rest, ':', &k.chat) || !rest.n)
        return (struct key){ 0 };
    k.peer = rest;
    return k;
}

/* "telegram:12345" of channel telegram is 12345. */
static struct str bare(struct str to, struct str channel)
{
    if (to.n > channel.n + 1 && str_starts(to, channel) && to.p[channel.n] == ':')
        return (struct str){ to.p + channel.n + 1, to.n - channel.n - 1 };
    return to;
}

static struct str either(struct str a, struct str b)
{
    return a.n ? a : b;
}

static void find_peer(const json_t *session, const struct key *key, struct arena *a,
                      struct heard *h)
{
    const json_t *context = json_object_get(session, "deliveryContext");
    struct str channel = json_member_str(context, "channel"), to = json_member_str(context, "to");

    if (!channel.n || !to.n) {
        channel = json_member_str(session, "lastChannel");
        to = json_member_str(session, "lastTo");
    }
    if (!channel.n || !to.n) {
        channel = key->channel;
        to = key->peer;
    }
    if (!channel.n || !to.n)
        return;
    to = bare(to, channel);
    h->in.channel = channel;
    h->in.session = str_of(arena_printf(a, STR_FMT ":" STR_FMT, STR_ARG(channel), STR_ARG(to)));
}

static bool is_group(struct str chat)
{
    return str_eq(chat, STR("group")) || str_eq(chat, STR("channel"));
}

int notify_hear(const json_t *payload, struct arena *a, struct heard *ret)
{
    const json_t *message = json_object_get(payload, "message");
    const json_t *session = json_object_get(payload, "session");
    const json_t *sender = json_object_get(message, "sender");
    struct heard h = { .key = json_member_str(payload, "sessionKey") };
    struct key key = key_parse(h.key);

    if (!h.key.n || !str_eq(json_member_str(message, "role"), STR("user")))
        return NOTIFY_NOT_HEARD;
    h.in.text = without_envelope(text_of(json_object_get(message, "content")));
    h.in.id = json_member_str(payload, "messageId");
    if (!h.in.text.n || !h.in.id.n)
        return NOTIFY_NOT_HEARD;
    h.in.session = h.key;
    find_peer(session, &key, a, &h);
    h.in.from = either(json_member_str(sender, "id"), h.in.session);
    h.in_group = is_group(key.chat) || is_group(json_member_str(session, "chatType"));
    h.mentioned = *h.in.text.p == '@' || json_is_true(json_object_get(message, "mentioned")) ||
                  json_is_true(json_object_get(message, "wasMentioned")) ||
                  json_is_true(json_object_get(payload, "mentioned"));
    *ret = h;
    return 0;
}
