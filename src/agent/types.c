/* SPDX-License-Identifier: MIT */
/*
 * agent/types.c — the table of the types of tasks, and the way from payload.type to its row.
 */
#include "agent/types.h"

/* clang-format off */
const struct task_type task_types[] = {
    { "exec",        type_exec,        "Run a command by /bin/sh -c." },
    { "script",      type_script,      "Run a script with node." },
    { "file:read",   type_file_read,   "Read a file, whole or a part." },
    { "file:write",  type_file_write,  "Write a file, at once or in parts." },
    { "file:list",   type_file_list,   "The entries of a directory." },
    { "file:stat",   type_file_stat,   "Kind, size, mode and time of a file." },
    { "file:delete", type_file_delete, "Delete a file or, recursively, a directory." },
    { "git:clone",   type_git_clone,   "Clone a repository." },
    { "git:pull",    type_git_pull,    "Pull in a repository." },
    { "git:push",    type_git_push,    "Push a branch of a repository." },
    { "build",       type_build,       "Run a build command (npm run build)." },
    { "test",        type_test,        "Run a test command (npm test)." },
    { "deploy",      type_deploy,      "Run a deploy command." },
};
/* clang-format on */
const size_t task_types_len = LEN(task_types);

void result_add(json_t *result, json_t *more)
{
    if (more)
        (void)json_object_update_missing(result, more); /* fails without memory alone */
    json_decref(more);
}

/* As a template string of JavaScript shows it. */
static const char *type_shown(const struct task *t)
{
    const json_t *v = json_object_get(t->payload, "type");

    if (!v)
        return "undefined";
    if (json_is_string(v))
        return json_string_value(v);
    if (json_is_null(v))
        return "null";
    if (json_is_boolean(v))
        return json_is_true(v) ? "true" : "false";
    if (json_is_integer(v))
        return arena_printf(t->arena, "%lld", (long long)json_integer_value(v));
    if (json_is_real(v))
        return arena_printf(t->arena, "%.15g", json_real_value(v));
    return json_is_object(v) ? "[object Object]" : "";
}

CO int task_work(struct task *t, json_t **ret_result, struct err *e)
{
    const json_t *type = json_object_get(t->payload, "type");

    for (size_t i = 0; json_is_string(type) && i < task_types_len; i++)
        if (strcmp(task_types[i].name, json_string_value(type)) == 0)
            return task_types[i].run(t, ret_result, e);
    return task_fail(t, ERR_INVALID, e, "Unknown task type: %s", type_shown(t));
}
