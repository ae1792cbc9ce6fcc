/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/rand.c and base/id.c.
 */
#include "base/rand.h"

#include <sys/wait.h>
#include <unistd.h>

#include "base/id.h"
#include "base/macro.h"
#include "base/time.h"
#include "test.h"

TEST(random_bytes_differ_and_fill_exactly)
{
    unsigned char a[1000] = { 0 }, b[1000] = { 0 };

    for (size_t n = 1; n < 900; n += 13) {
        a[n] = b[n] = 0x5a;
        rand_bytes(a, n);
        rand_bytes(b, n);
        CHECK_INT(a[n], 0x5a);
        CHECK(n < 16 || memcmp(a, b, n) != 0);
    }
}

TEST(the_unit_interval_is_half_open)
{
    double sum = 0;

    for (int i = 0; i < 20000; i++) {
        double v = rand_unit();

        CHECK(v >= 0 && v < 1);
        sum += v;
    }
    CHECK(sum > 9500 && sum < 10500);
}

TEST(a_seed_repeats_the_sequence_and_zero_ends_it)
{
    uint64_t first, second;

    rand_set_seed(7);
    first = rand_u64();
    second = rand_u64();
    CHECK(first != second);
    rand_set_seed(7);
    CHECK(rand_u64() == first);
    rand_set_seed(0);
    CHECK(rand_u64() != second);
}

TEST(a_forked_child_does_not_repeat_its_parent)
{
    uint64_t ours, theirs = 0;
    int fds[2], status;
    pid_t pid;

    (void)rand_u64(); /* so that there is a pool to copy */
    CHECK_INT(pipe(fds), 0);
    pid = fork();
    if (pid == 0) {
        theirs = rand_u64();
        _exit(write(fds[1], &theirs, sizeof(theirs)) != sizeof(theirs));
    }
    ours = rand_u64();
    CHECK_INT(read(fds[0], &theirs, sizeof(theirs)), sizeof(theirs));
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(ours != theirs);
    close(fds[0]);
    close(fds[1]);
}

static bool is_uuid(const char *text, char version)
{
    for (int i = 0; i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash ? text[i] != '-' : !strchr("0123456789abcdef", text[i]))
            return false;
    }
    return text[36] == '\0' && text[14] == version && strchr("89ab", text[19]);
}

TEST(uuids_have_their_version_and_variant)
{
    char a[UUID_TEXT], b[UUID_TEXT];

    for (int i = 0; i < 100; i++) {
        uuid_v4(a);
        uuid_v4(b);
        CHECK(is_uuid(a, '4'));
        CHECK(strcmp(a, b) != 0);
        uuid_v7(a);
        CHECK(is_uuid(a, '7'));
    }
}

static int64_t next_us(void *arg)
{
    return *(int64_t *)arg += 2;
}

static uint64_t no_now(void *arg)
{
    return 0;
}

TEST(uuids_of_version_7_sort_by_time)
{
    int64_t us = 1795194327000000;
    struct time_source source = { no_now, next_us, &us };
    char before[UUID_TEXT], after[UUID_TEXT];

    time_set_source(&source);
    uuid_v7(before);
    CHECK(strncmp(before, "01a", 3) == 0);
    for (int i = 0; i < 2000; i++) {
        uuid_v7(after);
        CHECK(strcmp(before, after) < 0);
        memcpy(before, after, sizeof(before));
    }
    time_set_source(NULL);
}
