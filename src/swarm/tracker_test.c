/* SPDX-License-Identifier: MIT */
/*
 * swarm/tracker_test.c — every pair of states against a list of its own of what may follow what, in
 * the table and in the database; work that begins, and begins again.
 */
#include "swarm/tracker.h"

#include "base/time.h"
#include "store/store_fixture.h"
#include "swarm/swarm_int.h"

/* from: to to to */
static const char *const allowed[] = {
    "parsing_command:",
    "spawning_agent: agent_ready failed stopped",
    "agent_ready: work_in_progress pr_created tests_running completed failed stopped",
    "work_in_progress: pr_created tests_running completed failed stopped",
    "pr_created: work_in_progress tests_running completed failed stopped",
    "tests_running: work_in_progress pr_created completed failed stopped",
    "completed: spawning_agent stopped",
    "failed: spawning_agent stopped",
    "stopped: spawning_agent",
};

static bool may(enum tracker_state from, enum tracker_state to)
{
    struct str rest = str_of(strchr(allowed[from], ':') + 1), one;

    while (str_split(&rest, ' ', &one))
        if (one.n && str_eq_z(one, tracker_state_names[to]))
            return true;
    return false;
}

TEST(the_table)
{
    for (int from = 0; from < TRACKER_STATES; from++) {
        CHECK(strncmp(allowed[from], tracker_state_names[from],
                      strlen(tracker_state_names[from])) == 0);
        CHECK_INT(tracker_state_of(str_of(tracker_state_names[from])), from);
        for (int to = 0; to < TRACKER_STATES; to++)
            CHECK_INT(tracker_allows((enum tracker_state)from, (enum tracker_state)to),
                      may((enum tracker_state)from, (enum tracker_state)to));
    }
    CHECK_INT(tracker_state_of(STR("agent")), TRACKER_STATES);
}

struct move {
    struct tracker_change change;
    struct arena *a;
    struct tracker now;
    int r;
};

static int move_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct move *m = arg;

    m->r = tracker_move_tx(tx, &m->change, m->a, &m->now, e);
    return m->r < 0 ? m->r : 0;
}

static CO int move(struct fixture *f, struct move *m, struct err *e)
{
    int r = store_do(f->s, move_body, m, e);

    return r < 0 ? r : m->r;
}

static const struct sql put_sql = {
    "test: put",
    "INSERT INTO swarm_trackers (issue_number, repository, state, agent_id, workflow_uuid,"
    " started_at, updated_at) VALUES (1, 'o/r', ?1, 'old', 'w', 5, 5) ON CONFLICT (issue_number) "
    "DO UPDATE SET"
    " state = ?1, completed_at = NULL, agent_id = 'old', error = NULL",
    NULL,
};

static int put_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct sql_arg args[] = { SQL_Z(arg) };

    return store_run(tx, &put_sql, args, LEN(args), NULL, NULL, e);
}

static CO int pair(struct fixture *f, enum tracker_state from, enum tracker_state to, struct err *e)
{
    struct arena a = { 0 };
    struct move m = {
        .change = { .issue = 1,
                    .to = to,
                    .now_ms = 9,
                    .repository = STR("o/r"),
                    .workflow = STR("w2") },
        .a = &a,
    };
    bool same = from == to && to != TRACKER_SPAWNING;
    int want = same ? TRACKER_SAME : may(from, to) ? 0 : TRACKER_REFUSED;
    enum tracker_state state;

    CO_CHECK(store_do(f->s, put_body, (void *)(uintptr_t)tracker_state_names[from], e) == 0);
    CO_CHECK(move(f, &m, e) == want);
    state = m.now.state;
    CO_CHECK(state == (want == TRACKER_REFUSED ? from : to));
    CO_CHECK(want == TRACKER_REFUSED || (m.now.completed_ms != 0) == !tracker_active(to));
    CO_CHECK((m.now.agent.p == NULL) == (want == 0 && to == TRACKER_SPAWNING));
    arena_done(&a);
    return 0;
}

static CO int pairs(struct fixture *f, struct err *e)
{
    for (int from = TRACKER_SPAWNING; from < TRACKER_STATES; from++)
        for (int to = TRACKER_SPAWNING; to < TRACKER_STATES; to++)
            if (pair(f, (enum tracker_state)from, (enum tracker_state)to, e) < 0) {
                printf("# %s to %s\n", tracker_state_names[from], tracker_state_names[to]);
                return -1;
            }
    return 0;
}

static CO int story(struct fixture *f, struct err *e)
{
    struct arena a = { 0 };
    struct move m = { .change = { .issue = 7, .to = TRACKER_READY, .now_ms = 1 }, .a = &a };
    AUTO(json_decref) json_t *j = NULL;

    CO_CHECK(move(f, &m, e) == TRACKER_NONE);
    m.change = (struct tracker_change){ .issue = 7,
                                        .to = TRACKER_SPAWNING,
                                        .now_ms = 1000,
                                        .repository = STR("o/r"),
                                        .workflow = STR("w1"),
                                        .requested_by = STR("telegram:1") };
    CO_CHECK(move(f, &m, e) == 0 && str_eq(m.now.workflow, STR("w1")));
    m.change.workflow = STR("w2");
    CO_CHECK(move(f, &m, e) == TRACKER_REFUSED && str_eq(m.now.workflow, STR("w1")));
    m.change = (struct tracker_change){
        .issue = 7, .to = TRACKER_READY, .only = STR("w2"), .agent = STR("a2"), .now_ms = 2000
    };
    CO_CHECK(move(f, &m, e) == TRACKER_REFUSED);
    m.change.only = STR("w1");
    m.change.agent = STR("a1");
    CO_CHECK(move(f, &m, e) == 0 && str_eq(m.now.agent, STR("a1")) && m.now.updated_ms == 2000);
    m.change =
        (struct tracker_change){ .issue = 7, .to = TRACKER_PR, .pr_url = STR("u"), .now_ms = 3000 };
    CO_CHECK(move(f, &m, e) == 0 && str_eq(m.now.agent, STR("a1")) &&
             str_eq(m.now.pr_url, STR("u")));
    m.change.pr_url = STR("u2");
    CO_CHECK(move(f, &m, e) == TRACKER_SAME && str_eq(m.now.pr_url, STR("u2")));
    m.change = (struct tracker_change){ .issue = 7, .to = TRACKER_COMPLETED, .now_ms = 4000 };
    CO_CHECK(move(f, &m, e) == 0 && m.now.completed_ms == 4000 && m.now.started_ms == 1000);
    m.change.now_ms = 5000;
    CO_CHECK(move(f, &m, e) == TRACKER_SAME && m.now.completed_ms == 4000);
    j = tracker_json(&m.now);
    CO_CHECK(json_integer_value(json_object_get(j, "issue_number")) == 7);
    CO_CHECK(str_eq(json_member_str(j, "completed_at"), STR("1970-01-01T00:00:04+00:00")));
    CO_CHECK(json_is_null(json_object_get(j, "error")) && json_object_size(j) == 7);
    arena_done(&a);
    return 0;
}

static bool everywhere(int (*fn)(struct fixture *f, struct err *e))
{
    struct store_conf with = { .migrations = store_migrations };

    with.n_migrations = store_migrations_len;
    return fixture_everywhere(&with, fn);
}

TEST(every_pair_in_the_database)
{
    CHECK(everywhere(pairs));
}

TEST(a_work_from_its_beginning_to_its_end)
{
    CHECK(everywhere(story));
}
