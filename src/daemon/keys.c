/* SPDX-License-Identifier: MIT */
/*
 * daemon/keys.c — see keys.h. The token is hashed before it is looked up, and hashes of random
 * 256-bit keys may be compared in any time: learning one tells nothing about the key.
 */
#include "daemon/keys.h"

#include <string.h>

#include "base/secret.h"
#include "base/time.h"

struct key {
    struct key_info info;
    char name[KEY_NAME_MAX + 1];
    char hash[2 * SECRET_KEY + 1];
};

struct keys {
    struct store *store;
    struct key **rows; /* sorted by name */
    size_t n;
    unsigned changes;  /* committed ones: what was read before the last of them is old */
    int64_t looked_us; /* wall time of the last look for expired ones */
    void (*on_lost)(void *arg);
    void *lost_arg;
};

static const struct sql sql_list = {
    .name = "keys_list",
    .text = "SELECT name, hash, scopes, created_at, expires_at FROM api_keys ORDER BY name",
};
static const struct sql sql_insert = {
    .name = "keys_insert",
    .text = "INSERT INTO api_keys (name, hash, scopes, created_at, expires_at)"
            " VALUES (?1, ?2, ?3, ?4, ?5)",
};
static const struct sql sql_delete = {
    .name = "keys_delete",
    .text = "DELETE FROM api_keys WHERE name = ?1",
};

static const struct {
    const char *name;
    unsigned bit;
} scope_names[] = {
    { "admin", NEED_ADMIN },     { "bridge", NEED_BRIDGE },       { "read", NEED_READ },
    { "metrics", NEED_METRICS }, { "workflows", NEED_WORKFLOWS }, { "agents", NEED_AGENTS },
};

struct keys *keys_new(struct store *store)
{
    struct keys *k = xcalloc(1, sizeof(*k));

    k->store = store;
    return k;
}

static void rows_free(struct key **rows, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(rows[i]);
    free(rows);
}

void keys_free(struct keys *k)
{
    if (!k)
        return;
    rows_free(k->rows, k->n);
    free(k);
}

static void lost(struct keys *k)
{
    if (k->on_lost)
        k->on_lost(k->lost_arg);
}

void keys_on_lost(struct keys *k, void (*fn)(void *arg), void *arg)
{
    k->on_lost = fn;
    k->lost_arg = arg;
}

/* Of random 256 bits, so two keys do not share it. */
static uint64_t id_of(const char *hash)
{
    uint64_t id = 0;

    for (int i = 0; i < 16 && hash[i]; i++)
        id = id << 4 | (unsigned)(hash[i] <= '9' ? hash[i] - '0' : hash[i] - 'a' + 10);
    return id ? id : 1;
}

struct load {
    struct key **rows;
    size_t n;
};

static int load_row(struct store_row *row, void *arg, struct err *e)
{
    struct load *load = arg;
    struct key *key;

    if (load->n == KEYS_MAX)
        return err_set(e, ERR_LIMIT, "more than %d API keys", KEYS_MAX);
    key = xcalloc(1, sizeof(*key));
    fmt_z(key->name, sizeof(key->name), STR_FMT, STR_ARG(row_str(row, 0)));
    fmt_z(key->hash, sizeof(key->hash), STR_FMT, STR_ARG(row_str(row, 1)));
    key->info = (struct key_info){
        .name = key->name,
        .id = id_of(key->hash),
        .scopes = (unsigned)row_int(row, 2),
        .created_at = row_int(row, 3),
        .expires_at = row_is_null(row, 4) ? 0 : row_int(row, 4),
    };
    load->rows = xrealloc(load->rows, (load->n + 1) * sizeof(*load->rows));
    load->rows[load->n++] = key;
    return 0;
}

static int load_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct load *load = arg;

    rows_free(load->rows, load->n);
    *load = (struct load){ 0 };
    return store_run(tx, &sql_list, NULL, 0, load_row, load, e);
}

/* Both are in the database's order, so each is found at or behind where the last one was. */
static bool has_all(const struct load *now, struct key *const *before, size_t n)
{
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        while (at < now->n && now->rows[at]->info.id != before[i]->info.id)
            at++;
        if (at == now->n)
            return false;
    }
    return true;
}

/* Reads overlap with changes and with one another: a stale one would bring a revoked key back. */
CO int keys_load(struct keys *k, struct err *e)
{
    struct load load = { 0 };
    unsigned changes;
    bool all;
    int r;

    do {
        changes = k->changes;
        r = store_read(k->store, load_body, &load, e);
    } while (r == 0 && changes != k->changes);
    if (r < 0) {
        rows_free(load.rows, load.n);
        return err_wrap(e, "read the API keys");
    }
    all = has_all(&load, k->rows, k->n);
    rows_free(k->rows, k->n);
    k->rows = load.rows;
    k->n = load.n;
    if (!all)
        lost(k);
    return 0;
}

/* Revoked at once, without a read that might fail. */
static void forget(struct keys *k, const char *name)
{
    for (size_t i = 0; i < k->n; i++)
        if (strcmp(k->rows[i]->name, name) == 0) {
            free(k->rows[i]);
            memmove(&k->rows[i], &k->rows[i + 1], (--k->n - i) * sizeof(k->rows[i]));
            return;
        }
}

size_t keys_count(const struct keys *k)
{
    return k->n;
}

const struct key_info *keys_at(const struct keys *k, size_t i)
{
    return &k->rows[i]->info;
}

const struct key_info *keys_check(const struct keys *k, struct str token)
{
    char hash[2 * SECRET_KEY + 1];

    if (!str_starts(token, STR(KEY_PREFIX)))
        return NULL;
    sha256_hex(token, hash);
    for (size_t i = 0; i < k->n; i++)
        if (memcmp(k->rows[i]->hash, hash, sizeof(hash)) == 0) {
            const struct key_info *info = &k->rows[i]->info;

            return info->expires_at && info->expires_at <= wall_us() ? NULL : info;
        }
    return NULL;
}

bool keys_holds(const struct keys *k, uint64_t id)
{
    int64_t now = wall_us();

    for (size_t i = 0; i < k->n; i++)
        if (k->rows[i]->info.id == id)
            return !k->rows[i]->info.expires_at || k->rows[i]->info.expires_at > now;
    return false;
}

void keys_look_at_clock(struct keys *k)
{
    int64_t now = wall_us(), before = k->looked_us;
    bool expired = false;

    k->looked_us = now;
    for (size_t i = 0; i < k->n && !expired; i++) {
        int64_t at = k->rows[i]->info.expires_at;

        expired = at && at > before && at <= now;
    }
    if (expired)
        lost(k);
}

struct insert {
    const char *name, *hash;
    int64_t scopes, created_at, expires_at;
};

static int insert_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct insert *i = arg;
    const struct sql_arg args[] = {
        SQL_Z(i->name),
        SQL_Z(i->hash),
        SQL_INT(i->scopes),
        SQL_INT(i->created_at),
        i->expires_at ? SQL_INT(i->expires_at) : SQL_NULL,
    };

    return store_run(tx, &sql_insert, args, LEN(args), NULL, NULL, e);
}

CO int keys_create(struct keys *k, const char *name, unsigned scopes, int64_t expires_at,
                   char key[KEY_TEXT], struct err *e)
{
    struct insert insert = { .name = name, .scopes = scopes, .expires_at = expires_at };
    char text[KEY_TEXT], hash[2 * SECRET_KEY + 1];
    int r;

    if (k->n >= KEYS_MAX)
        return err_set(e, ERR_LIMIT, "there are %d API keys already: remove some", KEYS_MAX);
    token_new(KEY_PREFIX, text);
    sha256_hex(str_of(text), hash);
    insert.hash = hash;
    insert.created_at = wall_us();
    r = store_do(k->store, insert_body, &insert, e);
    if (r == -ERR_CONFLICT)
        return err_set(e, ERR_CONFLICT, "there is a key named '%s' already", name);
    if (r < 0)
        return err_wrap(e, "create key '%s'", name);
    k->changes++;
    r = keys_load(k, e);
    if (r < 0)
        return r;
    memcpy(key, text, sizeof(text));
    secret_wipe(text, sizeof(text));
    return 0;
}

struct removal {
    const char *name;
    int64_t n;
};

static int remove_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct removal *removal = arg;
    const struct sql_arg args[] = { SQL_Z(removal->name) };
    int r = store_run(tx, &sql_delete, args, LEN(args), NULL, NULL, e);

    removal->n = store_changed(tx);
    return r;
}

CO int keys_remove(struct keys *k, const char *name, struct err *e)
{
    struct removal removal = { .name = name };
    int r;

    r = store_do(k->store, remove_body, &removal, e);
    if (r < 0)
        return err_wrap(e, "remove key '%s'", name);
    if (!removal.n)
        return err_set(e, ERR_NOT_FOUND, "API key '%s' not found", name);
    k->changes++;
    forget(k, name);
    lost(k);
    return 0;
}

int key_scopes_parse(const struct shape_strs *names, unsigned *ret, struct err *e)
{
    unsigned scopes = 0;

    for (size_t i = 0; i < names->n; i++) {
        unsigned bit = 0;

        for (size_t j = 0; j < LEN(scope_names); j++)
            if (strcmp(scope_names[j].name, names->v[i]) == 0)
                bit = scope_names[j].bit;
        if (!bit)
            return err_set(
                e, ERR_INVALID,
                "unknown scope '%s': use admin, agents, bridge, metrics, read or workflows",
                names->v[i]);
        scopes |= bit;
    }
    if (!scopes)
        return err_set(e, ERR_INVALID, "a key needs at least one scope");
    *ret = scopes;
    return 0;
}

struct shape_strs key_scopes_format(unsigned scopes, struct arena *a)
{
    struct shape_strs strs = { .v = arena_alloc(a, LEN(scope_names) * sizeof(*strs.v)) };

    for (size_t i = 0; i < LEN(scope_names); i++)
        if (scopes & scope_names[i].bit)
            strs.v[strs.n++] = scope_names[i].name;
    return strs;
}
