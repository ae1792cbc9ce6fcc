/* SPDX-License-Identifier: MIT */
/*
 * libchela/failover.c — two endpoints of one service: the first while it is healthy, the second
 * when it is not. Unlike the original's helper the second one is really asked, and each failed try
 * counts once.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/time.h"
#include "libchela/lib.h"

#define DEFAULT_PROBE_SECONDS   5.0
#define DEFAULT_CALL_SECONDS    30.0
#define DEFAULT_RECHECK_SECONDS 60.0

struct chela_failover {
    char *vps, *cloudflare;
    double probe_seconds, call_seconds, recheck_seconds;
    bool fallback;
    struct chela_tracker *tracker;
    struct engine *engine; /* for the probe */

    pthread_mutex_t mutex;
    bool vps_healthy;
    uint64_t checked_ms;   /* monotonic */
    int64_t last_check_us; /* wall clock, for people */
};

static char *endpoint(const char *given, const char *other)
{
    char *text = xstrdup(given ? given : other);
    size_t n = strlen(text);

    while (n && text[n - 1] == '/')
        text[--n] = '\0';
    return text;
}

int chela_failover_new(const struct chela_failover_config *config, struct chela_failover **ret,
                       struct chela_error *error)
{
    static const struct chela_failover_config defaults;
    const struct chela_failover_config *c = config ? config : &defaults;
    const struct engine_conf conf = { .any_address = true, .lock_fd = -1 };
    struct engine *engine;
    struct chela_failover *f;
    struct err e;

    if (engine_new(&conf, &engine, &e) < 0)
        return lib_error(&e, error);
    f = xcalloc(1, sizeof(*f));
    f->engine = engine;
    f->vps = endpoint(c->vps_endpoint, "http://localhost:8000");
    f->cloudflare = endpoint(c->cloudflare_endpoint, "http://localhost:18789");
    f->probe_seconds =
        c->health_check_timeout > 0 ? c->health_check_timeout : DEFAULT_PROBE_SECONDS;
    f->call_seconds = c->call_timeout > 0 ? c->call_timeout : DEFAULT_CALL_SECONDS;
    f->recheck_seconds = c->recheck_seconds > 0 ? c->recheck_seconds : DEFAULT_RECHECK_SECONDS;
    f->fallback = !c->no_fallback;
    f->tracker = c->tracker ? c->tracker : chela_global_tracker();
    pthread_mutex_init(&f->mutex, NULL);
    f->vps_healthy = true;
    f->checked_ms = now_ms();
    f->last_check_us = wall_us();
    *ret = f;
    return 0;
}

void chela_failover_free(struct chela_failover *f)
{
    if (!f)
        return;
    engine_free(f->engine);
    pthread_mutex_destroy(&f->mutex);
    free(f->vps);
    free(f->cloudflare);
    free(f);
}

static void set_verdict(struct chela_failover *f, bool healthy)
{
    pthread_mutex_lock(&f->mutex);
    f->vps_healthy = healthy;
    f->checked_ms = now_ms();
    f->last_check_us = wall_us();
    pthread_mutex_unlock(&f->mutex);
}

/* --- the probe --- */

struct probe {
    struct http_client *client;
    const char *url;
    uint64_t deadline_ms;
    int status;
};

CO static int do_probe(void *arg, struct err *e)
{
    struct probe *p = arg;
    const struct http_call call = {
        .method = HTTP_M_GET,
        .url = p->url,
        .deadline_ms = p->deadline_ms,
    };
    struct http_answer answer;
    struct arena arena = { 0 };
    int r;

    r = http_fetch(p->client, &call, &arena, &answer, e);
    p->status = r < 0 ? 0 : answer.status;
    arena_done(&arena);
    return r;
}

bool chela_failover_check(struct chela_failover *f)
{
    char *url = xasprintf("%s/health", f->vps);
    struct probe probe = {
        .client = engine_client(f->engine),
        .url = url,
        .deadline_ms = now_ms() + (uint64_t)(f->probe_seconds * 1000 + 0.5),
    };
    struct err e;
    bool healthy = engine_run(f->engine, do_probe, &probe, &e) == 0 && probe.status == 200;

    free(url);
    set_verdict(f, healthy);
    return healthy;
}

/* --- calls --- */

/* One call under the timeout guard; shared like codegen.c's generating. */
struct asking {
    atomic_uint refs;
    chela_endpoint_call *fn;
    void *arg;
    char *endpoint, *answer;
};

static void asking_unref(void *arg)
{
    struct asking *a = arg;

    if (atomic_fetch_sub(&a->refs, 1) != 1)
        return;
    free(a->endpoint);
    free(a->answer);
    free(a);
}

static int ask(void *arg, struct chela_cancel *cancel, struct chela_error *error)
{
    struct asking *a = arg;

    return a->fn(a->endpoint, a->arg, cancel, &a->answer, error);
}

static int ask_endpoint(struct chela_failover *f, const char *url, chela_endpoint_call *fn,
                        void *arg, const char *id, char **ret, struct chela_error *error)
{
    const struct chela_guard guard = { .timeout_seconds = f->call_seconds,
                                       .release = asking_unref };
    struct asking *a = xcalloc(1, sizeof(*a));
    uint64_t began_us = now_us();
    double spent_ms;
    int r;

    atomic_init(&a->refs, 2);
    a->fn = fn;
    a->arg = arg;
    a->endpoint = xstrdup(url);
    r = chela_with_timeout(ask, a, &guard, error);
    spent_ms = (double)(now_us() - began_us) / 1000;
    if (r == 0) {
        *ret = a->answer ? TAKE(a->answer) : xstrdup("");
        chela_tracker_success(f->tracker, id, spent_ms);
    } else {
        chela_tracker_failure(f->tracker, id, error, spent_ms, 0);
    }
    if (r == CHELA_E_UNAVAILABLE) /* it never started */
        asking_unref(a);
    asking_unref(a);
    return r;
}

static bool is_vps_healthy(struct chela_failover *f)
{
    bool healthy, stale;

    pthread_mutex_lock(&f->mutex);
    healthy = f->vps_healthy;
    stale = now_ms() - f->checked_ms > (uint64_t)(f->recheck_seconds * 1000);
    pthread_mutex_unlock(&f->mutex);
    return stale ? chela_failover_check(f) : healthy;
}

int chela_failover_run(struct chela_failover *f, chela_endpoint_call *fn, void *arg,
                       const char *agent_id, char **ret_answer, struct chela_error *error)
{
    const char *id = agent_id ? agent_id : "vps_agent";
    struct chela_error failed = { .type = CHELA_ERROR_NETWORK };
    char *second;
    int r;

    if (is_vps_healthy(f)) {
        r = ask_endpoint(f, f->vps, fn, arg, id, ret_answer, &failed);
        if (r == 0)
            return 0;
        set_verdict(f, false);
    }
    if (f->fallback) {
        second = xasprintf("%s:cloudflare", id);
        r = ask_endpoint(f, f->cloudflare, fn, arg, second, ret_answer, &failed);
        free(second);
        if (r == 0)
            return 0;
    }
    return lib_fail(error, CHELA_E_FAILED, failed.type,
                    "Both VPS and Cloudflare unavailable for %s", id);
}

char *chela_failover_status_json(struct chela_failover *f)
{
    struct out o;

    out_init(&o, 1 * MIB);
    pthread_mutex_lock(&f->mutex);
    out_z(&o, "{\"vps_healthy\":");
    out_bool(&o, f->vps_healthy);
    out_z(&o, ",\"last_vps_check\":");
    out_time(&o, f->last_check_us);
    pthread_mutex_unlock(&f->mutex);
    out_z(&o, ",\"fallback_enabled\":");
    out_bool(&o, f->fallback);
    out_z(&o, ",\"vps_endpoint\":");
    out_str(&o, str_of(f->vps));
    out_z(&o, ",\"cloudflare_endpoint\":");
    out_str(&o, str_of(f->cloudflare));
    out_z(&o, "}");
    return lib_take_json(&o);
}
