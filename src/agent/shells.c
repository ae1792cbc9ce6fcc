/* SPDX-License-Identifier: MIT */
/*
 * agent/shells.c — interactive shells: what the hub's `shell` messages ask for.
 *
 * A shell is a terminal with a program, moved by events; its life:
 *
 *   SHELL_OPEN    bytes go both ways; reading pauses when the hub asks so or the link is choked
 *   SHELL_ENDED   the program has ended: what it still said is sent, then `exit`
 *   SHELL_HUNG    we hung up: SIGHUP, SIGKILL three seconds later; `exit` when it is gone
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/pty.h"
#include "agent/text.h"
#include "base/log.h"
#include "base/time.h"

#define SHELLS_MAX 16
#define ID_MAX     128
#define CHUNK      (16 * KIB)  /* of one data message */
#define CHUNKS     4           /* of one turn */
#define INPUT_MAX  (256 * KIB) /* typed and not yet read; past it what is typed is lost */
#define CHOKED_MS  20          /* until we look again whether there is room */
#define LAST_MS    200 /* after the program's end: what is on its way through the terminal */
#define GRACE_MS   3000
#define CELLS_MAX  1000 /* columns, rows */

enum shell_state { SHELL_OPEN, SHELL_ENDED, SHELL_HUNG };

struct shell {
    struct shells *owner;
    struct shell *next;
    char id[ID_MAX + 1];
    enum shell_state state;
    struct pty pty;
    struct loop_io *tty, *process;
    struct loop_timer *timer; /* of a choked link, and of the grace of SHELL_HUNG */
    struct buf in;
    bool paused;  /* by the hub */
    size_t taken; /* bytes written to the terminal that the hub has not been told of */
    bool silent;  /* the terminal has nothing more to say */
    bool killed;
    int code;
    json_t *opened; /* the message, for the audit log */
    uint64_t born_ms, ended_ms;
};

struct shells {
    struct agent *agent;
    struct shell *first;
    unsigned n;
    struct fiber *waiter; /* in shells_free() */
    char chunk[CHUNK];    /* scratch */
};

static void update(struct shell *s);

/* --- telling the hub --- */

static json_t *message(const char *id, const char *op)
{
    return json_pack("{s:s, s:s}", "shellId", id, "op", op);
}

static void say_exit(struct shells *all, const char *id, int code, const char *error)
{
    json_t *m = message(id, "exit");
    struct err e;

    json_object_set_new(m, "code", json_integer(code));
    if (error)
        json_object_set_new(m, "error", json_string(error));
    if (agent_say(all->agent, "host", "shell", m, &e) < 0)
        log_debug("the end of a shell was not told", "shell", LOG_STR(id), "error", LOG_ERR(&e));
}

static int say_data(struct shell *s, struct str bytes, struct err *e)
{
    AUTO(buf_done) struct buf text;
    json_t *m;
    int r;

    buf_init(&text, 2 * CHUNK);
    r = text_encode(TEXT_BASE64, bytes, &text, e);
    if (r < 0)
        return r;
    m = message(s->id, "data");
    json_object_set_new(m, "data", json_stringn(text.p, text.n));
    return agent_say(s->owner->agent, "host", "shell", m, e);
}

/* The hub sends no more than INPUT_MAX that we have not said to be taken. */
static void say_taken(struct shell *s)
{
    json_t *m = message(s->id, "taken");
    struct err e;

    json_object_set_new(m, "bytes", json_integer((json_int_t)s->taken));
    s->taken = 0;
    if (agent_say(s->owner->agent, "host", "shell", m, &e) < 0)
        log_debug("the hub was not told that input was taken", "shell", LOG_STR(s->id), "error",
                  LOG_ERR(&e));
}

static void audit(const struct shell *s, const char *event)
{
    struct agent *a = s->owner->agent;
    AUTO(json_decref) json_t *end = NULL;

    if (s->state != SHELL_OPEN)
        end = json_pack("{s:b, s:I, s:{s:i}}", "success", s->code == 0, "duration",
                        (json_int_t)(now_ms() - s->born_ms), "result", "exitCode", s->code);
    audit_task(agent_audit(a), event, agent_conf(a)->id, "host", s->opened, end);
}

/* --- the end --- */

static void free_shell(void *arg)
{
    struct shell *s = arg;

    buf_done(&s->in);
    json_decref(s->opened);
    free(s);
}

/* It is over: forget it. Its memory goes at the end of the turn, we may be in a callback of it. */
static void drop(struct shell *s)
{
    struct shells *all = s->owner;
    struct shell **p = &all->first;

    while (*p != s)
        p = &(*p)->next;
    *p = s->next;
    all->n--;
    loop_io_free(TAKE(s->tty));
    loop_io_free(TAKE(s->process));
    loop_timer_free(TAKE(s->timer));
    close_fd_auto(&s->pty.fd);
    close_fd_auto(&s->pty.pidfd);
    loop_defer(agent_loop(all->agent), free_shell, s);
    if (all->waiter)
        fiber_wake(all->waiter);
}

static void finish(struct shell *s)
{
    audit(s, "shell.closed");
    if (agent_connected(s->owner->agent))
        say_exit(s->owner, s->id, s->code, NULL);
    drop(s);
}

static void signal_group(const struct shell *s, int signo)
{
    (void)kill(-s->pty.pid, signo); /* it may be gone already */
}

static void hang_up(struct shell *s)
{
    if (s->state == SHELL_ENDED) {
        finish(s);
        return;
    }
    if (s->state == SHELL_HUNG)
        return;
    s->state = SHELL_HUNG;
    loop_io_free(TAKE(s->tty));
    close(take_fd(&s->pty.fd)); /* the kernel's SIGHUP, to who is in front */
    signal_group(s, SIGHUP);
    signal_group(s, SIGCONT);
    loop_timer_set(s->timer, deadline_in(GRACE_MS));
}

static void on_grace(struct shell *s)
{
    if (!s->killed) {
        s->killed = true;
        signal_group(s, SIGKILL);
        loop_timer_set(s->timer, deadline_in(GRACE_MS));
        return;
    }
    log_error("a shell does not end", "shell", LOG_STR(s->id), "pid", LOG_INT(s->pty.pid));
    s->code = -1;
    finish(s);
}

/* --- bytes --- */

/* Is it to be read now? */
static bool may_read(const struct shell *s)
{
    return !s->paused && !s->silent && agent_has_room(s->owner->agent);
}

/* What the terminal has to say, up to n bytes: it gives no more than 4 KiB at once. The number, or
 * -1 and errno when that is none. */
static ssize_t fill(int fd, char *p, size_t n)
{
    size_t have = 0;
    ssize_t got = 1;

    while (have < n && got > 0) {
        got = read(fd, p + have, n - have);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            have += (size_t)got;
    }
    return have > 0 ? (ssize_t)have : got;
}

static void read_tty(struct shell *s)
{
    char *chunk = s->owner->chunk;
    struct err e;
    ssize_t n;

    for (int i = 0; i < CHUNKS && may_read(s); i++) {
        n = fill(s->pty.fd, chunk, CHUNK);
        if (n < 0 && errno == EAGAIN &&
            (s->state == SHELL_OPEN || now_ms() - s->ended_ms < LAST_MS))
            return;
        if (n <= 0) { /* EIO: nobody has the other end open any more */
            s->silent = true;
            return;
        }
        if (say_data(s, (struct str){ chunk, (size_t)n }, &e) < 0) {
            log_debug("a shell's output was lost", "shell", LOG_STR(s->id), "error", LOG_ERR(&e));
            s->silent = true;
            return;
        }
    }
}

static void write_tty(struct shell *s)
{
    while (s->in.n > 0) {
        struct str bytes = buf_str(&s->in);
        ssize_t n = write(s->pty.fd, bytes.p, bytes.n);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            buf_clear(&s->in);
            return;
        }
        buf_eat(&s->in, (size_t)n);
        s->taken += (size_t)n;
        if (s->taken >= CHUNK)
            say_taken(s);
    }
}

/* Watch for what can be done now; an ended one that has said all is finished. */
static void update(struct shell *s)
{
    unsigned want = 0;

    if (s->state == SHELL_HUNG)
        return;
    if (s->state == SHELL_ENDED && s->silent) {
        finish(s);
        return;
    }
    if (may_read(s))
        want |= LOOP_READ;
    else if (!s->paused && !s->silent)
        loop_timer_set(s->timer, deadline_in(CHOKED_MS));
    if (s->in.n > 0 && s->state == SHELL_OPEN)
        want |= LOOP_WRITE;
    if (s->state == SHELL_ENDED && want)
        loop_timer_set(s->timer, deadline_in(5)); /* what is left is asked for, not waited for */
    loop_io_want(s->tty, s->state == SHELL_OPEN ? want : 0);
}

static void on_tty(struct loop_io *io, unsigned events, void *arg)
{
    struct shell *s = arg;

    if (events & LOOP_WRITE)
        write_tty(s);
    if (events & LOOP_READ)
        read_tty(s);
    update(s);
}

static void on_timer(void *arg)
{
    struct shell *s = arg;

    if (s->state == SHELL_HUNG) {
        on_grace(s);
        return;
    }
    read_tty(s);
    update(s);
}

static int exit_code(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void on_process(struct loop_io *io, unsigned events, void *arg)
{
    struct shell *s = arg;
    int status = 0;
    pid_t pid = waitpid(s->pty.pid, &status, WNOHANG);

    if (pid == 0)
        return;
    s->code = pid > 0 ? exit_code(status) : -1; /* -1: somebody else reaped it (we are PID 1) */
    loop_io_free(TAKE(s->process));
    if (s->state == SHELL_HUNG) {
        finish(s);
        return;
    }
    s->state = SHELL_ENDED;
    s->ended_ms = now_ms();
    read_tty(s);
    update(s);
}

/* --- opening --- */

static bool is_term(const char *term)
{
    return strlen(term) <= 64 &&
           strspn(term, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._+-") ==
               strlen(term);
}

static unsigned size_of(const json_t *payload, const char *key, unsigned def)
{
    json_int_t n = json_integer_value(json_object_get(payload, key));

    return n >= 1 && n <= CELLS_MAX ? (unsigned)n : def;
}

#define ENV_MAX 4096

struct env {
    const char *v[ENV_MAX + 1];
    size_t n;
};

static void env_put(struct env *env, const char *pair)
{
    size_t len = strcspn(pair, "="), i = 0;

    while (i < env->n && (strncmp(env->v[i], pair, len) != 0 || env->v[i][len] != '='))
        i++;
    if (i == ENV_MAX)
        return;
    env->v[i] = pair;
    if (i == env->n)
        env->n++;
}

/* Ours without the token, the configuration's, and what login(1) would set. */
static struct env *make_env(struct arena *a, const struct agent_conf *conf, const char *term)
{
    struct env *env = arena_new(a, struct env);
    struct pty_user user;
    const char *key;
    json_t *value;

    env_put(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    for (char **p = environ; *p; p++)
        if (strncmp(*p, "AGENT_TOKEN=", 12) != 0)
            env_put(env, *p);
    json_object_foreach(conf->env, key, value)
    {
        if (json_is_string(value))
            env_put(env, arena_printf(a, "%s=%s", key, json_string_value(value)));
    }
    pty_user(&user);
    env_put(env, arena_printf(a, "HOME=%s", user.home));
    env_put(env, arena_printf(a, "SHELL=%s", user.shell));
    env_put(env, arena_printf(a, "USER=%s", user.name));
    env_put(env, arena_printf(a, "LOGNAME=%s", user.name));
    env_put(env, arena_printf(a, "TERM=%s", term));
    pty_user_done(&user);
    return env;
}

static int start(struct shell *s, const json_t *payload, struct err *e)
{
    const json_t *command = json_object_get(payload, "command");
    const char *term = json_string_value(json_object_get(payload, "term"));
    const struct agent_conf *conf = agent_conf(s->owner->agent);
    struct arena a = { 0 };
    struct pty_spec spec = {
        .command = json_string_length(command) > 0 ? json_string_value(command) : NULL,
        .cwd = json_string_value(json_object_get(payload, "cwd")),
        .cols = size_of(payload, "cols", 80),
        .rows = size_of(payload, "rows", 24),
    };
    int r;

    if (term && !is_term(term))
        return err_set(e, ERR_INVALID, "\"term\" is not the name of a terminal");
    spec.env = make_env(&a, conf, term && *term ? term : "xterm-256color")->v;
    r = pty_start(&spec, &s->pty, e);
    arena_done(&a);
    return r;
}

static struct shell *shell_new(struct shells *all, const char *id, const json_t *payload)
{
    struct shell *s = xcalloc(1, sizeof(*s));

    s->owner = all;
    fmt_z(s->id, sizeof(s->id), "%s", id);
    s->pty = (struct pty){ .fd = -1, .pidfd = -1 };
    s->opened = json_pack("{s:s, s:s, s:o*}", "shellId", id, "type", "shell", "command",
                          json_copy(json_object_get(payload, "command")));
    s->born_ms = now_ms();
    buf_init(&s->in, INPUT_MAX);
    return s;
}

static int open_shell(struct shells *all, const char *id, const json_t *payload, struct err *e)
{
    struct loop *loop = agent_loop(all->agent);
    struct shell *s;
    int r;

    if (all->n >= SHELLS_MAX)
        return err_set(e, ERR_LIMIT, "%d shells are open", SHELLS_MAX);
    s = shell_new(all, id, payload);
    r = start(s, payload, e);
    if (r < 0) {
        free_shell(s);
        return r;
    }
    s->timer = loop_timer_new(loop, on_timer, s);
    s->tty = loop_io_new(loop, s->pty.fd, on_tty, s);
    s->process = loop_io_new(loop, s->pty.pidfd, on_process, s);
    loop_io_want(s->process, LOOP_READ);
    s->next = all->first;
    all->first = s;
    all->n++;
    audit(s, "shell.opened");
    update(s);
    return 0;
}

/* --- messages --- */

static struct shell *find(struct shells *all, const char *id)
{
    struct shell *s = all->first;

    while (s && strcmp(s->id, id) != 0)
        s = s->next;
    return s;
}

static void take_input(struct shell *s, const json_t *payload)
{
    struct str text = json_member_str(payload, "data");
    struct err e;

    if (s->state != SHELL_OPEN)
        return;
    if (text.n > 2 * s->in.max || text_decode(TEXT_BASE64, text, &s->in, &e) < 0)
        log_debug("a shell does not read, its input was lost", "shell", LOG_STR(s->id));
    write_tty(s);
    update(s);
}

static void do_op(struct shell *s, struct str op, const json_t *payload)
{
    if (str_eq_z(op, "data")) {
        take_input(s, payload);
    } else if (str_eq_z(op, "resize")) {
        if (s->state == SHELL_OPEN)
            (void)pty_resize(s->pty.fd, size_of(payload, "cols", 80),
                             size_of(payload, "rows", 24)); /* it cannot fail on a terminal */
    } else if (str_eq_z(op, "pause") || str_eq_z(op, "resume")) {
        s->paused = str_eq_z(op, "pause");
        update(s);
    } else if (str_eq_z(op, "close")) {
        hang_up(s);
    }
}

void shells_message(struct shells *all, const json_t *payload)
{
    const char *id = json_string_value(json_object_get(payload, "shellId"));
    struct str op = json_member_str(payload, "op");
    struct shell *s;
    struct err e;

    if (!id || !*id || strlen(id) > ID_MAX)
        return;
    s = find(all, id);
    if (!str_eq_z(op, "open")) {
        if (s)
            do_op(s, op, payload);
        return;
    }
    if (s)
        return; /* it is open: the message came twice */
    if (open_shell(all, id, payload, &e) < 0)
        say_exit(all, id, 127, e.msg);
}

void shells_lost(struct shells *all)
{
    struct shell *next;

    for (struct shell *s = all->first; s; s = next) {
        next = s->next;
        hang_up(s);
    }
}

struct shells *shells_new(struct agent *a)
{
    struct shells *all = xcalloc(1, sizeof(*all));

    all->agent = a;
    return all;
}

CO void shells_free(struct shells *all)
{
    if (!all)
        return;
    all->waiter = fiber_self();
    shells_lost(all);
    while (all->n > 0)
        fiber_park_hard(); /* each has a timer that ends it */
    free(all);
}
