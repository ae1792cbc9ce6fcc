/* SPDX-License-Identifier: MIT */
/*
 * agent/conf.c — the agent's configuration: the original's config.json with the keys that its
 * template promised, and a few more. A key of a wrong type is an error that names it; unknown keys
 * are somebody else's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "base/arena.h"
#include "base/secret.h"
#include "base/time.h"

#define CONFIG_DEFAULT "/etc/vm-agent/config.json"
#define HUB_DEFAULT    "ws://localhost:9090"
#define CONFIG_MAX     MIB
#define DEVICE_BLOCK   ((size_t)4096)
#define DEPTH_MAX      32
#define RELAYS_MAX     16
#define HOURS          (3600LL * 1000)

struct number {
    const char *group, *key; /* group NULL: at the top */
    size_t offset;
    long long min, max, def;
};

/* clang-format off */
static const struct number numbers[] = {
    { "tasks", "maxConcurrent",   offsetof(struct agent_conf, max_concurrent),       1, 1000, 5 },
    { "tasks", "maxQueued",       offsetof(struct agent_conf, max_queued),           0, 100000, 1000 },
    { "tasks", "defaultTimeout",  offsetof(struct agent_conf, default_timeout_ms),   1, 365 * 24 * HOURS, HOURS / 2 },
    { "reconnect", "maxAttempts", offsetof(struct agent_conf, reconnect_attempts),   0, 1000000, 10 },
    { "reconnect", "initialDelay", offsetof(struct agent_conf, reconnect_first_ms),  1, HOURS, 1000 },
    { "reconnect", "maxDelay",    offsetof(struct agent_conf, reconnect_last_ms),    1, 24 * HOURS, 60000 },
    { "health", "interval",       offsetof(struct agent_conf, health_ms),            100, HOURS, 30000 },
    { "spool", "maxBytes",        offsetof(struct agent_conf, spool_bytes),          65536, 1LL << 40, 256LL << 20 },
    { NULL, "keepAliveSeconds",   offsetof(struct agent_conf, keep_alive_s),         1, 7200, 30 },
};

static const struct { const char *key; size_t offset; } texts[] = {
    { "agentId",  offsetof(struct agent_conf, id) },
    { "token",    offsetof(struct agent_conf, token) },
    { "hubUrl",   offsetof(struct agent_conf, hub_url) },
    { "caFile",   offsetof(struct agent_conf, ca_file) },
    { "type",     offsetof(struct agent_conf, type) },
    { "stateDir", offsetof(struct agent_conf, state_dir) },
    { "auditLog", offsetof(struct agent_conf, audit_path) },
    { "workDir",  offsetof(struct agent_conf, work_dir) },
    { "root",     offsetof(struct agent_conf, root) },
};

static const struct { const char *group, *key; size_t offset; } flags[] = {
    { "tasks", "allowSudo",     offsetof(struct agent_conf, allow_sudo) },
    { NULL,    "tokenInHeader", offsetof(struct agent_conf, token_in_header) },
};
/* clang-format on */

static void *at(struct agent_conf *c, size_t offset)
{
    return (char *)c + offset;
}

/* The member, or NULL when it or its group is absent or null. */
static const json_t *member(const json_t *top, const char *group, const char *key)
{
    const json_t *j = json_object_get(group ? json_object_get(top, group) : top, key);

    return json_is_null(j) ? NULL : j;
}

static int wrong(struct err *e, const char *group, const char *key, const char *must)
{
    return err_set(e, ERR_INVALID, "%s%s%s must be %s", group ? group : "", group ? "." : "", key,
                   must);
}

static int take_numbers(struct agent_conf *c, const json_t *top, struct err *e)
{
    for (size_t i = 0; i < LEN(numbers); i++) {
        const struct number *n = &numbers[i];
        const json_t *j = member(top, n->group, n->key);
        long long v = n->def;

        if (j && !json_is_integer(j))
            return wrong(e, n->group, n->key, "a whole number");
        if (j)
            v = json_integer_value(j);
        if (v < n->min || v > n->max)
            return err_set(e, ERR_INVALID, "%s%s%s must be from %lld to %lld",
                           n->group ? n->group : "", n->group ? "." : "", n->key, n->min, n->max);
        memcpy(at(c, n->offset), &v, sizeof(v));
    }
    return 0;
}

static int take_texts(struct agent_conf *c, const json_t *top, struct err *e)
{
    for (size_t i = 0; i < LEN(texts); i++) {
        const json_t *j = member(top, NULL, texts[i].key);
        char **to = at(c, texts[i].offset);

        if (j && !json_is_string(j))
            return wrong(e, NULL, texts[i].key, "a text");
        if (j && json_string_length(j) > 0)
            *to = xstrdup(json_string_value(j));
    }
    for (size_t i = 0; i < LEN(flags); i++) {
        const json_t *j = member(top, flags[i].group, flags[i].key);

        if (j && !json_is_boolean(j))
            return wrong(e, flags[i].group, flags[i].key, "true or false");
        *(bool *)at(c, flags[i].offset) = json_is_true(j);
    }
    return 0;
}

/* An array of texts or, as create-agent.sh writes it, one with commas. */
static int take_capabilities(struct agent_conf *c, const json_t *top, struct err *e)
{
    const json_t *j = member(top, NULL, "capabilities"), *one;
    struct str rest, part;
    size_t i, n = 0;

    if (json_is_string(j)) {
        rest = str_of(json_string_value(j));
        c->capabilities = xcalloc(rest.n + 2, sizeof(*c->capabilities));
        while (str_split(&rest, ',', &part)) {
            part = str_trim(part);
            if (part.n > 0)
                c->capabilities[n++] = str_dup(part);
        }
        return 0;
    }
    if (j && !json_is_array(j))
        return wrong(e, NULL, "capabilities", "a list of texts");
    c->capabilities = xcalloc(json_array_size(j) + 1, sizeof(*c->capabilities));
    json_array_foreach(j, i, one)
    {
        if (!json_is_string(one))
            return wrong(e, NULL, "capabilities", "a list of texts");
        c->capabilities[n++] = xstrdup(json_string_value(one));
    }
    return 0;
}

static int take_relays(struct agent_conf *c, const json_t *top, struct err *e)
{
    const json_t *j = member(top, NULL, "relay");
    const char *listen;
    json_t *to, *relays;

    if (j && (!json_is_object(j) || json_object_size(j) > RELAYS_MAX))
        return wrong(e, NULL, "relay", "an object of at most 16 ports");
    c->relays = xcalloc(RELAYS_MAX, sizeof(*c->relays));
    memcpy(&relays, &j, sizeof(j)); /* only read: jansson's iteration has no const form */
    json_object_foreach(relays, listen, to)
    {
        if (!json_is_string(to))
            return wrong(e, "relay", listen, "the path of a socket, or host:port");
        c->relays[c->n_relays].listen = xstrdup(listen);
        c->relays[c->n_relays++].to = xstrdup(json_string_value(to));
    }
    return 0;
}

static int take_env(struct agent_conf *c, const json_t *top, struct err *e)
{
    const json_t *j = member(top, NULL, "env");
    const char *name;
    json_t *value;

    if (!j)
        return 0;
    if (!json_is_object(j))
        return wrong(e, NULL, "env", "an object of texts");
    c->env = json_deep_copy(j);
    json_object_foreach(c->env, name, value)
    {
        if (!json_is_string(value) || !*name || strchr(name, '='))
            return wrong(e, "env", name, "a text");
    }
    return 0;
}

/* The id as a name of a directory. */
static char *safe_id(const char *id)
{
    char *name = xstrdup(id);

    for (char *p = name; *p; p++)
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", *p))
            *p = '_';
    if (*name == '.')
        *name = '_';
    return name;
}

static void choose_state_dir(struct agent_conf *c)
{
    const char *given = getenv("STATE_DIRECTORY"), *home = getenv("HOME");
    AUTO(free) char *name = safe_id(c->id);

    if (c->state_dir)
        return;
    if (given && *given == '/' && !strchr(given, ':'))
        c->state_dir = xstrdup(given);
    else if (geteuid() == 0)
        c->state_dir = xasprintf("/var/lib/vm-agent/%s", name);
    else
        c->state_dir = xasprintf("%s/.vm-agent/%s", home && *home ? home : "/tmp", name);
}

static int finish(struct agent_conf *c, struct err *e)
{
    size_t n;

    if (!c->id)
        c->id = xasprintf("agent-%lld", (long long)(wall_us() / 1000));
    if (!c->hub_url)
        c->hub_url = xstrdup(HUB_DEFAULT);
    if (!c->token)
        return err_set(e, ERR_UNAUTHORIZED, "no token");
    if (strpbrk(c->token, " \r\n/?#") || strpbrk(c->id, " \r\n/?#"))
        return err_set(e, ERR_INVALID, "agentId and token cannot hold blanks, '/', '?' or '#'");
    n = strlen(c->hub_url);
    while (n > 0 && c->hub_url[n - 1] == '/')
        c->hub_url[--n] = '\0';
    if (c->reconnect_last_ms < c->reconnect_first_ms)
        c->reconnect_last_ms = c->reconnect_first_ms;
    choose_state_dir(c);
    return 0;
}

static int take_all(struct agent_conf *c, const json_t *top, struct err *e)
{
    int r = take_texts(c, top, e);

    if (r == 0)
        r = take_numbers(c, top, e);
    if (r == 0)
        r = take_capabilities(c, top, e);
    if (r == 0)
        r = take_relays(c, top, e);
    if (r == 0)
        r = take_env(c, top, e);
    return r == 0 ? finish(c, e) : r;
}

static int parse(struct str text, struct arena *a, struct agent_conf *ret, struct err *e)
{
    struct agent_conf c = { 0 };
    json_t *top;
    int r;

    r = json_parse(text, DEPTH_MAX, a, &top, NULL, e);
    if (r < 0)
        return r;
    if (!json_is_object(top))
        return err_set(e, ERR_INVALID, "the configuration must be a JSON object");
    r = take_all(&c, top, e);
    if (r < 0) {
        agent_conf_done(&c);
        return r;
    }
    *ret = c;
    return 0;
}

int agent_conf_parse(struct str text, struct agent_conf *ret, struct err *e)
{
    struct arena a = { 0 };
    int r = parse(text, &a, ret, e);

    arena_done(&a);
    return r;
}

/* A seed disk is read past the page cache: who made the machine may have written it anew. */
static int open_config(const char *path, bool *ret_device, struct err *e)
{
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "open '%s'", path);
    *ret_device = S_ISBLK(st.st_mode);
    if (*ret_device && fcntl(fd, F_SETFL, O_DIRECT) < 0)
        return err_sys(e, "read '%s' directly", path);
    return take_fd(&fd);
}

/* Up to CONFIG_MAX bytes, cut at the first NUL; *ret_p is for the caller to free. */
static int read_config(const char *path, char **ret_p, size_t *ret_n, struct err *e)
{
    AUTO(close_fd) int fd = -1;
    AUTO(free) char *p = aligned_alloc(DEVICE_BLOCK, CONFIG_MAX);
    bool device = false, more = true;
    size_t n = 0;
    ssize_t got;

    if (!p)
        return err_set(e, ERR_INTERNAL, "no memory");
    fd = open_config(path, &device, e);
    if (fd < 0)
        return -e->code;
    while (more && n < CONFIG_MAX) {
        got = read(fd, p + n, device ? DEVICE_BLOCK : CONFIG_MAX - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(e, "read '%s'", path);
        more = got > 0 && (!device || !memchr(p + n, '\0', (size_t)got));
        n += (size_t)got;
    }
    if (!device && n == CONFIG_MAX)
        return err_set(e, ERR_LIMIT, "'%s' is over %zu bytes", path, CONFIG_MAX - 1);
    *ret_n = strnlen(p, n);
    *ret_p = TAKE(p);
    return 0;
}

static int from_env(struct agent_conf *ret, struct err *e)
{
    const char *id = getenv("AGENT_ID"), *token = getenv("AGENT_TOKEN"), *url = getenv("HUB_URL");
    struct agent_conf c = { 0 };
    json_t *none = json_object();
    int r;

    c.id = id && *id ? xstrdup(id) : NULL;
    c.token = token && *token ? xstrdup(token) : NULL;
    c.hub_url = url && *url ? xstrdup(url) : NULL;
    r = take_all(&c, none, e);
    json_decref(none);
    if (r < 0) {
        agent_conf_done(&c);
        return r;
    }
    *ret = c;
    return 0;
}

/* Tried once as a file; not JSON, as well as not there, lets the environment decide. */
static int from_file(const char *path, struct agent_conf *ret, struct err *e)
{
    AUTO(free) char *p = NULL;
    struct str text;
    size_t n = 0;
    int r;

    r = read_config(path, &p, &n, e);
    if (r < 0)
        return r;
    text = str_trim((struct str){ p, n });
    if (json_check(text, DEPTH_MAX, e) < 0) {
        e->code = ERR_NOT_FOUND;
        return err_wrap(e, "'%s'", path);
    }
    r = agent_conf_parse(text, ret, e);
    secret_wipe(p, n);
    return r < 0 ? err_wrap(e, "'%s'", path) : 0;
}

int agent_conf_load(struct agent_conf *ret, struct err *e)
{
    const char *given = getenv("AGENT_CONFIG");
    const char *path = given && *given ? given : CONFIG_DEFAULT;
    int r = from_file(path, ret, e);

    if (r == 0 || r == -ERR_INVALID || r == -ERR_UNAUTHORIZED)
        return r;
    dprintf(STDERR_FILENO,
            "chela-agent: no configuration (%s): AGENT_ID, AGENT_TOKEN and HUB_URL\n", e->msg);
    return from_env(ret, e);
}

void agent_conf_done(struct agent_conf *c)
{
    for (size_t i = 0; i < LEN(texts); i++)
        free(*(char **)at(c, texts[i].offset));
    for (char **p = c->capabilities; p && *p; p++)
        free(*p);
    free(c->capabilities);
    for (size_t i = 0; i < c->n_relays; i++) {
        free(c->relays[i].listen);
        free(c->relays[i].to);
    }
    free(c->relays);
    json_decref(c->env);
    *c = (struct agent_conf){ 0 };
}
