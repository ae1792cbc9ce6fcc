/* SPDX-License-Identifier: MIT */
/* swarm/notify_rate.c — how fast texts may go out, how they are joined, and where to. Pure. */
#include <string.h>

#include "net/stream.h"
#include "net/url.h"
#include "swarm/notify_int.h"

static void refill(struct bucket *b, long long rate, uint64_t now)
{
    if (now > b->at_ms)
        b->spent -= (double)(now - b->at_ms) * (double)rate / 60000.0;
    if (b->spent < 0)
        b->spent = 0;
    b->at_ms = now;
}

bool bucket_take(struct bucket *b, long long rate, uint64_t now, uint64_t *ret_wait_ms)
{
    double missing;

    refill(b, rate, now);
    missing = b->spent + 1 - (double)rate;
    if (missing <= 0) {
        b->spent += 1;
        return true;
    }
    *ret_wait_ms = (uint64_t)(missing * 60000.0 / (double)rate) + 1;
    return false;
}

void bucket_give(struct bucket *b)
{
    b->spent = b->spent > 1 ? b->spent - 1 : 0;
}

bool bucket_full(const struct bucket *b, long long rate, uint64_t now)
{
    struct bucket copy = *b;

    refill(&copy, rate, now);
    return copy.spent <= 0;
}

bool notify_join(struct buf *out, struct str text)
{
    struct str have = buf_str(out);
    size_t before = out->n;
    struct err ignored;

    if (have.n && utf8_len(have.p, have.n) + 2 + utf8_len(text.p, text.n) > NOTIFY_CHARS)
        return false;
    if ((!have.n || buf_add_z(out, "\n\n", &ignored) == 0) && buf_add_str(out, text, &ignored) == 0)
        return true;
    out->n = before;
    return false;
}

bool notify_peer(struct str session, struct str *ret_channel, struct str *ret_to)
{
    struct str to = session, channel;

    if (!str_split(&to, ':', &channel) || !channel.n || !to.n || str_eq(channel, STR("agent")))
        return false;
    *ret_channel = channel;
    *ret_to = to;
    return true;
}

bool notify_is_self(const char *url, unsigned port)
{
    struct url u;
    struct err ignored;
    char host[64];

    if (!port || url_parse(str_of(url), &u, &ignored) < 0 || u.port != port ||
        u.host.n >= sizeof(host))
        return false;
    fmt_z(host, sizeof(host), STR_FMT, STR_ARG(u.host));
    return addr_is_loopback(host);
}
