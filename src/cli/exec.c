/* SPDX-License-Identifier: MIT */
/*
 * cli/exec.c — tasks: sent, watched with their output as it comes, canceled by Ctrl-C. Looking on
 * is a fiber of its own, so that a cancel can be sent meanwhile; it goes on where it was when the
 * hub or the way to it was away.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/loop.h"
#include "base/time.h"
#include "cli/hub.h"

#define JSON_DEPTH 600
#define WAIT_MAX   30000 /* one question waits at most so long */
#define AGAIN_MS   500   /* after the way to the hub broke */
#define AWAY_MS    120000
#define LOGS_MS    1000  /* between looks at a log that is followed */
#define LATE_MS    15000 /* the hub's own time-out, or our cancel, is given so long */

/* --- records --- */

bool task_ended(const json_t *record)
{
    static const char *const live[] = { "queued", "sent", "running" };
    const char *status = json_string_value(json_object_get(record, "status"));

    for (size_t i = 0; status && i < LEN(live); i++)
        if (strcmp(status, live[i]) == 0)
            return false;
    return status != NULL;
}

static bool status_is(const json_t *record, const char *status)
{
    return str_eq_z(json_member_str(record, "status"), status);
}

static const json_t *response_of(const json_t *record)
{
    return json_object_get(record, "response");
}

/* "SIGKILL" or "KILL" or 9. */
static int signal_number(const json_t *value)
{
    const char *name = json_string_value(value), *known;

    if (json_is_integer(value))
        return (int)json_integer_value(value);
    if (!name)
        return 0;
    name += strncmp(name, "SIG", 3) == 0 ? 3 : 0;
    for (int i = 1; i < NSIG; i++) {
        known = sigabbrev_np(i);
        if (known && strcmp(known, name) == 0)
            return i;
    }
    return 0;
}

int task_exit_status(const json_t *record)
{
    const json_t *response = response_of(record), *result = json_object_get(response, "result");
    const json_t *code = json_object_get(result, "exitCode");
    int signo = signal_number(json_object_get(result, "signal"));

    if (status_is(record, "timeout") || json_is_true(json_object_get(result, "timedOut")))
        return CLI_TIMEOUT;
    if (status_is(record, "completed"))
        return (int)(json_integer_value(code) & 0xff);
    if (json_is_integer(code) && json_integer_value(code) != 0)
        return (int)(json_integer_value(code) & 0xff);
    return signo ? 128 + signo : CLI_FAILED;
}

const char *task_error(struct cli *cli, const json_t *record)
{
    const json_t *error = json_object_get(response_of(record), "error");

    if (!json_is_string(error))
        error = json_object_get(record, "error");
    if (json_is_string(error))
        return json_string_value(error);
    return arena_printf(&cli->arena, "the task ended as %s", member_text(cli, record, "status"));
}

/* --- asking --- */

CO int task_await(struct cli *cli, const char *id, long long ms, json_t **ret, struct err *e)
{
    uint64_t deadline = ms > 0 ? deadline_in(ms) : DEADLINE_NONE;
    json_t *answer, *record;
    int r;

    for (;;) {
        uint64_t now = now_ms(), left = deadline > now ? deadline - now : 0;
        const char *wait = arena_printf(&cli->arena, "?wait=%llu",
                                        (unsigned long long)(left > WAIT_MAX ? WAIT_MAX : left));

        r = api_call(cli, HTTP_M_GET, task_path(cli, id, wait), (struct str){ 0 }, &answer, e);
        if (r < 0)
            return r;
        record = json_object_get(answer, "task");
        *ret = task_ended(record) ? record : NULL;
        if (*ret || now_ms() >= deadline)
            return 0;
    }
}

CO int task_run(struct cli *cli, const char *agent, json_t *body, json_t **ret, struct err *e)
{
    struct str text;
    json_t *answer;
    int r = api_body(cli, body, &text, e);

    if (r == 0)
        r = api_call(cli, HTTP_M_POST, agent_path(cli, agent, "/task?wait=30000"), text, &answer,
                     e);
    if (r < 0)
        return r;
    *ret = json_object_get(answer, "task");
    if (*ret && task_ended(*ret))
        return 0;
    return task_await(cli, member_text(cli, answer, "taskId"), 0, ret, e);
}

CO int task_result(struct cli *cli, const char *agent, json_t *body, json_t **ret, struct err *e)
{
    json_t *record;
    int r = task_run(cli, agent, body, &record, e);

    if (r < 0)
        return r;
    if (!status_is(record, "completed"))
        return err_set(e, ERR_INTERNAL, "%s", task_error(cli, record));
    *ret = json_object_get(response_of(record), "result");
    return 0;
}

/* --- looking on --- */

struct seen { /* of a stream: what has been shown */
    long long last, end;
};

struct follow {
    struct cli *cli;
    const char *id;
    struct seen out[2];
    bool again; /* the output comes once more from its beginning */
    json_t *record;
    struct fiber *waiter;
    int signals;
    bool done;
    int r;
    struct err e;
};

/* Text of a stream; after a break only what was not shown yet. */
static void show(struct follow *f, const json_t *j)
{
    bool err = str_eq_z(json_member_str(j, "stream"), "stderr");
    long long offset = json_integer_value(json_object_get(j, "offset"));
    struct str data = json_member_str(j, "data");
    struct seen *seen = &f->out[err];
    FILE *to = err ? stderr : stdout;

    if (f->again && offset <= seen->last && seen->end > 0) {
        long long skip = seen->end - offset;

        if (skip >= (long long)data.n)
            return;
        data = (struct str){ data.p + skip, data.n - (size_t)skip };
        offset = seen->end;
    }
    if (offset > seen->end && seen->end > 0)
        fprintf(stderr, "[%lld bytes of output were not kept]\n", offset - seen->end);
    fwrite(data.p, 1, data.n, to);
    fflush(to);
    *seen = (struct seen){ offset, offset + (long long)data.n };
}

static int on_event(struct str event, struct str data, void *arg, struct err *e)
{
    struct follow *f = arg;
    struct arena scratch = { 0 };
    bool end = str_eq_z(event, "end");
    json_t *j;
    int r = json_parse(data, JSON_DEPTH, end ? &f->cli->arena : &scratch, &j, NULL, e);

    if (r == 0 && end)
        f->record = j;
    else if (r == 0 && str_eq_z(event, "output") && !f->cli->json)
        show(f, j);
    arena_done(&scratch);
    return r < 0 ? r : end;
}

/* Until the task has ended, whatever happens to the connections. */
static CO int follow_on(struct follow *f, struct err *e)
{
    const char *path = task_path(f->cli, f->id, "/output");
    uint64_t away = 0;
    int r;

    for (;;) {
        r = api_events(f->cli, path, NULL, (struct str){ 0 }, on_event, f, e);
        if (r == 1)
            return 0;
        if (r < 0 && (f->cli->refused || e->code == ERR_CANCELED || e->code == ERR_INVALID))
            return r;
        if (r == 0) /* ended without a word: the hub stops */
            away = 0;
        away = away ? away : now_ms();
        if (now_ms() - away > AWAY_MS)
            return r < 0 ? r : err_set(e, ERR_UNAVAILABLE, "the hub is away");
        f->again = true;
        r = fiber_sleep(AGAIN_MS, e);
        if (r < 0)
            return r;
    }
}

static CO int follow_fiber(void *arg, struct err *e)
{
    struct follow *f = arg;

    f->r = follow_on(f, &f->e);
    f->done = true;
    fiber_wake(f->waiter);
    return 0;
}

static void on_signal(void *arg)
{
    struct follow *f = arg;

    f->signals++;
    fiber_wake(f->waiter);
}

static CO void cancel_task(struct follow *f)
{
    struct err e;
    json_t *answer;

    if (api_call(f->cli, HTTP_M_POST, task_path(f->cli, f->id, "/cancel"), STR("{}"), &answer, &e) <
        0)
        answer = NULL; /* it has ended meanwhile, or the hub is away: a second Ctrl-C leaves */
    f->cli->refused = f->cli->no_daemon = false;
}

/* Park until the other fiber has finished. Positive: we gave up. */
static CO int watch(struct follow *f, long long give_up_ms, struct err *e)
{
    uint64_t deadline = give_up_ms > 0 ? deadline_in(give_up_ms) : DEADLINE_NONE;
    bool canceled = false, late = false;
    struct err parked;
    int r;

    while (!f->done) {
        r = fiber_park(deadline, &parked);
        if (f->done)
            break;
        if (r == -ERR_CANCELED)
            return err_set(e, ERR_CANCELED, "canceled");
        if (f->signals > 1 || (canceled && r == -ERR_TIMEOUT))
            return late ? CLI_TIMEOUT : CLI_INTERRUPTED;
        if (!canceled && (f->signals || r == -ERR_TIMEOUT)) {
            canceled = true;
            late = !f->signals;
            deadline = deadline_in(LATE_MS);
            cancel_task(f);
        }
    }
    if (f->r < 0)
        *e = f->e;
    return f->r < 0 ? f->r : late ? CLI_TIMEOUT : canceled ? CLI_INTERRUPTED : 0;
}

/* Agents of the original protocol say nothing while they work. */
static void show_result(const struct follow *f)
{
    const json_t *result = json_object_get(response_of(f->record), "result");
    struct str out = json_member_str(result, "stdout"), err = json_member_str(result, "stderr");

    if (out.n && !f->out[0].end)
        printf(STR_FMT "\n", STR_ARG(out));
    if (err.n && !f->out[1].end)
        fprintf(stderr, STR_FMT "\n", STR_ARG(err));
}

CO int task_follow(struct cli *cli, const char *id, long long give_up_ms, json_t **ret,
                   struct err *e)
{
    struct follow f = { .cli = cli, .id = id, .waiter = fiber_self() };
    struct loop_signal *interrupt, *term;
    struct fiber *fiber;
    struct err ignored;
    int r;

    r = fiber_spawn(cli->loop, "follow", follow_fiber, &f, &fiber, e);
    if (r < 0)
        return r;
    interrupt = loop_signal_new(cli->loop, SIGINT, on_signal, &f);
    term = loop_signal_new(cli->loop, SIGTERM, on_signal, &f);
    r = watch(&f, give_up_ms, e);
    if (!f.done)
        fiber_cancel(fiber);
    (void)fiber_join(fiber, &ignored); /* its outcome is in f */
    loop_signal_free(interrupt);
    loop_signal_free(term);
    if (f.record && !cli->json)
        show_result(&f);
    *ret = f.record;
    return r;
}

/* --- exec --- */

const char *join_words(struct cli *cli, const char *const *words, size_t n)
{
    const char *all = n ? words[0] : "";

    for (size_t i = 1; i < n; i++)
        all = arena_printf(&cli->arena, "%s %s", all, words[i]);
    return all;
}

const char *shell_word(struct cli *cli, const char *text)
{
    char *out = arena_alloc(&cli->arena, 4 * strlen(text) + 3), *end = out;

    *end++ = '\'';
    for (; *text; text++) {
        if (*text == '\'')
            end = mempcpy(end, "'\\''", 4);
        else
            *end++ = *text;
    }
    *end++ = '\'';
    *end = '\0';
    return out;
}

static int exec_end(struct cli *cli, int stopped, const json_t *record, struct err *e)
{
    const json_t *result = json_object_get(response_of(record), "result");
    int status = record ? task_exit_status(record) : stopped, r;
    bool plain = json_is_integer(json_object_get(result, "exitCode"));

    if (stopped)
        status = stopped;
    if (cli->json && record) {
        r = print_json(record, e);
        return r < 0 ? r : status;
    }
    fflush(stdout);
    if (stopped == CLI_INTERRUPTED)
        fprintf(stderr, "canceled\n");
    else if (status == CLI_TIMEOUT)
        fprintf(stderr, "%s: timed out\n", cli->vm ? "Command failed" : "chela");
    else if (status && !plain)
        fprintf(stderr, "%s: %s\n", cli->vm ? "Command failed" : "chela",
                harmless(cli, stderr, task_error(cli, record)));
    else if (status && cli->vm)
        fprintf(stderr, "Command failed\n");
    return status;
}

/* Through the agent: a task. */
static CO int exec_task(struct cli *cli, const struct exec_opts *o, const char *command,
                        struct err *e)
{
    AUTO(json_decref) json_t *body = json_pack("{s:s, s:s}", "type", "exec", "command", command);
    json_t *answer, *record = NULL;
    struct str text;
    int r;

    put_text(body, "cwd", o->cwd);
    if (o->timeout_ms > 0)
        json_object_set_new(body, "timeout", json_integer(o->timeout_ms));
    if (o->sudo) {
        json_object_set_new(body, "sudo", json_true());
        json_object_set_new(body, "allowSudo", json_true());
    }
    r = o->input ? stdin_give(cli, o->name, body, e) : 0;
    if (r == 0)
        r = api_body(cli, json_incref(body), &text, e);
    if (r == 0)
        r = api_call(cli, HTTP_M_POST, agent_path(cli, o->name, "/task"), text, &answer, e);
    if (r == 0)
        r = task_follow(cli, member_text(cli, answer, "taskId"),
                        o->timeout_ms ? o->timeout_ms + LATE_MS : 0, &record, e);
    return r < 0 ? r : exec_end(cli, r, record, e);
}

/* Tasks for a machine that is off would wait. */
static int check_on(struct cli *cli, const char *name, const json_t *machine, struct err *e)
{
    const char *state = member_text(cli, machine, "state");

    if (!machine || strcmp(state, "running") == 0 || machine_busy(machine))
        return 0;
    return err_set(e, ERR_UNAVAILABLE, "machine '%s' is %s: start it first", name, state);
}

static bool from_host(const json_t *machine)
{
    return json_array_size(json_object_get(machine, "exec")) > 0;
}

CO int machine_exec(struct cli *cli, const struct exec_opts *o, struct err *e)
{
    const char *command = join_words(cli, o->words, o->n_words);
    const char *shell =
        o->cwd ? arena_printf(&cli->arena, "cd %s && %s", shell_word(cli, o->cwd), command)
               : command;
    const char *plain[] = { "bash", "-lc", shell, NULL };
    const char *root[] = { "sudo", "-n", "--", "bash", "-lc", shell, NULL };
    json_t *machine;
    int r = machine_ask(cli, o->name, &machine, e);

    if (r == 0)
        r = check_on(cli, o->name, machine, e);
    if (r < 0)
        return r;
    if (cli->vm)
        fprintf(stderr, "Executing in %s: %s\n", o->name, command);
    if (from_host(machine))
        return host_run(cli, machine, "cli.exec", shell, o->sudo ? root : plain, o->timeout_ms, e);
    return exec_task(cli, o, command, e);
}

/* --- logs --- */

/* What is new: behind where the end of the old text is found again. */
static struct str new_part(struct str old, struct str now)
{
    struct str tail = old.n > 1024 ? (struct str){ old.p + old.n - 1024, 1024 } : old;
    const char *at = NULL, *from = now.p;

    while (tail.n && (from = memmem(from, now.n - (size_t)(from - now.p), tail.p, tail.n))) {
        at = from + tail.n;
        from++;
    }
    return at ? (struct str){ at, now.n - (size_t)(at - now.p) } : now;
}

static CO int machine_printed(struct cli *cli, const char *name, const char *lines, bool follow,
                              struct err *e)
{
    const char *path = machine_path(cli, name, arena_printf(&cli->arena, "/logs?lines=%s", lines));
    AUTO(free) char *held = NULL;
    struct str old = { 0 };

    for (;;) {
        struct arena kept = scratch_begin(cli);
        struct str text, fresh;
        int r;

        r = api_call_raw(cli, HTTP_M_GET, path, NULL, (struct str){ 0 }, &text, e);
        if (r == 0) {
            fresh = new_part(old, text);
            printf(STR_FMT, STR_ARG(fresh));
            fflush(stdout);
            free(held);
            held = str_dup(text);
            old = str_of(held);
        }
        scratch_end(cli, kept);
        if (r < 0 || !follow)
            return r;
        r = fiber_sleep(LOGS_MS, e);
        if (r < 0)
            return r;
    }
}

CO int machine_logs(struct cli *cli, const char *name, const char *lines, bool follow,
                    struct err *e)
{
    const char *journal[] = { "sudo", "-n",  "journalctl",         "-u", "vm-agent", "--no-pager",
                              "-n",   lines, follow ? "-f" : NULL, NULL };
    struct exec_opts agent = { .name = name, .words = journal + 2, .n_words = follow ? 7 : 6 };
    json_t *machine;
    long long n;
    int r = int_parse(str_of(lines), 1, 1000000, &n, e);

    if (r < 0)
        return err_wrap(e, "--lines");
    r = machine_ask(cli, name, &machine, e);
    if (r < 0)
        return r;
    if (cli->vm)
        fprintf(stderr, "Logs of %s, the newest %s lines%s:\n\n", name, lines,
                follow ? " (Ctrl-C ends)" : "");
    if (from_host(machine))
        return host_run(cli, machine, "cli.logs", "journalctl -u vm-agent", journal, 0, e);
    if (machine)
        return machine_printed(cli, name, lines, follow, e);
    return exec_task(cli, &agent, join_words(cli, agent.words, agent.n_words), e);
}
