/* SPDX-License-Identifier: MIT */
/*
 * agent/type_exec.c — exec, build, test, deploy: a command by /bin/sh -c.
 *
 * Becoming root needs three yeses: sudo and allowSudo of the task, and allowSudo of the agent's
 * own configuration. This is a policy, not a wall: what keeps an agent from root is that it runs
 * as a user that sudoers does not know.
 */
#include "agent/types.h"

#include "agent/text.h"

static int check_env(const json_t *env, struct err *e)
{
    const char *key;
    const json_t *value;
    void *it;

    if (!env || json_is_null(env))
        return 0;
    if (!json_is_object(env))
        return err_set(e, ERR_INVALID, "The \"env\" argument must be an object of strings");
    for (it = json_object_iter((json_t *)(uintptr_t)env); it;
         it = json_object_iter_next((json_t *)(uintptr_t)env, it)) {
        key = json_object_iter_key(it);
        value = json_object_iter_value(it);
        if (!*key || strchr(key, '='))
            return err_set(e, ERR_INVALID, "env: \"%.60s\" is not the name of a variable", key);
        if (!json_is_string(value) && !json_is_number(value) && !json_is_boolean(value))
            return err_set(e, ERR_INVALID, "env: the value of \"%.60s\" must be a string", key);
        if (json_is_string(value) && strlen(json_string_value(value)) != json_string_length(value))
            return err_set(e, ERR_INVALID, "env: the value of \"%.60s\" has null bytes", key);
    }
    return 0;
}

const char *task_dir(const struct task *t, const char *path)
{
    const char *work_dir = agent_conf(t->agent)->work_dir;

    if (!path || *path == '/' || !work_dir)
        return path;
    return arena_printf(t->arena, "%s/%s", work_dir, path);
}

static void done_buf(void *b)
{
    buf_done(b);
}

/* stdin, a text in the encoding that stdinEncoding names. */
static int standard_input(const struct task *t, struct str *ret, struct err *e)
{
    const json_t *text = json_object_get(t->payload, "stdin");
    enum text_encoding encoding = TEXT_UTF8;
    const char *name;
    struct str given;
    struct buf *b;
    int r;

    if (!text || json_is_null(text))
        return 0;
    if (!json_is_string(text))
        return err_set(e, ERR_INVALID, "The \"stdin\" argument must be of type string");
    r = task_text(t, "stdinEncoding", false, &name, e);
    if (r < 0)
        return r;
    if (name && !text_encoding_parse(name, &encoding))
        return err_set(e, ERR_INVALID, "Unknown encoding: %.60s", name);
    given = (struct str){ json_string_value(text), json_string_length(text) };
    *ret = given;
    if (encoding == TEXT_UTF8)
        return 0;
    b = arena_new(t->arena, struct buf);
    buf_init(b, 2 * given.n + 16);
    arena_on_free(t->arena, done_buf, b);
    r = text_decode(encoding, given, b, e);
    *ret = (struct str){ b->n ? buf_str(b).p : "", b->n };
    return r;
}

int run_common(const struct task *t, struct run_common *ret, struct err *e)
{
    struct run_common c = { .env = json_object_get(t->payload, "env") };
    int r;

    r = task_text(t, "cwd", false, &c.cwd, e);
    if (r < 0)
        return r;
    r = check_env(c.env, e);
    if (r < 0)
        return r;
    if (json_is_null(c.env))
        c.env = NULL;
    c.cwd = task_dir(t, c.cwd);
    r = run_timeout(t, &c.timeout_ms, e);
    if (r == 0)
        r = standard_input(t, &c.input, e);
    if (r < 0)
        return r;
    *ret = c;
    return 0;
}

/* May it, and does it want to be root? */
static int sudo_policy(const struct task *t, bool *ret, struct err *e)
{
    const json_t *sudo = json_object_get(t->payload, "sudo");

    if (sudo && !json_is_boolean(sudo) && !json_is_null(sudo))
        return err_set(e, ERR_INVALID, "The \"sudo\" argument must be of type boolean");
    *ret = json_is_true(sudo);
    if (!*ret)
        return 0;
    if (!task_flag(t, "allowSudo"))
        return err_set(e, ERR_FORBIDDEN, "Sudo execution requires allowSudo flag");
    if (!agent_conf(t->agent)->allow_sudo)
        return err_set(e, ERR_FORBIDDEN,
                       "Sudo execution is not allowed by this agent's configuration (allowSudo)");
    return 0;
}

/* Run it; the result, also of a run that failed, goes behind what *result says already. */
static CO int run_command(struct task *t, const char *command, bool sudo, json_t *result,
                          struct err *e)
{
    struct run_common common;
    struct run_result ran = { 0 };
    int r;

    r = run_common(t, &common, e);
    if (r < 0)
        return r;
    r = run_program(t,
                    &(struct run_spec){ .command = command,
                                        .cwd = common.cwd,
                                        .env = common.env,
                                        .timeout_ms = common.timeout_ms,
                                        .input = common.input,
                                        .limit = OUTPUT_MAX,
                                        .live = true,
                                        .sudo = sudo },
                    &ran, e);
    result_add(result, run_json(&ran));
    run_done(&ran);
    return r;
}

CO int type_exec(struct task *t, json_t **ret_result, struct err *e)
{
    const char *command;
    bool sudo;
    int r;

    r = task_text(t, "command", true, &command, e);
    if (r < 0)
        return r;
    r = sudo_policy(t, &sudo, e);
    if (r < 0)
        return r;
    *ret_result = json_object();
    return run_command(t, command, sudo, *ret_result, e);
}

/* {command, stdout, stderr, exitCode} */
static CO int run_named(struct task *t, const char *command, json_t **ret_result, struct err *e)
{
    *ret_result = json_object();
    json_object_set_new(*ret_result, "command", json_string(command));
    return run_command(t, command, false, *ret_result, e);
}

CO int type_build(struct task *t, json_t **ret_result, struct err *e)
{
    const char *command;
    int r = task_text(t, "command", false, &command, e);

    return r < 0 ? r : run_named(t, command ? command : "npm run build", ret_result, e);
}

CO int type_test(struct task *t, json_t **ret_result, struct err *e)
{
    const char *command;
    int r = task_text(t, "command", false, &command, e);

    return r < 0 ? r : run_named(t, command ? command : "npm test", ret_result, e);
}

CO int type_deploy(struct task *t, json_t **ret_result, struct err *e)
{
    const char *command;
    int r = task_text(t, "command", false, &command, e);

    if (r < 0)
        return r;
    if (!command)
        return err_set(e, ERR_INVALID, "Deploy task requires a command");
    return run_named(t, command, ret_result, e);
}
