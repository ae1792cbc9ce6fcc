/* SPDX-License-Identifier: MIT */
/*
 * cli/run.c — a command in a fiber, on a loop of its own.
 */
#include "base/offload.h"
#include "cli/cli.h"

struct job {
    struct cli *cli;
    const struct cli_cmd *cmd;
    const struct args *args;
    int r;
    struct err e;
};

static CO int flow(void *arg, struct err *e)
{
    struct job *job = arg;

    job->r = job->cmd->run(job->cli, job->args, &job->e);
    loop_stop(job->cli->loop);
    return 0;
}

int cli_run(struct cli *cli, const struct cli_cmd *cmd, const struct args *args, struct err *e)
{
    const struct http_client_conf conf = { 0 };
    struct job job = { .cli = cli, .cmd = cmd, .args = args };
    int r;

    cli->hub = cmd->hub;
    r = loop_new(&cli->loop, e);
    if (r == 0)
        r = http_client_new(cli->loop, &conf, &cli->client, e);
    if (r == 0)
        r = fiber_spawn(cli->loop, "command", flow, &job, NULL, e);
    if (r < 0)
        return r;
    loop_run(cli->loop);
    http_client_free(cli->client);
    offload_shutdown();
    loop_free(cli->loop);
    if (job.r < 0)
        *e = job.e;
    return job.r;
}
