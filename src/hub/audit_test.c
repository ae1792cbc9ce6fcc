/* SPDX-License-Identifier: MIT */
/*
 * hub/audit_test.c — the chain of the audit log over restarts, cut lines and rotations, checked by
 * a reader of its own; what of an act is written and what is not.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "hub/audit_int.h"
#include "test.h"

static char dir[64];

static const char *path_of(const char *name)
{
    static char path[128];

    fmt_z(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void fresh(void)
{
    static const char *const names[] = { "audit.log", "audit.log.1", "audit.log.2", "audit.log.3" };

    if (!*dir) {
        fmt_z(dir, sizeof(dir), "/tmp/chela-audit-XXXXXX");
        if (!mkdtemp(dir))
            abort();
    }
    for (size_t i = 0; i < LEN(names); i++)
        (void)unlink(path_of(names[i])); /* mostly not there */
}

static bool file_open(struct audit_file *f, long long max, long long keep)
{
    struct err e;

    *f = (struct audit_file){ .path = xstrdup(path_of("audit.log")), .max = max, .keep = keep };
    if (audit_file_open(f, &e) == 0)
        return true;
    printf("# %s\n", e.msg);
    return false;
}

/* One act, through the whole way of a line. */
static bool write_act(struct audit_file *f, const struct audit_line *line)
{
    AUTO(buf_done) struct buf b = { 0 };
    struct err e;
    size_t done;

    buf_init(&b, AUDIT_LINE_MAX);
    return audit_line_write(line, &b, &e) == 0 &&
           audit_file_write(f, buf_str(&b), &done, &e) == 0 && done == 1;
}

static char *slurp(const char *name)
{
    static char text[1 << 20];
    FILE *in = fopen(path_of(name), "r");
    size_t n;

    if (!in)
        return NULL;
    n = fread(text, 1, sizeof(text) - 1, in);
    text[n] = 0;
    (void)fclose(in); /* it was read */
    return text;
}

/* Lines that follow from `hash` on; -1: the chain is broken. hash goes on. */
static int follow(const char *name, char hash[AUDIT_HASH + 1])
{
    static char copy[AUDIT_LINE_MAX];
    char *text = slurp(name), *line, *rest = NULL, have[AUDIT_HASH + 1];
    int n = 0;

    for (line = text ? strtok_r(text, "\n", &rest) : NULL; line;
         line = strtok_r(NULL, "\n", &rest), n++) {
        size_t len = strlen(line);

        if (len < AUDIT_TAIL || memcmp(line + len - AUDIT_TAIL, ",\"hash\":\"", 9) != 0)
            return -1;
        fmt_z(copy, sizeof(copy), "%s%.*s", hash, (int)(len - AUDIT_TAIL), line);
        sha256_hex(str_of(copy), have);
        if (memcmp(have, line + len - AUDIT_TAIL + 9, AUDIT_HASH) != 0)
            return -1;
        memcpy(hash, have, sizeof(have));
    }
    return n;
}

static void zeros(char hash[AUDIT_HASH + 1])
{
    memset(hash, '0', AUDIT_HASH);
    hash[AUDIT_HASH] = 0;
}

static const struct audit_line act = { .event = "agent.registered" };

TEST(each_line_follows_from_the_one_before)
{
    struct audit_file f;
    char hash[AUDIT_HASH + 1];
    struct stat st;

    fresh();
    CHECK(file_open(&f, 1 << 20, 3));
    for (int i = 0; i < 5; i++)
        CHECK(write_act(&f, &act));
    audit_file_close(&f);
    zeros(hash);
    CHECK_INT(follow("audit.log", hash), 5);
    CHECK(stat(path_of("audit.log"), &st) == 0 && (st.st_mode & 0777) == 0600);
    /* and goes on in the next life */
    CHECK(file_open(&f, 1 << 20, 3));
    CHECK(write_act(&f, &act));
    audit_file_close(&f);
    zeros(hash);
    CHECK_INT(follow("audit.log", hash), 6);
}

TEST(a_changed_byte_breaks_the_chain)
{
    struct audit_file f;
    char hash[AUDIT_HASH + 1];
    int fd;

    fresh();
    CHECK(file_open(&f, 1 << 20, 3));
    for (int i = 0; i < 3; i++)
        CHECK(write_act(&f, &act));
    audit_file_close(&f);
    fd = open(path_of("audit.log"), O_WRONLY);
    CHECK(fd >= 0 && pwrite(fd, "1", 1, 8) == 1 && close(fd) == 0);
    zeros(hash);
    CHECK_INT(follow("audit.log", hash), -1);
}

TEST(a_line_that_was_cut_off_is_marked_and_the_chain_goes_on)
{
    struct audit_file f;
    char *text, *torn, expected[64];
    struct stat st;

    fresh();
    CHECK(file_open(&f, 1 << 20, 3));
    CHECK(write_act(&f, &act));
    CHECK(write_act(&f, &act));
    audit_file_close(&f);
    CHECK(stat(path_of("audit.log"), &st) == 0);
    CHECK(truncate(path_of("audit.log"), st.st_size - 40) == 0);
    CHECK(file_open(&f, 1 << 20, 3));
    CHECK(write_act(&f, &act));
    audit_file_close(&f);
    text = slurp("audit.log");
    torn = strstr(text, "\"event\":\"audit.torn\"");
    CHECK(torn != NULL);
    fmt_z(expected, sizeof(expected), "\"bytes\":%lld", (long long)st.st_size / 2 - 40);
    CHECK(torn && strstr(torn, expected) != NULL);
    /* the torn line stands where it was, and what follows says what it follows from */
    CHECK(torn && strstr(torn, "\"previous\":\"") != NULL);
    {
        char hash[AUDIT_HASH + 1], *first_end = strchr(text, '\n');
        FILE *out;

        /* without the torn line the chain is whole */
        torn = strchr(first_end + 1, '\n');
        out = fopen(path_of("audit.log.3"), "w");
        CHECK(out && fwrite(text, 1, (size_t)(first_end + 1 - text), out) > 0);
        CHECK(out && fputs(torn + 1, out) >= 0 && fclose(out) == 0);
        zeros(hash);
        CHECK_INT(follow("audit.log.3", hash), 3);
    }
}

TEST(a_line_that_lacks_only_its_end_is_whole)
{
    struct audit_file f;
    char hash[AUDIT_HASH + 1];
    struct stat st;

    fresh();
    CHECK(file_open(&f, 1 << 20, 3));
    CHECK(write_act(&f, &act));
    CHECK(write_act(&f, &act));
    audit_file_close(&f);
    CHECK(stat(path_of("audit.log"), &st) == 0);
    CHECK(truncate(path_of("audit.log"), st.st_size - 1) == 0);
    CHECK(file_open(&f, 1 << 20, 3));
    CHECK(write_act(&f, &act));
    audit_file_close(&f);
    zeros(hash);
    CHECK_INT(follow("audit.log", hash), 3);
}

TEST(the_chain_goes_through_rotated_files_and_old_ones_go)
{
    struct audit_file f;
    char hash[AUDIT_HASH + 1];
    int n = 0, files = 0;

    fresh();
    CHECK(file_open(&f, 1000, 2));
    for (int i = 0; i < 40; i++)
        CHECK(write_act(&f, &act));
    audit_file_close(&f);
    CHECK(access(path_of("audit.log.3"), F_OK) != 0);
    for (int i = 2; i >= 0; i--) {
        char name[32];
        char *text, *previous;
        int r;

        fmt_z(name, sizeof(name), i ? "audit.log.%d" : "audit.log", i);
        text = slurp(name);
        CHECK(text && strstr(text, "audit.continued") != NULL);
        previous = text ? strstr(text, "\"previous\":\"") : NULL;
        CHECK(previous != NULL);
        if (!previous)
            return;
        if (files++ == 0)
            fmt_z(hash, sizeof(hash), "%.64s", previous + 12);
        else
            CHECK(memcmp(hash, previous + 12, AUDIT_HASH) == 0);
        r = follow(name, hash);
        CHECK(r > 0);
        n += r;
    }
    CHECK(n > 10 && n < 40 + 20);
}

TEST(a_crash_between_two_files_loses_no_chain)
{
    struct audit_file f;
    char hash[AUDIT_HASH + 1];
    char old[160];

    fresh();
    CHECK(file_open(&f, 1 << 20, 2));
    CHECK(write_act(&f, &act));
    audit_file_close(&f);
    fmt_z(old, sizeof(old), "%s.1", path_of("audit.log"));
    CHECK(rename(path_of("audit.log"), old) == 0);
    CHECK(file_open(&f, 1 << 20, 2));
    CHECK(write_act(&f, &act));
    audit_file_close(&f);
    zeros(hash);
    CHECK_INT(follow("audit.log.1", hash), 1);
    CHECK_INT(follow("audit.log", hash), 2);
}

/* --- what a line says --- */

static const char *line_of(const struct audit_line *line)
{
    static struct buf b;
    struct err e;

    buf_done(&b);
    buf_init(&b, AUDIT_LINE_MAX);
    if (audit_line_write(line, &b, &e) < 0 || buf_add(&b, "", 1, &e) < 0)
        return "";
    return b.p;
}

TEST(of_a_task_the_act_is_written_and_no_secret)
{
    AUTO(json_decref)
    json_t *body = json_pack("{s:s, s:s, s:s, s:b, s:{s:s}, s:s, s:s}", "command", "npm \"test\"\n",
                             "cwd", "/srv", "repo", "https://ada:hunter2@git.example/x.git", "sudo",
                             1, "env", "KEY", "s3cret", "content", "data!", "script", "code!");
    const char *text = line_of(&(struct audit_line){
        .event = "task.received",
        .agent = STR("box"),
        .task = STR("t1"),
        .type = STR("exec"),
        .from = STR("admin"),
        .peer = "127.0.0.1",
        .body = body,
    });

    CHECK(strstr(text, "\"event\":\"task.received\",\"agentId\":\"box\",\"taskId\":\"t1\"") !=
          NULL);
    CHECK(strstr(text, "\"command\":\"npm \\\"test\\\"\\n\"") != NULL);
    CHECK(strstr(text, "\"repo\":\"https://***@git.example/x.git\"") != NULL);
    CHECK(strstr(text, "\"sudo\":true") != NULL);
    CHECK(!strstr(text, "hunter2") && !strstr(text, "s3cret") && !strstr(text, "data!") &&
          !strstr(text, "code!"));
    CHECK(strchr(text, '\n') == text + strlen(text) - 1);
}

TEST(of_a_result_the_outcome_is_written)
{
    AUTO(json_decref)
    json_t *response = json_pack("{s:b, s:i, s:{s:i, s:s, s:s}}", "success", 0, "duration", 12,
                                 "result", "exitCode", 3, "signal", "SIGTERM", "stdout", "private");
    const char *text =
        line_of(&(struct audit_line){ .event = "task.finished", .response = response });

    CHECK(strstr(text, "\"exitCode\":3,\"signal\":\"SIGTERM\",\"success\":false,"
                       "\"durationMs\":12") != NULL);
    CHECK(!strstr(text, "private"));
}

TEST(long_texts_are_cut_between_characters)
{
    static char much[20000];
    AUTO(json_decref) json_t *body = NULL;
    const char *text;

    for (size_t i = 0; i + 2 < sizeof(much); i += 2)
        memcpy(much + i, "\xc3\xa4", 2);
    body = json_pack("{s:s+}", "command", "x", much);
    text = line_of(&(struct audit_line){ .event = "task.received", .body = body });
    CHECK(strlen(text) < 9000);
    CHECK(strstr(text, "\"commandCut\":true") != NULL);
    CHECK(utf8_valid(text, strlen(text)));
}
