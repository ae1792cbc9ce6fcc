/* SPDX-License-Identifier: MIT */
/* base/fiber_io_test.c — reading, writing and waiting for descriptors. */
#include "base/fiber.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "in_fiber.h"

#define BULK (1024 * 1024)

static int make_pipe(int fds[2])
{
    return pipe2(fds, O_CLOEXEC | O_NONBLOCK);
}

static int write_bulk(void *arg, struct err *e)
{
    AUTO(free) char *bulk = xmalloc(BULK);
    AUTO(close_fd) int fd = *(int *)arg;

    for (size_t i = 0; i < BULK; i++)
        bulk[i] = (char)(i * 7);
    return fiber_write_all(fd, bulk, BULK, now_ms() + 20000, e);
}

CO_TEST(a_megabyte_goes_through_a_pipe)
{
    struct fiber *f;
    size_t n = 0;
    int fds[2];

    CO_CHECK(make_pipe(fds) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "write", write_bulk, &fds[1], &f, e) == 0);
    for (;;) {
        char buf[3000];
        ssize_t r = fiber_read(fds[0], buf, sizeof(buf), now_ms() + 20000, e);

        CO_CHECK(r >= 0);
        if (r == 0)
            break;
        for (ssize_t i = 0; i < r; i++, n++)
            CO_CHECK(buf[i] == (char)(n * 7));
    }
    CO_CHECK(n == BULK);
    CO_CHECK(fiber_join(f, e) == 0);
    close(fds[0]);
    return 0;
}

CO_TEST(a_read_times_out_and_the_descriptor_is_usable_after)
{
    char c = 0;
    int fds[2];

    CO_CHECK(make_pipe(fds) == 0);
    CO_CHECK(fiber_read(fds[0], &c, 1, now_ms() + 5, e) == -ERR_TIMEOUT);
    CO_CHECK(write(fds[1], "x", 1) == 1);
    CO_CHECK(fiber_read(fds[0], &c, 1, now_ms() + 1000, e) == 1 && c == 'x');
    CO_CHECK(fiber_wait_fd(fds[1], LOOP_WRITE, now_ms() + 1000, e) == LOOP_WRITE);
    close(fds[0]);
    CO_CHECK(fiber_write_all(fds[1], "x", 1, now_ms() + 1000, e) < 0);
    close(fds[1]);
    return 0;
}

static int read_one(void *arg, struct err *e)
{
    char c;

    return (int)fiber_read(*(int *)arg, &c, 1, DEADLINE_NONE, e);
}

CO_TEST(a_read_is_cancelled)
{
    struct fiber *f;
    int fds[2];

    CO_CHECK(make_pipe(fds) == 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "read", read_one, &fds[0], &f, e) == 0);
    CO_CHECK(fiber_yield(e) == 0);
    fiber_cancel(f);
    CO_CHECK(fiber_join(f, e) == -ERR_CANCELED);
    close(fds[0]);
    close(fds[1]);
    return 0;
}

static int read_for_ever(void *arg, struct err *e)
{
    ssize_t r;
    char c;

    do
        r = fiber_read(*(int *)arg, &c, 1, DEADLINE_NONE, e);
    while (r > 0);
    return (int)r;
}

CO_TEST(a_descriptor_that_is_always_ready_leaves_others_their_turn)
{
    struct fiber *f;
    int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

    CO_CHECK(fd >= 0);
    CO_CHECK(fiber_spawn(fiber_loop(), "zero", read_for_ever, &fd, &f, e) == 0);
    CO_CHECK(fiber_sleep(5, e) == 0);
    fiber_cancel(f);
    CO_CHECK(fiber_join(f, e) == -ERR_CANCELED);
    close(fd);
    return 0;
}

CO_TEST(a_regular_file_cannot_be_waited_for)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    CO_CHECK(fd >= 0);
    CO_CHECK(fiber_wait_fd(fd, LOOP_READ, DEADLINE_NONE, e) < 0);
    close(fd);
    return 0;
}
