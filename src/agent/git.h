/* SPDX-License-Identifier: MIT */
/*
 * agent/git.h — which repositories git tasks may name.
 */
#pragma once

#include "base/err.h"

/* The transports that git may use (GIT_ALLOW_PROTOCOL). With a root of the agent, `file` is not
 * among them: it would read what is outside. */
#define GIT_PROTOCOLS      "file:git:http:https:ssh"
#define GIT_PROTOCOLS_ROOT "git:http:https:ssh"

/*
 * Is it a repository, or a remote's name, that git reaches by one of the protocols? Refused are
 * "ext::..." and every other transport helper, schemes that are not listed, what looks like an
 * option, control characters. Pure; git itself is held to the same list.
 */
int git_repo_check(const char *repo, const char *protocols, struct err *e) MUST_CHECK;
