/* SPDX-License-Identifier: MIT */
/*
 * agent/main.c — chela-agent: the runtime of an agent. Without arguments it is the agent of a hub;
 * `http` makes a command an HTTP agent, `init` is PID 1 of a minimal guest.
 */
#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "agent/agent.h"
#include "agent/http_agent.h"
#include "base/log.h"
#include "base/str.h"

static const char help[] =
    "usage: chela-agent\n"
    "       chela-agent http [flags] -- COMMAND [ARG ...]\n"
    "       chela-agent init\n\n"
    "Without arguments: be an agent of a hub, as AGENT_CONFIG says (/etc/vm-agent/config.json), "
    "or\n"
    "else AGENT_ID, AGENT_TOKEN and HUB_URL.\n\n"
    "init: the same as PID 1 of a virtual machine: set it up, run the agent, power off at the "
    "end.\n\n"
    "http: serve a command as an HTTP agent: the prompt goes to its standard input, its standard\n"
    "output is the answer. A non-zero exit is answered 500, a timeout 504.\n\n"
    "  --port N          port to listen on (8000; 0 picks a free one)\n"
    "  --host HOST       address to listen on (127.0.0.1)\n"
    "  --timeout TIME    of one run (120s)\n"
    "  --concurrency N   runs at a time; more are answered 503 with Retry-After (4)\n"
    "  --ready-fd N      write one line of JSON with the url to descriptor N when serving\n"
    "  --version, --help\n\n"
    "CHELA_AGENT_TOKEN: bearer token callers must send; needed for addresses others reach.\n";

static int set_flag(struct http_agent_options *opt, const char *name, const char *value,
                    struct err *e)
{
    long long n;
    int r;

    if (strcmp(name, "--host") == 0) {
        opt->host = value;
        return 0;
    }
    if (strcmp(name, "--port") == 0)
        return int_parse(str_of(value), 0, 65535, &opt->port, e);
    if (strcmp(name, "--timeout") == 0)
        return duration_parse(str_of(value), &opt->timeout_ms, e);
    if (strcmp(name, "--concurrency") == 0)
        return int_parse(str_of(value), 1, 10000, &opt->concurrency, e);
    if (strcmp(name, "--ready-fd") != 0)
        return err_set(e, ERR_INVALID, "no such flag");
    r = int_parse(str_of(value), 0, 65535, &n, e);
    if (r == 0)
        opt->ready_fd = (int)n;
    return r;
}

/* --name=value or --name value up to "--", then the command. */
static int parse(struct http_agent_options *opt, int argc, char **argv, struct err *e)
{
    char name[32];
    int i;

    for (i = 2; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *arg = argv[i], *equals = strchr(arg, '=');
        size_t n = equals ? (size_t)(equals - arg) : strlen(arg);
        int r;

        if (strncmp(arg, "--", 2) != 0 || n >= sizeof(name))
            return err_set(e, ERR_INVALID,
                           "unexpected argument '%s' (the command stands behind --)", arg);
        fmt_z(name, sizeof(name), "%.*s", (int)n, arg);
        if (!equals && (i + 1 >= argc || strcmp(argv[i + 1], "--") == 0))
            return err_set(e, ERR_INVALID, "%s needs a value", name);
        r = set_flag(opt, name, equals ? equals + 1 : argv[++i], e);
        if (r < 0)
            return err_wrap(e, "%s", name);
    }
    if (i + 1 >= argc)
        return err_set(e, ERR_INVALID, "no command: chela-agent http [flags] -- COMMAND [ARG ...]");
    opt->command = (const char *const *)&argv[i + 1];
    return 0;
}

/* The agent's token is in the configuration, or in a variable that no task shall see. */
static int run_agent(void)
{
    struct agent_conf conf;
    struct err e;
    int r;

    mallopt(M_ARENA_MAX, 1); /* a few threads that write files need no heaps of their own */
    log_setup(LOG_INFO, LOG_AUTO);
    r = agent_conf_load(&conf, &e);
    if (r == -ERR_UNAUTHORIZED) {
        fprintf(stderr, "chela-agent: no token\n"
                        "chela-agent: set \"token\" in the configuration, or AGENT_TOKEN\n");
        return 1;
    }
    if (r < 0) {
        fprintf(stderr, "chela-agent: %s\n", e.msg);
        return 1;
    }
    r = agent_run(&conf, &e);
    agent_conf_done(&conf);
    if (r < 0)
        fprintf(stderr, "chela-agent: %s\n", e.msg);
    return r < 0 ? 1 : 0;
}

static int run_http(int argc, char **argv)
{
    struct http_agent_options opt = {
        .host = "127.0.0.1",
        .port = 8000,
        .timeout_ms = 120000,
        .concurrency = 4,
        .ready_fd = -1,
        .token = getenv("CHELA_AGENT_TOKEN"),
    };
    struct err e;

    if (opt.token && !*opt.token)
        opt.token = NULL;
    if (parse(&opt, argc, argv, &e) < 0) {
        fprintf(stderr, "chela-agent: %s\n", e.msg);
        return 2;
    }
    log_setup(LOG_INFO, LOG_AUTO);
    if (http_agent_run(&opt, &e) < 0) {
        fprintf(stderr, "chela-agent: %s\n", e.msg);
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return run_agent();
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "version") == 0) {
        printf("chela-agent %s\n", CHELA_VERSION);
        return 0;
    }
    if (strcmp(argv[1], "--help") == 0) {
        fputs(help, stdout);
        return 0;
    }
    if (strcmp(argv[1], "init") == 0)
        init_main();
    if (strcmp(argv[1], "http") == 0)
        return run_http(argc, argv);
    fputs(help, stderr);
    return 2;
}
