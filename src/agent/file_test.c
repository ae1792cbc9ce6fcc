/* SPDX-License-Identifier: MIT */
/* agent/file_test.c — file:* on a real directory, with and without a root. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "agent/types.h"
#include "base/offload.h"
#include "base/secret.h"
#include "in_fiber.h"

static struct agent_conf conf;
static char dir[64];

const struct agent_conf *agent_conf(const struct agent *a)
{
    return &conf;
}

static char failure[5000]; /* of the last task that failed */

/* Run a type on a payload (single quotes stand for double ones); its result, or NULL. */
static CO json_t *work(CO int (*type)(struct task *t, json_t **ret, struct err *e),
                       const char *payload)
{
    char *text = xstrdup(payload);
    struct arena a = { 0 };
    struct task t = { .id = "t", .arena = &a };
    json_t *result = NULL, *parsed;
    struct err e;
    int r;

    for (char *p = text; *p; p++)
        if (*p == '\'')
            *p = '"';
    parsed = json_loads(text, 0, NULL);
    t.payload = parsed;
    r = type(&t, &result, &e);
    if (r < 0)
        (void)snprintf(failure, sizeof(failure), "%s", t.error ? t.error : e.msg);
    if (r < 0 && !json_object_get(result, "received")) {
        json_decref(result);
        result = NULL;
    }
    json_decref(parsed);
    arena_done(&a);
    free(text);
    return result;
}

static bool has_text(json_t *result, const char *key, const char *want)
{
    const char *have = json_string_value(json_object_get(result, key));
    bool same = have && strcmp(have, want) == 0;

    if (!same)
        printf("# %s is %s\n", key, have ? have : failure);
    json_decref(result);
    return same;
}

static bool has_int(json_t *result, const char *key, long long want)
{
    json_t *v = json_object_get(result, key);
    bool same = json_is_integer(v) && json_integer_value(v) == want;

    if (!same)
        printf("# %s is %lld (%s)\n", key, (long long)json_integer_value(v), failure);
    json_decref(result);
    return same;
}

static bool fails(json_t *result, const char *want)
{
    bool same = !result && strstr(failure, want);

    if (!same)
        printf("# it is \"%s\"\n", result ? "a success" : failure);
    json_decref(result);
    return same;
}

static const char *content(const char *name)
{
    static char text[256];
    char path[200];
    ssize_t n;
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return "(none)";
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n < 0 ? 0 : n] = '\0';
    return text;
}

static void put(const char *name, const char *text)
{
    char path[200];
    int fd;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        abort();
    close(fd);
}

static int remove_dir(void)
{
    char command[100];
    pid_t pid = fork();

    (void)snprintf(command, sizeof(command), "%s", dir);
    if (pid == 0)
        execlp("rm", "rm", "-rf", "--", command, (char *)NULL);
    return pid;
}

static void set_up(void)
{
    (void)snprintf(dir, sizeof(dir), "/tmp/file_test-XXXXXX");
    if (!mkdtemp(dir) || chdir(dir) < 0)
        abort();
    conf = (struct agent_conf){ .work_dir = dir, .state_dir = dir };
}

#define FILE_TEST(id) \
    static CO int body_##id(void *arg, struct err *e); \
    TEST(id) \
    { \
        int r; \
        set_up(); \
        r = in_fiber(body_##id, NULL); \
        offload_shutdown(); \
        CHECK(chdir("/") == 0); \
        CHECK(remove_dir() > 0); \
        CHECK_INT(r, 0); \
    } \
    static CO int body_##id(void *arg, struct err *e)

FILE_TEST(a_file_is_written_and_read)
{
    struct stat st;

    CO_CHECK(
        has_int(work(type_file_write, "{'filePath':'a/b/c.txt','content':'h\u00e9'}"), "size", 3));
    CO_CHECK(strcmp(content("a/b/c.txt"), "h\xC3\xA9") == 0);
    CO_CHECK(has_text(work(type_file_read, "{'filePath':'a/b/c.txt'}"), "content", "h\xC3\xA9"));
    CO_CHECK(
        has_int(work(type_file_read, "{'filePath':'a/b/c.txt','encoding':'base64'}"), "size", 3));
    CO_CHECK(has_text(work(type_file_read, "{'filePath':'a/b/c.txt','encoding':'HEX'}"), "content",
                      "68c3a9"));
    CO_CHECK(
        has_int(work(type_file_write,
                     "{'filePath':'a/b/c.txt','content':'aGk=','encoding':'base64','mode':'0600'}"),
                "size", 2));
    CO_CHECK(strcmp(content("a/b/c.txt"), "hi") == 0);
    CO_CHECK(stat("a/b/c.txt", &st) == 0 && (st.st_mode & 07777) == 0600);
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'e','content':''}"), "size", 0));
    return 0;
}

FILE_TEST(the_original_texts_say_what_is_wrong)
{
    put("f", "x");
    CO_CHECK(fails(work(type_file_read, "{'filePath':'/nonexist'}"),
                   "ENOENT: no such file or directory, open '/nonexist'"));
    CO_CHECK(fails(work(type_file_read, "{'filePath':'/tmp'}"),
                   "EISDIR: illegal operation on a directory, read"));
    CO_CHECK(fails(work(type_file_write, "{'filePath':'/tmp','content':''}"),
                   "EISDIR: illegal operation on a directory, open '/tmp'"));
    CO_CHECK(
        fails(work(type_file_read, "{'filePath':'f/x'}"), "ENOTDIR: not a directory, open 'f/x'"));
    CO_CHECK(fails(work(type_file_write, "{'filePath':'f/x/y','content':''}"), "ENOTDIR"));
    CO_CHECK(fails(work(type_file_read, "{'filePath':'f','encoding':'foo'}"),
                   "The argument 'encoding' is invalid encoding. Received 'foo'"));
    CO_CHECK(fails(work(type_file_read, "{'filePath':5}"), "\"filePath\""));
    CO_CHECK(fails(work(type_file_read, "{}"), "\"filePath\""));
    CO_CHECK(fails(work(type_file_write, "{'filePath':'g'}"), "\"content\""));
    CO_CHECK(fails(work(type_file_write, "{'filePath':'g','content':'','mode':'9'}"), "\"mode\""));
    CO_CHECK(fails(work(type_file_read, "{'filePath':'f\\u0000'}"), "filePath"));
    CO_CHECK(fails(work(type_file_read, "{'filePath':'/dev/zero'}"), "not a regular file"));
    return 0;
}

FILE_TEST(replacing_keeps_the_mode_and_follows_links)
{
    struct stat st;

    put("real", "old");
    CO_CHECK(chmod("real", 0751) == 0 && symlink("real", "link") == 0 && symlink("new", "to") == 0);
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'link','content':'new!'}"), "size", 4));
    CO_CHECK(strcmp(content("real"), "new!") == 0);
    CO_CHECK(lstat("link", &st) == 0 && S_ISLNK(st.st_mode));
    CO_CHECK(stat("real", &st) == 0 && (st.st_mode & 07777) == 0751);
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'to','content':'x'}"), "size", 1));
    CO_CHECK(strcmp(content("new"), "x") == 0);
    return 0;
}

FILE_TEST(a_root_is_not_left)
{
    char root[100];

    CO_CHECK(mkdir("root", 0755) == 0 && mkdir("root/in", 0755) == 0);
    put("secret", "s");
    put("root/in/f", "f");
    CO_CHECK(symlink("../secret", "root/up") == 0 && symlink("/etc/passwd", "root/abs") == 0 &&
             symlink("in/f", "root/good") == 0 && symlink("../..", "root/in/out") == 0);
    (void)snprintf(root, sizeof(root), "%s/root", dir);
    conf.root = root;
    CO_CHECK(
        fails(work(type_file_read, "{'filePath':'../secret'}"), "outside of the agent's root"));
    CO_CHECK(fails(work(type_file_read, "{'filePath':'/etc/passwd'}"), "EACCES"));
    CO_CHECK(fails(work(type_file_read, "{'filePath':'up'}"), "EACCES"));
    CO_CHECK(fails(work(type_file_read, "{'filePath':'abs'}"), "EACCES"));
    CO_CHECK(fails(work(type_file_read, "{'filePath':'in/../../secret'}"), "EACCES"));
    CO_CHECK(fails(work(type_file_write, "{'filePath':'in/out/x','content':''}"), "EACCES"));
    CO_CHECK(fails(work(type_file_write, "{'filePath':'up','content':''}"), "EACCES"));
    CO_CHECK(fails(work(type_file_write, "{'filePath':'in/out/d/x','content':''}"), "EACCES"));
    CO_CHECK(fails(work(type_file_delete, "{'filePath':'in/out/secret'}"), "EACCES"));
    CO_CHECK(fails(work(type_file_delete, "{'filePath':'..','recursive':true}"), "not deleted"));
    CO_CHECK(fails(work(type_file_list, "{'path':'in/out'}"), "EACCES"));
    CO_CHECK(fails(work(type_file_stat, "{'filePath':'in/out'}"), "EACCES"));
    CO_CHECK(has_text(work(type_file_read, "{'filePath':'good'}"), "content", "f"));
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'good','content':'new'}"), "size", 3));
    CO_CHECK(strcmp(content("root/in/f"), "new") == 0);
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'x/y/z','content':'1'}"), "size", 1));
    CO_CHECK(strcmp(content("root/x/y/z"), "1") == 0 && strcmp(content("secret"), "s") == 0);
    return 0;
}

FILE_TEST(a_file_is_read_in_parts)
{
    json_t *last;

    put("f", "ab\xE2\x82\xAC"
             "cd");
    CO_CHECK(
        has_text(work(type_file_read, "{'filePath':'f','offset':0,'length':4}"), "content", "ab"));
    CO_CHECK(has_int(work(type_file_read, "{'filePath':'f','offset':0,'length':4}"), "bytes", 2));
    CO_CHECK(has_text(work(type_file_read, "{'filePath':'f','offset':2,'length':3}"), "content",
                      "\xE2\x82\xAC"));
    last = work(type_file_read, "{'filePath':'f','offset':5,'encoding':'base64'}");
    CO_CHECK(json_is_true(json_object_get(last, "eof")));
    CO_CHECK(strlen(json_string_value(json_object_get(last, "sha256"))) == 64);
    CO_CHECK(has_text(last, "content", "Y2Q="));
    CO_CHECK(has_int(work(type_file_read, "{'filePath':'f','offset':100}"), "bytes", 0));
    CO_CHECK(fails(work(type_file_read, "{'filePath':'f','offset':-1}"), "\"offset\""));
    CO_CHECK(fails(work(type_file_read, "{'filePath':'f','length':0}"), "\"length\""));
    return 0;
}

#define SUM_ABCDEF "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721"

FILE_TEST(a_file_is_written_in_parts)
{
    put("f", "before");
    CO_CHECK(chmod("f", 0755) == 0);
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'f','content':'abc','transferId':'x'}"),
                     "received", 3));
    CO_CHECK(strcmp(content("f"), "before") == 0);
    CO_CHECK(has_int(
        work(type_file_write, "{'filePath':'f','content':'zz','transferId':'x','offset':9}"),
        "received", 3));
    CO_CHECK(strstr(failure, "has 3 bytes, not 9"));
    CO_CHECK(has_int(
        work(type_file_write, "{'filePath':'f','content':'def','transferId':'x','offset':3}"),
        "received", 6));
    CO_CHECK(
        has_int(work(type_file_write, "{'filePath':'f','content':'def','transferId':'x','offset':3,"
                                      "'final':true,'sha256':'" SUM_ABCDEF "'}"),
                "size", 6));
    CO_CHECK(strcmp(content("f"), "abcdef") == 0);
    CO_CHECK(has_int(work(type_file_stat, "{'filePath':'f'}"), "mode", 0755));
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'n','content':'1','transferId':'y',"
                                           "'final':true}"),
                     "size", 1));
    CO_CHECK(has_int(work(type_file_stat, "{'filePath':'n'}"), "mode", 0644));
    return 0;
}

FILE_TEST(a_wrong_checksum_changes_nothing)
{
    put("f", "before");
    CO_CHECK(fails(work(type_file_write, "{'filePath':'f','content':'abcdeX','transferId':'x',"
                                         "'final':true,'sha256':'" SUM_ABCDEF "'}"),
                   "SHA-256"));
    CO_CHECK(strcmp(content("f"), "before") == 0);
    CO_CHECK(
        fails(work(type_file_write, "{'filePath':'f','content':'','transferId':'x','sha256':'12'}"),
              "64 hex"));
    CO_CHECK(
        fails(work(type_file_write, "{'filePath':'f','content':'','offset':4}"), "transferId"));
    return 0;
}

/* The one gathering file of dir, made old. */
static bool age_part(void)
{
    json_t *list = work(type_file_list, "{'path':'.'}"), *entry;
    struct timespec old[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };
    bool done = false;
    size_t i;

    json_array_foreach(json_object_get(list, "entries"), i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));

        if (strstr(name, ".part"))
            done = utimensat(AT_FDCWD, name, old, 0) == 0;
    }
    json_decref(list);
    return done;
}

FILE_TEST(abandoned_parts_are_swept)
{
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'f','content':'abc','transferId':'x'}"),
                     "received", 3));
    CO_CHECK(age_part());
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'g','content':'1','transferId':'y',"
                                           "'final':true}"),
                     "size", 1));
    CO_CHECK(!age_part());
    CO_CHECK(
        has_int(work(type_file_write, "{'filePath':'f','content':'d','transferId':'x','offset':3}"),
                "received", 0));
    return 0;
}

FILE_TEST(a_link_in_place_of_a_part_is_not_followed)
{
    json_t *list, *entry;
    char part[80] = "";
    size_t i;

    put("victim", "v");
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'f','content':'abc','transferId':'x'}"),
                     "received", 3));
    list = work(type_file_list, "{'path':'.'}");
    json_array_foreach(
        json_object_get(list, "entries"), i,
        entry) if (strstr(json_string_value(json_object_get(entry, "name")), ".part"))(void)
        snprintf(part, sizeof(part), "%s", json_string_value(json_object_get(entry, "name")));
    json_decref(list);
    CO_CHECK(*part && unlink(part) == 0 && symlink("victim", part) == 0);
    CO_CHECK(
        fails(work(type_file_write, "{'filePath':'f','content':'d','transferId':'x','offset':1}"),
              "ELOOP"));
    CO_CHECK(unlink(part) == 0 && link("victim", part) == 0);
    CO_CHECK(
        fails(work(type_file_write, "{'filePath':'f','content':'d','transferId':'x','offset':1}"),
              "EPERM"));
    CO_CHECK(has_int(work(type_file_write, "{'filePath':'f','content':'d','transferId':'x'}"),
                     "received", 1));
    CO_CHECK(strcmp(content("victim"), "v") == 0);
    return 0;
}

FILE_TEST(directories_are_listed)
{
    json_t *list;

    CO_CHECK(mkdir("d", 0755) == 0 && mkdir("d/sub", 0700) == 0 && symlink("/", "d/link") == 0);
    put("d/\xFF", "x");
    put("d/a", "12345");
    list = work(type_file_list, "{'path':'d'}");
    CO_CHECK(json_array_size(json_object_get(list, "entries")) == 4);
    CO_CHECK(
        has_text(json_incref(json_array_get(json_object_get(list, "entries"), 0)), "name", "a"));
    CO_CHECK(has_int(json_incref(json_array_get(json_object_get(list, "entries"), 0)), "size", 5));
    CO_CHECK(has_text(json_incref(json_array_get(json_object_get(list, "entries"), 1)), "type",
                      "symlink"));
    CO_CHECK(
        has_int(json_incref(json_array_get(json_object_get(list, "entries"), 2)), "mode", 0700));
    CO_CHECK(has_text(json_incref(json_array_get(json_object_get(list, "entries"), 3)), "name",
                      "\xEF\xBF\xBD"));
    json_decref(list);
    CO_CHECK(
        fails(work(type_file_list, "{'path':'d/a'}"), "ENOTDIR: not a directory, scandir 'd/a'"));
    CO_CHECK(has_text(work(type_file_stat, "{'filePath':'d/link'}"), "symlink", "/"));
    CO_CHECK(has_text(work(type_file_stat, "{'filePath':'d/link'}"), "type", "directory"));
    CO_CHECK(fails(work(type_file_stat, "{'filePath':'d/none'}"),
                   "ENOENT: no such file or directory, stat 'd/none'"));
    return 0;
}

FILE_TEST(deleting_follows_no_link)
{
    CO_CHECK(mkdir("d", 0755) == 0 && mkdir("d/sub", 0755) == 0 && mkdir("keep", 0755) == 0);
    put("keep/f", "x");
    put("d/sub/g", "y");
    CO_CHECK(symlink("../../keep", "d/sub/link") == 0 && symlink("keep", "top") == 0);
    CO_CHECK(fails(work(type_file_delete, "{'filePath':'d'}"),
                   "EISDIR: illegal operation on a directory, unlink 'd'"));
    CO_CHECK(has_int(work(type_file_delete, "{'filePath':'d','recursive':true}"), "deleted", 4));
    CO_CHECK(has_int(work(type_file_delete, "{'filePath':'top','recursive':true}"), "deleted", 1));
    CO_CHECK(strcmp(content("keep/f"), "x") == 0);
    CO_CHECK(fails(work(type_file_delete, "{'filePath':'none'}"), "ENOENT"));
    CO_CHECK(fails(work(type_file_delete, "{'filePath':'/','recursive':true}"), "not deleted"));
    CO_CHECK(fails(work(type_file_delete, "{'filePath':'.','recursive':true}"), "not deleted"));
    CO_CHECK(
        fails(work(type_file_delete, "{'filePath':'keep/..','recursive':true}"), "not deleted"));
    return 0;
}

FILE_TEST(too_much_is_refused)
{
    int fd = open("big", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    CO_CHECK(fd >= 0 && ftruncate(fd, 10 * 1024 * 1024 + 1) == 0);
    CO_CHECK(fails(work(type_file_read, "{'filePath':'big'}"), "read it in parts"));
    CO_CHECK(ftruncate(fd, 10 * 1024 * 1024) == 0);
    CO_CHECK(fails(work(type_file_read, "{'filePath':'big'}"), "read it as base64, or in parts"));
    CO_CHECK(has_int(work(type_file_read, "{'filePath':'big','encoding':'base64'}"), "size",
                     10 * 1024 * 1024));
    close(fd);
    return 0;
}
