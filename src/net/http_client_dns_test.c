/* SPDX-License-Identifier: MIT */
/*
 * A name server that does not answer keeps libcurl's thread in getaddrinfo() for many seconds.
 * Nobody may have to wait for it: neither the caller whose deadline passes nor the loop. The same
 * holds for stream_connect() and a thread of ours. The function below stands in for the one of the
 * C library.
 */
#include <netdb.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "base/fiber.h"
#include "base/offload.h"
#include "base/str.h"
#include "net/http_client.h"
#include "net/stream.h"
#include "test.h"

enum { STUCK_S = 10, QUICK_MS = 3000 };

static sem_t name_server;
static atomic_int asked, returned;

__attribute__((visibility("default"))) int getaddrinfo(const char *restrict name,
                                                       const char *restrict service,
                                                       const struct addrinfo *restrict hints,
                                                       struct addrinfo **restrict ret)
{
    struct timespec until;

    if (hints && (hints->ai_flags & AI_NUMERICHOST))
        return EAI_NONAME;
    atomic_fetch_add(&asked, 1);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += STUCK_S;
    while (sem_timedwait(&name_server, &until) < 0 && errno == EINTR)
        ;
    atomic_fetch_add(&returned, 1);
    return EAI_AGAIN;
}

struct run {
    struct loop *loop;
    uint64_t spent_ms;
    struct http_answer answer;
};

static void let_the_thread_end(void)
{
    sem_post(&name_server);
    for (int i = 0; i < 2000 && atomic_load(&returned) < atomic_load(&asked); i++)
        usleep(1000);
    usleep(50 * 1000); /* libcurl's own part of the thread, which frees its memory */
}

CO static int call_slow_name(void *arg, struct err *e)
{
    struct run *run = arg;
    struct http_client_conf conf = { 0 };
    struct http_client *client;
    struct arena arena = { 0 };
    struct http_call call = { .method = HTTP_M_GET, .url = "http://slow.example/" };
    uint64_t began;
    int r;

    CO_CHECK(http_client_new(run->loop, &conf, &client, e) == 0);
    call.deadline_ms = deadline_in(100);
    began = now_ms();
    r = http_fetch(client, &call, &arena, &run->answer, e);
    CO_CHECK(r == -ERR_TIMEOUT);
    http_client_free(client);
    run->spent_ms = now_ms() - began;
    arena_done(&arena);
    return 0;
}

TEST(a_name_server_that_does_not_answer_holds_nobody_past_the_deadline)
{
    struct run run = { 0 };
    struct err e;

    CHECK_INT(sem_init(&name_server, 0, 0), 0);
    CHECK_INT(loop_new(&run.loop, &e), 0);
    CHECK_INT(fiber_spawn(run.loop, "test", call_slow_name, &run, NULL, &e), 0);
    loop_run(run.loop);
    let_the_thread_end();
    CHECK_INT(atomic_load(&asked), 1);
    CHECK_INT(run.answer.fail, HTTP_FAIL_TIMEOUT);
    CHECK(run.spent_ms >= 100 && run.spent_ms < QUICK_MS);
    loop_free(run.loop);
}

CO static int connect_slow_name(void *arg, struct err *e)
{
    struct run *run = arg;
    struct stream *s = NULL;
    uint64_t began = now_ms();

    CO_CHECK(stream_connect(run->loop, "slow.example", 80, NULL, deadline_in(100), &s, e) ==
             -ERR_TIMEOUT);
    CO_CHECK(strstr(e->msg, "slow.example"));
    run->spent_ms = now_ms() - began;
    sem_post(&name_server);
    return 0;
}

TEST(nor_does_it_hold_a_stream_that_connects)
{
    struct run run = { 0 };
    struct err e;

    atomic_store(&asked, 0);
    atomic_store(&returned, 0);
    CHECK_INT(sem_init(&name_server, 0, 0), 0);
    CHECK_INT(loop_new(&run.loop, &e), 0);
    CHECK_INT(fiber_spawn(run.loop, "test", connect_slow_name, &run, NULL, &e), 0);
    loop_run(run.loop);
    CHECK_INT(atomic_load(&asked), 1);
    CHECK_INT(atomic_load(&returned), 1);
    CHECK(run.spent_ms >= 100 && run.spent_ms < QUICK_MS);
    loop_free(run.loop);
    offload_shutdown();
}
