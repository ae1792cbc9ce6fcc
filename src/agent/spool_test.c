/* SPDX-License-Identifier: MIT */
/* agent/spool_test.c — what is on disk, and what a crash leaves of it. */
#include "agent/spool.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "test.h"

static char dir[] = "/tmp/chela-spool-XXXXXX";

static struct spool *open_spool(void)
{
    struct spool *s = NULL;
    struct err e;

    if (strstr(dir, "XXXXXX") && !mkdtemp(dir))
        CHECK_FAIL("mkdtemp");
    if (spool_open(dir, &s, &e) < 0)
        CHECK_FAIL("%s", e.msg);
    return s;
}

static bool exists(const char *name)
{
    char path[300];

    fmt_z(path, sizeof(path), "%s/spool/%s", dir, name);
    return access(path, F_OK) == 0;
}

static void put(struct spool *s, const char *id, enum spool_state state, long long seq,
                const char *body)
{
    char name[256];
    struct spool_entry entry = {
        .id = id, .from = "host", .state = state, .seq = seq, .body = str_of(body)
    };
    size_t bytes = 0;
    struct err e;

    spool_name(id, name);
    entry.there = exists(name);
    CHECK_INT(spool_put(s, &entry, &bytes, &e), 0);
    CHECK_INT(spool_sync(s, &e), 0);
    CHECK(bytes > strlen(body));
}

struct seen {
    char text[2000];
    size_t n;
};

static int see(const struct spool_entry *entry, size_t bytes, void *arg, struct err *e)
{
    struct seen *seen = arg;

    seen->n += (size_t)snprintf(seen->text + seen->n, sizeof(seen->text) - seen->n,
                                "%s/%d/%d=" STR_FMT ";", entry->id, (int)entry->state,
                                (int)entry->seq, STR_ARG(entry->body));
    return 0;
}

static void write_file(const char *name, const char *text)
{
    char path[200];
    int fd;

    fmt_z(path, sizeof(path), "%s/spool/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

TEST(names_are_safe_and_tell_ids_apart)
{
    static const struct {
        const char *id, *name;
    } rows[] = {
        { "t1", "t1.json" },
        { "A-b_c.9", "A-b_c.9.json" },
        { "a/b", "a%2Fb.json" },
        { "../../x", "%2E.%2F..%2Fx.json" },
        { ".hidden", "%2Ehidden.json" },
        { "%41", "%2541.json" },
        { "\n", "%0A.json" },
    };
    char name[256], other[256], longer[400];

    for (size_t i = 0; i < LEN(rows); i++) {
        spool_name(rows[i].id, name);
        CHECK_STR(name, rows[i].name);
    }
    memset(longer, 'x', sizeof(longer));
    longer[399] = '\0';
    spool_name(longer, name);
    longer[398] = 'y';
    spool_name(longer, other);
    CHECK(strlen(name) < 100 && name[0] == '%' && strcmp(name, other) != 0);
    spool_name("", name);
    CHECK(strlen(name) > 60);
}

TEST(what_was_put_is_found_in_order_and_one_agent_has_it)
{
    struct spool *s = open_spool(), *second = NULL;
    AUTO(buf_done) struct buf body;
    struct seen seen = { 0 };
    struct err e;

    buf_init(&body, 1 * MIB);
    put(s, "late", SPOOL_QUEUED, 12, "{\"a\":1}");
    put(s, "early", SPOOL_DONE, 3, "{\"b\":2}");
    put(s, "a/b", SPOOL_QUEUED, 7, "{}");
    put(s, "a/b", SPOOL_QUEUED, 7, "{\"c\":3}");
    put(s, "a/b", SPOOL_RUNNING, 7, "");
    CHECK_INT(spool_load(s, see, &seen, &e), 0);
    CHECK_STR(seen.text, "early/2/3={\"b\":2};a/b/1/7={\"c\":3};late/0/12={\"a\":1};");
    CHECK_INT(spool_body(s, "early", &body, &e), 0);
    CHECK(str_eq_z(buf_str(&body), "{\"b\":2}"));
    CHECK_INT(spool_open(dir, &second, &e), -ERR_CONFLICT);
    spool_drop(s, "early");
    spool_drop(s, "late");
    spool_drop(s, "a/b");
    CHECK(spool_body(s, "early", &body, &e) < 0);
    seen = (struct seen){ 0 };
    CHECK_INT(spool_load(s, see, &seen, &e), 0);
    CHECK_STR(seen.text, "");
    spool_close(s);
}

TEST(torn_and_foreign_files_are_set_aside)
{
    static const char *const bad[] = {
        "",
        "\n",
        "{}",
        "{}\n{}\n",
        "{\"taskId\":\"bad\"}\n{}\n",
        "{\"taskId\":\"bad\",\"from\":\"host\",\"state\":\"flying\",\"seq\":1}\n{}\n",
        "{\"taskId\":\"bad\",\"from\":\"host\",\"state\":\"done\",\"seq\":1}\n{\"x\":\n",
        "{\"taskId\":\"bad\",\"from\":\"host\",\"state\":\"done\",\"seq\":1}\n{\"x\":1}",
        "{\"taskId\":\"other\",\"from\":\"host\",\"state\":\"done\",\"seq\":1}\n{}\n",
        "{\"taskId\":7,\"from\":[],\"state\":{},\"seq\":\"x\"}\n{}\n",
    };

    for (size_t i = 0; i < LEN(bad); i++) {
        struct spool *s = open_spool();
        struct seen seen = { 0 };
        struct err e;

        put(s, "good", SPOOL_DONE, 1, "{}");
        write_file("bad.json", bad[i]);
        spool_close(s);
        s = open_spool();
        CHECK_INT(spool_load(s, see, &seen, &e), 0);
        if (strcmp(seen.text, "good/2/1={};") != 0)
            CHECK_FAIL("%zu: %s", i, seen.text);
        CHECK(exists("bad.json.bad") && !exists("bad.json"));
        spool_close(s);
    }
}

TEST(a_torn_end_is_cut_off_and_the_record_before_it_counts)
{
    static const char first[] = "{\"taskId\":\"good\",\"from\":\"host\",\"state\":\"queued\","
                                "\"retry\":false,\"seq\":1}\n{\"t\":1}\n";
    static const char second[] = "{\"taskId\":\"good\",\"from\":\"host\",\"state\":\"running\","
                                 "\"retry\":false,\"seq\":1}\n\n";
    char text[sizeof(first) + sizeof(second)];

    for (size_t n = 0; n <= strlen(second); n++) {
        struct spool *s = open_spool();
        struct seen seen = { 0 };
        struct err e;

        fmt_z(text, sizeof(text), "%s%.*s", first, (int)n, second);
        write_file("good.json", text);
        CHECK_INT(spool_load(s, see, &seen, &e), 0);
        CHECK_STR(seen.text, n == strlen(second) ? "good/1/1={\"t\":1};" : "good/0/1={\"t\":1};");
        put(s, "good", SPOOL_DONE, 1, "{\"r\":1}");
        seen = (struct seen){ 0 };
        CHECK_INT(spool_load(s, see, &seen, &e), 0);
        CHECK_STR(seen.text, "good/2/1={\"r\":1};");
        spool_close(s);
    }
}

TEST(the_directory_is_private_and_a_directory_that_cannot_be_made_is_said)
{
    static const char *const left[] = { "spool/lock", "spool/good.json", "spool/bad.json.bad",
                                        "spool", "" };
    struct spool *s = open_spool();
    char path[200];
    struct stat st;
    struct err e;

    fmt_z(path, sizeof(path), "%s/spool", dir);
    CHECK(stat(path, &st) == 0);
    CHECK_INT(st.st_mode & 0777, 0700);
    spool_close(s);
    for (size_t i = 0; i < LEN(left); i++) {
        fmt_z(path, sizeof(path), "%s/%s", dir, left[i]);
        CHECK_INT(remove(path), 0);
    }
    CHECK(spool_open("/proc/nothing/here", &s, &e) < 0);
    CHECK(strstr(e.msg, "/proc/nothing") != NULL);
}
