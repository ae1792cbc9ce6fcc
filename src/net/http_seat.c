/* SPDX-License-Identifier: MIT */
/*
 * net/http_seat.c — a small hash table of the addresses that have connections now.
 */
#include "net/http_seat.h"

#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "net/http_upgrade.h"

enum { ROWS = 256 };

struct seat_row {
    struct seat_row *next;
    unsigned char address[16];
    unsigned taken;
};

struct seat_moved {
    struct http_seat seat; /* first: it is what the owner knows of */
    uint64_t grant;        /* 0: not in the list */
    void (*end)(void *arg);
    void *arg;
    struct seat_moved *next, **at;
};

struct http_seats {
    struct seat_row *rows[ROWS];
    unsigned taken;
    bool owned;
    struct seat_moved *granted;
};

struct http_seats *http_seats_new(void)
{
    struct http_seats *s = xcalloc(1, sizeof(*s));

    s->owned = true;
    return s;
}

void http_seats_free(struct http_seats *s)
{
    if (!s)
        return;
    s->owned = false;
    if (s->taken == 0)
        free(s);
}

unsigned http_seats_taken(const struct http_seats *s)
{
    return s->taken;
}

/* IPv4 in IPv6 clothes, so that one peer is counted once whichever way it came in. */
static bool address_of(const struct sockaddr *sa, unsigned char out[16])
{
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)sa;

        memset(out, 0, 10);
        memset(out + 10, 0xff, 2);
        memcpy(out + 12, &in->sin_addr, 4);
        return true;
    }
    if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)sa;

        memcpy(out, &in->sin6_addr, 16);
        return true;
    }
    return false;
}

static struct seat_row **bucket_of(struct http_seats *s, const unsigned char address[16])
{
    uint32_t h = 2166136261u;

    for (int i = 0; i < 16; i++)
        h = (h ^ address[i]) * 16777619u;
    return &s->rows[h % ROWS];
}

static struct seat_row *row_of(struct http_seats *s, const unsigned char address[16])
{
    struct seat_row **bucket = bucket_of(s, address);
    struct seat_row *row;

    for (row = *bucket; row; row = row->next)
        if (memcmp(row->address, address, 16) == 0)
            return row;
    row = xcalloc(1, sizeof(*row));
    memcpy(row->address, address, 16);
    row->next = *bucket;
    *bucket = row;
    return row;
}

static void row_free_if_empty(struct http_seats *s, struct seat_row *row)
{
    struct seat_row **at;

    if (row->taken > 0)
        return;
    at = bucket_of(s, row->address);
    while (*at != row)
        at = &(*at)->next;
    *at = row->next;
    free(row);
}

int http_seat_take(struct http_seats *s, const struct sockaddr *peer, long long max,
                   long long max_per_address, struct http_seat *ret)
{
    unsigned char address[16];
    struct seat_row *row = NULL;

    if (address_of(peer, address)) {
        if (max > 0 && s->taken >= (unsigned long long)max)
            return HTTP_SEAT_FULL;
        row = row_of(s, address);
        if (max_per_address > 0 && row->taken >= (unsigned long long)max_per_address) {
            row_free_if_empty(s, row);
            return HTTP_SEAT_FULL_ADDRESS;
        }
        row->taken++;
    }
    s->taken++;
    *ret = (struct http_seat){ s, row };
    return 0;
}

void http_seat_leave(struct http_seat *seat)
{
    struct http_seats *s = seat->of;

    if (!s)
        return;
    if (seat->row) {
        seat->row->taken--;
        row_free_if_empty(s, seat->row);
    }
    s->taken--;
    if (s->taken == 0 && !s->owned)
        free(s);
    *seat = (struct http_seat){ 0 };
}

struct http_seat *http_seat_move(struct http_seat *seat)
{
    struct seat_moved *moved = xcalloc(1, sizeof(*moved));

    moved->seat = *seat;
    *seat = (struct http_seat){ 0 };
    return &moved->seat;
}

static void unlist(struct seat_moved *m)
{
    if (!m->grant)
        return;
    m->grant = 0;
    *m->at = m->next;
    if (m->next)
        m->next->at = m->at;
}

void http_seat_rest_on(struct http_seat *seat, uint64_t grant, void (*end)(void *arg), void *arg)
{
    struct seat_moved *m = container_of(seat, struct seat_moved, seat);
    struct http_seats *s = seat->of;

    unlist(m);
    if (!grant)
        return;
    m->grant = grant;
    m->end = end;
    m->arg = arg;
    m->next = s->granted;
    m->at = &s->granted;
    if (m->next)
        m->next->at = &m->next;
    s->granted = m;
}

void http_seats_recheck(struct http_seats *s, bool (*holds)(uint64_t grant, void *arg), void *arg)
{
    struct seat_moved *following;

    for (struct seat_moved *m = s->granted; m; m = following) {
        following = m->next; /* end() frees none */
        if (holds(m->grant, arg))
            continue;
        unlist(m);
        m->end(m->arg);
    }
}

void http_seat_free(struct http_seat *seat)
{
    if (!seat)
        return;
    unlist(container_of(seat, struct seat_moved, seat));
    http_seat_leave(seat);
    free(container_of(seat, struct seat_moved, seat));
}
