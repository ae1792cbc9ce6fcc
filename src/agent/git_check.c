/* SPDX-License-Identifier: MIT */
/*
 * agent/git_check.c — which repositories git tasks may name.
 */
#include "agent/git.h"

#include <ctype.h>
#include <string.h>

#include "base/str.h"

/* Is the part of text up to its end one of the names in list ("a:b:c")? */
static bool is_listed(struct str name, const char *list)
{
    struct str rest = str_of(list), part;

    while (str_split(&rest, ':', &part))
        if (str_eq_nocase(part, name))
            return true;
    return false;
}

static size_t name_end(const char *repo)
{
    size_t n = 0;

    while (isalnum((unsigned char)repo[n]) || (repo[n] && strchr("+.-_", repo[n])))
        n++;
    return n;
}

int git_repo_check(const char *repo, const char *protocols, struct err *e)
{
    size_t n = name_end(repo);

    for (const char *p = repo; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7F)
            return err_set(e, ERR_INVALID, "a repository's name has no control characters");
    if (!*repo || *repo == '-')
        return err_set(e, ERR_INVALID, "\"%.100s\" is not a repository", repo);
    if (strncmp(repo + n, "::", 2) == 0 ||
        (strncmp(repo + n, "://", 3) == 0 && !is_listed((struct str){ repo, n }, protocols)))
        return err_set(e, ERR_FORBIDDEN, "git transport \"%.*s\" is not allowed",
                       n > 60 ? 60 : (int)n, repo);
    return 0;
}
