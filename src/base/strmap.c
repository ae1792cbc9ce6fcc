/* SPDX-License-Identifier: MIT */
/* base/strmap.c — chained buckets, doubled when as many nodes as slots are in. */
#include "base/strmap.h"

#include <assert.h>
#include <string.h>

#include "base/rand.h"

enum { FIRST_SLOTS = 16 };

static inline uint64_t rotl(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[2] += v[3];
    v[1] = rotl(v[1], 13) ^ v[0], v[3] = rotl(v[3], 16) ^ v[2];
    v[0] = rotl(v[0], 32);
    v[2] += v[1], v[0] += v[3];
    v[1] = rotl(v[1], 17) ^ v[2], v[3] = rotl(v[3], 21) ^ v[0];
    v[2] = rotl(v[2], 32);
}

/* SipHash-1-3 (Aumasson, Bernstein). */
static uint64_t hash_of(const struct strmap *m, struct str key)
{
    uint64_t v[4] = { m->seed[0] ^ 0x736f6d6570736575, m->seed[1] ^ 0x646f72616e646f6d,
                      m->seed[0] ^ 0x6c7967656e657261, m->seed[1] ^ 0x7465646279746573 };
    uint64_t last = (uint64_t)key.n << 56, word;
    size_t i = 0;

    for (; i + 8 <= key.n; i += 8) {
        memcpy(&word, key.p + i, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    for (unsigned shift = 0; i < key.n; i++, shift += 8)
        last |= (uint64_t)(unsigned char)key.p[i] << shift;
    v[3] ^= last;
    sip_round(v);
    v[0] ^= last;
    v[2] ^= 0xff;
    for (int i_round = 0; i_round < 3; i_round++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct strmap_node *strmap_find(const struct strmap *m, struct str key)
{
    uint64_t hash;

    if (!m->n)
        return NULL;
    hash = hash_of(m, key);
    for (struct strmap_node *n = m->slots[hash & (m->n_slots - 1)]; n; n = n->next)
        if (n->hash == hash && str_eq(n->key, key))
            return n;
    return NULL;
}

static void resize(struct strmap *m, size_t n_slots)
{
    struct strmap_node **slots = xcalloc(n_slots, sizeof(struct strmap_node *));

    for (size_t i = 0; i < m->n_slots; i++) {
        for (struct strmap_node *n = m->slots[i], *next; n; n = next) {
            struct strmap_node **slot = &slots[n->hash & (n_slots - 1)];

            next = n->next;
            n->next = *slot;
            *slot = n;
        }
    }
    free(m->slots);
    m->slots = slots;
    m->n_slots = n_slots;
}

void strmap_add(struct strmap *m, struct strmap_node *node, struct str key)
{
    struct strmap_node **slot;

    if (!m->n_slots) {
        rand_bytes(m->seed, sizeof(m->seed));
        resize(m, FIRST_SLOTS);
    } else if (m->n >= m->n_slots) {
        resize(m, 2 * m->n_slots);
    }
    node->key = key;
    node->hash = hash_of(m, key);
    slot = &m->slots[node->hash & (m->n_slots - 1)];
    node->next = *slot;
    *slot = node;
    m->n++;
}

void strmap_remove(struct strmap *m, struct strmap_node *node)
{
    struct strmap_node **at = &m->slots[node->hash & (m->n_slots - 1)];

    while (*at != node) {
        assert(*at);
        at = &(*at)->next;
    }
    *at = node->next;
    node->next = NULL;
    m->n--;
}

void strmap_done(struct strmap *m)
{
    free(m->slots);
    *m = (struct strmap){ 0 };
}
