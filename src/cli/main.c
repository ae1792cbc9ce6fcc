/* SPDX-License-Identifier: MIT */
/*
 * cli/main.c — chela: find the command's row, run it in a fiber, end with its status.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/offload.h"
#include "cli/cli.h"

const struct cli_cmd *const cli_commands[] = {
    &cmd_agent_add,
    &cmd_agent_ls,
    &cmd_agent_rm,
    &cmd_agent_call,
    &cmd_agent_health,
    &cmd_session_ls,
    &cmd_session_show,
    &cmd_session_rm,
    &cmd_session_export,
    &cmd_session_import,
    &cmd_session_cleanup,
    &cmd_key_create,
    &cmd_key_ls,
    &cmd_key_rm,
    &cmd_workflow_ls,
    &cmd_workflow_show,
    &cmd_workflow_steps,
    &cmd_workflow_start,
    &cmd_workflow_result,
    &cmd_workflow_cancel,
    &cmd_workflow_resume,
    &cmd_workflow_fork,
    &cmd_workflow_retry,
    &cmd_workflow_rewind,
    &cmd_workflow_send,
    &cmd_workflow_rm,
    &cmd_workflow_stats,
    &cmd_queue_ls,
    &cmd_queue_set,
    &cmd_queue_rm,
    &cmd_schedule_ls,
    &cmd_schedule_set,
    &cmd_schedule_rm,
    &cmd_schedule_pause,
    &cmd_schedule_resume,
    &cmd_schedule_trigger,
    &cmd_schedule_backfill,
    &cmd_message_ls,
    &cmd_message_show,
    &cmd_message_send,
    &cmd_message_replay,
    &cmd_message_drop,
    &cmd_swarm_status,
    &cmd_swarm_health,
    &cmd_swarm_routing,
    &cmd_swarm_command,
    &cmd_swarm_trackers,
    &cmd_swarm_agents,
    &cmd_swarm_create,
    &cmd_swarm_show,
    &cmd_swarm_provision,
    &cmd_swarm_pause,
    &cmd_swarm_resume,
    &cmd_swarm_heartbeat,
    &cmd_swarm_message,
    &cmd_swarm_rm,
    &cmd_store_copy,
    &cmd_status,
    &cmd_version,
    &cmd_completion,
    NULL,
};

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

static int exit_status(const struct cli *cli, int r, const struct err *e)
{
    if (r >= 0)
        return r;
    fprintf(stderr, "chela: %s\n", e->msg);
    if (cli->no_daemon)
        return CLI_NO_DAEMON;
    if (cli->refused)
        return e->code == ERR_NOT_FOUND ? CLI_NOT_FOUND : CLI_FAILED;
    return e->code == ERR_INVALID ? CLI_USAGE : CLI_FAILED; /* what we refuse ourselves */
}

static int run(struct cli *cli, const struct cli_cmd *cmd, const struct args *args, struct err *e)
{
    const struct http_client_conf conf = { 0 };
    struct job job = { .cli = cli, .cmd = cmd, .args = args };
    int r;

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

int main(int argc, char **argv)
{
    struct cli cli = {
        .state = getenv("CHELA_STATE"),
        .url = getenv("CHELA_URL"),
        .token = getenv("CHELA_TOKEN"),
    };
    const struct cli_cmd *cmd = NULL;
    struct args args = { 0 };
    struct err e;
    int r, status;

    signal(SIGPIPE, SIG_DFL);
    log_setup(LOG_WARN, LOG_TEXT);
    r = args_parse(&cli, argc, argv, &cmd, &args, &e);
    if (r == ARGS_VERSION) {
        printf("chela %s\n", CHELA_VERSION);
        return CLI_OK;
    }
    if (r == ARGS_HELP) {
        args_help(cmd);
        return CLI_OK;
    }
    if (r < 0) {
        fprintf(stderr, "chela: %s\n", e.msg);
        return CLI_USAGE;
    }
    r = run(&cli, cmd, &args, &e);
    status = exit_status(&cli, r, &e);
    arena_done(&cli.arena);
    if (fflush(stdout) == EOF && status == CLI_OK) {
        perror("chela: standard output");
        return CLI_FAILED;
    }
    return status;
}
