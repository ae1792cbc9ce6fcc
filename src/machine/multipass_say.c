/* SPDX-License-Identifier: MIT */
/* machine/multipass_say.c — the command multipass, and what it prints. */
#include <string.h>

#include "base/time.h"
#include "machine/multipass_int.h"

#define ARGS_MAX 40

CO int multipass_do(const struct machine_job *job, const char *const *args, struct str input,
                    struct buf *out, struct err *e)
{
    const char *argv[ARGS_MAX] = { job->host->multipass };
    const struct tool tool = { .argv = argv, .input = input, .deadline_ms = job->deadline_ms };

    for (size_t i = 0; args[i] && i + 2 < ARGS_MAX; i++)
        argv[i + 1] = args[i];
    return tool_must(&tool, out, e);
}

int multipass_info_parse(struct str text, const char *name, struct arena *a,
                         struct multipass_info *ret, struct err *e)
{
    struct multipass_info info = { .state = "", .address = "", .memory = -1 };
    const json_t *one, *used;
    struct str state, address;
    json_t *j;

    if (json_parse(text, 32, a, &j, NULL, e) < 0)
        return err_wrap(e, "multipass info");
    one = json_object_get(json_object_get(j, "info"), name);
    if (!json_is_object(one))
        return err_set(e, ERR_INTERNAL, "multipass info says nothing about '%s'", name);
    state = json_member_str(one, "state");
    info.state = arena_strndup(a, state.p ? state.p : "", state.n);
    info.exists = !str_eq_z(state, "Deleted");
    info.running = str_eq_z(state, "Running");
    address = str_of(json_string_value(json_array_get(json_object_get(one, "ipv4"), 0)));
    info.address = arena_strndup(a, address.p ? address.p : "", address.n);
    used = json_object_get(json_object_get(one, "memory"), "used");
    if (json_is_integer(used))
        info.memory = json_integer_value(used);
    *ret = info;
    return 0;
}

CO int multipass_info(const struct machine_job *job, struct arena *a, struct multipass_info *ret,
                      struct err *e)
{
    const char *const argv[] = { job->host->multipass, "info", job->spec->name,
                                 "--format",           "json", NULL };
    const struct tool tool = { .argv = argv, .deadline_ms = job->deadline_ms };
    AUTO(tool_end_done) struct tool_end end = { 0 };
    struct str words;

    if (tool_run(&tool, &end, e) < 0)
        return -(int)e->code;
    words = buf_str(&end.err);
    if (end.code && words.n && memmem(words.p, words.n, "does not exist", 14)) {
        *ret = (struct multipass_info){ .state = "", .address = "", .memory = -1 };
        return 0;
    }
    words = tool_last_words(words, 160);
    if (end.code)
        return err_set(e, ERR_INTERNAL, "multipass info ended with status %d: " STR_FMT, end.code,
                       STR_ARG(words));
    return multipass_info_parse(buf_str(&end.out), job->spec->name, a, ret, e);
}

int multipass_snapshots_parse(struct str text, const char *name, struct arena *a,
                              struct machine_snapshot **ret, size_t *ret_n, struct err *e)
{
    struct machine_snapshot *list;
    const char *key;
    json_t *j, *of, *one;
    struct err ignored;
    size_t n = 0;

    if (json_parse(text, 32, a, &j, NULL, e) < 0)
        return err_wrap(e, "multipass list");
    of = json_object_get(json_object_get(j, "info"), name);
    list = arena_alloc(a, (json_object_size(of) + 1) * sizeof(*list));
    json_object_foreach(of, key, one)
    {
        struct str when = json_member_str(one, "created");
        int64_t us = 0;

        if (when.p && time_parse(when, &us, &ignored) < 0)
            us = 0;
        list[n++] =
            (struct machine_snapshot){ .name = arena_strdup(a, key), .created_at = us / 1000 };
    }
    *ret = list;
    *ret_n = n;
    return 0;
}
