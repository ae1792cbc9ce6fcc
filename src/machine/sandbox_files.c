/* SPDX-License-Identifier: MIT */
/*
 * machine/sandbox_files.c — the files of a sandbox but its disk. All of it may have been made
 * before by a create that was cut off: it is made again, or left.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rand.h"
#include "machine/sandbox_int.h"
#include "machine/shim_int.h"

#define CONFIG_MAX  (1 * MIB)
#define UID_TRIES   100
#define RECONNECT_S 2

#define PASSWD \
    "root:x:0:0:root:/nonexistent:/bin/false\nagent:x:1000:1000:agent:/home/agent:/bin/sh\n" \
    "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
#define GROUP "root:x:0:\nagent:x:1000:\nnogroup:x:65534:\n"

static int make_dir(const char *path, mode_t mode, struct err *e)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return err_sys(e, "make '%s'", path);
    if (chmod(path, mode) < 0) /* whatever the umask was */
        return err_sys(e, "chmod '%s'", path);
    return 0;
}

/* --- sandbox.json --- */

int sandbox_load(const struct machine_job *job, struct arena *a, struct sandbox *ret, struct err *e)
{
    struct str text;
    json_t *j;
    int r;

    r = shim_file_read(machine_path(job, a, NULL), "sandbox.json", 4096, a, &text, e);
    if (r == 0)
        r = json_parse(text, 4, a, &j, NULL, e);
    if (r < 0)
        return r == -ERR_NOT_FOUND
                   ? err_set(e, ERR_NOT_FOUND, "there is no sandbox '%s'", job->spec->name)
                   : r;
    *ret = (struct sandbox){
        .uid = (unsigned)json_integer_value(json_object_get(j, "uid")),
        .image = json_is_true(json_object_get(j, "image")),
    };
    return 0;
}

/* Is it that of another sandbox of this daemon? */
static bool uid_taken(const struct machine_host *host, unsigned uid)
{
    struct arena a = { 0 };
    const char **names;
    bool taken = false;
    struct err e;
    size_t n = 0;

    if (machine_sandbox.list(host, &a, &names, &n, &e) < 0)
        n = 0; /* then chance must do */
    for (size_t i = 0; i < n && !taken; i++) {
        const struct machine_spec spec = { .name = names[i] };
        const struct machine_job job = { .host = host, .spec = &spec };
        struct sandbox s;

        taken = sandbox_load(&job, &a, &s, &e) == 0 && s.uid == uid;
    }
    arena_done(&a);
    return taken;
}

static unsigned choose_uid(const struct machine_host *host)
{
    unsigned first = host->uid_first ? host->uid_first : SANDBOX_UID_FIRST, uid = 0;

    if (geteuid() != 0)
        return 0;
    for (int i = 0; i < UID_TRIES && (uid == 0 || uid_taken(host, uid)); i++)
        uid = first + (unsigned)(rand_u64() % SANDBOX_UIDS);
    return uid;
}

static int found(const struct machine_job *job, struct arena *a, struct sandbox *ret, struct err *e)
{
    char text[128];
    int r;

    r = sandbox_load(job, a, ret, e);
    if (r != -ERR_NOT_FOUND)
        return r;
    *ret = (struct sandbox){ .uid = choose_uid(job->host), .image = sandbox_can_image() };
    fmt_z(text, sizeof(text), "{\"uid\":%u,\"image\":%s}\n", ret->uid,
          ret->image ? "true" : "false");
    return shim_file_write(machine_path(job, a, NULL), "sandbox.json", str_of(text), true, e);
}

/* --- the agent's config --- */

static const char *old_token(const struct machine_job *job, struct arena *a)
{
    struct str text;
    struct err e;
    json_t *j;

    if (shim_file_read(machine_path(job, a, "etc/vm-agent"), "config.json", CONFIG_MAX, a, &text,
                       &e) < 0 ||
        json_parse(text, 16, a, &j, NULL, &e) < 0)
        return NULL;
    return json_string_value(json_object_get(j, "token"));
}

static json_t *make_env(const struct machine_spec *spec)
{
    static const char *const proxied[] = { "HTTP_PROXY", "HTTPS_PROXY", "http_proxy",
                                           "https_proxy" };
    static const char *const direct[] = { "NO_PROXY", "no_proxy" };
    json_t *env = spec->env ? json_deep_copy(spec->env) : json_object();

    for (size_t i = 0; spec->n_allow > 0 && i < LEN(proxied); i++)
        if (!json_object_get(env, proxied[i]))
            json_object_set_new(env, proxied[i], json_string("http://127.0.0.1:3128"));
    for (size_t i = 0; spec->n_allow > 0 && i < LEN(direct); i++)
        if (!json_object_get(env, direct[i]))
            json_object_set_new(env, direct[i], json_string("localhost,127.0.0.1,::1"));
    if (spec->n_allow > 0 && !json_object_get(env, "NODE_USE_ENV_PROXY"))
        json_object_set_new(env, "NODE_USE_ENV_PROXY", json_string("1"));
    return env;
}

static json_t *make_capabilities(const struct machine_spec *spec)
{
    json_t *list = json_array();

    for (size_t i = 0; i < spec->n_capabilities; i++)
        json_array_append_new(list, json_string(spec->capabilities[i]));
    return list;
}

static json_t *make_config(const struct machine_spec *spec, const char *token)
{
    json_t *relay = json_pack("{s:s}", "127.0.0.1:9090", "/run/chela/hub.sock");

    if (spec->n_allow > 0)
        json_object_set_new(relay, "127.0.0.1:3128", json_string("/run/chela/egress.sock"));
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:s, s:s, s:{s:b, s:i}, s:{s:i, s:i, s:i},"
                     " s:o, s:o}",
                     "agentId", spec->agent_id ? spec->agent_id : spec->name, "token", token,
                     "hubUrl", spec->hub_url ? spec->hub_url : "unix:/run/chela/hub.sock", "type",
                     spec->type ? spec->type : "generic", "capabilities", make_capabilities(spec),
                     "stateDir", "/var/lib/vm-agent", "auditLog", "/var/log/vm-agent/audit.log",
                     "workDir", "/work", "tasks", "allowSudo", 0, "maxConcurrent", 16, "reconnect",
                     "maxAttempts", 0, "initialDelay", 100, "maxDelay", RECONNECT_S * 1000, "relay",
                     relay, "env", make_env(spec));
}

int sandbox_config_write(const struct machine_job *job, const struct sandbox *s, struct arena *a,
                         struct err *e)
{
    const char *dir = machine_path(job, a, "etc/vm-agent");
    const char *token = job->spec->token ? job->spec->token : old_token(job, a);
    AUTO(json_decref) json_t *j = NULL;
    struct str text;
    int r;

    if (!token)
        return err_set(e, ERR_INVALID, "no token for the agent of '%s'", job->spec->name);
    j = make_config(job->spec, token);
    if (!j)
        return err_set(e, ERR_INVALID, "the agent's config has texts that are not UTF-8");
    r = json_text(j, CONFIG_MAX, a, &text, e);
    if (r == 0)
        r = shim_file_write(dir, "config.json", text, true, e);
    if (r == 0 && s->uid && chown(arena_printf(a, "%s/config.json", dir), s->uid, s->uid) < 0)
        return err_sys(e, "chown '%s/config.json'", dir);
    return r;
}

/* --- the rest --- */

static int write_etc(const struct machine_job *job, struct arena *a, struct err *e)
{
    const char *name = job->spec->name, *dir = machine_path(job, a, "etc");
    const char *const files[][2] = {
        { "passwd", PASSWD },
        { "group", GROUP },
        { "hostname", arena_printf(a, "%s\n", name) },
        { "hosts", arena_printf(a, "127.0.0.1 localhost %s\n::1 localhost\n", name) },
        { "resolv.conf", "# there is no network but the proxy\n" },
        { "nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n" },
    };
    int r = 0;

    for (size_t i = 0; i < LEN(files) && r == 0; i++) {
        r = shim_file_write(dir, files[i][0], str_of(files[i][1]), false, e);
        if (r == 0 && chmod(arena_printf(a, "%s/%s", dir, files[i][0]), 0644) < 0)
            return err_sys(e, "chmod '%s/%s'", dir, files[i][0]);
    }
    return r;
}

/* Sockets are found through a link to the same inode, whose mode must let the sandbox's user in;
 * the directory above them is ours alone. */
int sandbox_link_hub(const struct machine_job *job, struct arena *a, struct err *e)
{
    const char *to = machine_path(job, a, "run/hub.sock"), *from = job->host->hub_socket;
    const char *fresh = machine_path(job, a, "run/.hub.sock.new");
    struct stat ours, theirs;

    if (stat(from, &theirs) < 0)
        return err_sys(e, "look at '%s'", from);
    if (stat(to, &ours) == 0 && ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev)
        return 0;
    if (chmod(from, 0666) < 0)
        return err_sys(e, "chmod '%s'", from);
    if (unlink(fresh) < 0 && errno != ENOENT)
        return err_sys(e, "remove '%s'", fresh);
    if (link(from, fresh) < 0)
        return err_sys(e, "link '%s'", from);
    return rename(fresh, to) < 0 ? err_sys(e, "rename '%s'", fresh) : 0;
}

int sandbox_make(const struct machine_job *job, struct arena *a, struct sandbox *ret, struct err *e)
{
    static const struct {
        const char *name;
        mode_t mode;
    } dirs[] = { { NULL, 0700 },
                 { "etc", 0755 },
                 { "etc/vm-agent", 0755 },
                 { "run", 0755 },
                 { "snapshots", 0700 } };
    int r = 0;

    for (size_t i = 0; i < LEN(dirs) && r == 0; i++)
        r = make_dir(machine_path(job, a, dirs[i].name), dirs[i].mode, e);
    if (r == 0)
        r = found(job, a, ret, e);
    if (r == 0)
        r = write_etc(job, a, e);
    if (r == 0)
        r = sandbox_config_write(job, ret, a, e);
    if (r == 0)
        r = sandbox_seccomp_write(machine_path(job, a, "seccomp.bpf"), e);
    return r;
}
