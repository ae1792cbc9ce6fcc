/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_system.c — chela status, version and completion.
 */
#include <stdio.h>
#include <string.h>

#include "cli/cmd_int.h"

static CO int status(struct cli *cli, const struct args *args, struct err *e)
{
    static const char *const rows[] = { "version",       "pid",      "state_dir", "connections",
                                        "requests",      "agents",   "sessions",  "keys",
                                        "auth_required", "workflows" };
    const json_t *store, *listeners;
    json_t *answer;
    int r;

    r = api_call(cli, HTTP_M_GET, "/api/v1/status", (struct str){ 0 }, &answer, e);
    if (r < 0)
        return r;
    if (cli->json)
        return print_json(answer, e);
    store = json_object_get(answer, "store");
    listeners = json_object_get(answer, "listeners");
    printf("%-15s %s\n", "gateway", member_text(cli, listeners, "gateway"));
    printf("%-15s %s\n", "socket", member_text(cli, listeners, "socket"));
    printf("%-15s %s, %s\n", "store", member_text(cli, store, "kind"),
           json_is_true(json_object_get(store, "ok")) ? "working" : "away");
    printf("%-15s %s\n", "uptime",
           span_text(cli, json_number_value(json_object_get(answer, "uptime_s"))));
    for (size_t i = 0; i < LEN(rows); i++)
        printf("%-15s %s\n", rows[i], member_text(cli, answer, rows[i]));
    return 0;
}

const struct cli_cmd cmd_status = {
    .name = "status",
    .words = "",
    .doc = "Show how the daemon is.",
    .example = "status",
    .run = status,
};

static int version(struct cli *cli, const struct args *args, struct err *e)
{
    printf(cli->json ? "{\"version\":\"%s\"}\n" : "chela %s\n", CHELA_VERSION);
    return 0;
}

const struct cli_cmd cmd_version = {
    .name = "version",
    .words = "",
    .doc = "Print the version.",
    .example = "version",
    .run = version,
};

/* A function of one case per command, from the same rows as the help. */
static int completion(struct cli *cli, const struct args *args, struct err *e)
{
    if (strcmp(args->words[0], "bash") != 0)
        return err_set(e, ERR_INVALID, "no completion for '%s': only bash", args->words[0]);
    printf("# bash completion of chela: source <(chela completion bash)\n"
           "_chela()\n{\n"
           "    local cur=\"${COMP_WORDS[COMP_CWORD]}\" words=() w skip=\n"
           "    for w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
           "        if [[ $w == = ]]; then skip=1; continue; fi\n" /* bash cuts --state=DIR */
           "        if [[ $skip ]]; then skip=; continue; fi\n"
           "        case $w in\n"
           "        --state|--url|--token) skip=1 ;;\n"
           "        -*) ;;\n"
           "        *) words+=(\"$w\") ;;\n"
           "        esac\n"
           "    done\n"
           "    if [[ $skip ]]; then COMPREPLY=($(compgen -f -- \"$cur\")); return; fi\n"
           "    local all='--state --url --token --json --help'\n"
           "    case \"${words[*]:0:2}\" in\n");
    for (const struct cli_cmd *const *c = cli_commands; *c; c++) {
        printf("    '%s'*) all=\"$all", (*c)->name);
        for (size_t i = 0; i < (*c)->n_flags; i++)
            printf(" --%s", (*c)->flags[i].name);
        printf("\" ;;\n");
    }
    printf("    *) all=\"$all $(_chela_next \"${words[*]}\")\" ;;\n    esac\n"
           "    COMPREPLY=($(compgen -W \"$all\" -- \"$cur\"))\n}\n"
           "_chela_next()\n{\n    case \"$1\" in\n    '') echo '");
    for (const struct cli_cmd *const *c = cli_commands; *c; c++)
        printf("%.*s ", (int)strcspn((*c)->name, " "), (*c)->name);
    printf("' ;;\n");
    for (const struct cli_cmd *const *c = cli_commands; *c; c++) {
        size_t noun = strcspn((*c)->name, " ");

        if ((*c)->name[noun])
            printf("    '%.*s') ;;& '%.*s') echo '%s' ;;&\n", (int)noun, (*c)->name, (int)noun,
                   (*c)->name, (*c)->name + noun + 1);
    }
    printf("    esac\n}\ncomplete -o default -F _chela chela\n");
    return 0;
}

const struct cli_cmd cmd_completion = {
    .name = "completion",
    .words = "<shell>",
    .min = 1,
    .max = 1,
    .doc = "Print the completion for a shell (bash).",
    .example = "completion bash",
    .run = completion,
};
