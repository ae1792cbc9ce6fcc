/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/conf.c, conf_file.c, conf_value.c and conf_text.c.
 */
#include "base/conf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "test.h"

struct room {
    long long wait_ms;
    const char *name;
};

struct settings {
    const char *host, *level, *token;
    long long port, body, live, age_ms;
    struct room room;
};

static const char *const levels[] = { "error", "info", NULL };

#define ROW(kind, name, member, def, ...) OPT(kind, name, struct settings, member, def, __VA_ARGS__)

/* clang-format off */
static const struct opt opts[] = {
    ROW(OPT_STR,  "gateway.host", host, "127.0.0.1", .env = "HOST,GATEWAY_HOST", .doc = "Address."),
    ROW(OPT_INT,  "gateway.port", port, "18789", .min = 0, .max = 65535, .doc = "Port."),
    ROW(OPT_STR,  "log.level", level, "info", .one_of = levels, .flags = OPT_LIVE),
    ROW(OPT_SIZE, "limits.body", body, "16M", .min = 1024, .max = 1LL << 30, .flags = OPT_LIVE),
    ROW(OPT_STR,  "auth.token", token, "", .flags = OPT_SECRET, .env = "AUTH_TOKEN"),
    ROW(OPT_BOOL, "store.sync.live", live, "no"),
    ROW(OPT_MSEC, "gateway.age", age_ms, "24h", .min = 0, .max = 86400000LL * 365, .flags = OPT_LIVE,
        .env = "CLEANUP_HOURS:h"),
};
static const struct opt room_opts[] = {
    OPT(OPT_MSEC, "room.wait", struct room, wait_ms, "5s", .min = 10, .max = 60000, .flags = OPT_LIVE),
    OPT(OPT_STR,  "room.name", struct room, name, "", .flags = OPT_LIVE),
};
/* clang-format on */

static const struct conf_table tables[] = {
    { opts, LEN(opts), 0 },
    { room_opts, LEN(room_opts), offsetof(struct settings, room) },
};
static const char *const no_env[] = { NULL };

static struct settings s;
static struct conf *conf;
static struct err e;
static char path[64], text[8192];

static void begin(void)
{
    conf_free(conf);
    conf = NULL;
    memset(&s, 0, sizeof(s));
    if (conf_new(tables, LEN(tables), &s, &conf, &e) < 0)
        abort();
}

static void end(void)
{
    conf_free(conf);
    conf = NULL;
    if (path[0])
        unlink(path);
}

static const char *file(const char *content)
{
    int fd;

    if (!path[0]) {
        snprintf(path, sizeof(path), "/tmp/conf_test_XXXXXX");
        close(mkstemp(path));
    }
    fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
    if (fd < 0 || write(fd, content, strlen(content)) < 0)
        abort();
    close(fd);
    return path;
}

static const char *printed(int (*print)(const struct conf *c, struct buf *b, struct err *e))
{
    struct buf b;

    buf_init(&b, sizeof(text) - 1);
    text[0] = '\0';
    if (print(conf, &b, &e) == 0)
        snprintf(text, sizeof(text), STR_FMT, STR_ARG(buf_str(&b)));
    buf_done(&b);
    return text;
}

TEST(defaults_fill_the_struct)
{
    begin();
    CHECK_INT(conf_apply(conf, &e), 0);
    CHECK_STR(s.host, "127.0.0.1");
    CHECK_INT(s.port, 18789);
    CHECK_STR(s.level, "info");
    CHECK_INT(s.body, 16 << 20);
    CHECK_STR(s.token, "");
    CHECK_INT(s.live, 0);
    CHECK_INT(s.age_ms, 86400000);
    CHECK_INT(s.room.wait_ms, 5000);
    CHECK_STR(s.room.name, "");
    CHECK_INT(conf_source(conf, "gateway.port"), OPT_FROM_DEFAULT);
    CHECK(conf_find(conf, "room.wait") == &room_opts[0]);
    CHECK(conf_find(conf, "room.none") == NULL);
    end();
}

TEST(a_flag_wins_over_the_environment_that_over_the_file_that_over_the_default)
{
    static const char *const env[] = { "CHELA_GATEWAY_PORT=2", "CHELA_GATEWAY_HOST=env", NULL };
    const char *name = file("[gateway]\nport = 1\nhost = file\nage = 1h\n");

    for (int order = 0; order < 2; order++) { /* the order of reading does not matter */
        begin();
        if (order)
            CHECK_INT(conf_flag(conf, "gateway.port", "3", &e), 0);
        CHECK_INT(conf_env(conf, env, &e), 0);
        CHECK_INT(conf_file(conf, name, true, &e), 0);
        if (!order)
            CHECK_INT(conf_flag(conf, "gateway.port", "3", &e), 0);
        CHECK_INT(conf_apply(conf, &e), 0);
        CHECK_INT(s.port, 3);
        CHECK_STR(s.host, "env");
        CHECK_INT(s.age_ms, 3600000);
        CHECK_INT(s.room.wait_ms, 5000);
        CHECK_INT(conf_source(conf, "gateway.port"), OPT_FROM_FLAG);
        CHECK_INT(conf_source(conf, "gateway.host"), OPT_FROM_ENV);
        CHECK_INT(conf_source(conf, "gateway.age"), OPT_FROM_FILE);
    }
    end();
}

TEST(the_environment_has_own_and_documented_names)
{
    static const char *const env[] = {
        "CLEANUP_HOURS=48",
        "GATEWAY_HOST=second",
        "HOST=",
        "CHELA_STORE_SYNC_LIVE=on",
        "AUTH_TOKEN=legacy",
        "CHELA_AUTH_TOKEN=own",
        "GATEWAY_HOSTX=no",
        NULL,
    };
    static const char *const unit[] = { "CLEANUP_HOURS=30m", NULL };

    begin();
    CHECK_INT(conf_env(conf, env, &e), 0);
    CHECK_INT(conf_apply(conf, &e), 0);
    CHECK_STR(s.host, "second"); /* an empty variable is none */
    CHECK_INT(s.live, 1);
    CHECK_STR(s.token, "own");
    CHECK_INT(s.age_ms, 48 * 3600000LL);
    CHECK_INT(conf_env(conf, unit, &e), 0);
    CHECK_INT(conf_apply(conf, &e), 0);
    CHECK_INT(s.age_ms, 30 * 60000);
    end();
}

TEST(a_bad_value_is_named_with_its_setting_and_source)
{
    static const char *const env[] = { "CLEANUP_HOURS=soon", NULL };
    static const struct {
        const char *content, *says;
    } files[] = {
        { "[gateway]\n\n; note\nport = many\n", "gateway.port (line 4 of " },
        { "[gateway]\nport = 65536\n", "'65536' is not between 0 and 65535" },
        { "[limits]\nbody = 1\n", "'1' is not between 1K and 1G" },
        { "[room]\nwait = 2m\n", "'2m' is not between 10ms and 1m" },
        { "[room]\nwait = -1s\n", "'-1s' is not a duration" },
        { "[log]\nlevel = loud\n", "'loud' is not one of error, info" },
        { "[store.sync]\nlive = maybe\n", "'maybe' is neither yes nor no" },
    };

    for (size_t i = 0; i < LEN(files); i++) {
        begin();
        CHECK_INT(conf_file(conf, file(files[i].content), true, &e), 0);
        CHECK_INT(conf_apply(conf, &e), -ERR_INVALID);
        CHECK(strstr(e.msg, files[i].says));
        CHECK(s.host == NULL); /* nothing was applied */
    }
    begin();
    CHECK_INT(conf_env(conf, env, &e), 0);
    CHECK_INT(conf_apply(conf, &e), -ERR_INVALID);
    CHECK(strstr(e.msg, "gateway.age ($CLEANUP_HOURS): 'soon'"));
    begin();
    CHECK_INT(conf_flag(conf, "limits.body", "-1", &e), 0);
    CHECK_INT(conf_apply(conf, &e), -ERR_INVALID);
    CHECK(strstr(e.msg, "limits.body (--limits.body): '-1' is not a size"));
    end();
}

TEST(a_file_that_is_not_understood_is_refused_with_the_line)
{
    static const struct {
        const char *content, *says;
    } files[] = {
        { "[gateway]\nprot = 1\n",
          "line 2: unknown setting 'gateway.prot' (did you mean 'gateway.port'?)" },
        { "port = 1\n", "line 1: unknown setting 'port' (did you mean 'gateway.port'?)" },
        { "[gateway]\nport\n", "line 2 is neither" },
        { "[gateway\nport = 1\n", "line 1 is neither" },
        { "[gateway]\nport = 1\nport = 2\n", "line 3: 'gateway.port' was set before" },
        { "[nonsense]\nport.x = 1\n", "line 2: unknown setting 'nonsense.port.x'" },
    };

    for (size_t i = 0; i < LEN(files); i++) {
        begin();
        CHECK_INT(conf_file(conf, file(files[i].content), true, &e), -ERR_INVALID);
        CHECK(strstr(e.msg, files[i].says) && strstr(e.msg, path));
    }
    CHECK_INT(conf_file(conf, "/nonexistent/x.conf", true, &e), -ERR_NOT_FOUND);
    CHECK_INT(conf_file(conf, "/nonexistent/x.conf", false, &e), 0);
    CHECK_INT(conf_file(conf, "/tmp", false, &e), -ERR_INTERNAL);
    end();
}

TEST(a_file_may_hold_comments_long_values_and_odd_white_space)
{
    static char content[20000];
    size_t n;

    n = (size_t)snprintf(
        content, sizeof(content),
        "\xef\xbb\xbf; first\r\n# second\r\n\r\n[ room ]\r\n[room]\n  wait=7s  \n\tname =  ");
    memset(content + n, 'x', 15000);
    snprintf(content + n + 15000, sizeof(content) - n - 15000, " ; not a comment = [x]");
    begin();
    CHECK_INT(conf_file(conf, file(content), true, &e), 0);
    CHECK_INT(conf_apply(conf, &e), 0);
    CHECK_INT(s.room.wait_ms, 7000);
    CHECK_INT(strlen(s.room.name), 15000 + strlen(" ; not a comment = [x]"));
    CHECK(strstr(s.room.name, "x ; not a comment = [x]"));
    end();
}

TEST(an_unknown_flag_is_refused_and_a_near_one_suggested)
{
    begin();
    CHECK_INT(conf_flag(conf, "gateway.prt", "1", &e), -ERR_INVALID);
    CHECK_STR(e.msg, "unknown setting 'gateway.prt' (did you mean 'gateway.port'?)");
    CHECK_INT(conf_flag(conf, "quite.different", "1", &e), -ERR_INVALID);
    CHECK_STR(e.msg, "unknown setting 'quite.different'");
    CHECK_INT(conf_flag(conf, "", "1", &e), -ERR_INVALID);
    end();
}

static char warned[1024];

static void keep_warnings(enum log_level level, const char *line, void *arg)
{
    if (level == LOG_WARN)
        snprintf(warned, sizeof(warned), "%s", line);
}

TEST(a_variable_that_nearly_names_a_setting_is_warned_about)
{
    static const char *const near[] = { "CHELA_GATEWAY_PROT=hush", NULL };
    static const char *const fine[] = { "CHELA_GATEWAY_PORT=1", "CHELA_URL=x", "CHELA_ROOMY=x",
                                        "CHELA=x", NULL };

    begin();
    log_capture(keep_warnings, NULL);
    warned[0] = '\0';
    CHECK_INT(conf_env(conf, fine, &e), 0);
    CHECK_STR(warned, "");
    CHECK_INT(conf_env(conf, near, &e), 0);
    CHECK(strstr(warned, "CHELA_GATEWAY_PROT") && !strstr(warned, "hush"));
    log_capture(NULL, NULL);
    end();
}

TEST(a_file_of_secrets_that_all_can_read_is_warned_about)
{
    static const struct {
        const char *content;
        int mode;
        bool warns;
    } rows[] = {
        { "[auth]\ntoken = hush\n", 0644, true },
        { "[auth]\ntoken = hush\n", 0640, false }, /* a group of our own is how services share */
        { "[auth]\ntoken = hush\n", 0600, false },
        { "[auth]\ntoken =\n[gateway]\nport = 1\n", 0644, false },
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        const char *name = file(rows[i].content);

        CHECK_INT(chmod(name, (mode_t)rows[i].mode), 0);
        begin();
        log_capture(keep_warnings, NULL);
        warned[0] = '\0';
        CHECK_INT(conf_file(conf, name, true, &e), 0);
        CHECK_INT(strstr(warned, "auth.token") != NULL, rows[i].warns);
        CHECK(!strstr(warned, "hush"));
        log_capture(NULL, NULL);
        end();
    }
}

TEST(a_reload_changes_live_settings_and_names_the_others)
{
    const char *name = file("[gateway]\nport = 1\n[room]\nwait = 1s\nname = one\n");
    const char *before;

    begin();
    CHECK_INT(conf_env(conf, no_env, &e), 0);
    CHECK_INT(conf_file(conf, name, true, &e), 0);
    CHECK_INT(conf_flag(conf, "log.level", "error", &e), 0);
    CHECK_INT(conf_apply(conf, &e), 0);
    before = s.room.name;
    log_capture(keep_warnings, NULL);
    warned[0] = '\0';
    (void)file("[gateway]\nport = 2\n[room]\nname = two\n[log]\nlevel = info\n");
    CHECK_INT(conf_reload(conf, name, &e), 0);
    CHECK_INT(s.port, 1);
    CHECK(strstr(warned, "gateway.port"));
    CHECK_INT(s.room.wait_ms, 5000); /* gone from the file: the default again */
    CHECK_STR(s.room.name, "two");
    CHECK_STR(before, "one");    /* still there for whoever holds it */
    CHECK_STR(s.level, "error"); /* the flag wins as before */
    log_capture(NULL, NULL);
    end();
}

TEST(a_bad_reload_changes_nothing_and_the_next_good_one_works)
{
    static const char *const bad[] = {
        "[room]\nwait = 2s\nname = x\n[limits]\nbody = lots\n",
        "[room]\nwait = 2s\nnonsense = 1\n",
        "[room\n",
    };
    const char *name = file("[room]\nwait = 1s\n");

    begin();
    CHECK_INT(conf_file(conf, name, true, &e), 0);
    CHECK_INT(conf_apply(conf, &e), 0);
    log_capture(keep_warnings, NULL);
    for (size_t i = 0; i < LEN(bad); i++) {
        (void)file(bad[i]);
        CHECK_INT(conf_reload(conf, name, &e), -ERR_INVALID);
        CHECK_INT(s.room.wait_ms, 1000);
        CHECK_INT(conf_apply(conf, &e), 0); /* what it held before still stands */
        CHECK_INT(s.room.wait_ms, 1000);
        CHECK_STR(s.room.name, "");
    }
    (void)file("[room]\nwait = 3s\n");
    CHECK_INT(conf_reload(conf, name, &e), 0);
    CHECK_INT(s.room.wait_ms, 3000);
    CHECK_INT(unlink(name), 0);
    CHECK_INT(conf_reload(conf, name, &e), 0);
    CHECK_INT(s.room.wait_ms, 5000);
    log_capture(NULL, NULL);
    end();
}

TEST(the_settings_print_as_a_file_with_origins_and_without_secrets)
{
    static const char *const env[] = { "AUTH_TOKEN=hush-hush", "CLEANUP_HOURS=48", NULL };
    const char *name = file("[room]\nwait = 17\n");

    begin();
    CHECK_INT(conf_env(conf, env, &e), 0);
    CHECK_INT(conf_file(conf, name, true, &e), 0);
    CHECK_INT(conf_flag(conf, "gateway.port", "0", &e), 0);
    CHECK_INT(conf_apply(conf, &e), 0);
    printed(conf_print);
    CHECK(strstr(text, "[gateway]\n; default\nhost = 127.0.0.1\n; --gateway.port\nport = 0\n"
                       "; $CLEANUP_HOURS\nage = 48h\n\n[log]\n"));
    CHECK(strstr(text, "[auth]\n; $AUTH_TOKEN\ntoken = ***\n"));
    CHECK(strstr(text, "[store.sync]\n; default\nlive = no\n"));
    CHECK(strstr(text, "\nwait = 17s\n"));
    CHECK(!strstr(text, "hush"));
    end();
}

TEST(a_password_in_a_url_is_not_printed)
{
    begin();
    CHECK_INT(conf_flag(conf, "gateway.host", "ws://me:hush@h/@x", &e), 0);
    CHECK_INT(conf_apply(conf, &e), 0);
    printed(conf_print);
    CHECK(strstr(text, "\nhost = ws://***@h/@x\n"));
    CHECK(!strstr(text, "hush"));
    end();
}

TEST(what_was_printed_can_be_read_again)
{
    static char copy[sizeof(text)];

    begin();
    CHECK_INT(conf_flag(conf, "room.name", "a = b ; c", &e), 0);
    CHECK_INT(conf_flag(conf, "room.wait", "50ms", &e), 0);
    CHECK_INT(conf_apply(conf, &e), 0);
    snprintf(copy, sizeof(copy), "%s", printed(conf_print));
    begin();
    CHECK_INT(conf_file(conf, file(copy), true, &e), 0);
    CHECK_INT(conf_apply(conf, &e), 0);
    CHECK_STR(s.room.name, "a = b ; c");
    CHECK_INT(s.room.wait_ms, 50);
    end();
}

TEST(help_has_a_line_for_each_setting)
{
    begin();
    printed(conf_help);
    CHECK(strstr(text,
                 "  --gateway.host=127.0.0.1                Address. [$HOST, $GATEWAY_HOST]\n"));
    CHECK(strstr(text, "[$CLEANUP_HOURS] (live)\n"));
    CHECK(strstr(text, "--room.wait=5s"));
    end();
}

TEST(a_table_with_a_bad_default_or_a_name_twice_is_a_bug_found_at_start)
{
    static const struct opt bad[] = { ROW(OPT_INT, "x.y", port, "many") };
    static const struct opt twice[] = { ROW(OPT_INT, "x.y", port, "1"),
                                        ROW(OPT_INT, "x.y", port, "1") };
    struct conf_table bad_table = { bad, 1, 0 }, twice_table = { twice, 2, 0 };
    struct conf *none = NULL;

    CHECK(conf_new(&bad_table, 1, &s, &none, &e) < 0);
    CHECK(strstr(e.msg, "default of x.y"));
    CHECK_INT(conf_new(&twice_table, 1, &s, &none, &e), -ERR_INTERNAL);
    CHECK(none == NULL);
    conf_free(NULL);
}
