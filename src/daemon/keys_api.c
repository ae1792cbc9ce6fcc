/* SPDX-License-Identifier: MIT */
/*
 * daemon/keys_api.c — the routes of API keys. A key's text is in the answer that makes it and
 * nowhere else.
 */
#include <string.h>

#include "daemon/keys.h"

struct key_in {
    const char *name;
    struct shape_strs scopes;
    int64_t expires_in;
};
static const struct shape_field key_in_fields[] = {
    FIELD(struct key_in, name, .required = true, .min = 1, .max = KEY_NAME_MAX,
          .doc = "Letters, digits, '.', '_', '-' and '@'."),
    FIELD(struct key_in, scopes, .def = "[\"bridge\"]",
          .doc = "Any of admin, bridge, read, metrics, workflows, agents."),
    FIELD(struct key_in, expires_in, .min = 0, .max = 3153600000LL,
          .doc = "Seconds until the key expires; 0: never."),
};
static const struct shape key_in_shape = SHAPE(struct key_in, "KeyRequest", key_in_fields);

struct key_out {
    const char *name;
    struct shape_strs scopes;
    const char *created_at, *expires_at, *key;
};
static const struct shape_field key_out_fields[] = {
    FIELD(struct key_out, name),
    FIELD(struct key_out, scopes),
    FIELD(struct key_out, created_at),
    FIELD(struct key_out, expires_at),
    FIELD(struct key_out, key, .omit = true, .doc = "Only in the answer that makes the key."),
};
static const struct shape key_out_shape = SHAPE(struct key_out, "Key", key_out_fields);

struct key_list {
    struct shape_list keys;
};
static const struct shape_field key_list_fields[] = {
    FIELD(struct key_list, keys, .of = &key_out_shape),
};
static const struct shape key_list_shape = SHAPE(struct key_list, "KeyList", key_list_fields);

static const char *time_text(int64_t us, struct arena *a)
{
    char text[TIME_TEXT];

    if (!us)
        return NULL;
    time_format_z(us, text);
    return arena_strdup(a, text);
}

static struct key_out *describe(const struct key_info *info, struct arena *a)
{
    struct key_out *out = arena_new(a, struct key_out);

    out->name = arena_strdup(a, info->name);
    out->scopes = key_scopes_format(info->scopes, a);
    out->created_at = time_text(info->created_at, a);
    out->expires_at = time_text(info->expires_at, a);
    return out;
}

static int list_keys(struct http_req *req, struct err *e)
{
    const struct keys *keys = req->room;
    struct key_list *list = arena_new(req->arena, struct key_list);

    list->keys.n = keys_count(keys);
    list->keys.v = arena_alloc(req->arena, list->keys.n * sizeof(*list->keys.v) + 1);
    for (size_t i = 0; i < list->keys.n; i++)
        list->keys.v[i] = describe(keys_at(keys, i), req->arena);
    req->out = list;
    return 0;
}

static int check_name(const char *name, struct err *e)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "0123456789._-@";
    /* Who is called so has no key; in the audit log nobody else may look like them. */
    static const char *const taken[] = { "admin", "loopback", "anonymous", "anyone" };

    if (name[strspn(name, allowed)])
        return err_set(e, ERR_INVALID,
                       "key name: only letters, digits, '.', '_', '-' and '@' are allowed");
    for (size_t i = 0; i < LEN(taken); i++)
        if (str_eq_nocase(str_of(name), str_of(taken[i])))
            return err_set(e, ERR_INVALID,
                           "key name: '%s' is what callers without a key are called", taken[i]);
    return 0;
}

static CO int create_key(struct http_req *req, struct err *e)
{
    const struct key_in *in = req->in;
    struct key_info info = { .name = in->name, .created_at = wall_us() };
    struct key_out *out;
    char key[KEY_TEXT];
    int r;

    r = check_name(in->name, e);
    if (r == 0)
        r = key_scopes_parse(&in->scopes, &info.scopes, e);
    if (r < 0)
        return r;
    if (in->expires_in)
        info.expires_at = info.created_at + in->expires_in * 1000000;
    r = keys_create(req->room, in->name, info.scopes, info.expires_at, key, e);
    if (r < 0)
        return r;
    out = describe(&info, req->arena);
    out->key = arena_strdup(req->arena, key);
    req->out = out;
    return 0;
}

static CO int remove_key(struct http_req *req, struct err *e)
{
    return keys_remove(req->room, req->args[0].p, e);
}

/* clang-format off */
const struct http_route keys_routes[] = {
    { HTTP_M_GET, "/api/v1/keys", list_keys, .need = NEED_ADMIN, .out = &key_list_shape,
      .tag = "keys", .doc = "List the API keys, without their texts." },
    { HTTP_M_POST, "/api/v1/keys", create_key, .need = NEED_ADMIN, .in = &key_in_shape,
      .out = &key_out_shape, .status = 201, .tag = "keys",
      .doc = "Make an API key; its text is shown this once." },
    { HTTP_M_DELETE, "/api/v1/keys/{name}", remove_key, .need = NEED_ADMIN, .status = 204,
      .tag = "keys", .doc = "Revoke an API key at once." },
};
/* clang-format on */
const size_t keys_routes_len = LEN(keys_routes);
