/* SPDX-License-Identifier: MIT */
/*
 * swarm/mail_fixture.h — for tests of mail: one beside an engine and a fresh database of each kind,
 * consumers that note what they are given, and waiting for what must come.
 */
#pragma once

#include "durable/engine_fixture.h"
#include "swarm/mail_int.h"

#define GOT_MAX 16384

struct post {
    struct engine f; /* for sql_run() and row_is() */
    struct swarm s;
    struct swarm_settings set;
    struct mail *m;
};

struct got {
    char workflow[MAIL_ID], id[64], from[64], content[64];
    unsigned attempt;
    bool notice;
};

/* A consumer. */
struct taker {
    struct got *got;
    size_t n;
    bool choked;
};

static inline int taker_push(const struct mail_push *push, void *arg, struct err *e)
{
    struct taker *t = arg;
    struct got *got;

    if (t->choked)
        return err_set(e, ERR_LIMIT, "choked");
    if (!t->got)
        t->got = xcalloc(GOT_MAX, sizeof(*t->got));
    if (t->n == GOT_MAX)
        abort();
    got = &t->got[t->n++];
    fmt_z(got->workflow, sizeof(got->workflow), STR_FMT, STR_ARG(push->workflow));
    fmt_z(got->id, sizeof(got->id), "%.*s", (int)(push->id.n < 60 ? push->id.n : 60), push->id.p);
    fmt_z(got->from, sizeof(got->from), STR_FMT, STR_ARG(push->from));
    fmt_z(got->content, sizeof(got->content), "%.*s",
          (int)(push->content.n < 60 ? push->content.n : 60), push->content.p);
    got->attempt = push->attempt;
    got->notice = push->notice;
    return 0;
}

static inline void taker_done_auto(struct taker *t)
{
    free(t->got);
}

static const struct mail_sub_ops taker_ops = { taker_push };

static inline void post_settings(struct swarm_settings *set)
{
    *set = (struct swarm_settings){
        .agent_timeout_ms = 60000,
        .max_message = 1 << 20,
        .message_attempts = 100,
        .message_max_age_ms = 0,
        .message_keep_ms = 3600000,
        .mailbox_max = 10000,
        .redeliver_first_ms = 60000,
        .redeliver_last_ms = 60000,
    };
}

/* A mail on the store, with an engine of its own. */
static inline CO int post_up(struct post *p, struct fixture *store, const char *instance,
                             struct err *e)
{
    const struct durable_conf conf = { .instance = instance };
    int r;

    p->f.store = store;
    p->f.d = durable_new(store->loop, store->s, &conf);
    p->s.conf.loop = store->loop;
    p->s.conf.store = store->s;
    p->s.conf.engine = p->f.d;
    p->s.settings = &p->set;
    p->s.pg = !store->sqlite;
    r = mail_new(&p->s, &p->m, e);
    if (r == 0)
        r = durable_run(p->f.d, e);
    return r < 0 ? r : mail_start(p->m, e);
}

static inline CO void post_down(struct post *p)
{
    mail_stop(p->m);
    durable_stop(p->f.d, 0);
    mail_free(TAKE(p->m));
    durable_free(TAKE(p->f.d));
}

static CO int (*post_test_now)(struct post *p, struct err *e);

static inline CO int post_main(struct fixture *store, struct err *e)
{
    struct post *p = xcalloc(1, sizeof(*p));
    int r;

    post_settings(&p->set);
    r = post_up(p, store, "test", e);
    if (r == 0)
        r = post_test_now(p, e);
    if (p->m)
        post_down(p);
    free(p);
    return r;
}

static inline bool post_everywhere(CO int (*fn)(struct post *p, struct err *e))
{
    const struct store_conf conf = { .migrations = store_migrations,
                                     .n_migrations = store_migrations_len };

    post_test_now = fn;
    return fixture_everywhere(&conf, post_main);
}

#define POST_TEST(id) \
    static int co_##id(struct post *p, struct err *e); \
    TEST(id) \
    { \
        CHECK(post_everywhere(co_##id)); \
    } \
    static CO int co_##id(struct post *p, struct err *e)

/* In a fiber: what must hold, or the test fails. */
#define MUST(cond) \
    do { \
        if (!(cond)) \
            return err_set(e, ERR_INTERNAL, "line %d: %s", __LINE__, #cond); \
    } while (0)

#define BECOMES(cond) \
    do { \
        uint64_t until_ = deadline_in(PATIENCE_MS); \
        while (!(cond)) { \
            if (now_ms() > until_) \
                return err_set(e, ERR_INTERNAL, "line %d: never %s", __LINE__, #cond); \
            if (fiber_sleep(2, e) < 0) \
                return -ERR_CANCELED; \
        } \
    } while (0)

static inline CO int say(struct post *p, const char *from, const char *to, const char *id,
                         const char *content, struct mail_out *ret, struct err *e)
{
    const struct mail_in in = {
        .id = id ? str_of(id) : (struct str){ 0 },
        .from = str_of(from),
        .to = str_of(to),
        .content = str_of(content),
    };
    struct mail_out out;

    return mail_send(p->m, &in, ret ? ret : &out, e);
}

static inline int listen_to(struct post *p, const char *session, bool replies, struct taker *t,
                            struct mail_sub **ret, struct err *e)
{
    return mail_subscribe(p->m, str_of(session), replies, &taker_ops, t, ret, e);
}

/* Did the consumer get exactly these, in this order? Contents, comma-separated. */
static inline bool got_all(const struct taker *t, const char *want)
{
    struct str rest = str_of(want), one;
    size_t i = 0;

    for (; str_split(&rest, ',', &one); i++) {
        if (i >= t->n || !str_eq_z(one, t->got[i].content)) {
            printf("# %zu is '%s', want '" STR_FMT "'\n", i, i < t->n ? t->got[i].content : "",
                   STR_ARG(one));
            return false;
        }
    }
    return i == t->n;
}
