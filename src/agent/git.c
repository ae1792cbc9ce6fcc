/* SPDX-License-Identifier: MIT */
/*
 * agent/git.c — git:clone, git:pull, git:push: by argv, names behind "--", and with a list of the
 * transports that git may use. It never asks for anything: what needs a password or an unknown
 * host's key accepted fails.
 *
 * Below a root, git works in a directory that we have opened, so where it works cannot be swapped.
 */
#include "agent/git.h"

#include "agent/file_int.h"
#include "agent/types.h"
#include "base/offload.h"

static int check_ref(const char *key, const char *ref, struct err *e)
{
    if (!ref)
        return 0;
    for (const char *p = ref; *p; p++)
        if ((unsigned char)*p <= 0x20 || *p == 0x7F)
            return err_set(e, ERR_INVALID, "\"%s\" has blanks or control characters", key);
    if (*ref == '-')
        return err_set(e, ERR_INVALID, "\"%s\" must not begin with \"-\"", key);
    return 0;
}

static const char *protocols(const struct task *t)
{
    return agent_conf(t->agent)->root ? GIT_PROTOCOLS_ROOT : GIT_PROTOCOLS;
}

/* The task's variables and, over them, what keeps git from asking and from other transports. */
static json_t *git_env(const struct task *t, const json_t *own)
{
    json_t *env = own ? json_deep_copy(own) : json_object();
    json_t *quiet =
        json_pack("{s:s, s:s}", "SSH_ASKPASS", "/bin/false", "SSH_ASKPASS_REQUIRE", "force");

    json_object_set_new(env, "GIT_ALLOW_PROTOCOL", json_string(protocols(t)));
    json_object_set_new(env, "GIT_TERMINAL_PROMPT", json_string("0"));
    if (!json_object_get(env, "SSH_ASKPASS"))
        result_add(env, quiet);
    else
        json_decref(quiet);
    return env;
}

struct git_run {
    const char *const *argv;
    const char *shown;
    const char *cwd;
    long long timeout_ms;
};

/* Run git; its output goes behind what result says already. */
static CO int run_git(struct task *t, const struct git_run *git, json_t *result, struct err *e)
{
    AUTO(json_decref) json_t *env = NULL;
    struct run_result ran = { 0 };
    struct run_common common;
    int r;

    r = run_common(t, &common, e);
    if (r < 0)
        return r;
    env = git_env(t, common.env);
    r = run_program(t,
                    &(struct run_spec){ .argv = git->argv,
                                        .shown = git->shown,
                                        .cwd = git->cwd,
                                        .env = env,
                                        .timeout_ms = common.timeout_ms,
                                        .limit = OUTPUT_MAX_GIT,
                                        .live = true },
                    &ran, e);
    result_add(result, run_json(&ran));
    run_done(&ran);
    return r;
}

/* --- a directory below the root --- */

struct git_dir {
    struct task *t;
    const char *path;
    bool make; /* the last name, and what is missing above it */
    int fd;
};

static int open_made(struct git_dir *d, const struct place *place)
{
    AUTO(close_fd) int parent = -1;
    const char *name;
    int r;

    r = place_mkdirs(place, d->t->arena, place->rel);
    if (r == 0)
        r = place_parent(place, d->t->arena, place->rel, &parent, &name);
    if (r != 0)
        return r;
    if (!*name || strcmp(name, "..") == 0)
        return EEXIST;
    if (mkdirat(parent, name, 0777) < 0 && errno != EEXIST)
        return errno;
    d->fd = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return d->fd < 0 ? errno : 0;
}

static int open_dir_job(void *arg, struct err *e)
{
    struct git_dir *d = arg;
    struct place place = { .dirfd = AT_FDCWD };
    int r, eno = 0;

    r = place_find(d->t, d->path, &place, e);
    if (r < 0) {
        place_done(&place);
        return r;
    }
    if (d->make) {
        eno = open_made(d, &place);
    } else {
        d->fd = place_open(&place, place.rel, O_PATH | O_DIRECTORY, 0);
        eno = d->fd < 0 ? errno : 0;
    }
    place_done(&place);
    return eno ? node_fail(d->t, eno, d->make ? "mkdir" : "open", d->path, e) : 0;
}

/* Below a root: *ret_fd is the directory, and *ret_cwd the way to it as long as it is open. */
static CO int enter_dir(struct task *t, const char *path, bool make, int *ret_fd,
                        const char **ret_cwd, struct err *e)
{
    struct git_dir d = { .t = t, .path = path, .make = make, .fd = -1 };
    int r;

    r = offload(open_dir_job, &d, e);
    if (r < 0)
        return r;
    *ret_fd = d.fd;
    *ret_cwd = arena_printf(t->arena, "/proc/%d/fd/%d", (int)getpid(), d.fd);
    return 0;
}

/* --- clone --- */

static CO int clone_to(struct task *t, const char *repo, const char *branch, const char *to,
                       json_t *result, struct err *e)
{
    const char *argv[10] = { "git", "clone" };
    struct git_run git = { .argv = argv };
    AUTO(close_fd) int fd = -1;
    size_t n = 2;
    int r;

    git.shown = arena_printf(t->arena, "git clone %s%s%s%s %s", branch ? "-b " : "",
                             branch ? branch : "", branch ? " " : "", repo, to);
    if (agent_conf(t->agent)->root) {
        r = enter_dir(t, to, true, &fd, &git.cwd, e);
        if (r < 0)
            return r;
        to = ".";
    }
    if (branch) {
        argv[n++] = "-b";
        argv[n++] = branch;
    }
    argv[n++] = "--";
    argv[n++] = repo;
    argv[n++] = to;
    return run_git(t, &git, result, e);
}

CO int type_git_clone(struct task *t, json_t **ret_result, struct err *e)
{
    const char *repo, *to, *branch;
    int r;

    r = task_text(t, "repo", true, &repo, e);
    if (r == 0)
        r = task_text(t, "destination", true, &to, e);
    if (r == 0)
        r = task_text(t, "branch", false, &branch, e);
    if (r == 0)
        r = git_repo_check(repo, protocols(t), e);
    if (r == 0)
        r = check_ref("branch", branch, e);
    if (r < 0)
        return r;
    *ret_result = json_pack("{s:s, s:s, s:s}", "repo", repo, "destination", to, "branch",
                            branch ? branch : "default");
    return clone_to(t, repo, branch, to, *ret_result, e);
}

/* --- in a repository --- */

/* git argv... in payload.repoPath */
static CO int run_inside(struct task *t, const char *const *argv, const char *shown, json_t *result,
                         struct err *e)
{
    struct git_run git = { .argv = argv, .shown = shown };
    AUTO(close_fd) int fd = -1;
    const char *path;
    int r;

    r = task_text(t, "repoPath", false, &path, e);
    if (r < 0)
        return r;
    if (path)
        json_object_set_new(result, "repoPath", json_string(path));
    git.cwd = task_dir(t, path);
    if (agent_conf(t->agent)->root) {
        r = enter_dir(t, path ? path : ".", false, &fd, &git.cwd, e);
        if (r < 0)
            return r;
    }
    return run_git(t, &git, result, e);
}

CO int type_git_pull(struct task *t, json_t **ret_result, struct err *e)
{
    static const char *const argv[] = { "git", "pull", NULL };

    *ret_result = json_object();
    return run_inside(t, argv, "git pull", *ret_result, e);
}

CO int type_git_push(struct task *t, json_t **ret_result, struct err *e)
{
    const char *remote, *branch;
    int r;

    r = task_text(t, "remote", false, &remote, e);
    if (r == 0)
        r = task_text(t, "branch", false, &branch, e);
    if (r < 0)
        return r;
    remote = remote ? remote : "origin";
    branch = branch ? branch : "main";
    r = git_repo_check(remote, protocols(t), e);
    if (r == 0)
        r = check_ref("branch", branch, e);
    if (r < 0)
        return r;
    *ret_result = json_pack("{s:s, s:s}", "remote", remote, "branch", branch);
    return run_inside(t, (const char *const[]){ "git", "push", "--", remote, branch, NULL },
                      arena_printf(t->arena, "git push %s %s", remote, branch), *ret_result, e);
}
