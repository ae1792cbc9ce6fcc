/* SPDX-License-Identifier: MIT */
/* Lanes: what waits while a batch is on its way is the next batch; nobody is told twice or never.
 */
#include "hub/lane.h"

#include "in_fiber.h"

#define ALL 100

struct one {
    struct lane_ride ride;
    int n, told, r;
};

struct desk {
    struct lane lane;
    struct one ones[ALL];
    size_t batches, largest, sent, told;
    int fail; /* the ride that no batch with it can be written; -1: none */
    int away; /* so often the database is away */
    int last;
    bool ordered;
};

static CO int desk_send(void *arg, struct lane_ride *first, size_t n, struct err *e)
{
    struct desk *d = arg;
    size_t count = 0;

    d->batches++;
    if (fiber_sleep(1, e) < 0)
        return -ERR_CANCELED;
    if (d->away > 0) {
        d->away--;
        return err_set(e, ERR_UNAVAILABLE, "away");
    }
    for (struct lane_ride *ride = first; ride; ride = ride->next) {
        if (container_of(ride, struct one, ride)->n == d->fail)
            return err_set(e, ERR_INVALID, "this one is bad");
        count++;
    }
    if (count != n)
        return err_set(e, ERR_INTERNAL, "%zu rides were said to be %zu", count, n);
    d->largest = n > d->largest ? n : d->largest;
    d->sent += n;
    return 0;
}

static void desk_told(void *arg, struct lane_ride *ride, int r, const struct err *e)
{
    struct desk *d = arg;
    struct one *one = container_of(ride, struct one, ride);

    one->told++;
    one->r = r;
    d->ordered = d->ordered && one->n > d->last;
    d->last = one->n;
    d->told++;
}

static struct desk *desk_new(unsigned max_n)
{
    struct desk *d = xcalloc(1, sizeof(*d));

    d->lane = (struct lane){
        .name = "test lane",
        .loop = fiber_loop(),
        .arg = d,
        .max_n = max_n,
        .max_flights = 1,
        .max_bytes = 1000,
        .send = desk_send,
        .told = desk_told,
    };
    d->fail = d->last = -1;
    d->ordered = true;
    return d;
}

static void add_all(struct desk *d, int from, int to, size_t bytes)
{
    for (int i = from; i < to; i++) {
        d->ones[i].n = i;
        d->ones[i].ride.bytes = bytes;
        lane_add(&d->lane, &d->ones[i].ride);
    }
}

static bool all_told(const struct desk *d)
{
    for (int i = 0; i < ALL; i++) {
        if (d->ones[i].told != 1)
            return false;
    }
    return d->told == ALL;
}

CO_TEST(what_comes_in_one_turn_is_one_batch)
{
    struct desk *d = desk_new(ALL);

    add_all(d, 0, ALL, 1);
    CO_CHECK(d->batches == 0); /* not within the call */
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(d->batches == 1 && d->largest == ALL && all_told(d) && d->ordered);
    free(d);
    return 0;
}

CO_TEST(what_comes_while_one_flies_is_the_next)
{
    struct desk *d = desk_new(ALL);

    add_all(d, 0, 1, 1);
    CO_CHECK(fiber_yield(NULL) == 0);
    add_all(d, 1, ALL, 1);
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(d->batches == 2 && d->largest == ALL - 1 && all_told(d) && d->ordered);
    free(d);
    return 0;
}

CO_TEST(batches_have_bounds)
{
    struct desk *d = desk_new(30);

    add_all(d, 0, 60, 1);
    add_all(d, 60, ALL, 400); /* three of them are above the bound of bytes */
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(d->largest == 30 && d->batches >= 2 + 40 / 3 && all_told(d) && d->ordered);
    free(d);
    return 0;
}

CO_TEST(one_that_cannot_be_written_harms_no_other)
{
    struct desk *d = desk_new(ALL);

    d->fail = 42;
    add_all(d, 0, ALL, 1);
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(all_told(d) && d->sent == ALL - 1 && d->ordered);
    for (int i = 0; i < ALL; i++)
        CO_CHECK(d->ones[i].r == (i == 42 ? -ERR_INVALID : 0));
    free(d);
    return 0;
}

CO_TEST(while_the_database_is_away_all_are_told)
{
    struct desk *d = desk_new(ALL);

    d->away = 1;
    add_all(d, 0, ALL, 1);
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(all_told(d) && d->sent == 0 && d->ones[7].r == -ERR_UNAVAILABLE);
    free(d);
    return 0;
}

CO_TEST(a_stubborn_lane_tries_again)
{
    struct desk *d = desk_new(ALL);

    d->away = 3;
    d->lane.stubborn = true;
    add_all(d, 0, ALL, 1);
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(all_told(d) && d->sent == ALL && d->ones[7].r == 0);
    free(d);
    return 0;
}

CO_TEST(at_the_end_a_stubborn_lane_gives_up)
{
    struct desk *d = desk_new(ALL);

    d->away = 1000000;
    d->lane.stubborn = true;
    add_all(d, 0, ALL, 1);
    lane_finish(&d->lane, deadline_in(30));
    CO_CHECK(all_told(d) && d->ones[7].r == -ERR_UNAVAILABLE);
    free(d);
    return 0;
}
