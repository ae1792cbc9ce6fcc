/* SPDX-License-Identifier: MIT */
/*
 * base/strmap.h — a hash map from text to structs that embed a strmap_node. Keys are chosen by
 * clients, so the hash is SipHash-1-3 under a random key of the map.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

struct strmap_node {
    struct strmap_node *next;
    uint64_t hash;
    struct str key; /* borrowed from the struct around the node */
};

/* All zero is an empty map. */
struct strmap {
    struct strmap_node **slots;
    size_t n_slots, n;
    uint64_t seed[2];
};

/* The node of that key, or NULL. */
struct strmap_node *strmap_find(const struct strmap *m, struct str key);

/* Add a node whose key (valid as long as the node is in) is not in the map. */
void strmap_add(struct strmap *m, struct strmap_node *node, struct str key);

/* Take out a node that is in the map. */
void strmap_remove(struct strmap *m, struct strmap_node *node);

/* Free the map's own memory; the nodes are their owners'. */
void strmap_done(struct strmap *m);
