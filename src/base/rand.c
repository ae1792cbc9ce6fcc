/* SPDX-License-Identifier: MIT */
/*
 * base/rand.c — getrandom(2) behind a small pool per thread, since ids and nonces are asked for a
 * few bytes at a time. Bytes handed out are wiped from the pool. A fork would copy the pools, so
 * its child throws them away: each pool remembers how many forks there had been when it was filled.
 */
#include "base/rand.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>

#include "base/err.h"
#include "base/log.h"

enum { POOL = 512 };

static _Thread_local struct {
    unsigned char bytes[POOL];
    size_t left; /* at the end of bytes */
    unsigned forks;
} pool;

static atomic_uint forks;
static _Atomic uint64_t seeded; /* state of the tests' sequence; 0: the kernel's */

static void count_fork(void)
{
    atomic_fetch_add_explicit(&forks, 1, memory_order_relaxed);
}

__attribute__((constructor)) static void watch_forks(void)
{
    if (pthread_atfork(NULL, NULL, count_fork) != 0)
        abort(); /* out of memory before main */
}

static void from_kernel(unsigned char *out, size_t n)
{
    while (n > 0) {
        ssize_t got = getrandom(out, n, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            log_error("the kernel gives no random bytes", "errno", LOG_INT(errno));
            abort();
        }
        out += got;
        n -= (size_t)got;
    }
}

static uint64_t next_seeded(void)
{
    /* splitmix64 */
    uint64_t z = atomic_fetch_add(&seeded, UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void from_seed(unsigned char *out, size_t n)
{
    while (n > 0) {
        uint64_t word = next_seeded();
        size_t part = n < sizeof(word) ? n : sizeof(word);

        memcpy(out, &word, part);
        out += part;
        n -= part;
    }
}

void rand_bytes(void *out, size_t n)
{
    unsigned now = atomic_load_explicit(&forks, memory_order_relaxed);
    unsigned char *from;

    if (atomic_load_explicit(&seeded, memory_order_relaxed) != 0) {
        from_seed(out, n);
        return;
    }
    if (n > POOL / 4) {
        from_kernel(out, n);
        return;
    }
    if (pool.left < n || pool.forks != now) {
        from_kernel(pool.bytes, POOL);
        pool.left = POOL;
        pool.forks = now;
    }
    from = pool.bytes + POOL - pool.left;
    memcpy(out, from, n);
    explicit_bzero(from, n);
    pool.left -= n;
}

uint64_t rand_u64(void)
{
    uint64_t v;

    rand_bytes(&v, sizeof(v));
    return v;
}

double rand_unit(void)
{
    return (double)(rand_u64() >> 11) * 0x1.0p-53;
}

void rand_set_seed(uint64_t seed)
{
    atomic_store(&seeded, seed);
}
