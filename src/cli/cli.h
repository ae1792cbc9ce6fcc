/* SPDX-License-Identifier: MIT */
/*
 * cli/cli.h — what a command of chela is made of: a row with its words and flags, a function that
 * runs in a fiber, and a way to the daemon (its unix socket, or --url with a token).
 *
 * A command prints its result on stdout, as a table for people or as JSON with --json; everything
 * else goes to stderr.
 */
#pragma once

#include <stdbool.h>

#include "base/arena.h"
#include "base/json.h"
#include "net/http_client.h"

enum {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NOT_FOUND = 3,
    CLI_NO_DAEMON = 4,
    CLI_INTERRUPTED = 130,
};

#define CLI_FLAGS_MAX 20

struct cli_flag {
    const char *name;  /* "session": --session */
    const char *value; /* "ID", or NULL for a switch */
    const char *doc;
    char letter;     /* of vm-agent: -t */
    const char *def; /* of vm-agent: shown in its help, applied by the command */
};

struct cli {
    const char *state; /* the state directory whose socket we use */
    const char *url;   /* instead: where the daemon listens */
    const char *token;
    const char *hub_url; /* where its hub listens, for commands about agents and machines */
    bool json;
    bool hub;          /* this command talks to the hub: hub.sock, or hub_url */
    bool vm;           /* called as vm-agent: its texts, its marks */
    bool no_daemon;    /* set when nobody answered: its own exit status */
    bool refused;      /* set when the daemon answered with an error */
    bool interrupted;  /* set when Ctrl-C has ended the waiting: its own exit status */
    int status;        /* of that answer, */
    struct str answer; /* and what it said, in the arena */
    struct loop *loop;
    struct http_client *client;
    struct arena arena; /* lives as long as the command */
};

/* What was given: the words behind the command's name, and its flags by the row's order. */
struct args {
    const char *const *words; /* in the cli's arena */
    size_t n_words;
    const char *flags[CLI_FLAGS_MAX]; /* NULL: not given; a switch is "" */
};

struct cli_cmd {
    const char *name;  /* "agent add" */
    const char *words; /* "<name> <url>", for the usage line */
    size_t min, max;   /* how many of them */
    size_t rest;       /* behind so many of them flags are words too: a command of others */
    bool hub;          /* it talks to the hub */
    const struct cli_flag *flags;
    size_t n_flags;
    const char *doc;
    const char *example; /* "agent ls --json": what help shows behind "chela" */
    /* 0 or the exit status to end with; <0: e is printed and its code picks the status. */
    CO int (*run)(struct cli *cli, const struct args *args, struct err *e);
};

#define CLI_FLAGS(array) .flags = (array), .n_flags = LEN(array)

/* Every command, in help order, ended by NULL. */
extern const struct cli_cmd *const cli_commands[];

extern const struct cli_cmd cmd_agent_add, cmd_agent_ls, cmd_agent_rm, cmd_agent_call,
    cmd_agent_health;
extern const struct cli_cmd cmd_session_ls, cmd_session_show, cmd_session_rm, cmd_session_export,
    cmd_session_import, cmd_session_cleanup;
extern const struct cli_cmd cmd_key_create, cmd_key_ls, cmd_key_rm;
extern const struct cli_cmd cmd_workflow_ls, cmd_workflow_show, cmd_workflow_steps,
    cmd_workflow_start, cmd_workflow_result, cmd_workflow_cancel, cmd_workflow_resume,
    cmd_workflow_fork, cmd_workflow_retry, cmd_workflow_rewind, cmd_workflow_send, cmd_workflow_rm,
    cmd_workflow_stats;
extern const struct cli_cmd cmd_queue_ls, cmd_queue_set, cmd_queue_rm;
extern const struct cli_cmd cmd_schedule_ls, cmd_schedule_set, cmd_schedule_rm, cmd_schedule_pause,
    cmd_schedule_resume, cmd_schedule_trigger, cmd_schedule_backfill;
extern const struct cli_cmd cmd_message_ls, cmd_message_show, cmd_message_send, cmd_message_replay,
    cmd_message_drop;
extern const struct cli_cmd cmd_swarm_status, cmd_swarm_health, cmd_swarm_routing;
extern const struct cli_cmd cmd_swarm_command, cmd_swarm_trackers;
extern const struct cli_cmd cmd_swarm_agents, cmd_swarm_create, cmd_swarm_show, cmd_swarm_provision,
    cmd_swarm_pause, cmd_swarm_resume, cmd_swarm_heartbeat, cmd_swarm_message, cmd_swarm_rm;
extern const struct cli_cmd cmd_machine_ls, cmd_machine_create, cmd_machine_show, cmd_machine_start,
    cmd_machine_stop, cmd_machine_restart, cmd_machine_snapshot, cmd_machine_snapshots,
    cmd_machine_forget, cmd_machine_restore, cmd_machine_destroy, cmd_machine_exec,
    cmd_machine_shell, cmd_machine_logs, cmd_machine_cp, cmd_machine_apply, cmd_machine_drivers;
extern const struct cli_cmd cmd_task_ls, cmd_task_show, cmd_task_send, cmd_task_cancel,
    cmd_task_output, cmd_task_dead;
extern const struct cli_cmd cmd_dead_ls, cmd_dead_show, cmd_dead_replay, cmd_dead_drop;
extern const struct cli_cmd cmd_hub_agents, cmd_hub_register, cmd_hub_rm, cmd_hub_drain,
    cmd_hub_events, cmd_hub_top, cmd_hub_audit, cmd_hub_install, cmd_audit_verify;
extern const struct cli_cmd cmd_profile_ls, cmd_profile_show, cmd_profile_create, cmd_profile_rm;
extern const struct cli_cmd cmd_store_copy, cmd_status, cmd_version, cmd_completion;

/* Parse argv into cli, *ret_cmd and args. 0, CLI_USAGE (said why on stderr), or <0. Pure but for
 * stderr. */
enum { ARGS_HELP = 100, ARGS_VERSION = 101 };
int args_parse(struct cli *cli, int argc, char **argv, const struct cli_cmd **ret_cmd,
               struct args *args, struct err *e) MUST_CHECK;
/* What ARGS_HELP asks for. cmd NULL: of the noun that is the word of args, or of all commands. */
void args_help(const struct cli_cmd *cmd, const struct args *args);

/* Run a command in a fiber on a loop of its own; what run() of its row returned. */
int cli_run(struct cli *cli, const struct cli_cmd *cmd, const struct args *args, struct err *e)
    MUST_CHECK;

/* The flag of that name of the command, NULL when not given. */
const char *args_flag(const struct cli_cmd *cmd, const struct args *args, const char *name);

/* --- the daemon --- */

/*
 * Ask the daemon. path is encoded already; body {NULL, 0}: none, else JSON. *ret is the parsed
 * answer (NULL for an empty one), in the cli's arena. An answer of 400 or more becomes an error
 * with the daemon's own words.
 */
CO int api_call(struct cli *cli, enum http_method method, const char *path, struct str body,
                json_t **ret, struct err *e) MUST_CHECK;

/* The same, with extra request headers ("Name: value", NULL-terminated) and the raw text of the
 * answer. */
CO int api_call_raw(struct cli *cli, enum http_method method, const char *path,
                    const char *const *headers, struct str body, struct str *ret, struct err *e)
    MUST_CHECK;

/* POST (without a body: GET) and hand each server-sent event to fn as it comes, until the daemon
 * ends the stream or fn returns something else than 0, which is returned. */
CO int api_events(struct cli *cli, const char *path, const char *const *headers, struct str body,
                  int (*fn)(struct str event, struct str data, void *arg, struct err *e), void *arg,
                  struct err *e) MUST_CHECK;

/* The socket of that name in the state directory, in the arena. */
const char *api_socket(struct cli *cli, const char *name);
/* What a WebSocket of the hub is opened with: its URL and headers, the socket or NULL. */
int api_ws(struct cli *cli, const char *path, const char **ret_url, const char *const **ret_headers,
           const char **ret_socket, struct err *e) MUST_CHECK;

/* "/api/vps/agents/%s" with name percent-encoded, in the cli's arena. */
const char *api_path(struct cli *cli, const char *prefix, const char *name, const char *suffix);

/* A JSON object as the body of a request, in the cli's arena; takes the reference. */
int api_body(struct cli *cli, json_t *object, struct str *ret, struct err *e) MUST_CHECK;

/* --- printing --- */

/* Print an answer as JSON, one line. */
int print_json(const json_t *j, struct err *e) MUST_CHECK;

/* A table over libsmartcols (included in table.c and nowhere else). */
struct table;
/* Names; one that starts with '>' is right-aligned, one with '~' is cut to a terminal's width. */
struct table *table_new(const char *const *columns, size_t n);
void table_cell(struct table *t, const char *fmt, ...)
    PRINTF(2, 3); /* left to right, rows start by themselves */
int table_print(struct table *t, struct err *e) MUST_CHECK; /* and free it */
void table_free(struct table *t);

/* A member as text for a cell: strings as they are, numbers formatted, null as "-". In the arena.
 */
const char *member_text(struct cli *cli, const json_t *object, const char *key);

/* What others wrote, for a terminal: characters that would steer it become U+FFFD. Into a pipe or a
 * file it goes as it is. In the arena. */
const char *harmless(struct cli *cli, FILE *to, const char *text);
