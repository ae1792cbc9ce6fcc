/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as the path of a file that is written below a root: no crash, and nothing changes
 * outside of the root. The first byte chooses between whole and in parts; links that lead out stand
 * in the root.
 */
#include <assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/file_int.h"
#include "fuzz.h"

static struct agent_conf conf;
static char top[64], root[80];

const struct agent_conf *agent_conf(const struct agent *a)
{
    return &conf;
}

static void in_top(char *out, size_t size, const char *name)
{
    (void)snprintf(out, size, "%s/%s", top, name); /* short names of ours */
}

static void link_out(const char *name, const char *to)
{
    char path[100];

    (void)snprintf(path, sizeof(path), "%s/%s", root, name);
    if (symlink(to, path) < 0 && errno != EEXIST)
        abort();
}

static void clean(void)
{
    char command[100];

    (void)snprintf(command, sizeof(command), "rm -rf -- '%s'", top);
    if (*top && chdir("/") == 0) {
        pid_t pid = fork();

        if (pid == 0)
            execl("/bin/sh", "sh", "-c", command, (char *)NULL);
    }
}

static void set_up(void)
{
    char path[100];

    (void)snprintf(top, sizeof(top), "/tmp/fuzz_agent_path-XXXXXX");
    if (!mkdtemp(top))
        abort();
    in_top(root, sizeof(root), "root");
    in_top(path, sizeof(path), "outside");
    if (mkdir(root, 0700) < 0 || mkdir(path, 0700) < 0)
        abort();
    link_out("up", "..");
    link_out("out", "../outside");
    link_out("abs", path);
    link_out("me", ".");
    conf.root = root;
    atexit(clean);
}

static unsigned entries(const char *path)
{
    DIR *dir = opendir(path);
    unsigned n = 0;

    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n;
}

FUZZ(const uint8_t *data, size_t size)
{
    struct arena a = { 0 };
    struct task t = { .id = "t", .arena = &a };
    struct write_job job = { .t = &t, .text = STR("x"), .mode = -1 };
    char outside[100];
    struct err e;
    char *path;
    int r;

    if (!*top)
        set_up();
    if (size < 2 || size > 4096)
        return 0;
    path = str_dup((struct str){ (const char *)data + 1, size - 1 });
    job.path = path;
    job.transfer = data[0] & 1 ? "id" : NULL;
    job.final = data[0] & 2;
    job.offset = data[0] & 4 ? 1 : 0;
    r = job.transfer ? transfer_part(&job, &e) : write_whole(&job, &e);
    assert(r == 0 || e.msg[0]);
    json_decref(job.result);
    arena_done(&a);
    free(path);

    in_top(outside, sizeof(outside), "outside");
    assert(entries(outside) == 2); /* . and .. */
    assert(entries(top) == 4);     /* and the two directories */
    return 0;
}
