/* SPDX-License-Identifier: MIT */
/*
 * cli/args.c — words and flags of a command line, checked against the command's row. Flags may
 * stand anywhere; "--" ends them.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/guess.h"

static const struct cli_flag common[] = {
    { "state", "DIR", "state directory of the daemon to talk to" },
    { "url", "URL",
      "talk to this address instead (machine, task, dead, hub: the hub's, port 9091)" },
    { "token", "TOKEN", "API key for --url (better: variable CHELA_TOKEN)" },
    { "json", NULL, "print JSON for programs" },
};

static const struct cli_flag *find_flag(const struct cli_flag *flags, size_t n, const char *name,
                                        size_t len, size_t *ret_index)
{
    for (size_t i = 0; i < n; i++)
        if (strlen(flags[i].name) == len && memcmp(flags[i].name, name, len) == 0) {
            *ret_index = i;
            return &flags[i];
        }
    return NULL;
}

/* The command whose name is made of the first one or two words; *ret_used says how many. */
static const struct cli_cmd *find_command(const char *const *words, size_t n, size_t *ret_used)
{
    char two[128];

    for (size_t used = n < 2 ? n : 2; used > 0; used--) {
        snprintf(two, sizeof(two), "%s%s%s", words[0], used == 2 ? " " : "",
                 used == 2 ? words[1] : "");
        for (const struct cli_cmd *const *cmd = cli_commands; *cmd; cmd++)
            if (strcmp((*cmd)->name, two) == 0) {
                *ret_used = used;
                return *cmd;
            }
    }
    return NULL;
}

static void print_flags(const struct cli_flag *flags, size_t n)
{
    char left[64];

    for (size_t i = 0; i < n; i++) {
        snprintf(left, sizeof(left), "--%s%s%s", flags[i].name, flags[i].value ? "=" : "",
                 flags[i].value ? flags[i].value : "");
        printf("  %-26s %s\n", left, flags[i].doc);
    }
}

static size_t noun_len(const struct cli_cmd *cmd)
{
    return strcspn(cmd->name, " ");
}

static bool in_group(const struct cli_cmd *cmd, const char *noun)
{
    return strlen(noun) == noun_len(cmd) && strncmp(cmd->name, noun, noun_len(cmd)) == 0;
}

static void help_of(const struct cli_cmd *cmd)
{
    printf("usage: chela %s%s%s%s\n\n%s\n\n", cmd->name, *cmd->words ? " " : "", cmd->words,
           cmd->n_flags ? " [flags]" : "", cmd->doc);
    print_flags(cmd->flags, cmd->n_flags);
    print_flags(common, LEN(common));
    printf("\nexample: chela %s\n", cmd->example);
}

void args_help(const struct cli_cmd *cmd, const struct args *args)
{
    const char *noun = args->n_words ? args->words[0] : NULL;
    char left[96];

    if (cmd) {
        help_of(cmd);
        return;
    }
    printf("usage: chela [flags] %s%sCOMMAND ...\n\n", noun ? noun : "", noun ? " " : "");
    for (const struct cli_cmd *const *c = cli_commands; *c; c++) {
        if (noun && !in_group(*c, noun))
            continue;
        snprintf(left, sizeof(left), "%s %s", (*c)->name, (*c)->words);
        printf("  %-34s %s\n", left, (*c)->doc);
    }
    printf("\n");
    print_flags(common, LEN(common));
    printf("\n'chela COMMAND --help' tells a command's flags.\n"
           "Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 no daemon.\n");
}

/* Where the value of a flag goes. */
static void keep_common(struct cli *cli, size_t index, const char *value)
{
    switch (index) {
    case 0:
        cli->state = value;
        break;
    case 1:
        cli->url = cli->hub_url = value;
        break;
    case 2:
        cli->token = value;
        break;
    default:
        cli->json = true;
        break;
    }
}

struct given { /* a flag of the command, kept until the command is known */
    const char *name, *value;
    size_t len;
};

/* Does the command, or while it is not known any command, have this flag with a value? */
static bool takes_value(const struct cli_cmd *known, const char *name, size_t len)
{
    const struct cli_flag *own;
    size_t index;

    own = known ? find_flag(known->flags, known->n_flags, name, len, &index) : NULL;
    if (own)
        return own->value != NULL;
    for (const struct cli_cmd *const *c = cli_commands; *c; c++) {
        const struct cli_flag *f = find_flag((*c)->flags, (*c)->n_flags, name, len, &index);

        if (f)
            return f->value != NULL;
    }
    return false;
}

static int take_flag(struct cli *cli, const struct cli_cmd *known, int argc, char **argv, int *i,
                     struct given *given, size_t *n_given, struct err *e)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name), index;
    const struct cli_flag *flag = find_flag(common, LEN(common), name, len, &index);
    bool wants = flag ? flag->value != NULL : takes_value(known, name, len);
    const char *value = equals ? equals + 1 : "";

    if (flag && !wants && equals)
        return err_set(e, ERR_INVALID, "--%.*s takes no value", (int)len, name);
    if (wants && !equals) {
        if (*i + 1 >= argc)
            return err_set(e, ERR_INVALID, "--%.*s needs a value", (int)len, name);
        value = argv[++*i];
    }
    if (flag) {
        keep_common(cli, index, value);
        return 0;
    }
    if (*n_given == CLI_FLAGS_MAX)
        return err_set(e, ERR_INVALID, "too many flags");
    given[(*n_given)++] = (struct given){ name, value, len };
    return 0;
}

static int no_flag(struct cli *cli, const struct cli_cmd *cmd, const struct given *flag,
                   struct err *e)
{
    struct guess g =
        guess_of(cli, arena_printf(&cli->arena, "%.*s", (int)flag->len, flag->name), "--");

    for (size_t i = 0; i < cmd->n_flags; i++)
        guess_consider(&g, cmd->flags[i].name, strlen(cmd->flags[i].name));
    for (size_t i = 0; i < LEN(common); i++)
        guess_consider(&g, common[i].name, strlen(common[i].name));
    return err_set(e, ERR_INVALID, "'%s' has no flag --%.100s%s: see 'chela %s --help'", cmd->name,
                   g.word, guess_text(&g, " "), cmd->name);
}

static int assign(struct cli *cli, const struct cli_cmd *cmd, const struct given *given, size_t n,
                  struct args *args, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct cli_flag *flag;
        size_t index;

        flag = find_flag(cmd->flags, cmd->n_flags, given[i].name, given[i].len, &index);
        if (!flag)
            return no_flag(cli, cmd, &given[i], e);
        if (!flag->value && given[i].name[given[i].len] == '=')
            return err_set(e, ERR_INVALID, "--%s takes no value", flag->name);
        args->flags[index] = given[i].value;
    }
    return 0;
}

/* The same by another name. */
static size_t drop_alias(const char **words, size_t n)
{
    if (n > 1 && strcmp(words[0], "workflow") == 0 && strcmp(words[1], "schedule") == 0)
        memmove(words, words + 1, --n * sizeof(*words));
    return n;
}

/* Flags end here: what follows belongs to a command of others. */
static bool is_rest(const struct cli_cmd *cmd, size_t n_words, size_t used)
{
    return cmd && cmd->rest && n_words >= used + cmd->rest;
}

static bool is_group(const char *word)
{
    for (const struct cli_cmd *const *c = cli_commands; *c; c++)
        if ((*c)->name[noun_len(*c)] && in_group(*c, word))
            return true;
    return false;
}

/* A noun alone, or with a verb that it does not have: the verbs there are. */
static int no_verb(struct cli *cli, const char *noun, const char *verb, struct err *e)
{
    struct guess g = guess_of(cli, verb ? verb : "", "");
    const char *list = "";

    for (const struct cli_cmd *const *c = cli_commands; *c; c++) {
        const char *name = (*c)->name + noun_len(*c) + 1;

        if (!in_group(*c, noun))
            continue;
        guess_consider(&g, name, strlen(name));
        list = arena_printf(&cli->arena, "%s%s%s", list, *list ? ", " : "", name);
    }
    if (!verb)
        return err_set(e, ERR_INVALID, "'%s' what? %s: see 'chela %s --help'", noun, list, noun);
    return err_set(e, ERR_INVALID, "no command '%s %.60s'%s: there are %s", noun, verb,
                   guess_text(&g, " "), list);
}

static int no_command(struct cli *cli, const char *const *words, size_t n, struct err *e)
{
    struct guess g = guess_of(cli, words[0], "");

    if (is_group(words[0]))
        return no_verb(cli, words[0], n > 1 ? words[1] : NULL, e);
    for (const struct cli_cmd *const *c = cli_commands; *c; c++)
        guess_consider(&g, (*c)->name, noun_len(*c));
    return err_set(e, ERR_INVALID, "no command '%.60s'%s: see 'chela --help'", words[0],
                   guess_text(&g, " "));
}

static int take_words(const struct cli_cmd *cmd, const char *const *words, size_t n,
                      struct args *args, struct err *e)
{
    args->words = words;
    args->n_words = n;
    if (n >= cmd->min && n <= cmd->max)
        return 0;
    return err_set(e, ERR_INVALID, "%s; usage: chela %s%s%s%s",
                   n < cmd->min ? "something is missing" : "too many words", cmd->name,
                   *cmd->words ? " " : "", cmd->words, cmd->n_flags ? " [flags]" : "");
}

/* Help of a command, of the commands of a noun (then args has it as its word), or of all. */
static int want_help(const struct cli_cmd *cmd, const char *const *words, size_t n,
                     struct args *args)
{
    *args = (struct args){ .words = words, .n_words = !cmd && n && is_group(words[0]) };
    return ARGS_HELP;
}

static bool asks_help(const char *text, size_t n_words)
{
    return strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0 ||
           (n_words == 0 && strcmp(text, "help") == 0);
}

int args_parse(struct cli *cli, int argc, char **argv, const struct cli_cmd **ret_cmd,
               struct args *args, struct err *e)
{
    const char **words = arena_alloc(&cli->arena, (size_t)(argc + 1) * sizeof(*words));
    struct given given[CLI_FLAGS_MAX];
    size_t n_words = 0, n_given = 0, used = 0;
    bool flags_end = false, help = false;
    int r;

    *ret_cmd = NULL;
    for (int i = 1; i < argc; i++) {
        if (!flags_end && strcmp(argv[i], "--") == 0) {
            flags_end = true;
        } else if (!flags_end && asks_help(argv[i], n_words)) {
            help = true;
        } else if (!flags_end && strcmp(argv[i], "--version") == 0) {
            return ARGS_VERSION;
        } else if (!flags_end && strncmp(argv[i], "--", 2) == 0) {
            r = take_flag(cli, *ret_cmd, argc, argv, &i, given, &n_given, e);
            if (r < 0)
                return r;
        } else {
            words[n_words++] = argv[i];
            n_words = drop_alias(words, n_words);
            *ret_cmd = find_command(words, n_words, &used);
            if (!flags_end && is_rest(*ret_cmd, n_words, used)) {
                flags_end = true;
                i += i + 1 < argc && strcmp(argv[i + 1], "--") == 0;
            }
        }
    }
    if (n_words && !*ret_cmd && !(help && is_group(words[0])))
        return no_command(cli, words, n_words, e);
    if (help || !n_words)
        return want_help(*ret_cmd, words, n_words, args);
    r = take_words(*ret_cmd, words + used, n_words - used, args, e);
    return r < 0 ? r : assign(cli, *ret_cmd, given, n_given, args, e);
}

const char *args_flag(const struct cli_cmd *cmd, const struct args *args, const char *name)
{
    size_t index;

    return find_flag(cmd->flags, cmd->n_flags, name, strlen(name), &index) ? args->flags[index]
                                                                           : NULL;
}
