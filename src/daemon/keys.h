/* SPDX-License-Identifier: MIT */
/*
 * daemon/keys.h — named, scoped, hashed API keys. One key store serves every listener.
 *
 * The table is kept in memory too, so that checking a key costs no query; what was created or
 * removed here counts at once, what another daemon on the same database changed within
 * KEYS_REFRESH_MS.
 */
#pragma once

#include "net/http.h"
#include "store/store.h"

#define KEYS_REFRESH_MS 5000
#define KEYS_MAX        10000
#define KEY_PREFIX      "chela_"
#define KEY_TEXT        (sizeof(KEY_PREFIX) + 64) /* with the terminator */
#define KEY_NAME_MAX    64

struct keys;

struct key_info {
    const char *name;
    uint64_t id; /* of the key's hash, for keys_holds() */
    unsigned scopes;
    int64_t created_at, expires_at; /* µs since 1970; expires_at 0: never */
};

struct keys *keys_new(struct store *store);
void keys_free(struct keys *k); /* NULL is fine */

/* Read the table from the store. */
CO int keys_load(struct keys *k, struct err *e) MUST_CHECK;

size_t keys_count(const struct keys *k);
const struct key_info *keys_at(const struct keys *k,
                               size_t i); /* sorted by name; valid until the next wait */

/* Is this one of ours and not expired? Constant time in the token. Borrowed until the next wait. */
const struct key_info *keys_check(const struct keys *k, struct str token);

/*
 * A key is known by this number as long as it exists and has not expired, also when it is read
 * again: http_identity.grant. Never 0.
 */
bool keys_holds(const struct keys *k, uint64_t id);

/* fn(arg) is called whenever a key has gone: removed here or by another process, or expired. */
void keys_on_lost(struct keys *k, void (*fn)(void *arg), void *arg);

/* Has one expired since it was last called? Then keys_on_lost()'s. To be called now and then. */
void keys_look_at_clock(struct keys *k);

/* Make one; its text is written to key[KEY_TEXT] and kept nowhere. ERR_CONFLICT: the name is taken.
 */
CO int keys_create(struct keys *k, const char *name, unsigned scopes, int64_t expires_at,
                   char key[KEY_TEXT], struct err *e) MUST_CHECK;

/* ERR_NOT_FOUND: no key of that name. Refused from the moment this returns. */
CO int keys_remove(struct keys *k, const char *name, struct err *e) MUST_CHECK;

/* "admin", "bridge", "read", "metrics", "workflows", "agents" to bits and back; unknown names are
 * ERR_INVALID. */
int key_scopes_parse(const struct shape_strs *names, unsigned *ret, struct err *e) MUST_CHECK;
struct shape_strs key_scopes_format(unsigned scopes, struct arena *a);

/* GET, POST /api/v1/keys and DELETE /api/v1/keys/{name}; the table's room is a struct keys. */
extern const struct http_route keys_routes[];
extern const size_t keys_routes_len;
