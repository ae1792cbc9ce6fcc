/* SPDX-License-Identifier: MIT */
/*
 * swarm/command_parse.c — what a chat message asks for. The original's rules, first match wins:
 *
 *     work on issue [#]N
 *     [check] status [of] issue [#]N
 *     stop|cancel [work [on]] issue [#]N
 *     list|show [active] agents
 *
 * in any case, anchored at the start alone; between words stand blanks, between "issue" and its
 * number they may be missing, and what follows is ignored. Then the short forms that the original's
 * documents name: status #N, stop #N, list, /work, /status, /stop, /list, /help. A mention before
 * the command (@bot) is passed over.
 */
#include "swarm/command_parse.h"

#include <string.h>

const char *const command_names[CMD_KINDS] = { "work_on_issue", "status_check", "stop_work",
                                               "list_agents", "help" };

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Blanks, maybe none. */
static void skip_blanks(struct str *at)
{
    while (at->n && is_blank(*at->p)) {
        at->p++;
        at->n--;
    }
}

static bool word(struct str *at, const char *w)
{
    size_t n = strlen(w);

    if (at->n < n || !str_eq_nocase((struct str){ at->p, n }, (struct str){ w, n }))
        return false;
    at->p += n;
    at->n -= n;
    return true;
}

/* The word and at least one blank; or nothing is taken. */
static bool word_gap(struct str *at, const char *w)
{
    struct str from = *at;

    if (word(at, w) && at->n && is_blank(*at->p)) {
        skip_blanks(at);
        return true;
    }
    *at = from;
    return false;
}

/* Up to the next blank. */
static struct str take_word(struct str *at)
{
    struct str w = { at->p, 0 };

    while (w.n < at->n && !is_blank(at->p[w.n]))
        w.n++;
    at->p += w.n;
    at->n -= w.n;
    return w;
}

/* [#]N: leading digits count, whatever hangs on to them; without any the whole word must do. */
static enum command_fault number(struct str at, struct command_parsed *p)
{
    struct str digits;
    long long n = 0;

    skip_blanks(&at);
    (void)word(&at, "#"); /* it may be missing */
    digits = (struct str){ at.p, 0 };
    while (digits.n < at.n && is_digit(at.p[digits.n]))
        digits.n++;
    p->number = digits.n ? digits : take_word(&at);
    if (int_parse(p->number, 1, INT64_MAX, &n, NULL) < 0)
        return CMD_BAD_NUMBER;
    p->issue = n;
    return CMD_FINE;
}

static bool match_work(struct str *at)
{
    return word_gap(at, "work") && word_gap(at, "on") && word(at, "issue");
}

static bool match_status(struct str *at)
{
    (void)word_gap(at, "check"); /* these words may be missing, here and below */
    if (!word_gap(at, "status"))
        return false;
    (void)word_gap(at, "of");
    return word(at, "issue");
}

static bool match_stop(struct str *at)
{
    if (!word_gap(at, "stop") && !word_gap(at, "cancel"))
        return false;
    if (word_gap(at, "work"))
        (void)word_gap(at, "on");
    return word(at, "issue");
}

static bool match_list(struct str *at)
{
    if (!word_gap(at, "list") && !word_gap(at, "show"))
        return false;
    (void)word_gap(at, "active");
    return word(at, "agents");
}

/* "status #N": the sign must be there. */
static bool match_short_status(struct str *at)
{
    if (!word(at, "status"))
        return false;
    skip_blanks(at);
    return at->n && *at->p == '#';
}

static bool match_short_stop(struct str *at)
{
    if (!word(at, "stop") && !word(at, "cancel"))
        return false;
    skip_blanks(at);
    return at->n && *at->p == '#';
}

static bool match_short_list(struct str *at)
{
    return word(at, "list") && !at->n;
}

static const struct rule {
    enum command_kind kind;
    bool (*match)(struct str *at);
    bool numbered;
} rules[] = {
    { CMD_WORK, match_work, true },           { CMD_STATUS, match_status, true },
    { CMD_STOP, match_stop, true },           { CMD_LIST, match_list, false },
    { CMD_STATUS, match_short_status, true }, { CMD_STOP, match_short_stop, true },
    { CMD_LIST, match_short_list, false },
};

/* Behind a slash command other words may stand before the number: "/stop work on issue 5". */
static void skip_words(struct str *at)
{
    static const char *const words[] = { "work", "on", "of" };

    for (size_t i = 0; i < LEN(words); i++)
        (void)word_gap(at, words[i]); /* they may be missing */
    (void)word(at, "issue");
}

/* "/status@bot #5", as Telegram writes it in groups. */
static enum command_fault slash(struct str at, struct command_parsed *p)
{
    static const struct {
        const char *name;
        enum command_kind kind;
    } commands[] = {
        { "/work", CMD_WORK }, { "/status", CMD_STATUS }, { "/stop", CMD_STOP },
        { "/list", CMD_LIST }, { "/help", CMD_HELP },
    };
    struct str name = take_word(&at);
    const char *bot = memchr(name.p, '@', name.n);
    size_t i = 0;

    if (bot)
        name.n = (size_t)(bot - name.p);
    while (i < LEN(commands) && !str_eq_nocase(name, str_of(commands[i].name)))
        i++;
    if (i == LEN(commands))
        return CMD_UNKNOWN;
    skip_blanks(&at);
    p->kind = commands[i].kind;
    if (p->kind == CMD_LIST || p->kind == CMD_HELP)
        return CMD_FINE;
    if (p->kind == CMD_STATUS && !at.n) {
        p->kind = CMD_LIST; /* how is everything? */
        return CMD_FINE;
    }
    skip_words(&at);
    return number(at, p);
}

enum command_fault command_look(struct str text, struct command_parsed *ret)
{
    struct str at = str_trim(text);

    *ret = (struct command_parsed){ .raw = at };
    if (at.n > 1 && *at.p == '@' && !is_blank(at.p[1])) {
        (void)take_word(&at); /* who is addressed */
        skip_blanks(&at);
    }
    if (!at.n)
        return ret->fault = CMD_EMPTY;
    if (*at.p == '/')
        return ret->fault = slash(at, ret);
    for (size_t i = 0; i < LEN(rules); i++) {
        struct str rest = at;

        if (!rules[i].match(&rest))
            continue;
        ret->kind = rules[i].kind;
        return ret->fault = rules[i].numbered ? number(rest, ret) : CMD_FINE;
    }
    return ret->fault = CMD_UNKNOWN;
}

int command_fault_text(const struct command_parsed *p, struct buf *out, struct err *e)
{
    switch (p->fault) {
    case CMD_EMPTY:
        return buf_add_z(out, "Command cannot be empty", e);
    case CMD_BAD_NUMBER:
        return buf_printf(
            out, e, "Invalid issue number: '" STR_FMT "'. Issue numbers must be positive integers",
            STR_ARG(p->number));
    case CMD_UNKNOWN:
        return buf_printf(out, e,
                          "Unknown command: '" STR_FMT "'. Supported commands: work on issue #N, "
                          "status of issue #N, stop work on issue #N, list agents",
                          STR_ARG(p->raw));
    default:
        return 0;
    }
}

int command_parse(struct str text, struct command_parsed *ret, struct err *e)
{
    AUTO(buf_done) struct buf why = { 0 };
    struct command_parsed p;
    int r;

    if (command_look(text, &p) == CMD_FINE) {
        *ret = p;
        return 0;
    }
    buf_init(&why, SIZE_MAX / 2);
    r = command_fault_text(&p, &why, e);
    return r < 0 ? r : err_set(e, ERR_INVALID, STR_FMT, STR_ARG(buf_str(&why)));
}
