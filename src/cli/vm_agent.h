/* SPDX-License-Identifier: MIT */
/*
 * cli/vm_agent.h — `vm-agent`, the original's command line, over the hub of chela: its commands,
 * flags, texts and exit codes. The same program as chela, by the name it is called by.
 */
#pragma once

#include "cli/hub.h"

/* Is that what we were called as? "vm-agent", or "vm-agent-profiles". */
bool vm_agent_called(const char *argv0);
int vm_agent_main(int argc, char **argv);

#define VM_AGENT_VERSION "1.0.0"

/* Every command, in help order, ended by NULL: vm_agent_commands.c. Rows of two words are groups.
 */
extern const struct cli_cmd *const vm_agent_commands[];

/* list and status: vm_agent_list.c */
extern const struct cli_cmd vm_list, vm_status;

/* Take argv apart as commander does. 0, or ARGS_HELP, ARGS_VERSION; <0: e has commander's words
 * (without "error: "). ret_cmd is NULL when no command was named. */
int vm_args_parse(struct cli *cli, int argc, char **argv, const struct cli_cmd **ret_cmd,
                  struct args *args, struct err *e) MUST_CHECK;
void vm_help(FILE *to, const struct cli_cmd *cmd, const char *group);
