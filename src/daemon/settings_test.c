/* SPDX-License-Identifier: MIT */
#include "daemon/settings.h"

#include "base/log.h"
#include "test.h"

static void quiet(enum log_level level, const char *line, void *arg)
{
}

static int load(struct settings *s, struct conf **conf, const char *const *env, struct err *e)
{
    int r;

    log_capture(quiet, NULL);
    r = settings_new(s, conf, e);
    if (r == 0)
        r = conf_env(*conf, env, e);
    if (r == 0)
        r = conf_apply(*conf, e);
    return r < 0 ? r : settings_check(s, e);
}

TEST(the_variables_of_the_original_systems_are_read)
{
    static const char *const env[] = { "PORT=0",
                                       "GATEWAY_TOKEN=abcdefghijklmnopqrstuvwxyz",
                                       "DATABASE_URL=postgres://db/x",
                                       "OPENCLAW_TIMEOUT_SECONDS=7",
                                       "SESSION_CLEANUP_HOURS=48",
                                       NULL };
    struct settings s = { 0 };
    struct conf *conf;
    struct err e;

    CHECK_INT(load(&s, &conf, env, &e), 0);
    CHECK_INT(s.port, 0);
    CHECK_STR(s.gateway_token, "abcdefghijklmnopqrstuvwxyz");
    CHECK_STR(s.store_url, "postgres://db/x");
    CHECK_INT(s.bridge.timeout_ms, 7000);
    CHECK_INT(s.bridge.session_max_age_ms, 48LL * 3600000);
    conf_free(conf);
}

TEST(the_first_of_two_variables_wins)
{
    static const char *const env[] = { "GATEWAY_PORT=1", "PORT=2", NULL };
    struct settings s = { 0 };
    struct conf *conf;
    struct err e;

    CHECK_INT(load(&s, &conf, env, &e), 0);
    CHECK_INT(s.port, 2);
    conf_free(conf);
}

TEST(placeholders_and_short_tokens_are_refused)
{
    static const char *const bad[] = {
        "AUTH_TOKEN=undefined",  "AUTH_TOKEN=Changeme",         "GATEWAY_AUTH_TOKEN=null",
        "HUB_ADMIN_TOKEN=short", "AUTH_TOKEN=                ", "GATEWAY_TOKEN=0123456789abcdef\n",
        "ENCRYPTION_KEY=x"
    };

    for (size_t i = 0; i < LEN(bad); i++) {
        const char *const env[] = { bad[i], NULL };
        struct settings s = { 0 };
        struct conf *conf;
        struct err e;

        CHECK_INT(load(&s, &conf, env, &e), -ERR_INVALID);
        conf_free(conf);
    }
}

TEST(a_certificate_without_its_key_is_refused)
{
    static const char *const env[] = { "CHELA_TLS_CERT=/some/where.pem", NULL };
    struct settings s = { 0 };
    struct conf *conf;
    struct err e;

    CHECK_INT(load(&s, &conf, env, &e), -ERR_INVALID);
    conf_free(conf);
}

TEST(every_setting_is_documented_and_secrets_are_masked)
{
    static const char *const env[] = { "AUTH_TOKEN=canary-canary-canary-canary", NULL };
    struct settings s = { 0 };
    struct conf *conf;
    struct buf text;
    struct err e;

    CHECK_INT(load(&s, &conf, env, &e), 0);
    buf_init(&text, 1 << 20);
    CHECK_INT(conf_print(conf, &text, &e), 0);
    CHECK(!memmem(buf_str(&text).p, buf_str(&text).n, "canary", 6));
    CHECK(memmem(buf_str(&text).p, buf_str(&text).n, "[bridge]", 8));
    buf_clear(&text);
    CHECK_INT(conf_help(conf, &text, &e), 0);
    CHECK(memmem(buf_str(&text).p, buf_str(&text).n, "gateway.port", 12));
    buf_done(&text);
    conf_free(conf);
}
