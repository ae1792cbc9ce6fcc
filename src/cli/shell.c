/* SPDX-License-Identifier: MIT */
/*
 * cli/shell.c — a terminal in a machine, over the hub's WebSocket. Our terminal is raw meanwhile
 * and is put back on every way out, also when we are killed politely.
 *
 * Two fibers: one carries what is typed, one what is shown; the first to end ends the other.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "base/loop.h"
#include "base/time.h"
#include "cli/hub.h"
#include "net/ws.h"

#define CONNECT_MS 15000
#define CLOSE_MS   2000
#define PIECE      4096
#define NO_EXIT    (-1)

struct session {
    struct cli *cli;
    struct ws *ws;
    struct fiber *typing;
    int exit; /* of the shell */
    bool ended, terminal, killed;
    int old_flags; /* of standard input */
    struct termios old;
};

/* --- the terminal --- */

static void size_of(unsigned *cols, unsigned *rows)
{
    struct winsize w;

    *cols = 80;
    *rows = 24;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) < 0 && ioctl(STDIN_FILENO, TIOCGWINSZ, &w) < 0)
        return;
    *cols = w.ws_col ? w.ws_col : 80;
    *rows = w.ws_row ? w.ws_row : 24;
}

static void make_raw(struct session *s)
{
    struct termios raw;

    s->old_flags = fcntl(STDIN_FILENO, F_GETFL);
    fcntl(STDIN_FILENO, F_SETFL, s->old_flags | O_NONBLOCK);
    s->terminal = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &s->old) == 0;
    if (!s->terminal)
        return;
    raw = s->old;
    cfmakeraw(&raw);
    tcsetattr(STDIN_FILENO, TCSADRAIN, &raw);
}

static void put_back(struct session *s)
{
    if (s->terminal)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &s->old);
    if (s->old_flags >= 0)
        fcntl(STDIN_FILENO, F_SETFL, s->old_flags);
}

static void on_resize(void *arg)
{
    struct session *s = arg;
    unsigned cols, rows;
    char text[64];
    struct err e;

    size_of(&cols, &rows);
    fmt_z(text, sizeof(text), "{\"resize\":{\"cols\":%u,\"rows\":%u}}", cols, rows);
    if (ws_send(s->ws, WS_TEXT, str_of(text), &e) < 0)
        return; /* a closing socket needs no size */
}

static void on_kill(void *arg)
{
    struct session *s = arg;

    s->killed = true;
    ws_abort(s->ws);
}

/* --- both ways --- */

/* What is typed. A file or an empty pipe cannot be waited for as a terminal can: read, then ask. */
static CO int type_in(void *arg, struct err *e)
{
    struct session *s = arg;
    char piece[PIECE];

    for (;;) {
        ssize_t n = read(STDIN_FILENO, piece, sizeof(piece));
        int r;

        if (n == 0)
            break;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            break;
        if (n > 0)
            r = ws_send_wait(s->ws, WS_BINARY, (struct str){ piece, (size_t)n }, DEADLINE_NONE, e);
        else
            r = fiber_wait_fd(STDIN_FILENO, LOOP_READ, DEADLINE_NONE, e);
        if (r < 0)
            return 0; /* the other fiber tells why */
    }
    /* end of what is typed: the shell is told as a terminal would, by Ctrl-D */
    if (ws_send_wait(s->ws, WS_BINARY, STR("\x04"), DEADLINE_NONE, e) < 0)
        return 0; /* gone: told there */
    return 0;
}

static CO int write_out(struct str data, struct err *e)
{
    while (data.n) {
        ssize_t n = write(STDOUT_FILENO, data.p, data.n);

        if (n < 0 && errno == EAGAIN) {
            if (fiber_wait_fd(STDOUT_FILENO, LOOP_WRITE, DEADLINE_NONE, e) < 0)
                return -e->code;
        } else if (n < 0 && errno != EINTR) {
            return err_sys(e, "standard output");
        } else if (n > 0) {
            data = (struct str){ data.p + n, data.n - (size_t)n };
        }
    }
    return 0;
}

static int hear(struct session *s, struct str text, struct arena *a, struct err *e)
{
    const json_t *code;
    json_t *j;
    int r = json_parse(text, 16, a, &j, NULL, e);

    if (r < 0)
        return r;
    code = json_object_get(j, "exit");
    if (json_is_integer(code)) {
        s->exit = (int)(json_integer_value(code) & 0xff);
        s->ended = true;
    }
    if (json_is_string(json_object_get(j, "error")))
        return err_set(e, ERR_UNAVAILABLE, "%s", json_string_value(json_object_get(j, "error")));
    return 0;
}

/* What is shown, until the shell has ended or the socket. */
static CO int show(struct session *s, struct err *e)
{
    int r = 0;

    while (r == 0 && !s->ended) {
        struct arena a = { 0 };
        enum ws_kind kind;
        struct str data;

        r = ws_recv(s->ws, &a, &kind, &data, DEADLINE_NONE, e);
        if (r == 0)
            r = kind == WS_BINARY ? write_out(data, e) : hear(s, data, &a, e);
        arena_done(&a);
    }
    if (r == WS_CLOSED && s->killed)
        return CLI_INTERRUPTED;
    if (r == WS_CLOSED)
        return err_set(e, ERR_UNAVAILABLE, "the connection to the shell has ended (%u)",
                       ws_close_code(s->ws));
    return r < 0 ? r : s->exit;
}

static CO int carry(struct session *s, struct err *e)
{
    struct loop_signal *resize, *term, *hup;
    struct err ignored;
    int r = fiber_spawn(s->cli->loop, "typing", type_in, s, &s->typing, e);

    if (r < 0)
        return r;
    resize = loop_signal_new(s->cli->loop, SIGWINCH, on_resize, s);
    term = loop_signal_new(s->cli->loop, SIGTERM, on_kill, s);
    hup = loop_signal_new(s->cli->loop, SIGHUP, on_kill, s);
    make_raw(s);
    r = show(s, e);
    put_back(s);
    fiber_cancel(s->typing);
    (void)fiber_join(s->typing, &ignored); /* ends by being cancelled */
    loop_signal_free(resize);
    loop_signal_free(term);
    loop_signal_free(hup);
    return r;
}

static CO int over_hub(struct cli *cli, const char *name, const char *command, struct err *e)
{
    struct session s = { .cli = cli, .exit = NO_EXIT, .old_flags = -1 };
    const char *term = getenv("TERM"), *path, *socket;
    struct ws_connect connect = { .deadline_ms = deadline_in(CONNECT_MS) };
    unsigned cols, rows;
    int r;

    size_of(&cols, &rows);
    path = agent_path(cli, name, arena_printf(&cli->arena, "/shell?cols=%u&rows=%u", cols, rows));
    path = with_query(cli, path, "term", term && *term ? term : "xterm");
    path = with_query(cli, path, "command", command);
    r = api_ws(cli, path, &connect.url, &connect.headers, &socket, e);
    connect.unix_socket = socket;
    if (r == 0)
        r = ws_open(cli->loop, &connect, NULL, NULL, NULL, &s.ws, e);
    if (r < 0)
        return r;
    r = carry(&s, e);
    ws_free(s.ws);
    return r;
}

CO int machine_shell(struct cli *cli, const char *name, const char *command, struct err *e)
{
    const char *login[] = { "bash", "-l", NULL };
    const char *given[] = { "bash", "-lc", command, NULL };
    json_t *machine;
    int r = machine_ask(cli, name, &machine, e);

    if (r < 0)
        return r;
    if (cli->vm)
        fprintf(stderr, "Opening a shell in %s\n\n", name);
    if (json_array_size(json_object_get(machine, "exec")) > 0)
        return host_run(cli, machine, "cli.shell", command ? command : "bash -l",
                        command ? given : login, 0, e);
    return over_hub(cli, name, command, e);
}
