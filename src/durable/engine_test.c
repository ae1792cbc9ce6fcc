/* SPDX-License-Identifier: MIT */
/*
 * durable/engine_test.c — one execution: starting, steps, the journal, replay, and all the ways it
 * ends. On SQLite and, where CHELA_TEST_PG is set, on PostgreSQL.
 */
#include "durable/durable_int.h"
#include "durable/engine_fixture.h"

/* A workflow whose steps count how often their bodies ran. */

struct counted {
    int one, two, fn;
};

static int body_one(void *arg, struct buf *out, struct err *e)
{
    struct counted *n = arg;

    n->one++;
    return buf_add_z(out, "{\"n\":1}", e);
}

static int body_two(void *arg, struct buf *out, struct err *e)
{
    struct counted *n = arg;

    n->two++;
    return buf_add_z(out, "2", e);
}

static CO int two_steps(struct workflow *w, void *ctx, struct err *e)
{
    struct counted *n = ctx;
    AUTO(buf_done) struct buf out;
    int r;

    n->fn++;
    buf_init(&out, 1 * KIB);
    r = durable_step(w, "one", NULL, body_one, n, &out, e);
    if (r == 0)
        r = durable_step(w, "two", NULL, body_two, n, NULL, e);
    return r < 0 ? r : durable_return(w, buf_str(&out), e);
}

static struct counted counts;
static const struct durable_type types[] = {
    { .name = "two_steps", .fn = two_steps, .ctx = &counts },
};

ENGINE_TEST(a_started_workflow_runs_its_steps_and_keeps_its_result, types)
{
    struct durable_start start = { .name = "two_steps", .id = STR("w-1") };
    struct durable_started started;

    counts = (struct counted){ 0 };
    CO_CHECK(durable_start(f->d, &start, &started, e) == 0);
    CO_CHECK(!started.existed && strcmp(started.id, "w-1") == 0);
    CO_CHECK(ends_as(f, "w-1", "SUCCESS"));
    CO_CHECK(row_is(f, "SELECT output FROM dbos.workflow_output WHERE workflow_uuid = ?1", "w-1",
                    "{\"n\":1}"));
    CO_CHECK(row_is(f, "SELECT output FROM dbos.workflow_status WHERE workflow_uuid = ?1", "w-1",
                    "{\"n\":1}"));
    CO_CHECK(row_is(f,
                    "SELECT count(*) FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
                    " AND function_id IN (0, 1)",
                    "w-1", "2"));
    CO_CHECK(counts.one == 1 && counts.two == 1 && counts.fn == 1);
    return 0;
}
