/* SPDX-License-Identifier: MIT */
/*
 * swarm/gate_quick.c — the frames that come by the thousand, read without building a document: an
 * agent.send, agent.ack or agent.reply whose texts have no escapes and whose params are texts (and
 * a list of texts). json_check() has judged the whole text before, so what is walked here is JSON
 * by the rules of all others; whatever is unusual in it is left to gate_frames.c.
 */
#include <string.h>

#include "swarm/gate_int.h"

struct walk {
    const char *p, *end;
    struct arena *arena;
    struct gate_quick *quick;
};

/* Is this the next thing that is no space? Then it is taken. */
static bool take(struct walk *w, char c)
{
    while (*w->p == ' ' || *w->p == '\n' || *w->p == '\r' || *w->p == '\t')
        w->p++;
    if (*w->p != c)
        return false;
    w->p++;
    return true;
}

/* A text without its quotes. There are no escapes, so it ends with the next quote. */
static bool take_text(struct walk *w, struct str *ret)
{
    const char *end;

    if (!take(w, '"'))
        return false;
    end = memchr(w->p, '"', (size_t)(w->end - w->p));
    *ret = (struct str){ w->p, (size_t)(end - w->p) };
    w->p = end + 1;
    return true;
}

static bool take_texts(struct walk *w, struct str **ret, size_t *ret_n)
{
    struct str *texts = NULL, *more;
    size_t n = 0, cap = 0;

    if (!take(w, '['))
        return false;
    if (!take(w, ']')) {
        do {
            if (n == cap) {
                cap = cap ? 4 * cap : 16;
                more = arena_raw(w->arena, cap * sizeof(*more));
                for (size_t i = 0; i < n; i++)
                    more[i] = texts[i];
                texts = more;
            }
            if (n == GATE_ACKS || !take_text(w, &texts[n++]))
                return false;
        } while (take(w, ','));
        if (!take(w, ']'))
            return false;
    }
    *ret = texts;
    *ret_n = n;
    return true;
}

static bool take_param(struct walk *w, struct str key)
{
    struct gate_quick *q = w->quick;
    const struct {
        const char *name;
        struct str *to;
    } texts[] = {
        { "sessionKey", &q->session }, { "message", &q->message }, { "messageId", &q->one },
        { "response", &q->response },  { "from", &q->from },       { "idempotencyKey", &q->key },
    };

    for (size_t i = 0; i < LEN(texts); i++)
        if (str_eq_z(key, texts[i].name))
            return take_text(w, texts[i].to);
    if (!str_eq_z(key, "messageIds"))
        return false;
    q->many = true;
    return take_texts(w, &q->ids, &q->n_ids);
}

static bool take_params(struct walk *w)
{
    struct str key;

    *w->quick = (struct gate_quick){ 0 }; /* of two the last counts */
    if (!take(w, '{'))
        return false;
    if (take(w, '}'))
        return true;
    do {
        if (!take_text(w, &key) || !take(w, ':') || !take_param(w, key))
            return false;
    } while (take(w, ','));
    return take(w, '}');
}

/* The id is echoed as it came, quotes and all. */
static bool take_id(struct walk *w, struct str *ret)
{
    struct str id;

    if (!take_text(w, &id) || id.n + 2 > GATE_ID)
        return false;
    *ret = (struct str){ id.p - 1, id.n + 2 };
    return true;
}

static bool take_frame(struct walk *w, struct gate_frame *ret)
{
    struct str key, type = { 0 };
    bool params = false, good = true;

    if (!take(w, '{'))
        return false;
    do {
        if (!take_text(w, &key) || !take(w, ':'))
            return false;
        if (str_eq_z(key, "type"))
            good = take_text(w, &type);
        else if (str_eq_z(key, "id"))
            good = take_id(w, &ret->id);
        else if (str_eq_z(key, "method"))
            good = take_text(w, &ret->name);
        else if (str_eq_z(key, "params"))
            good = params = take_params(w);
        else
            return false;
    } while (good && take(w, ','));
    return good && params && str_eq_z(type, "req");
}

bool gate_quick_parse(struct str text, struct arena *a, struct gate_frame *ret)
{
    struct gate_frame frame = { .request = true };
    struct walk w = { .arena = a };
    struct str copy;
    struct err e;

    if (!text.n || memchr(text.p, '\\', text.n) || json_check(text, GATE_DEPTH, &e) < 0)
        return false;
    copy = arena_str(a, text); /* ends with a NUL, where every walk stops */
    w.p = copy.p;
    w.end = copy.p + copy.n;
    w.quick = arena_alloc(a, sizeof(*w.quick));
    if (!take_frame(&w, &frame))
        return false;
    frame.method = gate_method_of(frame.name);
    if (frame.method != METHOD_SEND && frame.method != METHOD_ACK && frame.method != METHOD_REPLY)
        return false;
    frame.quick = w.quick;
    *ret = frame;
    return true;
}
