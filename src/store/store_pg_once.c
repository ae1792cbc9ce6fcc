/* SPDX-License-Identifier: MIT */
/*
 * A single statement on PostgreSQL without a store thread: handing it to one and being woken by it
 * costs more than the statement's own way. The loop's thread borrows the connection of a thread
 * that is idle, sends, watches the socket, and takes the answer.
 *
 * Only what goes well, or is refused by the database, ends here. Everything else, a statement that
 * is not prepared yet, a long one, a conflict, a lost connection, is left to a thread, which begins
 * anew: store_once() may do so.
 */
#include "store/store_pg_int.h"

struct answer {
    struct fiber *fiber;
    bool came;
};

static void on_answer(struct loop_io *io, unsigned events, void *arg)
{
    struct answer *answer = arg;

    loop_io_want(io, 0);
    answer->came = true;
    fiber_wake(answer->fiber);
}

/* 1: *ret is what it came to; 0: it is to be left to a thread. */
static CO int ask(struct store *s, struct pg_db *db, const struct store_single *one, int *ret,
                  struct err *e)
{
    struct answer answer = { .fiber = fiber_self() };
    struct loop_io *io;
    int r = pg_db_send(db, one, e);

    if (r <= 0)
        return 0;
    io = loop_io_new(s->loop, pg_db_socket(db), on_answer, &answer);
    do {
        answer.came = false;
        loop_io_want(io, LOOP_READ);
        while (!answer.came)
            fiber_park_hard();
        r = pg_db_take(db, one, ret, e);
    } while (r > 0);
    loop_io_free(io);
    return *ret >= 0 || pg_db_verdict(db) == PG_FAILED;
}

CO int pg_once(struct store *s, const struct store_single *one, int *ret, struct err *e)
{
    struct err why = { 0 };
    struct worker *w;
    struct pg_db *db;
    int r;

    *ret = store_check_args(one->sql, one->args, one->n_args, e);
    if (*ret < 0)
        return 1;
    w = pg_borrow(s, &db);
    if (!w)
        return 0;
    pg_db_single(db);
    store_probe_call(false);
    r = ask(s, db, one, ret, &why);
    pg_give_back(w);
    if (r == 0)
        return 0;
    if (*ret < 0 && !why.code)
        (void)err_set(&why, (enum err_code)(-*ret), "%s: a row was refused", one->sql->name);
    if (*ret < 0 && e)
        *e = why;
    atomic_store_explicit(&s->ok, *ret != -ERR_UNAVAILABLE, memory_order_relaxed);
    if (*ret >= 0) {
        store_probe_call(true);
        metric_add(&store_metric_commits, 0, 1);
    }
    return 1;
}
