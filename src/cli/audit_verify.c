/* SPDX-License-Identifier: MIT */
/*
 * cli/audit_verify.c — chela audit verify: is the hub's audit log what was written? Each line ends
 * with the SHA-256 of the line before's and its own bytes, over all rotated files, so a line that
 * was changed, taken out or put in breaks the chain there. Lines taken off the end are seen only by
 * who has kept the last hash, which is printed.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/secret.h"
#include "cli/cmd_int.h"

#define HASH_HEX 64
#define HASH_KEY ",\"hash\":\""
#define END_LEN  (sizeof(HASH_KEY) - 1 + HASH_HEX + 2) /* with "} behind it */
#define FILES    10000

struct chain {
    struct cli *cli;
    char hash[HASH_HEX + 1]; /* of the last good line */
    bool begun;
    size_t torn; /* bytes of a line that a crash cut off: the next one must say so */
    bool is_torn;
    size_t lines, files, missed, crashes;
    const char *file; /* that is read */
    size_t number;    /* of its line */
};

static int broken(const struct chain *c, const char *why, struct err *e)
{
    return err_set(e, ERR_INTERNAL, "%s:%zu: %s", c->file, c->number, why);
}

/* The line's hash; false: it has none where it must be. */
static bool hash_of(struct str line, struct str *ret_body, struct str *ret_hash)
{
    const char *end;

    if (line.n <= END_LEN)
        return false;
    end = line.p + line.n - END_LEN;
    *ret_body = (struct str){ line.p, line.n - END_LEN };
    *ret_hash = (struct str){ end + sizeof(HASH_KEY) - 1, HASH_HEX };
    return memcmp(end, HASH_KEY, sizeof(HASH_KEY) - 1) == 0 &&
           memcmp(line.p + line.n - 2, "\"}", 2) == 0;
}

static bool fits(const struct chain *c, struct str body, struct str hash)
{
    AUTO(free) char *joined = xmalloc(HASH_HEX + body.n);
    char have[HASH_HEX + 1];

    memcpy(joined, c->hash, HASH_HEX);
    memcpy(joined + HASH_HEX, body.p, body.n);
    sha256_hex((struct str){ joined, HASH_HEX + body.n }, have);
    return str_eq(hash, str_of(have));
}

/* Where a log begins that had older files once: what they ended with is taken as given. */
static void begin(struct chain *c, const json_t *line)
{
    struct str previous = json_member_str(line, "previous");

    memset(c->hash, '0', HASH_HEX);
    if (str_eq_z(json_member_str(line, "event"), "audit.continued") && previous.n == HASH_HEX)
        memcpy(c->hash, previous.p, HASH_HEX);
    c->begun = true;
}

/* What the log says of itself. */
static int note(struct chain *c, const json_t *line, struct err *e)
{
    struct str event = json_member_str(line, "event"), previous = json_member_str(line, "previous");
    bool torn = str_eq_z(event, "audit.torn");

    if (str_eq_z(event, "audit.missed"))
        c->missed += (size_t)json_integer_value(json_object_get(line, "count"));
    if (previous.p && !str_eq(previous, str_of(c->hash)))
        return broken(c, "it names another line before it than there is", e);
    if (c->is_torn &&
        (!torn || (size_t)json_integer_value(json_object_get(line, "bytes")) != c->torn))
        return broken(c, "the line before it is not one of the log", e);
    if (torn && !c->is_torn)
        return broken(c, "it speaks of a line that is not there", e);
    c->crashes += torn;
    c->is_torn = false;
    return 0;
}

static int check_line(struct chain *c, struct str text, struct err *e)
{
    struct arena a = { 0 };
    struct str body, hash;
    struct err unread;
    json_t *line;
    int r;

    c->number++;
    if (!hash_of(text, &body, &hash) || json_parse(text, 64, &a, &line, NULL, &unread) < 0) {
        r = c->is_torn ? broken(c, "this is no line of the log", e) : 0;
        c->is_torn = true;
        c->torn = text.n;
        arena_done(&a);
        return r;
    }
    if (!c->begun)
        begin(c, line);
    r = note(c, line, e);
    if (r == 0 && !fits(c, body, hash))
        r = broken(c, "the chain is broken: this line, or one before it, is not what was written",
                   e);
    if (r == 0)
        memcpy(c->hash, hash.p, HASH_HEX);
    c->lines++;
    arena_done(&a);
    return r;
}

static int check_file(struct chain *c, const char *path, bool newest, struct err *e)
{
    AUTO(free) char *line = NULL;
    FILE *f = fopen(path, "re");
    size_t room = 0;
    ssize_t n;
    int r = 0;

    if (!f)
        return err_sys(e, "open '%s'", path);
    c->file = path;
    c->number = 0;
    c->files++;
    while (r == 0 && (n = getline(&line, &room, f)) > 0) {
        if (line[n - 1] == '\n') {
            r = check_line(c, (struct str){ line, (size_t)n - 1 }, e);
        } else if (newest) {
            fprintf(stderr, "%s: its last line is not complete: written just now, or cut off\n",
                    path);
        } else {
            r = broken(c, "the line is cut off", e);
        }
    }
    if (r == 0 && ferror(f)) /* a directory, or a disk that fails: nothing is known of it */
        r = err_sys(e, "read '%s'", path);
    fclose(f);
    return r;
}

static int tell(const struct chain *c, struct err *e)
{
    AUTO(json_decref) json_t *said = NULL;

    if (c->cli->json) {
        said = json_pack("{s:b, s:I, s:I, s:I, s:I, s:s}", "intact", 1, "lines",
                         (json_int_t)c->lines, "files", (json_int_t)c->files, "missed",
                         (json_int_t)c->missed, "crashes", (json_int_t)c->crashes, "last", c->hash);
        return print_json(said, e);
    }
    printf("intact: %zu lines in %zu files\n", c->lines, c->files);
    if (c->missed)
        printf("missed: %zu acts could not be written, as the log says itself\n", c->missed);
    if (c->crashes)
        printf("crashes: %zu lines were cut off\n", c->crashes);
    printf("last:   %s\n", c->hash);
    return 0;
}

static int verify(struct cli *cli, const struct args *args, struct err *e)
{
    const char *path = args->n_words ? args->words[0] : api_socket(cli, "audit.log");
    struct chain c = { .cli = cli };
    const char *older;
    int n = 0, r = 0;

    while (n < FILES && access(arena_printf(&cli->arena, "%s.%d", path, n + 1), F_OK) == 0)
        n++;
    memset(c.hash, '0', HASH_HEX);
    for (int i = n; r == 0 && i > 0; i--) {
        older = arena_printf(&cli->arena, "%s.%d", path, i);
        r = check_file(&c, older, false, e);
    }
    if (r == 0)
        r = check_file(&c, path, true, e);
    if (r == 0 && c.is_torn)
        r = broken(&c, "the last line is none of the log", e);
    if (r == 0)
        return tell(&c, e);
    fprintf(stderr, "chela: %s\n", e->msg);
    return CLI_FAILED;
}

const struct cli_cmd cmd_audit_verify = {
    .name = "audit verify",
    .words = "[file]",
    .max = 1,
    .doc = "Check that the hub's audit log is what was written.",
    .example = "audit verify",
    .run = verify,
};
