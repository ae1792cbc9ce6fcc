/* SPDX-License-Identifier: MIT */
/*
 * cli/vm_agent.c — vm-agent: where the hub is, which command, how it ends.
 */
#include "cli/vm_agent.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "net/stream.h"

#define FALLBACK "http://localhost:9091" /* where the original looked, and nowhere else */
#define PROFILES "vm-agent-profiles"     /* a program of its own there */

static const char *name_of(const char *argv0)
{
    const char *slash = argv0 ? strrchr(argv0, '/') : NULL;

    return slash ? slash + 1 : argv0 ? argv0 : "";
}

bool vm_agent_called(const char *argv0)
{
    const char *name = name_of(argv0);

    return strcmp(name, "vm-agent") == 0 || strcmp(name, PROFILES) == 0;
}

/* Does anybody listen on the hub's socket? One that a crash left behind refuses at once. */
static bool hub_listens(const char *path)
{
    AUTO(close_fd) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    AUTO(close_fd) int dir = -1;
    struct sockaddr_un addr;
    struct err e;

    if (fd < 0 || unix_addr_of(path, &addr, &dir, &e) < 0)
        return false;
    return connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0;
}

static const char *variable(const char *one, const char *other)
{
    const char *value = getenv(one);

    return value && *value ? value : other ? variable(other, NULL) : NULL;
}

static void find_hub(struct cli *cli)
{
    cli->state = variable("CHELA_STATE", NULL);
    cli->hub_url = variable("VM_AGENT_HUB_URL", "CHELA_HUB_URL");
    cli->token = variable("HUB_ADMIN_TOKEN", "CHELA_TOKEN");
    if (!cli->hub_url && !hub_listens(api_socket(cli, "hub.sock")))
        cli->hub_url = FALLBACK;
}

static int end_of(const struct cli *cli, int r, const struct err *e)
{
    if (r >= 0)
        return r;
    if (e->code == ERR_CANCELED)
        fprintf(stderr, "%s\n", e->msg);
    else
        fprintf(stderr, "Error: %s\n", e->msg);
    if (cli->no_daemon && cli->hub_url)
        fprintf(stderr, "Is the hub running? Start it with: chelad\n");
    return cli->interrupted ? CLI_INTERRUPTED : CLI_FAILED;
}

/* "vm-agent-profiles list" is "vm-agent profiles list". */
static char **as_group(struct cli *cli, int *argc, char **argv)
{
    char **all = arena_alloc(&cli->arena, (size_t)(*argc + 2) * sizeof(*all));

    all[0] = argv[0];
    all[1] = arena_strdup(&cli->arena, "profiles");
    memcpy(all + 2, argv + 1, (size_t)*argc * sizeof(*all));
    *argc += 1;
    return all;
}

static int ask_help(int argc, char **argv, const struct cli_cmd *cmd)
{
    bool group = argc > 1 && argv[1][0] != '-' && strcmp(argv[1], "help") != 0 && !cmd;
    bool asked = argc > (group ? 2 : 1);
    FILE *to = asked ? stdout : stderr;

    vm_help(to, cmd, group ? argv[1] : NULL);
    return asked ? CLI_OK : CLI_FAILED;
}

int vm_agent_main(int argc, char **argv)
{
    struct cli cli = { .vm = true };
    const struct cli_cmd *cmd;
    struct args args = { 0 };
    const char *json;
    struct err e;
    int r, status;

    if (strcmp(name_of(argv[0]), PROFILES) == 0)
        argv = as_group(&cli, &argc, argv);
    r = vm_args_parse(&cli, argc, argv, &cmd, &args, &e);
    if (r == ARGS_VERSION) {
        printf("%s\n", VM_AGENT_VERSION);
        status = CLI_OK;
    } else if (r == ARGS_HELP) {
        status = ask_help(argc, argv, cmd);
    } else if (r < 0) {
        fprintf(stderr, "error: %s\n", e.msg);
        status = CLI_FAILED;
    } else {
        json = args_flag(cmd, &args, "json");
        cli.json = json != NULL;
        find_hub(&cli);
        r = cli_run(&cli, cmd, &args, &e);
        status = end_of(&cli, r, &e);
    }
    arena_done(&cli.arena);
    if (fflush(stdout) == EOF && status == CLI_OK) {
        perror("vm-agent: standard output");
        return CLI_FAILED;
    }
    return status;
}
