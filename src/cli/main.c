/* SPDX-License-Identifier: MIT */
/*
 * cli/main.c — chela: find the command's row, run it in a fiber, end with its status. Called as
 * vm-agent it is another command line over the same: vm_agent.c.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "cli/vm_agent.h"

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
    &cmd_machine_ls,
    &cmd_machine_create,
    &cmd_machine_show,
    &cmd_machine_start,
    &cmd_machine_stop,
    &cmd_machine_restart,
    &cmd_machine_snapshot,
    &cmd_machine_snapshots,
    &cmd_machine_forget,
    &cmd_machine_restore,
    &cmd_machine_destroy,
    &cmd_machine_exec,
    &cmd_machine_shell,
    &cmd_machine_logs,
    &cmd_machine_cp,
    &cmd_machine_apply,
    &cmd_machine_drivers,
    &cmd_task_ls,
    &cmd_task_show,
    &cmd_task_send,
    &cmd_task_cancel,
    &cmd_task_output,
    &cmd_task_dead,
    &cmd_dead_ls,
    &cmd_dead_show,
    &cmd_dead_replay,
    &cmd_dead_drop,
    &cmd_hub_agents,
    &cmd_hub_register,
    &cmd_hub_rm,
    &cmd_hub_drain,
    &cmd_hub_events,
    &cmd_hub_top,
    &cmd_hub_audit,
    &cmd_hub_install,
    &cmd_audit_verify,
    &cmd_profile_ls,
    &cmd_profile_show,
    &cmd_profile_create,
    &cmd_profile_rm,
    &cmd_store_copy,
    &cmd_status,
    &cmd_version,
    &cmd_completion,
    NULL,
};

static int status_of(const struct cli *cli, const struct err *e)
{
    if (cli->interrupted)
        return CLI_INTERRUPTED;
    if (cli->no_daemon)
        return CLI_NO_DAEMON;
    if (e->code == ERR_NOT_FOUND && !strstr(e->msg, strerror(ENOENT)))
        return CLI_NOT_FOUND; /* a file of this host that is not there is a plain failure */
    if (cli->refused)
        return CLI_FAILED;
    return e->code == ERR_INVALID ? CLI_USAGE : CLI_FAILED; /* what we refuse ourselves */
}

/* Why it failed, on stderr: a line for people, or with --json one of JSON. */
static int failed(struct cli *cli, int status, const char *why)
{
    AUTO(json_decref) json_t *said = NULL;
    struct err unwritten;
    struct str text;

    if (cli->json) {
        said = json_pack("{s:s+, s:i}", "error", why, "", "exit_status", status);
        if (said && json_text(said, SIZE_MAX / 2, &cli->arena, &text, &unwritten) == 0)
            fprintf(stderr, STR_FMT "\n", STR_ARG(text));
    }
    if (!said)
        fprintf(stderr, "chela: %s\n", harmless(cli, stderr, why));
    return status;
}

/* "Agent not found" does not say which: what was asked for. */
static const char *with_name(struct cli *cli, const struct args *args, const struct err *e)
{
    if (!cli->refused || e->code != ERR_NOT_FOUND || !args->n_words ||
        strstr(e->msg, args->words[0]))
        return e->msg;
    return arena_printf(&cli->arena, "%s: %s", args->words[0], e->msg);
}

int main(int argc, char **argv)
{
    struct cli cli = {
        .state = getenv("CHELA_STATE"),
        .url = getenv("CHELA_URL"),
        .token = getenv("CHELA_TOKEN"),
        .hub_url = getenv("CHELA_HUB_URL"),
    };
    const struct cli_cmd *cmd = NULL;
    struct args args = { 0 };
    struct err e;
    int r, status;

    signal(SIGPIPE, SIG_DFL);
    log_setup(LOG_WARN, LOG_TEXT);
    if (vm_agent_called(argv[0]))
        return vm_agent_main(argc, argv);
    r = args_parse(&cli, argc, argv, &cmd, &args, &e);
    if (r == ARGS_VERSION) {
        printf("chela %s\n", CHELA_VERSION);
        return CLI_OK;
    }
    if (r == ARGS_HELP) {
        args_help(cmd, &args);
        return CLI_OK;
    }
    if (r < 0)
        return failed(&cli, CLI_USAGE, e.msg);
    r = cli_run(&cli, cmd, &args, &e);
    status = r < 0 ? failed(&cli, status_of(&cli, &e), with_name(&cli, &args, &e)) : r;
    arena_done(&cli.arena);
    if (fflush(stdout) == EOF && status == CLI_OK) {
        perror("chela: standard output");
        return CLI_FAILED;
    }
    return status;
}
