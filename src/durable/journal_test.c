/* SPDX-License-Identifier: MIT */
/*
 * durable/journal_test.c — the lanes: many writers at once, and each outcome of an entry, alone and
 * among others. On SQLite or, where CHELA_TEST_PG is set, on PostgreSQL.
 */
#define TESTS_AT_ONCE 4

#include "durable/journal_int.h"

#include "durable/engine_fixture.h"

static CO int nothing(struct workflow *w, void *ctx, struct err *e)
{
    return 0;
}

static const struct durable_type types[] = { { .name = "nothing", .fn = nothing } };

#define WRITERS 100

struct writer {
    struct workflow w;
    unsigned step;
    const char *output;
    int got;
};

static CO int write_one(void *arg, struct err *e)
{
    struct writer *writer = arg;
    struct record record = {
        .id = writer->step,
        .name = "s",
        .output = str_of(writer->output),
        .started_ms = 1000,
        .completed_ms = 2000,
    };

    writer->got = journal_step(&writer->w, &record, &(struct err){ 0 });
    return 0;
}

static void writer_init(struct writer *writer, struct engine *f, const char *id, const char *token)
{
    *writer = (struct writer){ .w = { .d = f->d }, .output = "1", .got = 99 };
    fmt_z(writer->w.id, sizeof(writer->w.id), "%s", id);
    fmt_z(writer->w.token, sizeof(writer->w.token), "%s", token);
}

/* All at once, so that they go in few batches. */
static CO int write_all(struct engine *f, struct writer *writers, size_t n, struct err *e)
{
    struct fiber_group *g = fiber_group_new(f->store->loop);
    int r = 0;

    for (size_t i = 0; r == 0 && i < n; i++)
        r = fiber_group_spawn(g, "writer", write_one, &writers[i], e);
    if (fiber_group_join(g, e) < 0 || r < 0)
        return -1;
    fiber_group_free(g);
    return 0;
}

/* Workflows w0 ... that somebody with the token "mine" runs. */
#define NUMBERS "WITH RECURSIVE i (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 99) "
static CO bool rows(struct engine *f)
{
    return sql_run(f,
                   NUMBERS "INSERT INTO dbos.workflow_status (workflow_uuid, status, name,"
                           " owner_xid, executor_id)"
                           " SELECT 'w' || CAST(n AS TEXT), 'PENDING', 'nothing', 'mine', 'x'"
                           " FROM i",
                   NULL, NULL, &(struct err){ 0 }) == 0;
}

ENGINE_TEST(many_writers_share_batches_and_each_learns_its_own_outcome, types)
{
    int64_t batches = atomic_load(&durable_m_batch.v[0]);
    struct writer *all = xcalloc(WRITERS, sizeof(*all));
    unsigned lost = 0, ok = 0, refused = 0;
    char id[16];

    CO_CHECK(rows(f));
    for (int i = 0; i < WRITERS; i++) {
        fmt_z(id, sizeof(id), "w%d", i);
        writer_init(&all[i], f, id, i % 10 == 3 ? "not mine" : "mine");
        if (i == 50)
            all[i].output = "\xff"; /* no text for a database; harms no other */
    }
    CO_CHECK(write_all(f, all, WRITERS, e) == 0);
    for (int i = 0; i < WRITERS; i++) {
        ok += all[i].got == JOURNAL_OK;
        lost += all[i].got == JOURNAL_LOST && i % 10 == 3;
        refused += all[i].got < 0 && i == 50;
    }
    free(all);
    CO_CHECK(ok == 89 && lost == 10 && refused == 1);
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.operation_outputs", NULL, "89"));
    CO_CHECK(atomic_load(&durable_m_batch.v[0]) - batches < 2 * WRITERS);
    return 0;
}

ENGINE_TEST(what_is_sent_again_is_the_same_and_another_record_is_not_overwritten, types)
{
    struct writer all[4];

    CO_CHECK(rows(f));
    for (int i = 0; i < 4; i++)
        writer_init(&all[i], f, i % 2 ? "w1" : "w2", "mine");
    all[2].step = all[3].step = 1;
    CO_CHECK(write_all(f, all, 4, e) == 0); /* two of each workflow, in one batch */
    for (int i = 0; i < 4; i++)
        CO_CHECK(all[i].got == JOURNAL_OK);
    CO_CHECK(write_all(f, all, 4, e) == 0);
    for (int i = 0; i < 4; i++)
        CO_CHECK(all[i].got == JOURNAL_OK);
    all[0].output = "2";
    CO_CHECK(write_all(f, all, 1, e) == 0 && all[0].got == JOURNAL_TAKEN);
    CO_CHECK(row_is(f,
                    "SELECT output FROM dbos.operation_outputs WHERE workflow_uuid = ?1"
                    " AND function_id = 0",
                    "w2", "1"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.operation_outputs", NULL, "4"));
    return 0;
}

/* Two executions of one workflow in one batch: only the owner's counts as written. */
ENGINE_TEST(who_lost_a_workflow_does_not_take_the_owners_success_for_its_own, types)
{
    struct writer all[2];

    CO_CHECK(rows(f));
    writer_init(&all[0], f, "w1", "once mine");
    writer_init(&all[1], f, "w1", "mine");
    CO_CHECK(write_all(f, all, 2, e) == 0);
    CO_CHECK(all[0].got == JOURNAL_LOST && all[1].got == JOURNAL_OK);
    return 0;
}

ENGINE_TEST(a_workflow_is_finished_by_its_owner_once, types)
{
    struct writer mine, other;

    CO_CHECK(rows(f));
    writer_init(&mine, f, "w1", "mine");
    writer_init(&other, f, "w1", "another");
    CO_CHECK(journal_finish(&other.w, DURABLE_ERROR, (struct str){ 0 }, STR("{}"), e) ==
             JOURNAL_LOST);
    CO_CHECK(journal_finish(&mine.w, DURABLE_SUCCESS, STR("7"), (struct str){ 0 }, e) ==
             JOURNAL_OK);
    CO_CHECK(journal_finish(&mine.w, DURABLE_SUCCESS, STR("7"), (struct str){ 0 }, e) ==
             JOURNAL_OK); /* the answer was lost, say */
    CO_CHECK(journal_finish(&mine.w, DURABLE_SUCCESS, STR("8"), (struct str){ 0 }, e) ==
             JOURNAL_LOST);
    CO_CHECK(
        row_is(f, "SELECT output FROM dbos.workflow_output WHERE workflow_uuid = ?1", "w1", "7"));
    CO_CHECK(write_all(f, &mine, 1, e) == 0 && mine.got == JOURNAL_LOST);
    return 0;
}

struct starter {
    struct engine *f;
    struct durable_started started;
    int r;
};

static CO int start_same(void *arg, struct err *e)
{
    struct starter *starter = arg;
    const struct durable_start start = { .name = "nothing", .id = STR("same") };

    starter->r = durable_start(starter->f->d, &start, &starter->started, &(struct err){ 0 });
    return 0;
}

ENGINE_TEST(of_many_starts_of_one_id_in_one_batch_one_is_first, types)
{
    struct fiber_group *g = fiber_group_new(f->store->loop);
    struct starter all[20];
    unsigned first = 0;

    for (int i = 0; i < 20; i++) {
        all[i] = (struct starter){ .f = f };
        CO_CHECK(fiber_group_spawn(g, "starter", start_same, &all[i], e) == 0);
    }
    CO_CHECK(fiber_group_join(g, e) == 0);
    fiber_group_free(g);
    for (int i = 0; i < 20; i++) {
        CO_CHECK(all[i].r == 0);
        first += !all[i].started.existed;
    }
    CO_CHECK(first == 1 && ends_as(f, "same", "SUCCESS"));
    CO_CHECK(row_is(f, "SELECT count(*) FROM dbos.workflow_input", NULL, "1"));
    return 0;
}
