/* SPDX-License-Identifier: MIT */
/* agent/conf_test.c — configurations, whole, lacking and wrong. */
#include <fcntl.h>
#include <stdio.h>

#include "agent/agent.h"
#include "test.h"

static int parse(const char *text, struct agent_conf *ret, struct err *e)
{
    return agent_conf_parse(str_of(text), ret, e);
}

TEST(the_originals_file_is_enough)
{
    struct agent_conf c;
    struct err e;

    CHECK_INT(parse("{\"agentId\":\"b1\",\"token\":\"tt\",\"hubUrl\":\"ws://10.0.0.1:9090/"
                    "\",\"type\":\"builder\","
                    "\"capabilities\":[\"node\",\"git\"]}",
                    &c, &e),
              0);
    CHECK_STR(c.id, "b1");
    CHECK_STR(c.hub_url, "ws://10.0.0.1:9090");
    CHECK_STR(c.type, "builder");
    CHECK_STR(c.capabilities[1], "git");
    CHECK(!c.capabilities[2]);
    CHECK_INT(c.max_concurrent, 5);
    CHECK_INT(c.default_timeout_ms, 1800000);
    CHECK_INT(c.reconnect_attempts, 10);
    CHECK_INT(c.reconnect_first_ms, 1000);
    CHECK_INT(c.reconnect_last_ms, 60000);
    CHECK_INT(c.health_ms, 30000);
    CHECK(!c.allow_sudo && !c.token_in_header && !c.env && !c.root);
    CHECK(c.n_relays == 0);
    agent_conf_done(&c);
}

TEST(every_key_is_read)
{
    struct agent_conf c;
    struct err e;

    CHECK_INT(
        parse("{\"agentId\":\"a\",\"token\":\"t\",\"capabilities\":\"node, "
              "git,,\",\"stateDir\":\"/s\","
              "\"auditLog\":\"/l\",\"workDir\":\"/w\",\"root\":\"/r\",\"env\":{\"A\":\"1\"},"
              "\"tokenInHeader\":true,\"keepAliveSeconds\":3,\"spool\":{\"maxBytes\":70000},"
              "\"tasks\":{\"maxConcurrent\":2,\"maxQueued\":0,\"defaultTimeout\":10,\"allowSudo\":"
              "true},"
              "\"reconnect\":{\"maxAttempts\":0,\"initialDelay\":5000,\"maxDelay\":100},"
              "\"health\":{\"interval\":500},\"relay\":{\"127.0.0.1:1\":\"/x\"},\"unknown\":[1]}",
              &c, &e),
        0);
    CHECK_STR(c.hub_url, "ws://localhost:9090");
    CHECK_STR(c.capabilities[0], "node");
    CHECK_STR(c.capabilities[1], "git");
    CHECK(!c.capabilities[2]);
    CHECK_STR(c.state_dir, "/s");
    CHECK_STR(c.audit_path, "/l");
    CHECK_STR(c.work_dir, "/w");
    CHECK_STR(c.root, "/r");
    CHECK_STR(json_string_value(json_object_get(c.env, "A")), "1");
    CHECK(c.token_in_header && c.allow_sudo);
    CHECK_INT(c.keep_alive_s, 3);
    CHECK_INT(c.spool_bytes, 70000);
    CHECK_INT(c.max_concurrent, 2);
    CHECK_INT(c.max_queued, 0);
    CHECK_INT(c.reconnect_attempts, 0);
    CHECK_INT(c.reconnect_last_ms, 5000); /* never less than the first */
    CHECK_INT(c.n_relays, 1);
    CHECK_STR(c.relays[0].listen, "127.0.0.1:1");
    CHECK_STR(c.relays[0].to, "/x");
    agent_conf_done(&c);
}

TEST(what_is_wrong_is_named)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        { "{\"agentId\":\"a\"}", "no token" },
        { "{\"token\":\"\"}", "no token" },
        { "[]", "JSON object" },
        { "{", "" },
        { "{\"token\":7}", "token must be a text" },
        { "{\"token\":\"a b\"}", "cannot hold" },
        { "{\"token\":\"t\",\"agentId\":\"a/b\"}", "cannot hold" },
        { "{\"token\":\"t\",\"tasks\":{\"maxConcurrent\":0}}",
          "tasks.maxConcurrent must be from 1" },
        { "{\"token\":\"t\",\"tasks\":{\"maxConcurrent\":\"5\"}}", "a whole number" },
        { "{\"token\":\"t\",\"tasks\":{\"allowSudo\":1}}",
          "tasks.allowSudo must be true or false" },
        { "{\"token\":\"t\",\"capabilities\":[1]}", "capabilities must be a list" },
        { "{\"token\":\"t\",\"env\":{\"A\":1}}", "env.A must be a text" },
        { "{\"token\":\"t\",\"env\":{\"A=\":\"1\"}}", "must be a text" },
        { "{\"token\":\"t\",\"relay\":{\"127.0.0.1:1\":1}}", "relay.127.0.0.1:1 must be" },
        { "{\"token\":\"t\",\"relay\":[]}", "relay must be" },
    };

    for (size_t i = 0; i < LEN(rows); i++) {
        struct agent_conf c;
        struct err e;

        CHECK(parse(rows[i].text, &c, &e) < 0);
        if (!strstr(e.msg, rows[i].says))
            CHECK_FAIL("%s: %s", rows[i].text, e.msg);
    }
}

TEST(the_environment_counts_only_without_a_file)
{
    char path[] = "/tmp/chela-conf-XXXXXX";
    struct agent_conf c;
    struct err e;
    int fd = mkstemp(path);

    CHECK(fd >= 0);
    dprintf(fd, "{\"agentId\":\"file\",\"token\":\"of-file\"}\n\n\n");
    close(fd);
    setenv("AGENT_CONFIG", path, 1);
    setenv("AGENT_ID", "env", 1);
    setenv("AGENT_TOKEN", "of-env", 1);
    setenv("HUB_URL", "ws://env:1", 1);
    CHECK_INT(agent_conf_load(&c, &e), 0);
    CHECK_STR(c.id, "file");
    CHECK_STR(c.hub_url, "ws://localhost:9090");
    agent_conf_done(&c);
    unlink(path);
    CHECK_INT(agent_conf_load(&c, &e), 0);
    CHECK_STR(c.id, "env");
    CHECK_STR(c.token, "of-env");
    CHECK_STR(c.hub_url, "ws://env:1");
    agent_conf_done(&c);
    unsetenv("AGENT_TOKEN");
    CHECK_INT(agent_conf_load(&c, &e), -ERR_UNAUTHORIZED);
}

TEST(the_state_is_kept_by_the_agents_id)
{
    struct agent_conf c;
    struct err e;

    unsetenv("STATE_DIRECTORY");
    CHECK_INT(parse("{\"agentId\":\"..x y\",\"token\":\"t\"}", &c, &e), -ERR_INVALID);
    CHECK_INT(parse("{\"agentId\":\"..x;y\",\"token\":\"t\"}", &c, &e), 0);
    CHECK(strstr(c.state_dir, "vm-agent/_.x_y") != NULL);
    agent_conf_done(&c);
    setenv("STATE_DIRECTORY", "/var/lib/given", 1);
    CHECK_INT(parse("{\"agentId\":\"a\",\"token\":\"t\"}", &c, &e), 0);
    CHECK_STR(c.state_dir, "/var/lib/given");
    agent_conf_done(&c);
    unsetenv("STATE_DIRECTORY");
}
