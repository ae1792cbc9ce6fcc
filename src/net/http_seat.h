/* SPDX-License-Identifier: MIT */
/*
 * net/http_seat.h — who occupies connections: counts in all and per address. The counts outlive
 * the server as long as somebody sits on one (a WebSocket that was once a request).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct http_seats;
struct seat_row;

struct http_seat {
    struct http_seats *of;
    struct seat_row *row; /* of its address; NULL for unix sockets, which have none */
};

struct http_seats *http_seats_new(void);
void http_seats_free(struct http_seats *s); /* the owner's hold; NULL is fine */
unsigned http_seats_taken(const struct http_seats *s);

/*
 * Sit down. The limits are inclusive; 0 or less means none. A unix socket's peer always finds a
 * seat: strangers who take all others must not lock the owner out.
 */
enum { HTTP_SEAT_FULL = 1, HTTP_SEAT_FULL_ADDRESS = 2 };
int http_seat_take(struct http_seats *s, const struct sockaddr *peer, long long max,
                   long long max_per_address, struct http_seat *ret);
void http_seat_leave(struct http_seat *seat); /* zeroed is fine */

/* Move a seat to the heap, for http_upgrade.h; *seat is empty afterwards. */
struct http_seat *http_seat_move(struct http_seat *seat);

/* Ask about the grants of all moved seats, and end those of which holds() says that they ended. */
void http_seats_recheck(struct http_seats *s, bool (*holds)(uint64_t grant, void *arg), void *arg);
