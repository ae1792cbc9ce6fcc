/* SPDX-License-Identifier: MIT */
/* Who finds a seat when seats are few. */
#include "net/http_seat.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "net/http_upgrade.h"
#include "test.h"

static const struct sockaddr *v4(const char *address)
{
    static struct sockaddr_in in;

    in = (struct sockaddr_in){ .sin_family = AF_INET };
    inet_pton(AF_INET, address, &in.sin_addr);
    return (const struct sockaddr *)&in;
}

static const struct sockaddr *v6(const char *address)
{
    static struct sockaddr_in6 in;

    in = (struct sockaddr_in6){ .sin6_family = AF_INET6 };
    inet_pton(AF_INET6, address, &in.sin6_addr);
    return (const struct sockaddr *)&in;
}

TEST(seats_are_counted_in_all_and_per_address)
{
    struct http_seats *seats = http_seats_new();
    struct http_seat a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };

    CHECK_INT(http_seat_take(seats, v4("192.0.2.1"), 3, 2, &a), 0);
    CHECK_INT(http_seat_take(seats, v6("::ffff:192.0.2.1"), 3, 2, &b), 0);
    CHECK_INT(http_seat_take(seats, v4("192.0.2.1"), 3, 2, &c), HTTP_SEAT_FULL_ADDRESS);
    CHECK_INT(http_seat_take(seats, v6("2001:db8::1"), 3, 2, &c), 0);
    CHECK_INT(http_seat_take(seats, v4("192.0.2.2"), 3, 2, &d), HTTP_SEAT_FULL);
    CHECK_INT(http_seats_taken(seats), 3);
    http_seat_leave(&b);
    CHECK_INT(http_seat_take(seats, v4("192.0.2.1"), 3, 2, &d), 0);
    http_seat_leave(&a);
    http_seat_leave(&c);
    http_seat_leave(&d);
    http_seat_leave(&d);
    CHECK_INT(http_seats_taken(seats), 0);
    http_seats_free(seats);
}

TEST(a_unix_socket_always_has_a_seat)
{
    const struct sockaddr_un un = { .sun_family = AF_UNIX };
    struct http_seats *seats = http_seats_new();
    struct http_seat a = { 0 }, b = { 0 };

    CHECK_INT(http_seat_take(seats, v4("192.0.2.1"), 1, 1, &a), 0);
    CHECK_INT(http_seat_take(seats, (const struct sockaddr *)&un, 1, 1, &b), 0);
    http_seat_leave(&a);
    http_seat_leave(&b);
    http_seats_free(seats);
}

TEST(a_seat_may_outlive_the_server)
{
    struct http_seats *seats = http_seats_new();
    struct http_seat a = { 0 };
    struct http_seat *moved;

    CHECK_INT(http_seat_take(seats, v4("192.0.2.1"), 0, 0, &a), 0);
    moved = http_seat_move(&a);
    http_seat_leave(&a); /* nobody sits on it */
    CHECK_INT(http_seats_taken(seats), 1);
    http_seats_free(seats);
    http_seat_free(moved);
    http_seat_free(NULL);
}

static bool is_odd(uint64_t grant, void *arg)
{
    return grant % 2;
}

static void count_end(void *arg)
{
    ++*(int *)arg;
}

TEST(only_those_are_ended_whose_grant_has)
{
    struct http_seats *seats = http_seats_new();
    struct http_seat *moved[5];
    int ended[5] = { 0 };

    for (int i = 0; i < 5; i++) {
        struct http_seat a = { 0 };

        CHECK_INT(http_seat_take(seats, v4("192.0.2.1"), 0, 0, &a), 0);
        moved[i] = http_seat_move(&a);
        http_seat_rest_on(moved[i], (uint64_t)i, count_end, &ended[i]);
    }
    http_seat_free(moved[2]); /* from the middle of the list */
    http_seat_rest_on(moved[3], 6, count_end, &ended[3]);
    http_seats_recheck(seats, is_odd, NULL);
    http_seats_recheck(seats, is_odd, NULL); /* told once */
    CHECK_INT(ended[0], 0);                  /* rests on nothing */
    CHECK_INT(ended[1], 0);
    CHECK_INT(ended[2], 0);
    CHECK_INT(ended[3], 1);
    CHECK_INT(ended[4], 1);
    http_seat_rest_on(moved[1], 0, count_end, &ended[1]);
    http_seats_recheck(seats, is_odd, NULL);
    CHECK_INT(ended[1], 0);
    for (int i = 0; i < 5; i++)
        if (i != 2)
            http_seat_free(moved[i]);
    CHECK_INT(http_seats_taken(seats), 0);
    http_seats_free(seats);
}
