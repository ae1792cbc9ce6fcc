/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet_spec.c — what a machine is to be. The row's text is an object {cpus, memory, disk
 * (MiB), image, type, capabilities, allow, env, profile, hubUrl}: checked once, when it is asked
 * for.
 */
#include <string.h>

#include "hub/agents.h"
#include "hub/fleet_int.h"
#include "hub/link.h"

enum { LIST_MAX = 256, TEXT_MAX = 1024, CPUS_MAX = 1024 };

/* What the original gave a machine; a sandbox without limits has none. */
enum { VM_CPUS = 2, VM_MEMORY = 4096, VM_DISK = 20480 };

/* --- from a request --- */

/* A number is MiB, a text has its unit. */
static int take_size(json_t *value, const char *what, unsigned otherwise, unsigned *ret,
                     struct err *e)
{
    int r = 0;

    *ret = otherwise;
    if (!value || json_is_null(value))
        return 0;
    if (json_is_integer(value) && json_integer_value(value) > 0 &&
        json_integer_value(value) <= 64LL * 1024 * 1024)
        *ret = (unsigned)json_integer_value(value);
    else if (json_is_string(value))
        r = machine_size_parse(str_of(json_string_value(value)), ret, e);
    else
        r = err_set(e, ERR_INVALID, "a size is a text with M or G, or a number of MiB");
    return r < 0 ? err_wrap(e, "%s", what) : 0;
}

static int add_words(json_t *list, const char *what, struct str words, struct err *e)
{
    struct str word;

    while (str_split(&words, ',', &word)) {
        word = str_trim(word);
        if (!word.n)
            continue;
        if (word.n > TEXT_MAX || json_array_size(list) == LIST_MAX)
            return err_set(e, ERR_INVALID, "%s: at most %d, each of at most %d bytes", what,
                           LIST_MAX, TEXT_MAX);
        json_array_append_new(list, json_stringn(word.p, word.n));
    }
    return 0;
}

/* An array of texts, or one text with commas; absent: otherwise. A new reference. */
static int take_list(const json_t *value, const char *what, const char *otherwise, json_t **ret,
                     struct err *e)
{
    AUTO(json_decref) json_t *list = json_array();
    int r = 0;

    if (!value || json_is_null(value))
        r = add_words(list, what, str_of(otherwise), e);
    else if (json_is_string(value))
        r = add_words(list, what, str_of(json_string_value(value)), e);
    else if (!json_is_array(value))
        r = err_set(e, ERR_INVALID, "%s must be a list of texts", what);
    for (size_t i = 0; r == 0 && json_is_array(value) && i < json_array_size(value); i++) {
        const json_t *one = json_array_get(value, i);

        if (!json_is_string(one))
            r = err_set(e, ERR_INVALID, "%s must be a list of texts", what);
        else
            r = add_words(list, what, str_of(json_string_value(one)), e);
    }
    if (r == 0)
        *ret = TAKE(list);
    return r;
}

static bool is_host(const char *z)
{
    return *z &&
           strspn(z, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_*:[]") ==
               strlen(z);
}

static int check_allow(const json_t *allow, struct err *e)
{
    for (size_t i = 0; i < json_array_size(allow); i++)
        if (!is_host(json_string_value(json_array_get(allow, i))))
            return err_set(e, ERR_INVALID, "allow: '%.80s' is none of host, host:port, *.host",
                           json_string_value(json_array_get(allow, i)));
    return 0;
}

static int check_env(json_t *env, struct err *e)
{
    const char *key;
    json_t *value;

    if (!env || json_is_null(env))
        return 0;
    if (!json_is_object(env) || json_object_size(env) > LIST_MAX)
        return err_set(e, ERR_INVALID, "env must be an object of at most %d texts", LIST_MAX);
    json_object_foreach(
        env, key,
        value) if (!json_is_string(value) || !*key || strchr(key, '=') ||
                   (*key >= '0' &&
                    *key <= '9')) return err_set(e, ERR_INVALID,
                                                 "env: '%.80s' is no variable with a text", key);
    return 0;
}

static int check_texts(const struct machine_wish *w, struct err *e)
{
    const char *const texts[] = { w->type, w->image, w->hubUrl };
    static const char *const names[] = { "type", "image", "hubUrl" };

    for (size_t i = 0; i < LEN(texts); i++)
        for (const char *p = texts[i]; p && *p; p++)
            if ((unsigned char)*p < ' ' || p - texts[i] > TEXT_MAX)
                return err_set(e, ERR_INVALID, "%s: at most %d bytes, no control characters",
                               names[i], TEXT_MAX);
    if (w->hubUrl && *w->hubUrl && strncmp(w->hubUrl, "ws://", 5) != 0 &&
        strncmp(w->hubUrl, "wss://", 6) != 0)
        return err_set(e, ERR_INVALID, "hubUrl must begin with ws:// or wss://");
    if (w->profile && !json_is_null(w->profile) && !json_is_object(w->profile))
        return err_set(e, ERR_INVALID, "profile must be an object");
    return 0;
}

static int find_driver(const struct fleet *f, const struct machine_wish *w,
                       const struct machine_driver **ret, struct err *e)
{
    const char *name = w->driver && *w->driver ? w->driver : f->h->settings->driver;
    const struct machine_driver *driver = machine_driver_find(name);

    if (!driver)
        return err_set(e, ERR_INVALID, "no driver '%.40s': sandbox, qemu or multipass", name);
    *ret = driver;
    return 0;
}

static int check_name(const struct machine_wish *w, struct err *e)
{
    static const char *const reserved[] = { "host", "broadcast", "drivers" };
    int r = machine_name_check(str_of(w->name), e);

    for (size_t i = 0; r == 0 && i < LEN(reserved); i++)
        if (strcasecmp(w->name, reserved[i]) == 0)
            return err_set(e, ERR_INVALID, "'%s' is a name of the hub's own: choose another",
                           w->name);
    return r;
}

static json_t *text_or_empty(const char *z)
{
    return json_string(z ? z : "");
}

static json_t *object_or_null(json_t *value)
{
    return json_is_object(value) ? json_incref(value) : json_null();
}

int machine_spec_make(const struct fleet *f, const struct machine_wish *w,
                      const struct machine_driver **ret_driver, json_t **ret, struct err *e)
{
    AUTO(json_decref) json_t *capabilities = NULL, *allow = NULL;
    unsigned memory = 0, disk = 0, cpus;
    bool vm;
    int r = check_name(w, e);

    if (r == 0)
        r = find_driver(f, w, ret_driver, e);
    if (r == 0)
        r = check_texts(w, e);
    if (r == 0)
        r = check_env(w->env, e);
    if (r < 0)
        return r;
    vm = *ret_driver != &machine_sandbox;
    r = take_size(w->memory, "memory", vm ? VM_MEMORY : 0, &memory, e);
    if (r == 0)
        r = take_size(w->disk, "disk", vm ? VM_DISK : 0, &disk, e);
    if (r == 0)
        r = take_list(w->capabilities, "capabilities", "", &capabilities, e);
    if (r == 0)
        r = take_list(w->allow, "allow", f->h->settings->allow, &allow, e);
    if (r == 0)
        r = check_allow(allow, e);
    if (r == 0 && (w->cpus < 0 || w->cpus > CPUS_MAX))
        r = err_set(e, ERR_INVALID, "cpus must be 1 to %d", CPUS_MAX);
    if (r < 0)
        return r;
    cpus = w->cpus ? (unsigned)w->cpus : vm ? VM_CPUS : 0;
    *ret =
        json_pack("{s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "cpus", (int)cpus, "memory",
                  (int)memory, "disk", (int)disk, "image", text_or_empty(w->image), "type",
                  text_or_empty(w->type && *w->type ? w->type : "generic"), "capabilities",
                  TAKE(capabilities), "allow", TAKE(allow), "env", object_or_null(w->env),
                  "profile", object_or_null(w->profile), "hubUrl", text_or_empty(w->hubUrl));
    return 0;
}

/* --- for a driver --- */

static unsigned number_of(const json_t *spec, const char *key)
{
    return (unsigned)json_integer_value(json_object_get(spec, key));
}

static const char *text_of(const json_t *spec, const char *key)
{
    const char *z = json_string_value(json_object_get(spec, key));

    return z ? z : "";
}

static const char *const *texts_of(const json_t *spec, const char *key, struct arena *a,
                                   size_t *ret_n)
{
    const json_t *list = json_object_get(spec, key);
    const char **texts = arena_alloc(a, (json_array_size(list) + 1) * sizeof(*texts));

    *ret_n = json_array_size(list);
    for (size_t i = 0; i < *ret_n; i++)
        texts[i] = json_string_value(json_array_get(list, i));
    return texts;
}

static const json_t *object_of(const json_t *spec, const char *key)
{
    const json_t *value = json_object_get(spec, key);

    return json_is_object(value) ? value : NULL;
}

void machine_job_make(struct machine *m, struct arena *a, const char *token, uint64_t deadline_ms,
                      struct machine_job *ret)
{
    struct machine_spec *s = arena_new(a, struct machine_spec);

    s->name = m->name;
    s->agent_id = m->name;
    s->token = token;
    s->cpus = number_of(m->spec, "cpus");
    s->memory_mib = number_of(m->spec, "memory");
    s->disk_mib = number_of(m->spec, "disk");
    s->image = text_of(m->spec, "image");
    s->type = text_of(m->spec, "type");
    s->allow = texts_of(m->spec, "allow", a, &s->n_allow);
    s->capabilities = texts_of(m->spec, "capabilities", a, &s->n_capabilities);
    s->env = object_of(m->spec, "env");
    s->profile = object_of(m->spec, "profile");
    s->hub_url = *text_of(m->spec, "hubUrl") ? text_of(m->spec, "hubUrl") : NULL;
    *ret = (struct machine_job){ .host = &m->fleet->host, .spec = s, .deadline_ms = deadline_ms };
}

/* --- for those who look on --- */

static json_t *size_json(unsigned mib)
{
    char text[24];

    if (!mib)
        return json_null();
    fmt_z(text, sizeof(text), mib % 1024 ? "%uM" : "%uG", mib % 1024 ? mib : mib / 1024);
    return json_string(text);
}

static json_t *text_json(const char *z)
{
    return *z ? json_string(z) : json_null();
}

static json_t *time_json(int64_t ms)
{
    return ms ? json_integer(ms) : json_null();
}

static json_t *shared(const json_t *spec, const char *key)
{
    return json_incref(json_object_get(spec, key));
}

static json_t *exec_json(struct machine *m)
{
    struct arena arena = { 0 };
    struct machine_job job;
    json_t *list = json_null();
    const char **argv;

    if (!m->driver->exec_argv || m->state != MS_RUNNING)
        return list;
    machine_job_make(m, &arena, NULL, DEADLINE_NONE, &job);
    argv = m->driver->exec_argv(&job, &arena, true);
    if (argv) {
        list = json_array();
        for (; *argv; argv++)
            json_array_append_new(list, json_string(*argv));
    }
    arena_done(&arena);
    return list;
}

json_t *machine_json(struct machine *m)
{
    const json_t *s = m->spec;
    json_t *j = json_object();

    json_object_set_new(j, "name", json_string(m->name));
    json_object_set_new(j, "driver", json_string(m->driver->name));
    json_object_set_new(j, "state", json_string(machine_state_names[m->state]));
    json_object_set_new(j, "reason", text_json(m->reason));
    json_object_set_new(j, "wanted", json_string(m->wanted_running ? "running" : "stopped"));
    json_object_set_new(j, "agentId", json_string(m->name));
    json_object_set_new(j, "online",
                        json_boolean(link_online(m->fleet->h->links, str_of(m->name))));
    json_object_set_new(j, "cpus", number_of(s, "cpus") ? shared(s, "cpus") : json_null());
    json_object_set_new(j, "memory", size_json(number_of(s, "memory")));
    json_object_set_new(j, "disk", size_json(number_of(s, "disk")));
    json_object_set_new(j, "image", text_json(text_of(s, "image")));
    json_object_set_new(j, "allow", shared(s, "allow"));
    json_object_set_new(j, "type", shared(s, "type"));
    json_object_set_new(j, "capabilities", shared(s, "capabilities"));
    json_object_set_new(j, "createdAt", json_integer(m->created_at));
    json_object_set_new(j, "updatedAt", json_integer(m->updated_at));
    json_object_set_new(j, "startedAt",
                        m->state == MS_RUNNING ? time_json(m->started_at) : json_null());
    json_object_set_new(j, "address", text_json(m->state == MS_RUNNING ? m->address : ""));
    json_object_set_new(j, "accel", text_json(m->accel));
    json_object_set_new(j, "operation", text_json(m->operation));
    json_object_set_new(j, "progress", text_json(m->progress));
    json_object_set_new(j, "exec", exec_json(m));
    return j;
}

json_t *machine_metadata(const struct machine *m)
{
    const json_t *s = m->spec;
    json_t *j = json_object();

    json_object_set_new(j, "type", shared(s, "type"));
    json_object_set_new(j, "capabilities", shared(s, "capabilities"));
    if (number_of(s, "cpus"))
        json_object_set_new(j, "cpu", shared(s, "cpus"));
    if (number_of(s, "memory"))
        json_object_set_new(j, "memory", size_json(number_of(s, "memory")));
    if (number_of(s, "disk"))
        json_object_set_new(j, "disk", size_json(number_of(s, "disk")));
    json_object_set_new(j, "machine", json_string(m->driver->name));
    return j;
}
