/* SPDX-License-Identifier: MIT */
/* bridge/session_test.c — turns in a store in memory: owners, metadata, bounds, interruptions,
 * keys. */
#include "bridge/session.h"

#include "bridge/out.h"
#include "test.h"

/* What a test's fiber works with. */
struct bench {
    struct store *store;
    struct arena arena;
    int64_t sids;
};

typedef int bench_fn(struct bench *t, struct err *e);

struct run {
    bench_fn *fn;
    struct bench t;
    struct loop *loop;
    int r;
    struct err e;
};

CO static int run_fiber(void *arg, struct err *e)
{
    struct run *run = arg;

    run->r = run->fn(&run->t, &run->e);
    loop_stop(run->loop);
    return 0;
}

static int in_store(bench_fn *fn)
{
    struct run run = { .fn = fn };
    const struct store_conf conf = {
        .url = "sqlite::memory:",
        .migrations = store_migrations,
        .n_migrations = store_migrations_len,
        .pool = 1,
    };
    struct err e;

    if (loop_new(&run.loop, &e) < 0 || store_open(run.loop, &conf, &run.t.store, &e) < 0 ||
        fiber_spawn(run.loop, "test", run_fiber, &run, NULL, &e) < 0) {
        printf("# %s\n", e.msg);
        return -1;
    }
    loop_run(run.loop);
    if (run.r < 0 && run.e.msg[0])
        printf("# %s\n", run.e.msg);
    arena_done(&run.t.arena);
    store_close(run.t.store);
    loop_free(run.loop);
    return run.r;
}

/* Begin a turn on session "s". */
CO static int begin(struct bench *t, const char *user, const char *prompt, const char *key,
                    struct turn *turn, struct err *e)
{
    *turn = (struct turn){
        .session_id = STR("s"),
        .user_id = str_of(user),
        .prompt = str_of(prompt),
        .key = str_of(key),
        .hash = key ? STR("h") : (struct str){ 0 },
        .now_us = wall_us(),
        .new_sid = ++t->sids,
        .messages_max = 6,
        .arena = &t->arena,
    };
    return turn_begin(t->store, turn, e);
}

CO static int end(struct bench *t, const struct turn *turn, const char *reply, struct err *e)
{
    const struct turn_end done = {
        .session_id = turn->session_id,
        .sid = turn->sid,
        .success = reply != NULL,
        .reply = str_of(reply),
        .agent = STR("a"),
        .messages_max = 6,
        .now_us = wall_us(),
        .key = turn->key,
        .hash = turn->hash,
        .result = STR("{\"recorded\":true}"),
    };

    return turn_end(t->store, &done, e);
}

/* The session's messages as "role:content" with "!" behind an interrupted one, in the arena. */
CO static const char *messages(struct bench *t, int64_t active_sid, int64_t active_seq)
{
    const char *text = "";
    struct out o;
    struct err e;
    json_t *j, *m;
    size_t i;

    out_init(&o, 1 << 20);
    if (session_write(t->store, STR("s"), active_sid, active_seq, &o, &e) < 0 ||
        json_parse(out_text(&o), 64, &t->arena, &j, NULL, &e) < 0) {
        out_done(&o);
        return e.msg[0] ? arena_strdup(&t->arena, e.msg) : "(no text)";
    }
    json_array_foreach(json_object_get(j, "messages"), i, m)
    {
        text = arena_printf(&t->arena, "%s%s%.1s:%s%s", text, i ? " " : "",
                            json_string_value(json_object_get(m, "role")),
                            json_string_value(json_object_get(m, "content")),
                            json_object_get(m, "interrupted") ? "!" : "");
    }
    out_done(&o);
    return text;
}

#define CO_CHECK_STR(have, want) \
    do { \
        const char *have_ = (have) ?: "(null)"; \
        if (strcmp(have_, want) != 0) \
            printf("# have \"%s\"\n", have_); \
        CO_CHECK(strcmp(have_, want) == 0); \
    } while (0)

CO static int whole_turn(struct bench *t, struct err *e)
{
    struct turn turn;

    CO_CHECK(begin(t, "ada", "q", NULL, &turn, e) == 0);
    CO_CHECK(turn.outcome == TURN_BEGUN && turn.created && turn.seq == 1);
    CO_CHECK_STR(messages(t, turn.sid, turn.seq), "u:q");
    CO_CHECK_STR(messages(t, 0, 0), "u:q!"); /* nobody is at it: a crash would look so */
    CO_CHECK(end(t, &turn, "r", e) == 0);
    CO_CHECK_STR(messages(t, 0, 0), "u:q a:r");
    CO_CHECK(begin(t, NULL, "q2", NULL, &turn, e) == 0);
    CO_CHECK(!turn.created && turn.seq == 3);
    CO_CHECK(end(t, &turn, NULL, e) == 0);
    CO_CHECK_STR(messages(t, 0, 0), "u:q a:r u:q2"); /* failed in order: not interrupted */
    return 0;
}

TEST(a_turn_is_a_question_and_then_an_answer)
{
    CHECK_INT(in_store(whole_turn), 0);
}

CO static int foreign(struct bench *t, struct err *e)
{
    struct turn turn;

    CO_CHECK(begin(t, "ada", "q", NULL, &turn, e) == 0 && end(t, &turn, "r", e) == 0);
    CO_CHECK(begin(t, "eve", "mine?", NULL, &turn, e) == 0);
    CO_CHECK(turn.outcome == TURN_FOREIGN);
    CO_CHECK_STR(messages(t, 0, 0), "u:q a:r");
    CO_CHECK(begin(t, NULL, "q2", NULL, &turn, e) == 0);
    CO_CHECK(turn.outcome == TURN_BEGUN);
    return 0;
}

TEST(another_user_is_refused_and_nothing_is_written)
{
    CHECK_INT(in_store(foreign), 0);
}

CO static int interrupted(struct bench *t, struct err *e)
{
    struct turn turn;

    CO_CHECK(begin(t, "ada", "lost", NULL, &turn, e) == 0);
    CO_CHECK(begin(t, "ada", "also lost", NULL, &turn, e) == 0);
    CO_CHECK(begin(t, "ada", "q", NULL, &turn, e) == 0 && end(t, &turn, "r", e) == 0);
    CO_CHECK_STR(messages(t, 0, 0), "u:lost! u:also lost! u:q a:r");
    return 0;
}

TEST(a_question_without_an_end_stays_marked_when_the_conversation_goes_on)
{
    CHECK_INT(in_store(interrupted), 0);
}

CO static int resumed(struct bench *t, struct err *e)
{
    struct turn turn;

    CO_CHECK(begin(t, "ada", "q", "k", &turn, e) == 0);
    CO_CHECK(begin(t, "ada", "q", "k", &turn, e) == 0);
    CO_CHECK(turn.outcome == TURN_BEGUN && turn.seq == 1);
    CO_CHECK(end(t, &turn, "r", e) == 0);
    CO_CHECK_STR(messages(t, 0, 0), "u:q a:r");
    CO_CHECK(begin(t, "ada", "q", "k", &turn, e) == 0);
    CO_CHECK(turn.outcome == TURN_RECORDED);
    CO_CHECK(str_eq_z(turn.recorded, "{\"recorded\":true}"));
    turn.hash = STR("other");
    CO_CHECK(turn_begin(t->store, &turn, e) == 0 && turn.outcome == TURN_MISMATCH);
    CO_CHECK_STR(messages(t, 0, 0), "u:q a:r");
    return 0;
}

TEST(a_key_goes_on_with_its_interrupted_question_and_has_one_result)
{
    CHECK_INT(in_store(resumed), 0);
}

CO static int overtaken(struct bench *t, struct err *e)
{
    struct turn turn;

    CO_CHECK(begin(t, "ada", "q", "k", &turn, e) == 0);
    CO_CHECK(begin(t, "ada", "other", NULL, &turn, e) == 0 && end(t, &turn, "r", e) == 0);
    CO_CHECK(begin(t, "ada", "q", "k", &turn, e) == 0 && turn.seq == 4);
    CO_CHECK(end(t, &turn, "r2", e) == 0);
    CO_CHECK_STR(messages(t, 0, 0), "u:q! u:other a:r u:q a:r2");
    return 0;
}

TEST(a_key_whose_question_was_overtaken_asks_it_again)
{
    CHECK_INT(in_store(overtaken), 0);
}

CO static int trimmed(struct bench *t, struct err *e)
{
    static const char *const prompts[] = { "1", "2", "3", "4", "5" };
    struct turn turn;

    for (size_t i = 0; i < LEN(prompts); i++)
        CO_CHECK(begin(t, "ada", prompts[i], NULL, &turn, e) == 0 && end(t, &turn, "r", e) == 0);
    CO_CHECK_STR(messages(t, 0, 0), "u:3 a:r u:4 a:r u:5 a:r");
    return 0;
}

TEST(the_oldest_messages_go_when_there_are_too_many)
{
    CHECK_INT(in_store(trimmed), 0);
}

CO static int context(struct bench *t, struct err *e)
{
    struct turn turn;

    CO_CHECK(begin(t, "ada", "one", NULL, &turn, e) == 0 && end(t, &turn, "r1", e) == 0);
    CO_CHECK(begin(t, "ada", "two", NULL, &turn, e) == 0 && end(t, &turn, "r2", e) == 0);
    turn.context_messages = 3; /* r1 would be first: a conversation begins with its user */
    turn.context_bytes = 100;
    CO_CHECK(turn_begin(t->store, &turn, e) == 0);
    CO_CHECK(turn.n_earlier == 2);
    CO_CHECK(str_eq_z(turn.earlier[0].content, "two") && str_eq_z(turn.earlier[0].role, "user"));
    CO_CHECK(str_eq_z(turn.earlier[1].content, "r2"));
    turn.context_bytes = 2; /* the newest, "two", does not fit: there are no holes */
    CO_CHECK(turn_begin(t->store, &turn, e) == 0);
    CO_CHECK(turn.n_earlier == 0);
    return 0;
}

TEST(the_context_is_the_newest_whole_messages_from_a_question_on)
{
    CHECK_INT(in_store(context), 0);
}

CO static int metadata(struct bench *t, struct err *e)
{
    struct turn turn = {
        .session_id = STR("s"), .prompt = STR("p"), .messages_max = 6, .arena = &t->arena
    };
    static const char *const merged[] = { "{\"a\":1,\"b\":{\"x\":1}}",
                                          "{\"b\":{\"y\":2},\"c\":null}" };
    struct out o;

    for (size_t i = 0; i < LEN(merged); i++) {
        json_t *j;

        CO_CHECK(json_parse(str_of(merged[i]), 8, &t->arena, &j, NULL, e) == 0);
        turn.metadata = j;
        turn.new_sid = ++t->sids;
        CO_CHECK(turn_begin(t->store, &turn, e) == 0);
    }
    out_init(&o, 1 << 16);
    CO_CHECK(session_write(t->store, STR("s"), 0, 0, &o, e) == 0);
    CO_CHECK(str_ends(out_text(&o), STR("\"metadata\":{\"a\":1,\"b\":{\"y\":2},\"c\":null}}")));
    out_done(&o);
    return 0;
}

TEST(metadata_is_merged_at_the_top_level)
{
    CHECK_INT(in_store(metadata), 0);
}

CO static int deleted(struct bench *t, struct err *e)
{
    struct turn turn, next;

    CO_CHECK(begin(t, "ada", "q", NULL, &turn, e) == 0);
    CO_CHECK(session_delete(t->store, STR("s"), e) == 0);
    CO_CHECK(session_delete(t->store, STR("s"), e) == -ERR_NOT_FOUND);
    CO_CHECK(end(t, &turn, "late", e) == 0);
    CO_CHECK_STR(messages(t, 0, 0), "Session 's' not found");
    CO_CHECK(begin(t, "eve", "new life", NULL, &next, e) == 0 && next.created);
    CO_CHECK(end(t, &turn, "late", e) == 0); /* of the life before */
    CO_CHECK_STR(messages(t, 0, 0), "u:new life!");
    e->msg[0] = '\0';
    return 0;
}

TEST(a_deleted_session_stays_deleted_and_a_new_one_is_another)
{
    CHECK_INT(in_store(deleted), 0);
}
