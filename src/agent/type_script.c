/* SPDX-License-Identifier: MIT */
/*
 * agent/type_script.c — a script for node: written to a file that only we can read, in a directory
 * that only we can enter, which is removed with all that is in it when the script has ended. What
 * an agent that was killed has left is removed before the first script of the next one. Arguments
 * go by argv, past no shell.
 */
#include "agent/types.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agent/file_int.h"
#include "base/log.h"
#include "base/offload.h"

#define ARGS_MAX 4096

struct script {
    char *dir, *path;
};

static int remove_dir(const char *path)
{
    return tree_remove(AT_FDCWD, path);
}

static int remove_job(void *arg, struct err *e)
{
    const struct script *s = arg;
    int eno = remove_dir(s->dir);

    return eno ? err_sysn(e, eno, "remove '%s'", s->dir) : 0;
}

static CO void script_remove(struct script *s)
{
    struct err e;

    if (s->dir && offload(remove_job, s, &e) < 0)
        log_warn("a script's directory stays", "error", LOG_ERR(&e));
}

/* Nobody else has our state directory, and none of ours runs yet. */
static void sweep(struct arena *a, const char *dir)
{
    static bool swept;
    DIR *d = swept ? NULL : opendir(dir);
    struct dirent *entry;

    swept = true;
    while (d && (entry = readdir(d)))
        if (strncmp(entry->d_name, "script-", 7) == 0)
            (void)remove_dir(arena_printf(a, "%s/%s", dir, entry->d_name)); /* next time, else */
    if (d)
        closedir(d);
}

/* Where the directories of scripts are. */
static const char *scripts_dir(struct task *t)
{
    const char *state = agent_conf(t->agent)->state_dir, *tmp = getenv("TMPDIR");
    const char *dir = state && *state == '/' ? arena_printf(t->arena, "%s/scripts", state) : NULL;

    if (!dir || (mkdir(dir, 0700) < 0 && errno != EEXIST))
        return tmp && *tmp == '/' ? tmp : "/tmp";
    sweep(t->arena, dir);
    return dir;
}

static int write_all(int fd, const char *p, size_t n, struct err *e)
{
    while (n > 0) {
        ssize_t done = write(fd, p, n);

        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_sys(e, "write the script");
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

/* Short enough (it came in one message) to be written on the loop's thread. */
static int script_write(struct task *t, struct script *s, struct err *e)
{
    const json_t *text = json_object_get(t->payload, "script");
    AUTO(close_fd) int fd = -1;
    char *dir = arena_printf(t->arena, "%s/script-XXXXXX", scripts_dir(t));

    if (!mkdtemp(dir)) /* 0700 */
        return err_sys(e, "make a directory for the script");
    s->dir = dir;
    s->path = arena_printf(t->arena, "%s/script.js", dir);
    fd = open(s->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_sys(e, "make a file for the script");
    return write_all(fd, json_string_value(text), json_string_length(text), e);
}

/* As join(' ') of the original shows an element, but each stays one argument. */
static int arg_text(struct task *t, const json_t *v, size_t i, const char **ret, struct err *e)
{
    if (json_is_string(v) && strlen(json_string_value(v)) == json_string_length(v))
        *ret = json_string_value(v);
    else if (json_is_integer(v))
        *ret = arena_printf(t->arena, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        *ret = arena_printf(t->arena, "%.15g", json_real_value(v));
    else if (json_is_boolean(v))
        *ret = json_is_true(v) ? "true" : "false";
    else
        return err_set(e, ERR_INVALID, "args[%zu] must be a string", i);
    return 0;
}

static int script_argv(struct task *t, const char *path, const char ***ret, struct err *e)
{
    const json_t *args = json_object_get(t->payload, "args");
    size_t n = json_is_array(args) ? json_array_size(args) : 0;
    const char **argv;
    int r;

    if (args && !json_is_array(args) && !json_is_null(args))
        return err_set(e, ERR_INVALID, "The \"args\" argument must be an array");
    if (n > ARGS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d args", ARGS_MAX);
    argv = arena_alloc(t->arena, (n + 3) * sizeof(*argv));
    argv[0] = "node";
    argv[1] = path;
    for (size_t i = 0; i < n; i++) {
        r = arg_text(t, json_array_get(args, i), i, &argv[i + 2], e);
        if (r < 0)
            return r;
    }
    *ret = argv;
    return 0;
}

static CO int script_run(struct task *t, struct script *s, const struct run_common *common,
                         json_t **ret_result, struct err *e)
{
    struct run_result ran = { 0 };
    const char **argv;
    int r;

    r = script_write(t, s, e);
    if (r < 0)
        return r;
    r = script_argv(t, s->path, &argv, e);
    if (r < 0)
        return r;
    r = run_program(t,
                    &(struct run_spec){ .argv = argv,
                                        .cwd = common->cwd,
                                        .env = common->env,
                                        .timeout_ms = common->timeout_ms,
                                        .input = common->input,
                                        .limit = OUTPUT_MAX,
                                        .live = true },
                    &ran, e);
    *ret_result = run_json(&ran);
    run_done(&ran);
    return r;
}

CO int type_script(struct task *t, json_t **ret_result, struct err *e)
{
    struct script script = { 0 };
    struct run_common common;
    const char *text;
    int r;

    r = task_text(t, "script", true, &text, e);
    if (r < 0)
        return r;
    r = run_common(t, &common, e);
    if (r < 0)
        return r;
    r = script_run(t, &script, &common, ret_result, e);
    script_remove(&script);
    return r;
}
