/* SPDX-License-Identifier: MIT */
/*
 * cli/install.c — hub install: a systemd unit, or on macOS a launchd property list, with the paths
 * of this installation. Nothing is enabled: what to type is printed.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/paths.h"
#include "cli/hub.h"
#include "cli/input.h"

#define TEXT_MAX (64 * KIB)
#define LABEL    "com.openclaw.vm-hub" /* the original's */

struct install_opts {
    bool user, system, launchd, print;
    const char *dir; /* instead of where the system looks */
};

struct install {
    struct cli *cli;
    const struct install_opts *o;
    bool system, launchd;
    const char *chelad, *state, *home;
};

/* Beside us, in ../sbin of where we are, or on the PATH. */
static int find_chelad(struct install *in, struct err *e)
{
    AUTO(free) char *real = NULL;
    char self[PATH_MAX];
    const char *path = getenv("PATH");
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    struct str rest, dir;
    const char *tries[2] = { NULL, NULL };

    self[n > 0 ? n : 0] = '\0';
    if (strrchr(self, '/'))
        *strrchr(self, '/') = '\0';
    tries[0] = arena_printf(&in->cli->arena, "%s/chelad", self);
    tries[1] = arena_printf(&in->cli->arena, "%s/../sbin/chelad", self);
    for (size_t i = 0; i < LEN(tries); i++)
        if (access(tries[i], X_OK) == 0) {
            real = realpath(tries[i], NULL);
            in->chelad = arena_strdup(&in->cli->arena, real ? real : tries[i]);
            return 0;
        }
    rest = str_of(path ? path : "");
    while (str_split(&rest, ':', &dir)) {
        const char *candidate = arena_printf(&in->cli->arena, STR_FMT "/chelad", STR_ARG(dir));

        if (dir.n && *dir.p == '/' && access(candidate, X_OK) == 0) {
            in->chelad = candidate;
            return 0;
        }
    }
    return err_set(e, ERR_NOT_FOUND,
                   "chelad is not beside this program, in ../sbin or on the PATH");
}

/* systemd's own quoting: spaces, quotes, backslashes, and its specifiers. */
static int add_quoted(struct buf *b, const char *text, struct err *e)
{
    int r = buf_add_z(b, "\"", e);

    for (; r == 0 && *text; text++) {
        if (*text == '"' || *text == '\\')
            r = buf_printf(b, e, "\\%c", *text);
        else if (*text == '%' || *text == '$')
            r = buf_printf(b, e, "%c%c", *text, *text);
        else
            r = buf_add(b, text, 1, e);
    }
    return r < 0 ? r : buf_add_z(b, "\"", e);
}

static int add_xml(struct buf *b, const char *text, struct err *e)
{
    int r = 0;

    for (; r == 0 && *text; text++) {
        if (*text == '<' || *text == '&' || *text == '>')
            r = buf_printf(b, e, "&#%d;", *text);
        else
            r = buf_add(b, text, 1, e);
    }
    return r;
}

static int unit_text(const struct install *in, struct buf *b, struct err *e)
{
    int r = buf_add_z(b,
                      "[Unit]\n"
                      "Description=chela: hub for agents in machines\n"
                      "Documentation=man:chelad(8)\n",
                      e);

    if (r == 0 && in->system)
        r = buf_add_z(b, "After=network-online.target\nWants=network-online.target\n", e);
    if (r == 0)
        r = buf_add_z(b, "\n[Service]\nType=notify\nExecStart=", e);
    if (r == 0)
        r = add_quoted(b, in->chelad, e);
    if (r == 0)
        r = buf_add_z(b, " --state ", e);
    if (r == 0)
        r = add_quoted(b, in->state, e);
    if (r == 0)
        r = buf_printf(b, e,
                       "\nExecReload=/bin/kill -HUP $MAINPID\n"
                       "Restart=on-failure\nRestartSec=1\nWatchdogSec=30\nTimeoutStopSec=60\n"
                       "# machines live on over a crash of the daemon, which finds them again\n"
                       "KillMode=process\nDelegate=yes\nLimitNOFILE=65536\n"
                       "\n[Install]\nWantedBy=%s\n",
                       in->system ? "multi-user.target" : "default.target");
    return r;
}

static int add_string(struct buf *b, const char *text, struct err *e)
{
    int r = buf_add_z(b, "    <string>", e);

    if (r == 0)
        r = add_xml(b, text, e);
    return r < 0 ? r : buf_add_z(b, "</string>\n", e);
}

static int plist_text(const struct install *in, struct buf *b, struct err *e)
{
    struct arena *a = &in->cli->arena;
    const char *words[] = { in->chelad, "--state", in->state };
    int r = buf_add_z(b,
                      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                      "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" "
                      "\"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n"
                      "<plist version=\"1.0\">\n<dict>\n"
                      "  <key>Label</key>\n    <string>" LABEL "</string>\n"
                      "  <key>ProgramArguments</key>\n  <array>\n",
                      e);

    for (size_t i = 0; r == 0 && i < LEN(words); i++)
        r = add_string(b, words[i], e);
    if (r == 0)
        r = buf_add_z(b,
                      "  </array>\n  <key>RunAtLoad</key>\n    <true/>\n"
                      "  <key>KeepAlive</key>\n    <dict><key>SuccessfulExit</key><false/></dict>\n"
                      "  <key>WorkingDirectory</key>\n",
                      e);
    if (r == 0)
        r = add_string(b, in->state, e);
    if (r == 0)
        r = buf_add_z(b, "  <key>StandardOutPath</key>\n", e);
    if (r == 0)
        r = add_string(b, arena_printf(a, "%s/logs/hub-stdout.log", in->state), e);
    if (r == 0)
        r = buf_add_z(b, "  <key>StandardErrorPath</key>\n", e);
    if (r == 0)
        r = add_string(b, arena_printf(a, "%s/logs/hub-stderr.log", in->state), e);
    return r < 0 ? r : buf_add_z(b, "</dict>\n</plist>\n", e);
}

static const char *where(const struct install *in)
{
    struct arena *a = &in->cli->arena;
    const char *dir = in->o->dir, *config = getenv("XDG_CONFIG_HOME");

    if (!dir && in->launchd)
        dir = in->system ? "/Library/LaunchDaemons"
                         : arena_printf(a, "%s/Library/LaunchAgents", in->home);
    if (!dir && in->system)
        dir = "/etc/systemd/system";
    if (!dir && config && *config == '/')
        dir = arena_printf(a, "%s/systemd/user", config);
    if (!dir)
        dir = arena_printf(a, "%s/.config/systemd/user", in->home);
    return arena_printf(a, "%s/%s", dir, in->launchd ? LABEL ".plist" : "chelad.service");
}

static int write_file(struct install *in, const char *path, struct str text, struct err *e)
{
    const char *dir = arena_strndup(&in->cli->arena, path, (size_t)(strrchr(path, '/') - path));
    const char *temporary = arena_printf(&in->cli->arena, "%s.new", path);
    int r = make_dirs(dir, 0755, e);
    FILE *f;

    if (r == 0)
        r = make_dirs(arena_printf(&in->cli->arena, "%s%s", in->state, in->launchd ? "/logs" : ""),
                      0700, e);
    if (r < 0)
        return r;
    f = fopen(temporary, "we");
    if (!f)
        return err_sys(e, "write '%s'", temporary);
    fwrite(text.p, 1, text.n, f);
    if (fclose(f) == EOF || rename(temporary, path) < 0)
        return err_sys(e, "write '%s'", path);
    return 0;
}

static void say_how(const struct install *in, const char *path)
{
    printf("wrote %s\n\nTo enable it:\n", path);
    if (in->launchd) {
        printf("  launchctl load -w %s\nTo look at it:\n  launchctl list | grep vm-hub\n"
               "  tail -f %s/logs/hub-stderr.log\n",
               path, in->state);
    } else if (in->system) {
        printf("  systemctl daemon-reload && systemctl enable --now chelad\nTo look at it:\n"
               "  systemctl status chelad\n  journalctl -u chelad -f\n");
    } else {
        printf(
            "  systemctl --user daemon-reload && systemctl --user enable --now chelad\n"
            "  loginctl enable-linger        # so that it starts with the machine, not with you\n"
            "To look at it:\n  systemctl --user status chelad\n"
            "  journalctl --user -u chelad -f\n");
    }
}

int hub_install(struct cli *cli, const struct args *args, struct err *e)
{
    const struct install_opts given = {
        .user = args->flags[0] != NULL,
        .system = args->flags[1] != NULL,
        .launchd = args->flags[2] != NULL,
        .dir = args->flags[3],
        .print = args->flags[4] != NULL,
    };
    const struct install_opts *o = &given;
    AUTO(free) char *fallback = path_state_default();
    struct install in = { .cli = cli, .o = o, .system = o->system || (!o->user && geteuid() == 0) };
    AUTO(buf_done) struct buf text;
    const char *path;
    int r;

    buf_init(&text, TEXT_MAX);
#ifdef __APPLE__
    in.launchd = true;
#else
    in.launchd = o->launchd;
#endif
    in.home = getenv("HOME");
    in.state = cli->state ? cli->state : in.system ? "/var/lib/chela" : fallback;
    if (o->user && o->system)
        return err_set(e, ERR_INVALID, "--user or --system, not both");
    if (*in.state != '/' || (!in.home && !in.system && !o->dir))
        return err_set(e, ERR_INVALID, "the state directory must be an absolute path (--state)");
    r = find_chelad(&in, e);
    if (r == 0)
        r = in.launchd ? plist_text(&in, &text, e) : unit_text(&in, &text, e);
    if (r < 0)
        return r;
    if (o->print) {
        printf(STR_FMT, STR_ARG(buf_str(&text)));
        return 0;
    }
    path = where(&in);
    r = write_file(&in, path, buf_str(&text), e);
    if (r == 0)
        say_how(&in, path);
    return r;
}
