/* SPDX-License-Identifier: MIT */
/*
 * base/lane_test.c — what waits while a batch is on its way is the next batch; nobody is told twice
 * or never; who waits is told as its ride was.
 */
#include "base/lane.h"

#include <sys/resource.h>
#include <unistd.h>

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
    int fail;       /* the ride that no batch with it can be written; -1: none */
    int away;       /* so often the database is away */
    size_t away_at; /* away at this batch; 0: at none */
    unsigned flying, most;
    int last;
    int stays_from; /* rides from this one on wait for the database */
    bool ordered;
};

static CO int desk_send(void *arg, struct lane_ride *first, size_t n, struct err *e)
{
    struct desk *d = arg;
    size_t count = 0, batch = ++d->batches;
    int r;

    d->most = ++d->flying > d->most ? d->flying : d->most;
    r = fiber_sleep(1, e);
    d->flying--;
    if (r < 0)
        return r;
    if (batch == d->away_at)
        return err_set(e, ERR_UNAVAILABLE, "away");
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

static bool desk_waits(void *arg, struct lane_ride *ride)
{
    const struct desk *d = arg;

    return container_of(ride, struct one, ride)->n >= d->stays_from;
}

CO_TEST(rides_that_wait_for_the_database_are_sent_again)
{
    struct desk *d = desk_new(ALL);

    d->away = 3;
    d->lane.waits = desk_waits;
    add_all(d, 0, ALL, 1);
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(all_told(d) && d->sent == ALL && d->batches == 4 && d->ones[7].r == 0);
    free(d);
    return 0;
}

CO_TEST(those_that_do_not_wait_leave_the_batch)
{
    struct desk *d = desk_new(ALL);

    d->away = 1;
    d->stays_from = 60;
    d->lane.waits = desk_waits;
    add_all(d, 0, ALL, 1);
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(all_told(d) && d->sent == ALL - 60 && d->ordered);
    CO_CHECK(d->ones[59].r == -ERR_UNAVAILABLE && d->ones[60].r == 0);
    free(d);
    return 0;
}

/* Sent one by one, the database goes away: one try tells that of all that do not wait. */
CO_TEST(an_absence_is_found_out_once)
{
    struct desk *d = desk_new(ALL);

    d->fail = 42;
    d->away_at = 12; /* the batch, and ten that were written */
    add_all(d, 0, ALL, 1);
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(all_told(d) && d->sent == 10 && d->batches == 12 && d->ordered);
    CO_CHECK(d->ones[9].r == 0 && d->ones[10].r == -ERR_UNAVAILABLE);
    CO_CHECK(d->ones[ALL - 1].r == -ERR_UNAVAILABLE);
    free(d);
    return 0;
}

CO_TEST(at_the_end_nobody_waits_for_the_database)
{
    struct desk *d = desk_new(ALL);

    d->away = 1000000;
    d->lane.waits = desk_waits;
    add_all(d, 0, ALL, 1);
    lane_finish(&d->lane, deadline_in(30));
    CO_CHECK(all_told(d) && d->ones[7].r == -ERR_UNAVAILABLE);
    free(d);
    return 0;
}

CO_TEST(batches_overlap_up_to_the_bound_of_flights)
{
    struct desk *d = desk_new(10);

    d->lane.max_flights = 3;
    add_all(d, 0, ALL, 1);
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(all_told(d) && d->sent == ALL && d->most == 3);
    free(d);
    return 0;
}

/* --- who waits --- */

struct rider {
    struct desk *d;
    int n, r;
    bool back;
    struct err e;
};

static CO int ride_one(void *arg, struct err *e)
{
    struct rider *rider = arg;
    struct one *one = &rider->d->ones[rider->n];

    one->n = rider->n;
    one->ride.bytes = 1;
    rider->r = lane_ride(&rider->d->lane, &one->ride, &rider->e);
    rider->back = true;
    return fiber_canceled() ? -ERR_CANCELED : 0;
}

CO_TEST(who_waits_is_told_as_its_ride_was)
{
    struct desk *d = desk_new(ALL);
    struct fiber_group *g = fiber_group_new(fiber_loop());
    struct rider *riders = xcalloc(ALL, sizeof(*riders));

    d->fail = 42;
    for (int i = 0; i < ALL; i++) {
        riders[i] = (struct rider){ .d = d, .n = i };
        CO_CHECK(fiber_group_spawn(g, "rider", ride_one, &riders[i], e) == 0);
    }
    CO_CHECK(fiber_group_join(g, e) == 0);
    CO_CHECK(all_told(d) && d->ordered && d->batches == ALL + 1);
    for (int i = 0; i < ALL; i++)
        CO_CHECK(riders[i].r == (i == 42 ? -ERR_INVALID : 0));
    CO_CHECK(strcmp(riders[42].e.msg, "this one is bad") == 0);
    fiber_group_free(g);
    free(riders);
    free(d);
    return 0;
}

/* It has lent its ride: it goes on when the lane has done with it, and not before. */
CO_TEST(who_is_cancelled_stays_until_it_was_told)
{
    struct desk *d = desk_new(ALL);
    struct rider rider = { .d = d };
    struct fiber *f;

    d->away = 3;
    d->lane.waits = desk_waits;
    CO_CHECK(fiber_spawn(fiber_loop(), "rider", ride_one, &rider, &f, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(f);
    CO_CHECK(fiber_yield(e) == 0 && !rider.back && d->lane.n == 1);
    CO_CHECK(fiber_join(f, &(struct err){ 0 }) == -ERR_CANCELED);
    CO_CHECK(rider.back && rider.r == 0 && d->sent == 1 && d->ones[0].told == 1);
    lane_finish(&d->lane, DEADLINE_NONE);
    free(d);
    return 0;
}

CO_TEST(several_wait_together_and_each_has_its_own_answer)
{
    struct desk *d = desk_new(30);
    struct lane_ride *rides[ALL];
    struct err why;

    d->fail = 42;
    d->lane.told = NULL;
    for (int i = 0; i < ALL; i++) {
        d->ones[i].n = i;
        d->ones[i].ride.bytes = 1;
        rides[i] = &d->ones[i].ride;
    }
    CO_CHECK(lane_ride_all(&d->lane, rides, ALL, &why) == -ERR_INVALID);
    CO_CHECK(strcmp(why.msg, "this one is bad") == 0 && d->sent == ALL - 1);
    for (int i = 0; i < ALL; i++)
        CO_CHECK(rides[i]->r == (i == 42 ? -ERR_INVALID : 0));
    CO_CHECK(lane_ride_all(&d->lane, rides, 42, e) == 0);
    lane_finish(&d->lane, DEADLINE_NONE);
    free(d);
    return 0;
}

static CO int sit(void *arg, struct err *e)
{
    return fiber_sleep(3600000, e);
}

/* Have few fibers more. */
static bool limit_memory(struct rlimit *ret_old)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    bool ok = f && fscanf(f, "%ld", &pages) == 1 && getrlimit(RLIMIT_AS, ret_old) == 0;
    struct rlimit few = *ret_old;

    if (f)
        fclose(f);
    few.rlim_cur = (rlim_t)(pages * sysconf(_SC_PAGESIZE)) + 4 * MIB;
    return ok && setrlimit(RLIMIT_AS, &few) == 0;
}

/* With as many fibers as there can be, nobody can fly. */
CO_TEST(who_cannot_be_begun_is_refused_or_begun_later)
{
    struct desk *d = desk_new(ALL);
    struct fiber_group *g = fiber_group_new(fiber_loop());
    struct one *one = &d->ones[1];
    struct rlimit old;
    int r;

    CO_CHECK(limit_memory(&old));
    do {
        r = fiber_group_spawn(g, "sits", sit, NULL, &(struct err){ 0 });
    } while (r == 0);
    CO_CHECK(lane_ride(&d->lane, &one->ride, &(struct err){ 0 }) == -ERR_UNAVAILABLE);
    CO_CHECK(d->told == 0 && d->lane.n == 0);
    add_all(d, 0, ALL, 1);
    CO_CHECK(d->lane.n == ALL && d->lane.flights == 0);
    CO_CHECK(setrlimit(RLIMIT_AS, &old) == 0);
    fiber_group_cancel(g);
    CO_CHECK(fiber_group_join(g, &(struct err){ 0 }) == -ERR_CANCELED);
    CO_CHECK(d->told == 0);
    lane_poke(&d->lane);
    lane_finish(&d->lane, DEADLINE_NONE);
    CO_CHECK(all_told(d) && d->sent == ALL);
    fiber_group_free(g);
    free(d);
    return 0;
}
