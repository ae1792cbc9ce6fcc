/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_queue.c — chela queue ls|set|rm.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cmd_int.h"
#include "cli/input.h"

/* 0 is no limit. */
static const char *limit_text(struct cli *cli, const json_t *queue, const char *key)
{
    return json_integer_value(json_object_get(queue, key)) ? member_text(cli, queue, key) : "-";
}

/* "10/60 s" */
static const char *rate_text(struct cli *cli, const json_t *queue, const char *key)
{
    json_int_t max = json_integer_value(json_object_get(queue, key));

    if (!max)
        return "-";
    return arena_printf(&cli->arena, "%lld/%g s", (long long)max,
                        json_number_value(json_object_get(queue, "rate_period_s")));
}

static CO int ls(struct cli *cli, const struct args *args, struct err *e)
{
    static const struct column columns[] = {
        { "QUEUE", "name" },
        { ">AT ONCE", "concurrency", .text = limit_text },
        { ">HERE", "worker_concurrency", .text = limit_text },
        { ">RATE", "rate_max", .text = rate_text },
        { ">ENQUEUED", "enqueued" },
        { ">DELAYED", "delayed" },
        { ">RUNNING", "pending" },
        { "OLDEST", "oldest_at", .time = true },
        { "SERVED", "served_here" },
    };

    return print_list(cli, "/api/v1/queues", "queues", columns, LEN(columns), e);
}

const struct cli_cmd cmd_queue_ls = {
    .name = "queue ls",
    .words = "",
    .doc = "List the queues, their limits and how full they are.",
    .example = "queue ls",
    .run = ls,
};

static const struct cli_flag set_flags[] = {
    { "concurrency", "N", "running at once, in all processes; 0 or none: no limit, as below" },
    { "worker-concurrency", "N", "running at once in one process" },
    { "rate", "N/TIME", "starts in a time, for example 10/60s" },
    { "partition-concurrency", "N", "the same per partition key" },
    { "partition-worker-concurrency", "N", "" },
    { "partition-rate", "N/TIME", "" },
    { "polling", "TIME", "how often it is looked at without a hint (default 1s)" },
    { "hold-slot", NULL, "a workflow that waits for long keeps its place in the limits" },
};

static int put_seconds(json_t *body, const char *key, struct str text, struct err *e)
{
    long long ms;
    int r = duration_parse(text, &ms, e);

    if (r == 0)
        json_object_set_new(body, key, json_real((double)ms / 1000));
    return r;
}

static int put_rate(json_t *body, const char *max, const char *period, const char *flag,
                    const char *value, struct err *e)
{
    struct str rest = str_of(value), number;
    long long n;
    int r;

    if (!value)
        return 0;
    if (!str_split(&rest, '/', &number) || !rest.n)
        return err_set(e, ERR_INVALID, "--%s: N/TIME, for example 10/60s", flag);
    r = int_parse(number, 0, INT32_MAX, &n, e);
    if (r == 0)
        json_object_set_new(body, max, json_integer(n));
    if (r == 0)
        r = put_seconds(body, period, rest, e);
    return r < 0 ? err_wrap(e, "--%s", flag) : 0;
}

static int build(const struct args *args, json_t *body, struct err *e)
{
    static const char *const counts[][2] = {
        { "concurrency", "concurrency" },
        { "worker-concurrency", "worker_concurrency" },
        { "partition-concurrency", "partition_concurrency" },
        { "partition-worker-concurrency", "partition_worker_concurrency" },
    };
    const char *polling = args_flag(&cmd_queue_set, args, "polling");
    int r = 0;

    for (size_t i = 0; r == 0 && i < LEN(counts); i++)
        r = put_int(body, counts[i][1], counts[i][0], args_flag(&cmd_queue_set, args, counts[i][0]),
                    e);
    if (r == 0)
        r = put_rate(body, "rate_max", "rate_period_s", "rate",
                     args_flag(&cmd_queue_set, args, "rate"), e);
    if (r == 0)
        r = put_rate(body, "partition_rate_max", "partition_rate_period_s", "partition-rate",
                     args_flag(&cmd_queue_set, args, "partition-rate"), e);
    if (r == 0 && polling && put_seconds(body, "polling_s", str_of(polling), e) < 0)
        return err_wrap(e, "--polling");
    if (args_flag(&cmd_queue_set, args, "hold-slot"))
        json_object_set_new(body, "hold_slot", json_true());
    return r;
}

static CO int set(struct cli *cli, const struct args *args, struct err *e)
{
    AUTO(json_decref) json_t *body = json_object();
    int r;

    r = build(args, body, e);
    if (r < 0)
        return r;
    return post_and_say(cli, HTTP_M_PUT, api_path(cli, "/api/v1/queues/", args->words[0], ""),
                        json_incref(body), "set", args->words[0], e);
}

const struct cli_cmd cmd_queue_set = {
    .name = "queue set",
    .words = "<name>",
    .min = 1,
    .max = 1,
    CLI_FLAGS(set_flags),
    .doc = "Make a queue, or replace its limits.",
    .example = "queue set mail --concurrency=5 --rate=10/60s",
    .run = set,
};

static CO int rm(struct cli *cli, const struct args *args, struct err *e)
{
    json_t *answer;
    int r;

    r = api_call(cli, HTTP_M_DELETE, api_path(cli, "/api/v1/queues/", args->words[0], ""),
                 (struct str){ 0 }, &answer, e);
    return r < 0 ? r : print_removed(cli, args->words[0], e);
}

const struct cli_cmd cmd_queue_rm = {
    .name = "queue rm",
    .words = "<name>",
    .min = 1,
    .max = 1,
    .doc = "Remove a queue's definition; what is in it stays.",
    .example = "queue rm mail",
    .run = rm,
};
