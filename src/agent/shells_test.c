/* SPDX-License-Identifier: MIT */
/* agent/shells_test.c — real shells on real terminals, and a hub made of four functions. */
#include <stdlib.h>

#include "agent/agent.h"
#include "agent/pty.h"
#include "agent/text.h"
#include "in_fiber.h"

static struct agent_conf conf;
static struct loop *the_loop;
static bool has_room = true;
static int exits, last_code, said;
static struct buf heard; /* what the shells said, decoded */

const struct agent_conf *agent_conf(const struct agent *a)
{
    return &conf;
}

struct loop *agent_loop(const struct agent *a)
{
    return the_loop;
}

bool agent_connected(const struct agent *a)
{
    return true;
}

bool agent_has_room(const struct agent *a)
{
    return has_room;
}

struct audit_log *agent_audit(const struct agent *a)
{
    return NULL;
}

int agent_say(struct agent *a, const char *to, const char *type, json_t *payload, struct err *e)
{
    struct str op = json_member_str(payload, "op");

    said++;
    if (str_eq_z(op, "exit")) {
        exits++;
        last_code = (int)json_integer_value(json_object_get(payload, "code"));
    } else if (text_decode(TEXT_BASE64, json_member_str(payload, "data"), &heard, e) < 0) {
        abort();
    }
    json_decref(payload);
    return 0;
}

static void tell(struct shells *s, const char *text)
{
    json_t *m = json_loads(text, 0, NULL);

    if (!m)
        abort();
    shells_message(s, m);
    json_decref(m);
}

static void type_in(struct shells *s, const char *id, const char *text)
{
    struct buf b;
    struct err e;
    json_t *m;

    buf_init(&b, 1 * MIB);
    if (text_encode(TEXT_BASE64, str_of(text), &b, &e) < 0)
        abort();
    m = json_pack("{s:s, s:s, s:s%}", "shellId", id, "op", "data", "data", b.p, b.n);
    shells_message(s, m);
    json_decref(m);
    buf_done(&b);
}

static bool has_heard(const char *want)
{
    return heard.n > 0 && memmem(buf_str(&heard).p, heard.n, want, strlen(want));
}

static CO bool wait_heard(const char *want)
{
    struct err e;

    for (int i = 0; i < 2000 && !has_heard(want); i++)
        if (fiber_sleep(10, &e) < 0)
            return false;
    if (!has_heard(want))
        printf("# heard: %.*s\n", (int)heard.n, heard.n ? buf_str(&heard).p : "");
    return has_heard(want);
}

static CO bool wait_exits(int n)
{
    struct err e;

    for (int i = 0; i < 2000 && exits < n; i++)
        if (fiber_sleep(10, &e) < 0)
            return false;
    return exits == n;
}

static struct shells *set_up(void)
{
    conf = (struct agent_conf){ .id = (char[]){ "a1" } };
    the_loop = fiber_loop();
    buf_init(&heard, 16 * MIB);
    has_room = true;
    exits = said = 0;
    last_code = -99;
    return shells_new(NULL);
}

static CO void tear_down(struct shells *s)
{
    shells_free(s);
    buf_done(&heard);
}

CO_TEST(a_shell_is_typed_into_and_ends_with_its_code)
{
    struct shells *s = set_up();

    tell(s, "{\"shellId\":\"x\",\"op\":\"open\",\"cols\":91,\"rows\":17,\"term\":\"vt100\"}");
    type_in(s, "x", "stty size; echo $TERM-$((40+2)); tty\n");
    CO_CHECK(wait_heard("17 91"));
    CO_CHECK(wait_heard("vt100-42"));
    CO_CHECK(wait_heard("/dev/pts/"));
    tell(s, "{\"shellId\":\"x\",\"op\":\"resize\",\"cols\":100,\"rows\":30}");
    type_in(s, "x", "stty size; exit 7\n");
    CO_CHECK(wait_heard("30 100"));
    CO_CHECK(wait_exits(1));
    CO_CHECK(last_code == 7);
    tear_down(s);
    return 0;
}

CO_TEST(a_command_runs_on_a_terminal_and_its_last_words_come_before_its_end)
{
    struct shells *s = set_up();

    tell(s, "{\"shellId\":\"x\",\"op\":\"open\",\"command\":\"test -t 0 && seq 20000; echo "
            "done; exit 3\"}");
    CO_CHECK(wait_exits(1));
    CO_CHECK(has_heard("20000\r\ndone"));
    CO_CHECK(last_code == 3);
    tear_down(s);
    return 0;
}

CO_TEST(a_choked_link_stops_the_reading)
{
    struct shells *s = set_up();
    struct err ignored;

    has_room = false;
    tell(s, "{\"shellId\":\"x\",\"op\":\"open\",\"command\":\"seq 100000\"}");
    CO_CHECK(fiber_sleep(300, &ignored) == 0);
    CO_CHECK(heard.n == 0);
    has_room = true;
    CO_CHECK(wait_exits(1));
    CO_CHECK(has_heard("\n100000\r\n") && last_code == 0);
    tear_down(s);
    return 0;
}

CO_TEST(the_hub_pauses_and_resumes)
{
    struct shells *s = set_up();
    struct err ignored;

    tell(s, "{\"shellId\":\"x\",\"op\":\"open\",\"command\":\"read x; seq 1000\"}");
    tell(s, "{\"shellId\":\"x\",\"op\":\"pause\"}");
    type_in(s, "x", "\n");
    CO_CHECK(fiber_sleep(200, &ignored) == 0);
    CO_CHECK(!has_heard("1000"));
    tell(s, "{\"shellId\":\"x\",\"op\":\"resume\"}");
    CO_CHECK(wait_heard("1000"));
    CO_CHECK(wait_exits(1));
    tear_down(s);
    return 0;
}

CO_TEST(closing_hangs_up_and_who_ignores_that_is_killed)
{
    struct shells *s = set_up();

    tell(s, "{\"shellId\":\"x\",\"op\":\"open\",\"command\":\"exec sleep 1000\"}");
    tell(s, "{\"shellId\":\"y\",\"op\":\"open\",\"command\":"
            "\"trap '' HUP TERM INT; echo ready; while :; do sleep 0.1; done\"}");
    CO_CHECK(wait_heard("ready"));
    tell(s, "{\"shellId\":\"x\",\"op\":\"close\"}");
    CO_CHECK(wait_exits(1));
    CO_CHECK(last_code == 128 + 1);
    tell(s, "{\"shellId\":\"y\",\"op\":\"close\"}");
    CO_CHECK(wait_exits(2));
    CO_CHECK(last_code == 128 + 9);
    tear_down(s);
    return 0;
}

CO_TEST(sixteen_shells_are_enough_and_all_end_with_the_agent)
{
    struct shells *s = set_up();
    char text[100];

    for (int i = 0; i < 17; i++) {
        (void)snprintf(text, sizeof(text),
                       "{\"shellId\":\"s%d\",\"op\":\"open\",\"command\":\"sleep 1000\"}", i);
        tell(s, text);
    }
    CO_CHECK(exits == 1 && last_code == 127);
    shells_lost(s);
    tear_down(s);
    CO_CHECK(exits == 17);
    return 0;
}

CO_TEST(nonsense_is_ignored)
{
    struct shells *s = set_up();

    tell(s, "{\"op\":\"open\"}");
    tell(s, "{\"shellId\":\"\",\"op\":\"open\"}");
    tell(s, "{\"shellId\":\"x\",\"op\":\"data\",\"data\":\"eA==\"}");
    tell(s, "{\"shellId\":\"x\",\"op\":\"close\"}");
    tell(s, "{\"shellId\":\"x\"}");
    tell(s, "[]");
    CO_CHECK(said == 0);
    tell(s, "{\"shellId\":\"x\",\"op\":\"open\",\"term\":\"a b\"}");
    CO_CHECK(exits == 1 && last_code == 127);
    tell(
        s,
        "{\"shellId\":\"x\",\"op\":\"open\",\"cols\":-5,\"rows\":\"a\",\"command\":\"stty size\"}");
    tell(s, "{\"shellId\":\"x\",\"op\":\"data\",\"data\":17}");
    CO_CHECK(wait_heard("24 80"));
    CO_CHECK(wait_exits(2));
    tear_down(s);
    return 0;
}

TEST(users_are_read_from_passwd)
{
    struct pty_user u = { 0 };

    CHECK(!pty_user_parse(STR("root:x:0:0:root:/root:/bin/bash"), 5, &u));
    CHECK(!pty_user_parse(STR("root:x:zero:0:root:/root:/bin/bash"), 0, &u));
    CHECK(!pty_user_parse(STR("a:b"), 0, &u));
    CHECK(pty_user_parse(STR("root:x:0:0:root:/root:/bin/bash"), 0, &u));
    CHECK_STR(u.home, "/root");
    CHECK_STR(u.shell, "/bin/bash");
    pty_user_done(&u);
    CHECK(pty_user_parse(STR("u:x:7:7::/h"), 7, &u));
    CHECK_STR(u.shell, "/bin/sh");
    pty_user_done(&u);
}
