/* SPDX-License-Identifier: MIT */
/*
 * net/http_client_host.c — the bound of calls to one host. libcurl has one of its own, but its list
 * of waiting transfers is walked again and again (it doubled the cost of a call at 128 in flight),
 * so calls wait in front of libcurl, each in its own fiber, in order of arrival.
 */
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "net/http_client_int.h"

struct turn { /* a waiting call, on its fiber's stack */
    struct turn *next;
    struct fiber *fiber;
    bool granted;
};

struct http_host {
    struct http_host *next; /* in the bucket */
    struct http_host **bucket;
    struct turn *first, **last;
    long active;
    size_t n;
    char key[]; /* the URL up to its path, or the unix socket's path */
};

static struct http_host **bucket_of(struct http_client *c, struct str key)
{
    unsigned hash = 2166136261u;

    for (size_t i = 0; i < key.n; i++)
        hash = (hash ^ (unsigned char)key.p[i]) * 16777619u;
    return &c->hosts[hash % HTTP_HOST_BUCKETS];
}

static struct http_host *host_of(struct http_client *c, struct str key)
{
    struct http_host **bucket = bucket_of(c, key), *h;

    for (h = *bucket; h; h = h->next)
        if (h->n == key.n && memcmp(h->key, key.p, key.n) == 0)
            return h;
    h = xcalloc(1, sizeof(*h) + key.n);
    h->bucket = bucket;
    h->last = &h->first;
    h->n = key.n;
    memcpy(h->key, key.p, key.n);
    h->next = *bucket;
    *bucket = h;
    return h;
}

static void forget(struct http_host *h)
{
    struct http_host **at = h->bucket;

    while (*at != h)
        at = &(*at)->next;
    *at = h->next;
    free(h);
}

void http_host_leave(struct http_host *h)
{
    struct turn *t = h->first;

    if (t) { /* the place goes from hand to hand, so nobody can slip in between */
        h->first = t->next;
        if (!h->first)
            h->last = &h->first;
        t->granted = true;
        fiber_wake(t->fiber);
        return;
    }
    if (--h->active == 0)
        forget(h);
}

static void give_up(struct http_host *h, struct turn *t)
{
    struct turn **at = &h->first;

    if (t->granted) {
        http_host_leave(h);
        return;
    }
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    if (!*at)
        h->last = at;
}

CO int http_host_enter(struct http_client *c, struct str key, uint64_t deadline_ms,
                       struct http_host **ret, struct err *e)
{
    struct turn t = { .fiber = fiber_self() };
    struct http_host *h = host_of(c, key);
    int r;

    if (h->active < c->per_host) {
        h->active++;
        *ret = h;
        return 0;
    }
    *h->last = &t;
    h->last = &t.next;
    while (!t.granted) {
        r = fiber_park(deadline_ms, e);
        if (r < 0) {
            give_up(h, &t);
            return r;
        }
    }
    *ret = h;
    return 0;
}
