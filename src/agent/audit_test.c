/* SPDX-License-Identifier: MIT */
/* agent/audit_test.c — what the agent's audit log says, and what it must not. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "base/str.h"
#include "test.h"

static char dir[64], path[100];

static struct audit_log *open_new(void)
{
    struct audit_log *l = NULL;
    struct err e;

    (void)snprintf(dir, sizeof(dir), "/tmp/audit_test-XXXXXX");
    if (!mkdtemp(dir))
        abort();
    (void)snprintf(path, sizeof(path), "%s/log/audit.log", dir);
    if (audit_log_open(path, &l, &e) < 0)
        abort();
    return l;
}

static void clean(struct audit_log *l)
{
    char name[120];

    audit_log_close(l);
    (void)unlink(path);
    for (int i = 1; i < 6; i++) {
        (void)snprintf(name, sizeof(name), "%s.%d", path, i);
        (void)unlink(name);
    }
    *strrchr(path, '/') = '\0';
    (void)rmdir(path);
    (void)rmdir(dir);
}

static const char *whole(void)
{
    static char text[64 * 1024];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;

    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

/* One line of the log that this payload makes. */
static json_t *line_of(const char *payload, const char *response, const char **ret_text)
{
    json_t *in = json_loads(payload, 0, NULL), *out = NULL, *line;
    struct audit_log *l = open_new();

    if (response)
        out = json_loads(response, 0, NULL);
    audit_task(l, response ? "task.finished" : "task.received", "a1", "host", in, out);
    *ret_text = whole();
    line = json_loads(*ret_text, 0, NULL);
    json_decref(in);
    json_decref(out);
    clean(l);
    return line;
}

TEST(a_task_is_told_without_secrets)
{
    const char *text;
    json_t *line = line_of("{\"taskId\":\"t\",\"type\":\"exec\",\"command\":\"git clone "
                           "https://u:hidden1@h/x\",\"cwd\":\"/w\",\"sudo\":true,"
                           "\"env\":{\"KEY\":\"hidden2\"},\"content\":\"hidden3\"}",
                           NULL, &text);

    CHECK(line);
    CHECK(!strstr(text, "hidden"));
    CHECK_STR(json_string_value(json_object_get(line, "command")), "git clone https://***@h/x");
    CHECK_STR(json_string_value(json_array_get(json_object_get(line, "env"), 0)), "KEY");
    CHECK_STR(json_string_value(json_object_get(line, "event")), "task.received");
    CHECK_STR(json_string_value(json_object_get(line, "agentId")), "a1");
    CHECK_STR(json_string_value(json_object_get(line, "taskId")), "t");
    CHECK_STR(json_string_value(json_object_get(line, "from")), "host");
    CHECK_STR(json_string_value(json_object_get(line, "cwd")), "/w");
    CHECK(json_is_true(json_object_get(line, "sudo")));
    CHECK(strstr(json_string_value(json_object_get(line, "ts")), "Z"));
    json_decref(line);
}

TEST(an_end_is_told)
{
    const char *text;
    json_t *line = line_of("{\"taskId\":\"t\",\"type\":\"test\"}",
                           "{\"success\":false,\"error\":\"Command failed: x\",\"duration\":12,"
                           "\"result\":{\"exitCode\":3,\"stdout\":\"hidden\"}}",
                           &text);

    CHECK(line && !strstr(text, "hidden") && !strstr(text, "Command failed"));
    CHECK_INT(json_integer_value(json_object_get(line, "exitCode")), 3);
    CHECK_INT(json_integer_value(json_object_get(line, "durationMs")), 12);
    CHECK(json_is_false(json_object_get(line, "success")));
    json_decref(line);
}

TEST(of_a_script_the_checksum_is_told)
{
    const char *text;
    json_t *line =
        line_of("{\"type\":\"script\",\"script\":\"abc\",\"args\":[\"x\",1]}", NULL, &text);

    CHECK(line && !strstr(text, "\"abc\""));
    CHECK_STR(json_string_value(json_object_get(line, "scriptSha256")),
              "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK_INT(json_integer_value(json_object_get(line, "scriptBytes")), 3);
    json_decref(line);
}

TEST(the_file_is_private_and_turns_over)
{
    struct audit_log *l = open_new();
    char *big = malloc(40000), older[120];
    json_t *payload;
    struct stat st;

    memset(big, 'x', 39999);
    big[39999] = '\0';
    payload = json_pack("{s:s}", "command", big);
    audit_task(l, "task.received", "a", "host", payload, NULL);
    CHECK_INT(stat(path, &st), 0);
    CHECK_INT(st.st_mode & 0777, 0640);
    CHECK(st.st_size < 17 * 1024); /* the command is cut */
    for (int i = 0; i < 1100; i++)
        audit_task(l, "task.received", "a", "host", payload, NULL);
    (void)snprintf(older, sizeof(older), "%s.1", path);
    CHECK_INT(stat(older, &st), 0);
    CHECK(st.st_size >= 16 * 1024 * 1024 && st.st_size < 17 * 1024 * 1024);
    CHECK(stat(path, &st) == 0 && st.st_size > 0 && st.st_size < 4 * 1024 * 1024);
    CHECK_INT(unlink(path), 0); /* somebody rotates it himself */
    audit_task(l, "task.received", "a", "host", payload, NULL);
    CHECK_INT(stat(path, &st), 0);
    json_decref(payload);
    free(big);
    clean(l);
}
