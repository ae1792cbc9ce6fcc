/* SPDX-License-Identifier: MIT */
/* agent/run_test.c — real programs: how they end, what they say, and that nothing of them stays. */
#include <signal.h>
#include <stdio.h>

#include "agent/live.h"
#include "agent/task.h"
#include "in_fiber.h"

static char agent_id[] = "a1";
static struct agent_conf conf = { .id = agent_id, .default_timeout_ms = 60000 };
static struct loop *the_loop;

const struct agent_conf *agent_conf(const struct agent *a)
{
    return &conf;
}

struct loop *agent_loop(const struct agent *a)
{
    return the_loop;
}

void live_attach(struct live *l, const struct buf *out, const struct buf *err)
{
}

void live_more(struct live *l)
{
}

CO void live_detach(struct live *l)
{
}

struct outcome {
    int r;
    struct err e;
    struct run_result ran;
    struct arena arena;
    struct task task;
};

static void over(struct outcome *o)
{
    run_done(&o->ran);
    arena_done(&o->arena);
}

static CO int go(struct outcome *o, const struct run_spec *spec)
{
    memset(o, 0, sizeof(*o));
    the_loop = fiber_loop();
    o->task = (struct task){ .id = "t", .from = "host", .arena = &o->arena };
    o->r = run_program(&o->task, spec, &o->ran, &o->e);
    return o->r;
}

static bool says(const struct buf *b, const char *text)
{
    return str_eq_z(buf_str(b), text);
}

CO_TEST(output_is_trimmed_and_made_utf8)
{
    struct outcome o;

    CO_CHECK(go(&o, &(struct run_spec){ .command = "printf ' \\n a b\\377\\000c \\n'; echo err >&2",
                                        .limit = 1000 }) == 0);
    CO_CHECK(says(&o.ran.out, "a b\xef\xbf\xbd\xef\xbf\xbd"
                              "c"));
    CO_CHECK(says(&o.ran.err, "err"));
    CO_CHECK(o.ran.exit_code == 0 && !o.ran.signal && !o.ran.timed_out && !o.ran.truncated);
    over(&o);
    return 0;
}

CO_TEST(a_failure_has_the_originals_text_and_what_was_said)
{
    struct outcome o;

    CO_CHECK(go(&o, &(struct run_spec){ .command = "echo out; echo why >&2; exit 4",
                                        .limit = 1000 }) < 0);
    CO_CHECK(strcmp(o.task.error, "Command failed: echo out; echo why >&2; exit 4\nwhy\n") == 0);
    CO_CHECK(o.ran.exit_code == 4 && says(&o.ran.out, "out"));
    over(&o);
    CO_CHECK(go(&o, &(struct run_spec){ .command = "kill -KILL $$", .limit = 1000 }) < 0);
    CO_CHECK(o.ran.exit_code == -1 && strcmp(o.ran.signal, "SIGKILL") == 0);
    over(&o);
    return 0;
}

CO_TEST(a_program_by_argv_is_given_its_words_as_they_are)
{
    static const char *const argv[] = { "printf", "%s|%s", "a b", "$(id)", NULL };
    static const char *const none[] = { "no-such-program-x", "1", NULL };
    struct outcome o;

    CO_CHECK(go(&o, &(struct run_spec){ .argv = argv, .limit = 1000 }) == 0);
    CO_CHECK(says(&o.ran.out, "a b|$(id)"));
    over(&o);
    CO_CHECK(go(&o, &(struct run_spec){ .argv = none, .limit = 1000 }) < 0);
    CO_CHECK(strncmp(o.task.error, "Command failed: no-such-program-x 1\n", 36) == 0);
    over(&o);
    return 0;
}

/* More than a pipe holds, to one that takes it, one that does not, and one that ends first. */
CO_TEST(standard_input_is_given_to_its_end)
{
    size_t n = 300000;
    AUTO(free) char *text = xmalloc(n);
    struct outcome o;

    memset(text, 'x', n);
    CO_CHECK(go(&o, &(struct run_spec){ .command = "wc -c", .input = { text, n }, .limit = 100 }) ==
             0);
    CO_CHECK(says(&o.ran.out, "300000"));
    over(&o);
    CO_CHECK(go(&o, &(struct run_spec){
                        .command = "head -c 2", .input = { text, n }, .limit = 100 }) == 0);
    CO_CHECK(says(&o.ran.out, "xx"));
    over(&o);
    CO_CHECK(go(&o, &(struct run_spec){
                        .command = "sleep 0.1; echo a", .input = { text, n }, .limit = 100 }) == 0);
    CO_CHECK(says(&o.ran.out, "a"));
    over(&o);
    CO_CHECK(go(&o, &(struct run_spec){ .command = "cat; echo z", .input = STR(""), .limit = 9 }) ==
             0);
    CO_CHECK(says(&o.ran.out, "z"));
    over(&o);
    return 0;
}

CO_TEST(directory_and_environment_are_those_of_the_task)
{
    json_t *env = json_pack("{s:s, s:i, s:b}", "CHELA_X", "of task", "CHELA_N", 7, "CHELA_B", 1);
    struct outcome o;

    setenv("AGENT_TOKEN", "secret", 1);
    setenv("CHELA_X", "of ours", 1);
    conf.env = json_pack("{s:s, s:s}", "CHELA_X", "of conf", "CHELA_Y", "of conf");
    CO_CHECK(go(&o, &(struct run_spec){
                        .command = "pwd; echo $CHELA_X $CHELA_Y $CHELA_N $CHELA_B [$AGENT_TOKEN]",
                        .cwd = "/usr/bin",
                        .env = env,
                        .limit = 1000 }) == 0);
    CO_CHECK(says(&o.ran.out, "/usr/bin\nof task of conf 7 true []"));
    over(&o);
    CO_CHECK(go(&o, &(struct run_spec){ .command = "true", .cwd = "/nonexistent", .limit = 10 }) <
             0);
    CO_CHECK(strcmp(o.task.error, "cwd does not exist: /nonexistent") == 0);
    over(&o);
    CO_CHECK(go(&o, &(struct run_spec){ .command = "true", .cwd = "/etc/passwd", .limit = 10 }) <
             0);
    CO_CHECK(strcmp(o.task.error, "cwd is not a directory: /etc/passwd") == 0);
    over(&o);
    json_decref(conf.env);
    conf.env = NULL;
    json_decref(env);
    unsetenv("AGENT_TOKEN");
    return 0;
}

CO_TEST(past_the_limit_it_is_ended_and_the_beginning_kept)
{
    struct outcome o;

    CO_CHECK(go(&o, &(struct run_spec){ .command = "yes", .limit = 100000 }) == -ERR_LIMIT);
    CO_CHECK(strcmp(o.task.error, "stdout maxBuffer length exceeded") == 0);
    CO_CHECK(o.ran.truncated && o.ran.out.n == 99999); /* the last line feed is trimmed */
    over(&o);
    CO_CHECK(go(&o, &(struct run_spec){ .command = "yes >&2", .limit = 1000 }) == -ERR_LIMIT);
    CO_CHECK(strcmp(o.task.error, "stderr maxBuffer length exceeded") == 0);
    over(&o);
    CO_CHECK(go(&o, &(struct run_spec){ .command = "head -c 1000 /dev/zero | tr '\\0' x",
                                        .limit = 1000 }) == 0);
    CO_CHECK(!o.ran.truncated && o.ran.out.n == 1000);
    over(&o);
    return 0;
}

/* The process of the first line of what was said is gone, but for zombies that nobody reaps here.
 */
static bool is_dead(const struct outcome *o)
{
    char path[64], stat[512] = "";
    FILE *f;

    fmt_z(path, sizeof(path), "/proc/%lld/stat", strtoll(buf_str(&o->ran.out).p, NULL, 10));
    f = fopen(path, "r");
    if (!f)
        return true;
    if (!fgets(stat, sizeof(stat), f))
        stat[0] = '\0';
    fclose(f);
    return strstr(stat, ") Z") != NULL;
}

/* It may take a moment to die of its signal. */
static CO bool is_gone(const struct outcome *o)
{
    struct err e;

    for (int i = 0; i < 1000 && !is_dead(o); i++)
        if (fiber_sleep(10, &e) < 0)
            break;
    return is_dead(o);
}

CO_TEST(a_time_out_ends_the_group_even_what_does_not_listen)
{
    struct outcome o;

    CO_CHECK(go(&o, &(struct run_spec){ .command = "(trap '' TERM; sleep 600) & echo $!; wait",
                                        .timeout_ms = 200,
                                        .limit = 1000 }) == -ERR_TIMEOUT);
    CO_CHECK(o.ran.timed_out && strstr(o.task.error, "timed out after 200 ms") != NULL);
    CO_CHECK(is_gone(&o));
    over(&o);
    return 0;
}

static CO int canceled_one(void *arg, struct err *e)
{
    return go(arg, &(struct run_spec){ .command = "sleep 600 & echo $!; wait", .limit = 1000 });
}

CO_TEST(a_cancel_ends_the_group)
{
    static struct outcome o;
    struct fiber *f;

    CO_CHECK(fiber_spawn(fiber_loop(), "canceled", canceled_one, &o, &f, e) == 0);
    while (o.ran.out.n == 0)
        CO_CHECK(fiber_sleep(10, e) == 0);
    fiber_cancel(f);
    CO_CHECK(fiber_join(f, e) == -ERR_CANCELED);
    CO_CHECK(is_gone(&o));
    over(&o);
    return 0;
}

CO_TEST(it_waits_for_all_who_hold_its_output_as_nodes_exec_does)
{
    struct outcome o;

    CO_CHECK(go(&o, &(struct run_spec){ .command = "(sleep 0.3; echo late) & echo early",
                                        .limit = 1000 }) == 0);
    CO_CHECK(says(&o.ran.out, "early\nlate"));
    over(&o);
    return 0;
}

CO_TEST(standard_input_is_at_its_end)
{
    struct outcome o;

    CO_CHECK(go(&o, &(struct run_spec){ .command = "cat; echo end", .limit = 1000 }) == 0);
    CO_CHECK(says(&o.ran.out, "end"));
    over(&o);
    return 0;
}
