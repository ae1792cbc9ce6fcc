/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_test.c — lives of agents: every state with every operation against a list of its own,
 * keys and names under concurrency, compare-and-set, cut-off creations, silence and return. On
 * SQLite or, where CHELA_TEST_PG is set, on PostgreSQL.
 */
#include "durable/engine_fixture.h"
#include "swarm/beat_int.h"
#include "swarm/mail.h"

/* --- pure --- */

/* operation: the states it is allowed in, "=" before those that it changes nothing of, and to what
 */
static const char *const allowed[AGENT_OPS] = {
    [OP_PROVISION] = "=provisioning =running failed > provisioning",
    [OP_PAUSE] = "running > paused",
    [OP_RESUME] = "paused > running",
    [OP_HEARTBEAT] = "running >",
    [OP_SETTINGS] = "provisioning running paused stopped failed >",
    [OP_MESSAGE] = "running >",
    [OP_DELETE] = "provisioning running paused =stopped failed > stopped",
};

static enum life_verdict expected(enum agent_op op, enum agent_status status)
{
    struct str rest = str_of(allowed[op]), one;

    while (str_split(&rest, ' ', &one) && !str_eq(one, STR(">"))) {
        bool same = one.p[0] == '=';

        if (str_eq_z((struct str){ one.p + same, one.n - same }, agent_status_names[status]))
            return same ? LIFE_SAME : LIFE_GO;
    }
    return LIFE_NO;
}

static int leads_to(enum agent_op op)
{
    const char *to = strchr(allowed[op], '>') + 1;
    enum agent_status status;

    return *to && agent_status_parse(str_of(to + 1), &status) == 0 ? (int)status : -1;
}

TEST(the_table_of_states_and_operations)
{
    enum life_verdict verdict;
    struct err e;

    for (int op = 0; op < AGENT_OPS; op++) {
        CHECK_INT(life_rules[op].to, leads_to((enum agent_op)op));
        for (int status = 0; status < AGENT_STATUSES; status++) {
            enum life_verdict want = expected((enum agent_op)op, (enum agent_status)status);
            int r = life_judge((enum agent_op)op, (enum agent_status)status, &verdict, &e);

            CHECK_INT(r, want == LIFE_NO ? -ERR_CONFLICT : 0);
            if (r == 0)
                CHECK_INT(verdict, want);
        }
    }
}

TEST(the_texts_of_the_original)
{
    enum life_verdict verdict;
    struct err e;

    CHECK_INT(life_judge(OP_PROVISION, AGENT_PAUSED, &verdict, &e), -ERR_CONFLICT);
    CHECK_STR(e.msg, "Cannot provision agent in 'paused' state. Only 'provisioning' or 'failed' "
                     "agents can be provisioned.");
    CHECK_INT(life_judge(OP_PAUSE, AGENT_STOPPED, &verdict, &e), -ERR_CONFLICT);
    CHECK_STR(e.msg, "Cannot pause agent in 'stopped' state. Only 'running' agents can be paused.");
    CHECK_INT(life_judge(OP_RESUME, AGENT_RUNNING, &verdict, &e), -ERR_CONFLICT);
    CHECK_STR(e.msg,
              "Cannot resume agent in 'running' state. Only 'paused' agents can be resumed.");
    CHECK_INT(life_judge(OP_HEARTBEAT, AGENT_FAILED, &verdict, &e), -ERR_CONFLICT);
    CHECK_STR(e.msg,
              "Cannot execute heartbeat for agent in 'failed' state. Agent must be 'running'.");
    CHECK_INT(life_judge(OP_MESSAGE, AGENT_PROVISIONING, &verdict, &e), -ERR_CONFLICT);
    CHECK_STR(e.msg, "Agent must be provisioned before sending messages");
}

TEST(what_is_made_from_a_name)
{
    static const struct {
        const char *form, *name, *session, *agent;
        unsigned n;
    } rows[] = {
        { "agent", "My Agent", "agent:my-agent:main", "my-agent", 0 },
        { "agent", "My Agent", "agent:my-agent:main-2", "my-agent-2", 2 },
        { "agent", "  a__b--C.9! ", "agent:a-b-c-9:main", "a-b-c-9", 0 },
        { "agent", "M\xc3\xbcller \xc3\x89t\xc3\xa9", "agent:m\xc3\xbcller-\xc3\xa9t\xc3\xa9:main",
          "m\xc3\xbcller-\xc3\xa9t\xc3\xa9", 0 },
        { "agent", "\xe6\x97\xa5\xe6\x9c\xac", "agent:\xe6\x97\xa5\xe6\x9c\xac:main",
          "\xe6\x97\xa5\xe6\x9c\xac", 0 },
        { "agent", "!!! \xe2\x80\x94", "agent:agent:main", "agent", 0 },
        { "web", "My_Test Agent", "agent:web:my-test-agent", "my-test-agent", 0 },
        { "web", "My_Test Agent", "agent:web:my-test-agent-1", "my-test-agent-1", 1 },
    };
    char name[2048];
    struct str session, agent;
    struct arena a = { 0 };

    for (size_t i = 0; i < LEN(rows); i++) {
        life_keys(rows[i].form, str_of(rows[i].name), rows[i].n, &a, &session, &agent);
        CHECK_STR(session.p, rows[i].session);
        CHECK_STR(agent.p, rows[i].agent);
    }
    memset(name, 'x', sizeof(name));
    for (size_t i = 0; i < 255; i++)
        memcpy(name + i * 4, "\xf0\x90\x90\x80", 4); /* a letter of four bytes */
    life_keys("web", (struct str){ name, 1020 }, 4000000000u, &a, &session, &agent);
    CHECK(session.n < MAIL_SESSION && utf8_valid(session.p, session.n));
    arena_done(&a);
}

TEST(slots_keep_their_rhythm)
{
    CHECK_INT(beat_next(1000, 30, 0), 1000);
    CHECK_INT(beat_next(1000, 30, 999), 1000);
    CHECK_INT(beat_next(1000, 30, 1000), 1030);
    CHECK_INT(beat_next(1000, 30, 1029), 1030);
    CHECK_INT(beat_next(1000, 30, 1000 + 30 * 12345 + 7), 1000 + 30 * 12346);
}

TEST(the_heap_gives_out_the_earliest)
{
    enum { N = 500 };
    struct pulse *p = xcalloc(N, sizeof(*p));
    struct beat_heap h = { 0 };
    uint64_t seed = 12345;

    for (int i = 0; i < N; i++)
        p[i].place = BEAT_HERE;
    for (int round = 0; round < 20000; round++) {
        struct pulse *one;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        one = &p[seed >> 33 & 511 % N];
        one->due_ms = (int64_t)(seed >> 40 & 1023);
        if (seed >> 20 & 3)
            beat_heap_put(&h, one);
        else
            beat_heap_drop(&h, one);
        for (size_t i = 0; i < h.n; i++) {
            CHECK(h.v[i]->place == i);
            CHECK(i == 0 || h.v[(i - 1) / 2]->due_ms <= h.v[i]->due_ms);
        }
    }
    while (h.n)
        beat_heap_drop(&h, h.v[0]);
    free(h.v);
    free(p);
}

/* --- beside an engine --- */

struct lives {
    struct engine f;
    struct swarm s;
    struct swarm_settings set;
    struct arena a;
};

static CO int lives_up(struct lives *l, struct fixture *store, struct err *e)
{
    const struct durable_conf conf = { .instance = "test" };
    int r;

    l->f.store = store;
    l->f.d = durable_new(store->loop, store->s, &conf);
    l->s.conf.loop = store->loop;
    l->s.conf.store = store->s;
    l->s.conf.engine = l->f.d;
    l->s.settings = &l->set;
    l->s.pg = !store->sqlite;
    r = mail_new(&l->s, &l->s.mail, e);
    if (r == 0)
        r = life_new(&l->s, &l->s.life, e);
    if (r == 0)
        r = durable_run(l->f.d, e);
    if (r == 0)
        r = mail_start(l->s.mail, e);
    return r < 0 ? r : life_start(l->s.life, e);
}

static CO void lives_down(struct lives *l)
{
    life_stop(l->s.life);
    mail_stop(l->s.mail);
    durable_stop(l->f.d, 0);
    life_free(TAKE(l->s.life));
    mail_free(TAKE(l->s.mail));
    durable_free(TAKE(l->f.d));
}

static CO int (*lives_test_now)(struct lives *l, struct err *e);

static CO int lives_main(struct fixture *store, struct err *e)
{
    struct lives *l = xcalloc(1, sizeof(*l));
    int r;

    l->set = (struct swarm_settings){
        .backend_auth = (char *)(uintptr_t) "token",
        .jwt_secret = (char *)(uintptr_t) "",
        .session_key_form = (char *)(uintptr_t) "agent",
        .agents_max = 1000,
        .agent_timeout_ms = 1000,
        .max_message = 1 << 20,
        .message_attempts = 100,
        .message_keep_ms = 3600000,
        .mailbox_max = 1000,
        .redeliver_first_ms = 60000,
        .redeliver_last_ms = 60000,
        .beat_grace_ms = 5,
        .beat_missed = 3,
        .beat_flush_ms = 3600000,
    };
    r = lives_up(l, store, e);
    if (r == 0)
        r = lives_test_now(l, e);
    if (l->s.life)
        lives_down(l);
    arena_done(&l->a);
    free(l);
    return r;
}

static bool lives_everywhere(CO int (*fn)(struct lives *l, struct err *e))
{
    const struct store_conf conf = { .migrations = store_migrations,
                                     .n_migrations = store_migrations_len };

    lives_test_now = fn;
    return fixture_everywhere(&conf, lives_main);
}

#define LIFE_TEST(id) \
    static CO int co_##id(struct lives *l, struct err *e); \
    TEST(id) \
    { \
        CHECK(lives_everywhere(co_##id)); \
    } \
    static CO int co_##id(struct lives *l, struct err *e)
#define MUST(cond) \
    do { \
        struct err was_ = *e; \
        if (!(cond)) { \
            printf("# last error: %.200s\n", was_.msg); \
            return err_set(e, ERR_INTERNAL, "line %d: %s", __LINE__, #cond); \
        } \
    } while (0)

static CO int make_in(struct lives *l, struct arena *a, const char *name, const char *key,
                      struct agent_info *ret, struct err *e)
{
    const struct agent_new in = { .name = str_of(name), .model = STR("p/m") };

    e->msg[0] = '\0';
    return life_create(l->s.life, &in, str_of(key), DEADLINE_NONE, a, ret, e);
}

static CO int make(struct lives *l, const char *name, const char *key, struct agent_info *ret,
                   struct err *e)
{
    return make_in(l, &l->a, name, key, ret, e);
}

/* Many at once. */
struct maker {
    struct lives *l;
    const char *name, *key;
    char id[64], session[64];
    int r;
};

static CO int maker_main(void *arg, struct err *e)
{
    struct maker *m = arg;
    struct arena a = { 0 }; /* its own: the store's thread writes into it */
    struct agent_info row;

    m->r = make_in(m->l, &a, m->name, m->key, &row, e);
    if (m->r == 0) {
        fmt_z(m->id, sizeof(m->id), STR_FMT, STR_ARG(row.id));
        fmt_z(m->session, sizeof(m->session), STR_FMT, STR_ARG(row.session));
    }
    arena_done(&a);
    return 0;
}

enum { MANY = 20 };

static CO int make_many(struct lives *l, struct maker makers[MANY], struct err *e)
{
    struct fiber_group *g = fiber_group_new(l->s.conf.loop);
    int r = 0;

    for (int i = 0; r == 0 && i < MANY; i++) {
        makers[i].l = l;
        r = fiber_group_spawn(g, "maker", maker_main, &makers[i], e);
    }
    if (fiber_group_join(g, r < 0 ? NULL : e) < 0)
        r = -ERR_INTERNAL;
    fiber_group_free(g);
    return r;
}

LIFE_TEST(one_key_is_one_agent_however_many_ask_at_once)
{
    struct maker makers[MANY] = { 0 };
    const struct agent_new other = { .name = STR("b"), .model = STR("p/m") };
    struct agent_info row;

    for (int i = 0; i < MANY; i++) {
        makers[i].name = "a";
        makers[i].key = "k";
    }
    MUST(make_many(l, makers, e) == 0);
    for (int i = 0; i < MANY; i++)
        MUST(makers[i].r == 0 && strcmp(makers[i].id, makers[0].id) == 0);
    MUST(row_is(&l->f, "SELECT CAST(count(*) AS TEXT) FROM agent_swarm_instances", NULL, "1"));
    MUST(row_is(&l->f, "SELECT CAST(count(*) AS TEXT) FROM dbos.workflow_status WHERE name = ?1",
                LIFE_PROVISION, "1"));
    MUST(life_create(l->s.life, &other, STR("k"), DEADLINE_NONE, &l->a, &row, e) == -ERR_CONFLICT);
    MUST(make(l, "a", "k2", &row, e) == 0 && str_eq(row.session, STR("agent:a:main-1")));
    /* a key that is older than a day is new */
    MUST(sql_run(&l->f, "UPDATE agent_idempotency SET created_at = created_at - 86400001", NULL,
                 NULL, e) == 0);
    MUST(life_create(l->s.life, &other, STR("k"), DEADLINE_NONE, &l->a, &row, e) == 0);
    MUST(str_eq(row.name, STR("b")) && row.status == AGENT_RUNNING);
    return 0;
}

LIFE_TEST(agents_of_one_name_have_session_keys_of_their_own)
{
    struct maker makers[MANY] = { 0 };
    char want[64];

    for (int i = 0; i < MANY; i++)
        makers[i].name = "Same Name";
    MUST(make_many(l, makers, e) == 0);
    for (int n = 0; n < MANY; n++) {
        bool found = false;

        fmt_z(want, sizeof(want), n ? "agent:same-name:main-%d" : "agent:same-name:main", n);
        for (int i = 0; i < MANY; i++)
            found = found || (makers[i].r == 0 && strcmp(makers[i].session, want) == 0);
        /* past NAMES_SOON numbers may be left out, never used twice */
        MUST(found || n >= 8);
    }
    MUST(row_is(&l->f,
                "SELECT CAST(count(DISTINCT openclaw_session_key) AS TEXT) FROM "
                "agent_swarm_instances WHERE status = 'running'",
                NULL, "20"));
    return 0;
}

LIFE_TEST(a_session_key_that_was_asked_for_is_had_once)
{
    const struct agent_new in = { .name = STR("a"),
                                  .model = STR("p/m"),
                                  .session = STR("agent:issue-5:main") };
    struct agent_info row;

    MUST(life_create(l->s.life, &in, (struct str){ 0 }, DEADLINE_NONE, &l->a, &row, e) == 0);
    MUST(str_eq(row.session, in.session) && row.status == AGENT_RUNNING);
    MUST(life_create(l->s.life, &in, (struct str){ 0 }, DEADLINE_NONE, &l->a, &row, e) ==
         -ERR_CONFLICT);
    return 0;
}

/* --- moves --- */

struct mover {
    struct life_step step;
    struct arena a;
    struct agent_info row;
    int r;
};

static int mover_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct mover *m = arg;

    m->r = life_move_tx(tx, &m->step, &m->a, &m->row, e);
    return m->r < 0 ? m->r : 0;
}

#define PUT_SQL "UPDATE agent_swarm_instances SET status = "
static CO int put_status(struct lives *l, enum agent_status status, struct err *e)
{
    static const struct sql puts[AGENT_STATUSES] = {
        { "test: put 0", PUT_SQL "'provisioning'", NULL },
        { "test: put 1", PUT_SQL "'running'", NULL },
        { "test: put 2", PUT_SQL "'paused'", NULL },
        { "test: put 3", PUT_SQL "'stopped'", NULL },
        { "test: put 4", PUT_SQL "'failed'", NULL },
    };

    return sql_run_at(&l->f, &puts[status], NULL, NULL, e);
}

LIFE_TEST(every_state_with_every_operation_in_the_table)
{
    struct agent_info row;

    MUST(make(l, "a", NULL, &row, e) == 0);
    for (int op = 0; op < AGENT_OPS; op++)
        for (int status = 0; status < AGENT_STATUSES; status++) {
            enum life_verdict want = expected((enum agent_op)op, (enum agent_status)status);
            struct mover m = { .step = { row.id, (enum agent_op)op, 7, NULL, NULL } };
            int to = leads_to((enum agent_op)op), r;
            char have[512];

            MUST(put_status(l, (enum agent_status)status, e) == 0);
            r = store_do(l->s.conf.store, mover_body, &m, e);
            MUST(r == (want == LIFE_NO ? -ERR_CONFLICT : 0));
            MUST(want == LIFE_NO || m.r == (want == LIFE_SAME ? LIFE_STILL : 0));
            MUST(sql_run(&l->f, "SELECT CAST(status AS TEXT) FROM agent_swarm_instances", NULL,
                         have, e) == 0);
            if (want != LIFE_GO || to < 0)
                to = status;
            MUST(strcmp(have, agent_status_names[to]) == 0);
            arena_done(&m.a);
        }
    return 0;
}

struct pauser {
    struct lives *l;
    struct str id;
    int r;
};

static CO int pauser_main(void *arg, struct err *e)
{
    struct pauser *p = arg;
    struct arena a = { 0 };
    struct agent_info row;

    p->r = life_pause(p->l->s.life, p->id, &a, &row, e);
    arena_done(&a);
    return 0;
}

LIFE_TEST(one_pause_wins_and_is_written_once)
{
    struct fiber_group *g = fiber_group_new(l->s.conf.loop);
    struct pauser pausers[MANY] = { 0 };
    struct agent_info row;
    int won = 0;

    MUST(make(l, "a", NULL, &row, e) == 0);
    for (int i = 0; i < MANY; i++) {
        pausers[i] = (struct pauser){ l, row.id, 0 };
        MUST(fiber_group_spawn(g, "pauser", pauser_main, &pausers[i], e) == 0);
    }
    MUST(fiber_group_join(g, e) == 0);
    fiber_group_free(g);
    for (int i = 0; i < MANY; i++) {
        MUST(pausers[i].r == 0 || pausers[i].r == -ERR_CONFLICT);
        won += pausers[i].r == 0;
    }
    MUST(won == 1);
    MUST(row_is(&l->f, "SELECT CAST(count(*) AS TEXT) FROM agent_state_checkpoints", NULL, "1"));
    MUST(life_get(l->s.life, row.id, &l->a, &row, e) == 0 && row.status == AGENT_PAUSED);
    return 0;
}

LIFE_TEST(a_failed_agent_is_provisioned_in_a_new_generation)
{
    const struct agent_new in = { .name = STR("a"), .model = STR("gpt") };
    struct agent_info row;

    MUST(life_create(l->s.life, &in, (struct str){ 0 }, DEADLINE_NONE, &l->a, &row, e) == 0);
    MUST(row.status == AGENT_FAILED && row.error_count == 1 && row.generation == 0);
    MUST(str_eq(row.error, STR("Invalid model format: must be provider/model-name")));
    MUST(life_provision(l->s.life, row.id, DEADLINE_NONE, &l->a, &row, e) == 0);
    MUST(row.status == AGENT_FAILED && row.error_count == 2 && row.generation == 1);
    MUST(sql_run(&l->f, "UPDATE agent_swarm_instances SET model = 'p/m'", NULL, NULL, e) == 0);
    MUST(life_provision(l->s.life, row.id, DEADLINE_NONE, &l->a, &row, e) == 0);
    MUST(row.status == AGENT_RUNNING && row.error_count == 0 && !row.error.n);
    MUST(row.generation == 2 && row.provisioned_ms > 0);
    MUST(life_provision(l->s.life, row.id, DEADLINE_NONE, &l->a, &row, e) == 0);
    MUST(row.status == AGENT_RUNNING && row.generation == 2);
    return 0;
}

LIFE_TEST(a_full_mailbox_fails_a_provisioning_and_nothing_is_left_of_it)
{
    const struct mail_in text = { .from = STR("x"),
                                  .to = STR("agent:a:main"),
                                  .content = STR("x") };
    struct mail_out out;
    struct agent_info row;

    l->set.mailbox_max = 1;
    l->s.life->retry_ms = 1;
    MUST(mail_send(l->s.mail, &text, &out, e) == 0);
    MUST(make(l, "a", NULL, &row, e) == 0); /* after four tries */
    MUST(row.status == AGENT_FAILED && row.error_count == 1 && row.error.n && !row.next_beat_ms);
    MUST(row.last_error_ms > 0 && !row.provisioned_ms);
    MUST(row_is(&l->f, "SELECT CAST(count(*) AS TEXT) FROM agent_messages", NULL, "1"));
    return 0;
}

LIFE_TEST(an_agent_whose_creation_was_cut_off_comes_to_life)
{
    MUST(sql_run(&l->f,
                 "INSERT INTO agent_swarm_instances (id, name, model, user_id, "
                 "openclaw_session_key, workflow_uuid, created_at, updated_at) VALUES ('orphan', "
                 "'o', 'p/m', 'u', 'agent:o:main', 'provision:orphan:0', 1, 1)",
                 NULL, NULL, e) == 0);
    lives_down(l);
    MUST(lives_up(l, l->f.store, e) == 0);
    MUST(row_becomes(&l->f, "SELECT CAST(status AS TEXT) FROM agent_swarm_instances WHERE id = ?1",
                     "orphan", "running"));
    MUST(ends_as(&l->f, "provision:orphan:0", "SUCCESS"));
    return 0;
}

/* --- beats --- */

static int pushed;

static void note_push(struct swarm *s, struct str session, const char *event, const json_t *payload)
{
    pushed += strcmp(event, "agent.heartbeat") == 0 && str_eq(session, STR("agent:a:main")) &&
              json_is_string(json_object_get(payload, "executionId"));
}

static struct pulse *pulse(struct lives *l, struct str id)
{
    return container_of(strmap_find(&l->s.life->beat->ids, id), struct pulse, by_id);
}

/* Faster than the shortest interval of the table. */
static void hurry(struct lives *l, struct str id, int64_t every_ms)
{
    struct pulse *p = pulse(l, id);

    p->every_ms = every_ms;
    p->slot_ms = p->due_ms = swarm_now() + every_ms;
    beat_heap_put(&l->s.life->beat->heap, p);
    fiber_wake(l->s.life->beat->clock);
}

static CO int make_beating(struct lives *l, const char *list, struct agent_info *ret, struct err *e)
{
    const struct agent_new in = { .name = STR("a"),
                                  .model = STR("p/m"),
                                  .heartbeat = true,
                                  .interval = STR("30s"),
                                  .checklist = str_of(list) };

    return life_create(l->s.life, &in, (struct str){ 0 }, DEADLINE_NONE, &l->a, ret, e);
}

LIFE_TEST(an_agent_that_does_not_answer_is_silent_until_it_does)
{
    const struct str session = STR("agent:a:main");
    struct agent_info row;
    char beats[512], flushed[512];
    struct err ignored;

    pushed = 0;
    life_push = note_push;
    MUST(make_beating(l, NULL, &row, e) == 0 && row.status == AGENT_RUNNING);
    MUST(row.next_beat_ms >= row.created_ms + 30000);
    MUST(row.next_beat_ms <= row.provisioned_ms + 30000);
    life_attached(l->s.life, session, true);
    hurry(l, row.id, 20);
    MUST(row_becomes(&l->f, "SELECT error_message FROM agent_swarm_instances", NULL,
                     "No answer to 3 heartbeats"));
    MUST(pushed >= 3);
    MUST(life_get(l->s.life, row.id, &l->a, &row, e) == 0 && row.silent);
    MUST(l->s.life->beat->n_silent == 1);
    MUST(life_alive(l->s.life, STR("nobody"), &ignored) == -ERR_NOT_FOUND);
    pulse(l, row.id)->every_ms = 3600000; /* no beat comes between its answer and our look */
    MUST(life_alive(l->s.life, session, e) == 0);
    MUST(row_becomes(&l->f, "SELECT error_message FROM agent_swarm_instances", NULL, "(null)"));
    MUST(life_get(l->s.life, row.id, &l->a, &row, e) == 0 && !row.silent && row.last_beat_ms);
    MUST(row_is(&l->f,
                "SELECT CAST(count(*) AS TEXT) FROM agent_swarm_instances WHERE last_heartbeat_at "
                "IS NOT NULL",
                NULL, "1"));
    MUST(l->s.life->beat->n_silent == 0);
    /* an answer like the one before writes nothing */
    MUST(sql_run(&l->f,
                 "SELECT CAST(last_heartbeat_at + version AS TEXT) FROM agent_swarm_instances",
                 NULL, beats, e) == 0);
    MUST(fiber_sleep(5, e) == 0 && life_alive(l->s.life, session, e) == 0);
    MUST(fiber_sleep(20, e) == 0);
    MUST(row_is(&l->f,
                "SELECT CAST(last_heartbeat_at + version AS TEXT) FROM agent_swarm_instances", NULL,
                beats));
    /* ... before the next flush */
    MUST(beat_flush(l->s.life->beat, e) == 0);
    MUST(sql_run(&l->f,
                 "SELECT CAST(last_heartbeat_at + version AS TEXT) FROM agent_swarm_instances",
                 NULL, flushed, e) == 0);
    MUST(strcmp(flushed, beats) != 0);
    life_push = NULL;
    return 0;
}

LIFE_TEST(an_agent_that_was_never_attached_is_not_silent)
{
    struct agent_info row;
    struct pulse *p;

    MUST(make_beating(l, NULL, &row, e) == 0);
    hurry(l, row.id, 5);
    p = pulse(l, row.id);
    for (int64_t from = p->slot_ms; p->slot_ms < from + 100;)
        MUST(fiber_sleep(5, e) == 0);
    MUST(l->s.life->beat->n_silent == 0 && l->s.life->beat->n_beating == 1 && p->missed == 0);
    MUST(life_delete(l->s.life, row.id, e) == 0);
    MUST(l->s.life->beat->n_beating == 0 && l->s.life->beat->heap.n == 0);
    return 0;
}

LIFE_TEST(a_beat_with_a_checklist_is_a_workflow_of_its_slot)
{
    struct agent_info row;
    char slot[512], id[600];

    MUST(make_beating(l, "[\"look\",\"think\"]", &row, e) == 0);
    hurry(l, row.id, 20);
    MUST(row_becomes(&l->f,
                     "SELECT CASE WHEN count(*) > 0 THEN 'some' END FROM "
                     "agent_heartbeat_executions WHERE status = 'completed'",
                     NULL, "some"));
    MUST(sql_run(&l->f, "SELECT id FROM agent_heartbeat_executions ORDER BY started_at LIMIT 1",
                 NULL, slot, e) == 0);
    MUST(strncmp(slot, "hb_", 3) == 0);
    fmt_z(id, sizeof(id), "hb-sched:" STR_FMT ":%s", STR_ARG(row.id), strrchr(slot, '_') + 1);
    MUST(ends_as(&l->f, id, "SUCCESS"));
    MUST(row_is(&l->f,
                "SELECT CASE WHEN count(*) > 0 THEN 'told' END FROM agent_messages WHERE content = "
                "'Heartbeat checklist for a:\n1. look\n2. think'",
                NULL, "told"));
    return 0;
}
