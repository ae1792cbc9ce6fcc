/* SPDX-License-Identifier: MIT */
/* Unit tests of the QEMU driver's pure parts: the command line, lines of the monitor, lists,
 * images, and the disk for cloud-init. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/cloud_seed.h"
#include "machine/multipass_int.h"
#include "machine/qemu_int.h"
#include "machine/qmp.h"
#include "test.h"

static const struct machine_host host = { .dir = "/state/machines",
                                          .images = "/nowhere",
                                          .program = "/opt/it's, chelad",
                                          .agent = "/opt/chela-agent",
                                          .qemu = "qemu-system-x86_64",
                                          .bwrap = "bwrap" };

static const char *joined(const char **argv, struct arena *a)
{
    const char *text = "";

    for (; *argv; argv++)
        text = arena_printf(a, "%s%s\n", text, *argv);
    return text;
}

static struct qemu_plan plan_of(const struct machine_spec *spec)
{
    return (struct qemu_plan){ .host = &host,
                               .spec = spec,
                               .dir = "/state/machines/a",
                               .agent = "/opt/chela-agent-static",
                               .type = "q35",
                               .image = { .path = "/img",
                                          .direct = true,
                                          .kernel = "/img/vmlinuz",
                                          .initrd = "/img/initrd",
                                          .cmdline = "quiet",
                                          .disk = "/img/d",
                                          .format = "raw" } };
}

TEST(the_network_is_closed_but_for_the_hub)
{
    const struct machine_spec spec = { .name = "a", .cpus = 2, .memory_mib = 512 };
    struct qemu_plan plan = plan_of(&spec);
    struct arena a = { 0 };
    const char *line = joined(qemu_argv(&plan, &a), &a);

    CHECK(strstr(line, "restrict=on,ipv6=off,guestfwd=tcp:10.0.2.100:9090-cmd:") != NULL);
    CHECK(strstr(line, "3128") == NULL);
    CHECK(strstr(line, "hostfwd") == NULL);
    CHECK(strstr(line, "accel=tcg") != NULL);
    CHECK(strstr(line, "-loadvm") == NULL);
    CHECK(strncmp(line, "qemu-system-x86_64\n", 19) == 0);
    arena_done(&a);
}

TEST(an_allow_list_opens_the_way_to_its_proxy)
{
    const char *const allow[] = { "example.com" };
    const struct machine_spec spec = {
        .name = "a", .memory_mib = 512, .allow = allow, .n_allow = 1
    };
    struct qemu_plan plan = plan_of(&spec);
    struct arena a = { 0 };

    CHECK(strstr(joined(qemu_argv(&plan, &a), &a), "guestfwd=tcp:10.0.2.100:3128-cmd:") != NULL);
    arena_done(&a);
}

TEST(words_of_paths_stay_words)
{
    const struct machine_spec spec = { .name = "a", .memory_mib = 512 };
    struct qemu_plan plan = plan_of(&spec);
    struct arena a = { 0 };
    const char *line = joined(qemu_argv(&plan, &a), &a);

    /* quoted for the shell's rules, the comma doubled for QEMU's */
    CHECK(strstr(line, "-cmd:'/opt/it'\\''s,, chelad' --relay '/state/machines/a/run/hub.sock'") !=
          NULL);
    arena_done(&a);
}

TEST(a_jail_shows_the_machines_disks_and_its_image_alone)
{
    const struct machine_spec spec = { .name = "a", .memory_mib = 512 };
    struct qemu_plan plan = plan_of(&spec);
    struct arena a = { 0 };
    const char *line;

    plan.jail = plan.kvm = true;
    plan.load = "before";
    line = joined(qemu_argv(&plan, &a), &a);
    CHECK(strncmp(line, "bwrap\n--unshare-all\n", 20) == 0);
    CHECK(strstr(line, "--ro-bind\n/img\n/img\n") != NULL);
    CHECK(strstr(line, "bind\n/state/machines/a\n") == NULL);
    CHECK(strstr(line, "\n--bind\n/state/machines/a/disk.qcow2\n") != NULL);
    CHECK(strstr(line, "\n--bind\n/state/machines/a/qmp\n") != NULL);
    CHECK(strstr(line, "\n--ro-bind\n/state/machines/a/run\n") != NULL);
    CHECK(strstr(line, "\n--ro-bind\n/state/machines/a/seed.raw\n") != NULL);
    CHECK(strstr(line, "seed.iso") == NULL);
    CHECK(strstr(line, "--dev-bind\n/dev/kvm\n") != NULL);
    CHECK(strstr(line, "--cap-drop\nALL\n") != NULL);
    CHECK(strstr(line, "-loadvm\nchela-before\n") != NULL);
    arena_done(&a);
}

TEST(lines_of_the_monitor)
{
    struct arena a = { 0 };
    struct qmp_line line;
    struct err e;

    CHECK_INT(qmp_line_parse(STR("{\"QMP\": {}}"), &a, &line, &e), 0);
    CHECK_INT(line.kind, QMP_GREETING);
    CHECK_INT(qmp_line_parse(STR("{\"return\": {\"a\": 1}, \"id\": 7}"), &a, &line, &e), 0);
    CHECK_INT(line.kind, QMP_RETURN);
    CHECK_INT(line.id, 7);
    CHECK_INT(qmp_line_parse(STR("{\"error\": {\"desc\": \"no\"}, \"id\": 8}"), &a, &line, &e), 0);
    CHECK_STR(line.text, "no");
    CHECK_INT(qmp_line_parse(STR("{\"event\": \"STOP\"}"), &a, &line, &e), 0);
    CHECK_INT(line.id, -1);
    CHECK_INT(qmp_line_parse(STR("[]"), &a, &line, &e), -ERR_INVALID);
    CHECK_INT(qmp_line_parse(STR("{}"), &a, &line, &e), -ERR_INVALID);
    CHECK_INT(qmp_line_parse(STR("{\"return\""), &a, &line, &e), -ERR_INVALID);
    arena_done(&a);
}

TEST(snapshots_are_those_of_ours)
{
    struct machine_snapshot *list;
    struct arena a = { 0 };
    struct err e;
    size_t n;

    CHECK_INT(
        qemu_snapshots_parse(STR("{\"snapshots\": [{\"name\": \"chela-one\", \"date-sec\": 5, "
                                 "\"date-nsec\": 7000000, \"vm-state-size\": 9}, "
                                 "{\"name\": \"theirs\"}, {\"name\": \"chela-two\"}]}"),
                             &a, &list, &n, &e),
        0);
    CHECK_INT(n, 2);
    CHECK_STR(list[0].name, "one");
    CHECK_INT(list[0].created_at, 5007);
    CHECK(list[0].memory && !list[1].memory);
    CHECK_INT(qemu_snapshots_parse(STR("{}"), &a, &list, &n, &e), 0);
    CHECK_INT(n, 0);
    CHECK_INT(qemu_snapshot_name_check("before-1.2", &e), 0);
    CHECK_INT(qemu_snapshot_name_check("-a", &e), -ERR_INVALID);
    CHECK_INT(qemu_snapshot_name_check("a/b", &e), -ERR_INVALID);
    CHECK_INT(qemu_snapshot_name_check("", &e), -ERR_INVALID);
    arena_done(&a);
}

static int write_image(const char *path, const unsigned char *head, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r = fd < 0 || write(fd, head, n) != (ssize_t)n || ftruncate(fd, 1 << 20) < 0;

    if (fd >= 0)
        close(fd);
    return r;
}

TEST(an_image_that_names_another_file_is_refused)
{
    unsigned char head[104] = { 'Q', 'F', 'I', 0xfb, 0, 0, 0, 3 };
    char path[] = "/tmp/chela-image-XXXXXX";
    struct qemu_image image;
    struct arena a = { 0 };
    struct err e;
    int fd = mkstemp(path);

    CHECK(fd >= 0);
    close(fd);
    head[28] = 0x10; /* 256 MiB */
    CHECK_INT(write_image(path, head, sizeof(head)), 0);
    CHECK_INT(qemu_image_open(path, &a, &image, &e), 0);
    CHECK_STR(image.format, "qcow2");
    CHECK_INT(image.disk_mib, 256);
    head[15] = 0x70; /* a backing file */
    CHECK_INT(write_image(path, head, sizeof(head)), 0);
    CHECK_INT(qemu_image_open(path, &a, &image, &e), -ERR_INVALID);
    head[15] = 0;
    head[79] = 4; /* data in another file */
    CHECK_INT(write_image(path, head, sizeof(head)), 0);
    CHECK_INT(qemu_image_open(path, &a, &image, &e), -ERR_INVALID);
    CHECK_INT(write_image(path, (const unsigned char *)"no qcow2", 8), 0);
    CHECK_INT(qemu_image_open(path, &a, &image, &e), 0);
    CHECK_STR(image.format, "raw");
    unlink(path);
    CHECK_INT(qemu_image_find(&host, "../etc/passwd", &a, &image, &e), -ERR_INVALID);
    CHECK_INT(qemu_image_find(&host, "none", &a, &image, &e), -ERR_UNAVAILABLE);
    arena_done(&a);
}

TEST(user_data_is_what_cloud_init_reads_and_holds_no_token)
{
    const struct machine_spec spec = { .name = "box", .agent_id = "box", .token = "s3cret" };
    struct arena a = { 0 };
    struct str text;
    struct err e;
    json_t *j;

    CHECK_INT(cloud_user_data(&spec, &a, &text, &e), 0);
    CHECK(str_starts(text, STR("#cloud-config\n")));
    CHECK(memmem(text.p, text.n, "s3cret", 6) == NULL);
    text.p += 14;
    text.n -= 14;
    CHECK_INT(json_parse(str_trim(text), 16, &a, &j, NULL, &e), 0);
    CHECK(str_eq_z(json_member_str(j, "hostname"), "box"));
    CHECK_INT(json_array_size(json_object_get(j, "write_files")), 2);
    CHECK_INT(json_array_size(json_object_get(j, "runcmd")), 5);
    arena_done(&a);
}

TEST(the_seed_disk_is_iso_9660)
{
    const struct seed_file files[] = { { "user-data", STR("one") }, { "meta-data", { NULL, 0 } } };
    const unsigned char *p;
    struct buf image;
    struct err e;

    buf_init(&image, 1 * MIB);
    CHECK_INT(iso_write("cidata", files, 2, &image, &e), 0);
    CHECK_INT(buf_str(&image).n % 2048, 0);
    p = (const unsigned char *)buf_str(&image).p;
    CHECK(memcmp(p + 16 * 2048, "\1CD001\1", 7) == 0);
    CHECK(memcmp(p + 16 * 2048 + 40, "cidata  ", 8) == 0);
    CHECK(memcmp(p + 21 * 2048, "one", 3) == 0);
    CHECK(memmem(p + 20 * 2048, 2048, "user-data", 9) != NULL);
    buf_done(&image);
}

TEST(what_multipass_says)
{
    struct machine_snapshot *list;
    struct multipass_info info;
    struct arena a = { 0 };
    struct err e;
    size_t n;

    CHECK_INT(multipass_info_parse(STR("{\"info\": {\"m\": {\"state\": \"Running\", \"ipv4\": "
                                       "[\"10.1.2.3\"], \"memory\": {\"used\": 5}}}}"),
                                   "m", &a, &info, &e),
              0);
    CHECK(info.exists && info.running);
    CHECK_STR(info.address, "10.1.2.3");
    CHECK_INT(info.memory, 5);
    CHECK_INT(multipass_info_parse(STR("{\"info\": {\"m\": {\"state\": \"Deleted\"}}}"), "m", &a,
                                   &info, &e),
              0);
    CHECK(!info.exists && !info.running);
    CHECK_INT(multipass_snapshots_parse(STR("{\"info\": {\"m\": {\"one\": {\"created\": "
                                            "\"1970-01-01T00:00:05.000Z\"}}}}"),
                                        "m", &a, &list, &n, &e),
              0);
    CHECK_INT(n, 1);
    CHECK_INT(list[0].created_at, 5000);
    arena_done(&a);
}
