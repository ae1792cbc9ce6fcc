/* SPDX-License-Identifier: MIT */
/*
 * daemon/main.c — chelad: reads its arguments, its settings, takes its state directory, and runs.
 * What must be said before the log is set up goes to stderr as plain text.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/paths.h"
#include "daemon/daemon.h"
#include "machine/egress.h"
#include "machine/shim.h"

extern char **environ;

enum { EXIT_USAGE = 2 };

struct args {
    const char *state, *config;
    long long ready_fd;
    bool print_config;
};

static int usage(const struct conf *conf, FILE *to)
{
    AUTO(buf_done) struct buf text;
    struct err e;

    buf_init(&text, 1 * MIB);
    fprintf(to, "usage: chelad [--state DIR] [--config FILE] [--ready-fd N] [--print-config]\n"
                "              [--version] [--SECTION.KEY=VALUE ...]\n\n"
                "  --state DIR     keep everything the daemon owns under DIR\n"
                "  --config FILE   settings file (default: DIR/chelad.conf if it exists)\n"
                "  --ready-fd N    write one line of JSON to descriptor N when serving\n"
                "  --print-config  show the effective settings, secrets masked, and exit\n\n"
                "A setting can be given as a flag, as a variable CHELA_SECTION_KEY, or in the\n"
                "settings file; the first of these wins. SIGHUP reloads those marked live.\n\n");
    if (conf_help(conf, &text, &e) == 0)
        fwrite(buf_str(&text).p, 1, buf_str(&text).n, to);
    return to == stdout ? 0 : EXIT_USAGE;
}

/* "--name=value" or "--name value": the value, moving *i on in the second case. */
static const char *value_of(int argc, char **argv, int *i, const char **name, size_t *n)
{
    const char *equals = strchr(argv[*i], '=');

    *name = argv[*i] + 2;
    *n = equals ? (size_t)(equals - *name) : strlen(*name);
    if (equals)
        return equals + 1;
    return *i + 1 < argc ? argv[++*i] : NULL;
}

static int parse_flag(struct args *args, struct conf *conf, const char *name, const char *value,
                      struct err *e)
{
    if (!value)
        return err_set(e, ERR_INVALID, "--%s needs a value", name);
    if (strcmp(name, "state") == 0) {
        args->state = value;
        return 0;
    }
    if (strcmp(name, "config") == 0) {
        args->config = value;
        return 0;
    }
    if (strcmp(name, "ready-fd") == 0)
        return int_parse(str_of(value), 0, 65535, &args->ready_fd, e);
    return conf_flag(conf, name, value, e);
}

static int parse_args(struct args *args, struct conf *conf, int argc, char **argv, struct err *e)
{
    for (int i = 1; i < argc; i++) {
        const char *start, *value;
        char name[128];
        size_t n;
        int r;

        if (strcmp(argv[i], "--print-config") == 0) {
            args->print_config = true;
            continue;
        }
        if (strncmp(argv[i], "--", 2) != 0)
            return err_set(e, ERR_INVALID, "unexpected argument '%s'", argv[i]);
        value = value_of(argc, argv, &i, &start, &n);
        if (n >= sizeof(name))
            return err_set(e, ERR_INVALID, "unknown flag '%.40s...'", start);
        fmt_z(name, sizeof(name), "%.*s", (int)n, start);
        r = parse_flag(args, conf, name, value, e);
        if (r < 0)
            return r;
    }
    return 0;
}

static int print_config(const struct conf *conf, struct err *e)
{
    AUTO(buf_done) struct buf text;
    int r;

    buf_init(&text, 1 * MIB);
    r = conf_print(conf, &text, e);
    if (r == 0)
        fwrite(buf_str(&text).p, 1, buf_str(&text).n, stdout);
    return r;
}

static int run(const struct args *args, struct settings *settings, struct conf *conf, struct err *e)
{
    AUTO(free) char *state = args->state ? xstrdup(args->state) : path_state_default();
    AUTO(free) char *in_state = xasprintf("%s/chelad.conf", state);
    struct state_dir dir = { .lock_fd = -1 };
    struct daemon_options opt = {
        .settings = settings,
        .conf = conf,
        .conf_path = args->config ? args->config : in_state,
        .dir = &dir,
        .ready_fd = (int)args->ready_fd,
    };
    int r;

    r = conf_file(conf, opt.conf_path, args->config != NULL, e);
    if (r == 0)
        r = conf_env(conf, (const char *const *)environ, e);
    if (r == 0)
        r = conf_apply(conf, e);
    if (r == 0)
        r = settings_check(settings, e);
    if (r < 0)
        return err_wrap(e, "settings");
    if (args->print_config)
        return print_config(conf, e);
    log_setup(settings_log_level(settings), settings_log_format(settings));
    r = state_dir_open(state, &dir, e);
    if (r == 0)
        r = daemon_run(&opt, e);
    state_dir_close(&dir);
    return r;
}

/* What can be done about it, where that is not plain from the words; or "". */
static const char *advice(const struct err *e)
{
    if (strstr(e->msg, strerror(EADDRINUSE)))
        return "Another program, perhaps another chelad, has this port. --gateway.port, "
               "--hub.http_port and\n--hub.ws_port choose others; 0 is any free one.\n";
    if (strstr(e->msg, strerror(EACCES)) && strstr(e->msg, "bind"))
        return "Ports below 1024 are for root; --gateway.port, --hub.http_port and --hub.ws_port "
               "choose others.\n";
    return "";
}

int main(int argc, char **argv)
{
    static const struct rlimit no_core = { 0, 0 };
    struct settings settings = { 0 };
    struct args args = { .ready_fd = -1 };
    struct conf *conf = NULL;
    struct err e;
    int r;

    (void)setrlimit(RLIMIT_CORE, &no_core); /* a core file would hold keys */
    if (argc == 3 && strcmp(argv[1], "--shim") == 0)
        return shim_main(argv[2]);
    if (argc == 3 && strcmp(argv[1], "--relay") == 0)
        return relay_main(argv[2]);
    r = settings_new(&settings, &conf, &e);
    if (r < 0) {
        fprintf(stderr, "chelad: %s\n", e.msg);
        return 1;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--version") == 0) {
            printf("chelad %s\n", CHELA_VERSION);
            conf_free(conf);
            return 0;
        }
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            usage(conf, stdout);
            conf_free(conf);
            return 0;
        }
    }
    r = parse_args(&args, conf, argc, argv, &e);
    if (r < 0) {
        fprintf(stderr, "chelad: %s\nTry 'chelad --help'.\n", e.msg);
        conf_free(conf);
        return EXIT_USAGE;
    }
    r = run(&args, &settings, conf, &e);
    conf_free(conf);
    if (r < 0)
        fprintf(stderr, "chelad: %s\n%s", e.msg, advice(&e));
    return r < 0 ? 1 : 0;
}
