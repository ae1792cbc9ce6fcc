/* SPDX-License-Identifier: MIT */
/*
 * agent/types.h — what the rows of the table of task types (types.c) do. Each is a task_type.run:
 * see agent/task.h.
 */
#pragma once

#include "agent/task.h"

/* type_exec.c */
CO int type_exec(struct task *t, json_t **ret_result, struct err *e);
CO int type_build(struct task *t, json_t **ret_result, struct err *e);
CO int type_test(struct task *t, json_t **ret_result, struct err *e);
CO int type_deploy(struct task *t, json_t **ret_result, struct err *e);

/* type_script.c */
CO int type_script(struct task *t, json_t **ret_result, struct err *e);

/* file.c, file_dir.c */
CO int type_file_read(struct task *t, json_t **ret_result, struct err *e);
CO int type_file_write(struct task *t, json_t **ret_result, struct err *e);
CO int type_file_list(struct task *t, json_t **ret_result, struct err *e);
CO int type_file_stat(struct task *t, json_t **ret_result, struct err *e);
CO int type_file_delete(struct task *t, json_t **ret_result, struct err *e);

/* git.c */
CO int type_git_clone(struct task *t, json_t **ret_result, struct err *e);
CO int type_git_pull(struct task *t, json_t **ret_result, struct err *e);
CO int type_git_push(struct task *t, json_t **ret_result, struct err *e);

/* What every type that runs a program reads alike: cwd, env, timeout, stdin. */
struct run_common {
    struct str input; /* {NULL, 0}: none; in the task's arena, or its payload */
    const char *cwd;
    const json_t *env;
    long long timeout_ms;
};
int run_common(const struct task *t, struct run_common *ret, struct err *e) MUST_CHECK;

/* A directory as the task names it, seen from the working directory; NULL stays NULL. */
const char *task_dir(const struct task *t, const char *path);

#define OUTPUT_MAX     (10 * MIB) /* of each stream of a command */
#define OUTPUT_MAX_GIT (1 * MIB)

/* Put the members of more (its reference is taken) behind those of result; a key that is in both
 * keeps the place and value of result. */
void result_add(json_t *result, json_t *more);
