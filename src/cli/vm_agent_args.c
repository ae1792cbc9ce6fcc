/* SPDX-License-Identifier: MIT */
/*
 * cli/vm_agent_args.c — a command line as the original's parser (commander) took it: short and long
 * flags anywhere, its help, its words for what is wrong, its "Did you mean". Words that are too
 * many are let pass, as there.
 */
#include <stdio.h>
#include <string.h>

#include "cli/guess.h"
#include "cli/vm_agent.h"

/* --- help --- */

static size_t group_len(const struct cli_cmd *cmd)
{
    size_t n = strcspn(cmd->name, " ");

    return cmd->name[n] ? n : 0;
}

static bool in_group(const struct cli_cmd *cmd, const char *group)
{
    return group && group_len(cmd) == strlen(group) &&
           strncmp(cmd->name, group, strlen(group)) == 0;
}

static void flag_term(const struct cli_flag *f, char *out, size_t size)
{
    char letter[8] = "";

    if (f->letter)
        fmt_z(letter, sizeof(letter), "-%c, ", f->letter);
    (void)snprintf(out, size, "%s--%s%s%s%s", letter, f->name, f->value ? " <" : "",
                   f->value ? f->value : "", f->value ? ">" : "");
}

static void print_flag(FILE *to, const struct cli_flag *f)
{
    char term[80];

    flag_term(f, term, sizeof(term));
    fprintf(to, "  %-26s  %s", term, f->doc);
    if (f->def && strspn(f->def, "0123456789") == strlen(f->def) && *f->def)
        fprintf(to, " (default: %s)", f->def);
    else if (f->def)
        fprintf(to, " (default: \"%s\")", f->def);
    fprintf(to, "\n");
}

static void print_command(FILE *to, const struct cli_cmd *c, size_t skip)
{
    char term[80];

    (void)snprintf(term, sizeof(term), "%s%s%s%s", c->name + skip, c->n_flags ? " [options]" : "",
                   *c->words ? " " : "", c->words);
    fprintf(to, "  %-40s  %s\n", term, c->doc);
}

static void help_of(FILE *to, const struct cli_cmd *cmd)
{
    fprintf(to, "Usage: vm-agent %s%s%s%s\n\n%s\n\n", cmd->name, cmd->n_flags ? " [options]" : "",
            *cmd->words ? " " : "", cmd->words, cmd->doc);
    fprintf(to, "Options:\n");
    for (size_t i = 0; i < cmd->n_flags; i++)
        print_flag(to, &cmd->flags[i]);
    fprintf(to, "  %-26s  display help for command\n", "-h, --help");
}

void vm_help(FILE *to, const struct cli_cmd *cmd, const char *group)
{
    const char *last = "";

    if (cmd) {
        help_of(to, cmd);
        return;
    }
    fprintf(to, "Usage: vm-agent%s%s [options] [command]\n\n%sOptions:\n", group ? " " : "",
            group ? group : "", group ? "" : "Manage agents in machines of their own\n\n");
    if (!group)
        fprintf(to, "  %-26s  output the version number\n", "-V, --version");
    fprintf(to, "  %-26s  display help for command\n\nCommands:\n", "-h, --help");
    for (const struct cli_cmd *const *c = vm_agent_commands; *c; c++) {
        size_t n = group_len(*c);

        if (group && in_group(*c, group)) {
            print_command(to, *c, n + 1);
        } else if (!group && !n) {
            print_command(to, *c, 0);
        } else if (!group && (strlen(last) < n || strncmp(last, (*c)->name, n) != 0)) {
            fprintf(to, "  %-9.*s%-31s  %s\n", (int)n, (*c)->name, "", (*c)->doc);
            last = (*c)->name;
        }
    }
    fprintf(to, "  %-40s  display help for command\n", "help [command]");
    if (!group)
        fprintf(
            to,
            "\nThe hub is at VM_AGENT_HUB_URL (with HUB_ADMIN_TOKEN), else where chelad of this "
            "user\nlistens, else at http://localhost:9091.\n");
}

/* --- finding --- */

static const struct cli_cmd *find_command(const char *one, const char *two)
{
    for (const struct cli_cmd *const *c = vm_agent_commands; *c; c++) {
        size_t n = group_len(*c);

        if (n ? two && in_group(*c, one) && strcmp((*c)->name + n + 1, two) == 0
              : strcmp((*c)->name, one) == 0)
            return *c;
    }
    return NULL;
}

static bool is_group(const char *word)
{
    for (const struct cli_cmd *const *c = vm_agent_commands; *c; c++)
        if (in_group(*c, word))
            return true;
    return false;
}

static const char *meant_command(struct cli *cli, const char *word)
{
    struct guess g = guess_of(cli, word, "");

    for (const struct cli_cmd *const *c = vm_agent_commands; *c; c++)
        guess_consider(&g, (*c)->name, strcspn((*c)->name, " "));
    return guess_text(&g, "\n");
}

/* text: "--tpye", or something short, for which nothing is guessed. */
static const char *meant_flag(struct cli *cli, const struct cli_cmd *cmd, const char *text)
{
    struct guess g = guess_of(cli, text + 2, "--");

    if (strncmp(text, "--", 2) != 0)
        return "";
    for (size_t i = 0; cmd && i < cmd->n_flags; i++)
        guess_consider(&g, cmd->flags[i].name, strlen(cmd->flags[i].name));
    guess_consider(&g, "version", strlen("version"));
    guess_consider(&g, "help", strlen("help"));
    return guess_text(&g, "\n");
}

/* --- parsing --- */

struct parsing {
    struct cli *cli;
    char **argv;
    int argc, at;
    const struct cli_cmd *cmd;
    struct args *args;
    bool help;
};

static const struct cli_flag *flag_of(const struct cli_cmd *cmd, const char *name, size_t len,
                                      char letter, size_t *ret_index)
{
    for (size_t i = 0; i < cmd->n_flags; i++)
        if (name ? strlen(cmd->flags[i].name) == len && memcmp(cmd->flags[i].name, name, len) == 0
                 : cmd->flags[i].letter == letter) {
            *ret_index = i;
            return &cmd->flags[i];
        }
    return NULL;
}

static int unknown(struct parsing *p, const char *text, struct err *e)
{
    const char *hint = meant_flag(p->cli, p->cmd, text);

    if (p->cmd->max == SIZE_MAX && p->args->n_words)
        hint = "\n(put -- before a command that has options of its own)";
    return err_set(e, ERR_INVALID, "unknown option '%.100s'%s", text, hint);
}

static int take_value(struct parsing *p, const struct cli_flag *f, size_t index, const char *joined,
                      struct err *e)
{
    char term[80];

    if (joined || p->at + 1 < p->argc) {
        p->args->flags[index] = joined ? joined : p->argv[++p->at];
        return 0;
    }
    flag_term(f, term, sizeof(term));
    return err_set(e, ERR_INVALID, "option '%s' argument missing", term);
}

static int take_long(struct parsing *p, const char *text, struct err *e)
{
    const char *name = text + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name), index;
    const struct cli_flag *f = flag_of(p->cmd, name, len, 0, &index);

    if (!f && strcmp(name, "help") == 0) {
        p->help = true;
        return 0;
    }
    if (!f || (equals && !f->value))
        return unknown(p, text, e);
    if (f->value)
        return take_value(p, f, index, equals ? equals + 1 : NULL, e);
    p->args->flags[index] = "";
    return 0;
}

/* -t builder, -tbuilder, -fn 5. */
static int take_short(struct parsing *p, const char *text, struct err *e)
{
    for (const char *at = text + 1; *at; at++) {
        size_t index;
        const struct cli_flag *f = flag_of(p->cmd, NULL, 0, *at, &index);

        if (!f && *at == 'h') {
            p->help = true;
            continue;
        }
        if (!f)
            return unknown(p, at == text + 1 ? text : arena_printf(&p->cli->arena, "-%s", at), e);
        if (f->value)
            return take_value(p, f, index, at[1] ? at + 1 : NULL, e);
        p->args->flags[index] = "";
    }
    return 0;
}

/* "<name> <task-json>": the i-th without its brackets. */
static const char *word_name(struct cli *cli, const struct cli_cmd *cmd, size_t i)
{
    struct str rest = str_of(cmd->words), part = { 0 };

    for (size_t k = 0; k <= i; k++)
        if (!str_split(&rest, ' ', &part))
            return "?";
    while (part.n && strchr("<>.[]", part.p[part.n - 1]))
        part.n--;
    return arena_printf(&cli->arena, "%.*s", (int)part.n - 1, part.p + 1);
}

static int parse_rest(struct parsing *p, struct err *e)
{
    const char **words = arena_alloc(&p->cli->arena, (size_t)(p->argc + 1) * sizeof(*words));
    bool end = false;
    int r = 0;

    p->args->words = words;
    for (; r == 0 && p->at < p->argc; p->at++) {
        const char *text = p->argv[p->at];

        if (end || text[0] != '-' || !text[1])
            words[p->args->n_words++] = text;
        else if (strcmp(text, "--") == 0)
            end = true;
        else
            r = text[1] == '-' ? take_long(p, text, e) : take_short(p, text, e);
    }
    if (r < 0)
        return r;
    if (p->help)
        return ARGS_HELP;
    if (p->args->n_words < p->cmd->min)
        return err_set(e, ERR_INVALID, "missing required argument '%s'",
                       word_name(p->cli, p->cmd, p->args->n_words));
    return 0;
}

static bool is_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0;
}

int vm_args_parse(struct cli *cli, int argc, char **argv, const struct cli_cmd **ret_cmd,
                  struct args *args, struct err *e)
{
    struct parsing p = { .cli = cli, .argv = argv, .argc = argc, .args = args };
    const char *first = argc > 1 ? argv[1] : NULL, *second = argc > 2 ? argv[2] : NULL;

    *ret_cmd = NULL;
    if (!first)
        return ARGS_HELP;
    if (strcmp(first, "-V") == 0 || strcmp(first, "--version") == 0)
        return ARGS_VERSION;
    if (is_help(first)) {
        *ret_cmd = second ? find_command(second, argc > 3 ? argv[3] : NULL) : NULL;
        return ARGS_HELP;
    }
    if (first[0] == '-')
        return err_set(e, ERR_INVALID, "unknown option '%.100s'%s", first,
                       meant_flag(cli, NULL, first));
    if (is_group(first) && (!second || is_help(second)))
        return ARGS_HELP;
    p.cmd = find_command(first, second);
    if (!p.cmd)
        return err_set(e, ERR_INVALID, "unknown command '%.60s'%s",
                       is_group(first) ? second : first,
                       is_group(first) ? "" : meant_command(cli, first));
    *ret_cmd = p.cmd;
    p.at = group_len(p.cmd) ? 3 : 2;
    return parse_rest(&p, e);
}
