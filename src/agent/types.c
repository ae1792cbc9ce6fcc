/* SPDX-License-Identifier: MIT */
/*
 * agent/types.c — the table of the types of tasks.
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
