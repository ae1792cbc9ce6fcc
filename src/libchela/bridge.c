/* SPDX-License-Identifier: MIT */
/* libchela/bridge.c — opening a bridge on an engine, its agents and their health. */
#include <pthread.h>
#include <string.h>

#include "base/rand.h"
#include "base/secret.h"
#include "libchela/bridge_int.h"
#include "libchela/health.h"

/* --- opening --- */

static long long ms_or(double seconds, long long ms)
{
    return seconds > 0 ? (long long)(seconds * 1000 + 0.5) : ms;
}

static long long count_or(unsigned long long n, long long other)
{
    return n ? (long long)n : other;
}

static struct bridge_conf conf_of(const struct chela_bridge_config *c)
{
    static char warn[] = "warn", none[] = "";

    return (struct bridge_conf){
        .timeout_ms = ms_or(c->default_timeout, 30000),
        .retries = count_or(c->default_retries, 3),
        .backoff_initial_ms = ms_or(c->backoff_initial, 1000),
        .backoff_max_ms = ms_or(c->backoff_max, 4000),
        .call_deadline_ms = ms_or(c->call_deadline, 0),
        .response_max = count_or(c->response_max, 16 << 20),
        .session_max_age_ms = ms_or(c->session_max_age, 0),
        .sweep_every_ms = 60000,
        .sessions_max = count_or(c->sessions_max, 100000),
        .messages_max = count_or(c->messages_max, 1000),
        .agents_max = 10000,
        .half_open_ms = ms_or(c->half_open, 60000),
        .recover_after = count_or(c->recover_after, 5),
        .context_messages = count_or(c->context_messages, 50),
        .context_bytes = 256 << 10,
        .idempotency_keep_ms = 24 * 3600 * 1000,
        .agents = none,
        .export_path = none,
        .vps_endpoint = none,
        .cf_endpoint = none,
        .plain_token = warn,
    };
}

static int use_dir(const char *dir, struct engine_conf *conf, struct err *e)
{
    AUTO(free) char *key = xasprintf("%s/master.key", dir);
    int r;

    r = lib_lock_dir(dir, &conf->lock_fd, e);
    if (r < 0)
        return r;
    r = secret_key_file(key, conf->key, e);
    if (r < 0)
        close(take_fd(&conf->lock_fd));
    return r;
}

static int open_engine(const struct chela_bridge_config *c, struct engine **ret, struct err *e)
{
    struct engine_conf conf = {
        .bridge = conf_of(c),
        .ca_file = c->ca_file,
        .proxy = c->proxy,
        .lock_fd = -1,
    };
    AUTO(free)
    char *url =
        c->state_dir ? xasprintf("sqlite:%s/chela.db", c->state_dir) : xstrdup("sqlite::memory:");
    int r;

    r = outbound_policy_parse(c->allow ? c->allow : "", c->deny ? c->deny : "", &conf.policy, e);
    if (r < 0)
        return r;
    if (c->state_dir)
        r = use_dir(c->state_dir, &conf, e);
    else
        rand_bytes(conf.key, sizeof(conf.key));
    if (r < 0)
        return r;
    conf.store_url = url; /* used before this returns only */
    r = engine_new(&conf, ret, e);
    secret_wipe(conf.key, sizeof(conf.key));
    return r;
}

int chela_bridge_new(const struct chela_bridge_config *config, struct chela_bridge **ret,
                     struct chela_error *error)
{
    static const struct chela_bridge_config defaults;
    struct engine *engine;
    struct err e;

    if (open_engine(config ? config : &defaults, &engine, &e) < 0)
        return lib_error(&e, error);
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->engine = engine;
    return 0;
}

void chela_bridge_free(struct chela_bridge *bridge)
{
    if (!bridge)
        return;
    engine_free(bridge->engine);
    free(bridge);
}

struct chela_bridge *chela_default_bridge(void)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static struct chela_bridge *bridge;
    struct chela_bridge *made = NULL;

    pthread_mutex_lock(&mutex);
    if (!bridge && chela_bridge_new(NULL, &made, NULL) == 0)
        bridge = made;
    made = bridge;
    pthread_mutex_unlock(&mutex);
    return made;
}

int chela_setup_default_bridge(const struct chela_agent_config *agents, size_t n,
                               struct chela_error *error)
{
    struct chela_bridge *bridge = chela_default_bridge();
    int r;

    if (!bridge)
        return lib_fail(error, CHELA_E_INTERNAL, CHELA_ERROR_INTERNAL, "no default bridge");
    for (size_t i = 0; i < n; i++) {
        r = chela_bridge_register(bridge, &agents[i], error);
        if (r < 0)
            return r;
    }
    return 0;
}

/* --- agents --- */

struct agent_job {
    struct bridge *b;
    struct agent_spec spec;
    struct str name;
};

CO static int do_register(void *arg, struct err *e)
{
    struct agent_job *job = arg;
    struct agent_problem problem;
    struct agent_entry *entry;

    return bridge_register(job->b, &job->spec, &entry, &problem, e);
}

int chela_bridge_register(struct chela_bridge *bridge, const struct chela_agent_config *agent,
                          struct chela_error *error)
{
    struct str fallbacks[AGENT_FALLBACKS_MAX + 1];
    struct agent_job job = { .b = engine_bridge(bridge->engine) };
    size_t n = 0;
    struct err e;

    while (agent->fallback_agents && agent->fallback_agents[n] && n <= AGENT_FALLBACKS_MAX) {
        fallbacks[n] = str_of(agent->fallback_agents[n]);
        n++;
    }
    job.spec = (struct agent_spec){
        .name = str_of(agent->name),
        .host = str_of(agent->host),
        .protocol = agent->protocol ? str_of(agent->protocol) : STR("http"),
        .port = agent->port,
        .auth_token = str_of(agent->auth_token),
        .timeout_ms = agent->timeout_seconds * 1000LL,
        .max_retries = agent->max_retries,
        .fallbacks = fallbacks,
        .n_fallbacks = n,
        .api = agent->api ? agent_api_of(str_of(agent->api)) : API_MESSAGES,
        .context = agent->context && strcmp(agent->context, "session") == 0,
    };
    if (job.spec.api == API_KINDS)
        return lib_fail(error, CHELA_E_INVALID, CHELA_ERROR_UNKNOWN, "api: no such api: %s",
                        agent->api);
    if (engine_run(bridge->engine, do_register, &job, &e) < 0)
        return lib_error(&e, error);
    return 0;
}

CO static int do_unregister(void *arg, struct err *e)
{
    struct agent_job *job = arg;

    return bridge_unregister(job->b, job->name, e);
}

int chela_bridge_unregister(struct chela_bridge *bridge, const char *name,
                            struct chela_error *error)
{
    struct agent_job job = { .b = engine_bridge(bridge->engine), .name = str_of(name) };
    struct err e;

    if (engine_run(bridge->engine, do_unregister, &job, &e) < 0)
        return lib_error(&e, error);
    return 0;
}

/* Copied on the bridge's thread, since nothing of the registry is shared between threads. */
static struct chela_agent_config *copy_agent(const struct agent *a)
{
    struct chela_agent_config *c = xcalloc(1, sizeof(*c));
    char **fallbacks = xcalloc(a->n_fallbacks + 1, sizeof(char *));

    for (size_t i = 0; i < a->n_fallbacks; i++)
        fallbacks[i] = xstrdup(a->fallbacks[i]);
    *c = (struct chela_agent_config){
        .name = xstrdup(a->name),
        .host = xstrdup(a->host),
        .port = a->port,
        .protocol = a->tls ? "https" : "http",
        .auth_token = a->token ? xstrdup(a->token) : NULL,
        .timeout_seconds = (int)((a->timeout_ms + 999) / 1000),
        .max_retries = (int)a->max_retries,
        .fallback_agents = (const char *const *)fallbacks,
        .api = adapters[a->api].name,
        .context = a->context ? "session" : "none",
    };
    return c;
}

struct copy_job {
    struct bridge *b;
    struct str name;
    struct chela_agent_config *copy;
    size_t n;
};

CO static int do_copy(void *arg, struct err *e)
{
    struct copy_job *job = arg;
    const struct agent_entry *entry = agents_find(bridge_agents(job->b), job->name);

    if (!entry)
        return err_set(e, ERR_NOT_FOUND, "Agent '" STR_FMT "' not registered", STR_ARG(job->name));
    job->copy = copy_agent(entry->agent);
    return 0;
}

int chela_bridge_agent(struct chela_bridge *bridge, const char *name,
                       struct chela_agent_config **ret, struct chela_error *error)
{
    struct copy_job job = { .b = engine_bridge(bridge->engine), .name = str_of(name) };
    struct err e;

    if (engine_run(bridge->engine, do_copy, &job, &e) < 0)
        return lib_error(&e, error);
    *ret = job.copy;
    return 0;
}

void chela_agent_config_free(struct chela_agent_config *c)
{
    if (!c)
        return;
    for (size_t i = 0; c->fallback_agents[i]; i++)
        free((char *)(uintptr_t)c->fallback_agents[i]);
    free((void *)(uintptr_t)c->fallback_agents);
    free((char *)(uintptr_t)c->name);
    free((char *)(uintptr_t)c->host);
    free((char *)(uintptr_t)c->auth_token);
    free(c);
}

CO static int do_count(void *arg, struct err *e)
{
    struct copy_job *job = arg;

    job->n = bridge_agent_count(job->b);
    return 0;
}

size_t chela_bridge_agent_count(struct chela_bridge *bridge)
{
    struct copy_job job = { .b = engine_bridge(bridge->engine) };
    struct err e;

    return engine_run(bridge->engine, do_count, &job, &e) < 0 ? 0 : job.n;
}

char *chela_agent_url(const struct chela_agent_config *agent, const char *endpoint)
{
    const char *protocol = agent->protocol ? agent->protocol : "http";
    bool bare_v6 = strchr(agent->host, ':') && agent->host[0] != '[';

    if (strcmp(protocol, "http") != 0 && strcmp(protocol, "https") != 0)
        return NULL;
    return xasprintf("%s://%s%s%s:%d%s", protocol, bare_v6 ? "[" : "", agent->host,
                     bare_v6 ? "]" : "", agent->port, endpoint ? endpoint : "");
}

char *chela_agent_headers(const struct chela_agent_config *agent)
{
    if (!agent->auth_token || !*agent->auth_token)
        return xstrdup("Content-Type: application/json\n");
    return xasprintf("Content-Type: application/json\nAuthorization: Bearer %s\n",
                     agent->auth_token);
}

/* --- health --- */

struct health_job {
    struct bridge *b;
    struct str name;
    struct chela_health health;
    struct chela_health_summary summary;
    char *json;
};

CO static int do_health(void *arg, struct err *e)
{
    struct health_job *job = arg;
    const struct agent_entry *entry = agents_find(bridge_agents(job->b), job->name);

    if (!entry)
        return err_set(e, ERR_NOT_FOUND, "Agent '" STR_FMT "' not found", STR_ARG(job->name));
    lib_health(&entry->tracked->health, &job->health);
    return 0;
}

int chela_bridge_health(struct chela_bridge *bridge, const char *agent_name,
                        struct chela_health *ret, struct chela_error *error)
{
    struct health_job job = { .b = engine_bridge(bridge->engine), .name = str_of(agent_name) };
    struct err e;

    if (engine_run(bridge->engine, do_health, &job, &e) < 0)
        return lib_error(&e, error);
    *ret = job.health;
    return 0;
}

CO static int do_summary(void *arg, struct err *e)
{
    struct health_job *job = arg;

    lib_summary(bridge_tracker(job->b), &job->summary);
    return 0;
}

int chela_bridge_health_summary(struct chela_bridge *bridge, struct chela_health_summary *ret,
                                struct chela_error *error)
{
    struct health_job job = { .b = engine_bridge(bridge->engine) };
    struct err e;

    if (engine_run(bridge->engine, do_summary, &job, &e) < 0)
        return lib_error(&e, error);
    *ret = job.summary;
    return 0;
}

CO static int do_reset(void *arg, struct err *e)
{
    struct health_job *job = arg;

    return bridge_health_reset(job->b, job->name, e);
}

int chela_bridge_health_reset(struct chela_bridge *bridge, const char *agent_name,
                              struct chela_error *error)
{
    struct health_job job = { .b = engine_bridge(bridge->engine), .name = str_of(agent_name) };
    struct err e;

    if (engine_run(bridge->engine, do_reset, &job, &e) < 0)
        return lib_error(&e, error);
    return 0;
}

CO static int do_json(void *arg, struct err *e)
{
    struct health_job *job = arg;
    struct out o;

    out_init(&o, SIZE_MAX / 2);
    tracker_write_all(bridge_tracker(job->b), wall_us(), &o);
    job->json = lib_take_json(&o);
    return 0;
}

char *chela_bridge_error_summary_json(struct chela_bridge *bridge)
{
    struct health_job job = { .b = engine_bridge(bridge->engine) };
    struct err e;

    return engine_run(bridge->engine, do_json, &job, &e) < 0 ? NULL : job.json;
}
