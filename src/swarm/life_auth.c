/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_auth.c — who may use /api/v1/agents, by agents.auth:
 *
 *   none   everybody, and then the gateway is served on loopback only (the daemon sees to that)
 *   token  as everywhere: an admin token or an API key with the scope "agents" (or "read")
 *   jwt    holders of a JWT; they see their own agents. Tokens of the daemon are admins' here too
 */
#include <string.h>

#include "swarm/jwt.h"
#include "swarm/life_int.h"

enum { JWT_SECRET_MIN = 32 };

static bool mode_is(const struct life *l, const char *mode)
{
    return strcmp(l->s->settings->backend_auth, mode) == 0;
}

int life_check_auth(struct life *l, struct err *e)
{
    if (mode_is(l, "jwt") && strlen(l->s->settings->jwt_secret) < JWT_SECRET_MIN)
        return err_set(e, ERR_INVALID,
                       "agents.auth is 'jwt' and agents.jwt_secret has fewer than %d bytes",
                       JWT_SECRET_MIN);
    return 0;
}

static struct str bearer(const struct http_req *req)
{
    struct str value = http_header_get(req, "authorization");

    if (value.n > 7 && str_eq_nocase((struct str){ value.p, 7 }, STR("Bearer ")))
        return str_trim((struct str){ value.p + 7, value.n - 7 });
    return (struct str){ 0 };
}

static bool looks_like_jwt(struct str token)
{
    const char *dot = token.n ? memchr(token.p, '.', token.n) : NULL;

    return dot && memchr(dot + 1, '.', token.n - (size_t)(dot + 1 - token.p));
}

static int refuse(struct http_req *req, int r)
{
    http_reply_header(req, "WWW-Authenticate", "Bearer");
    return r;
}

static int ask_jwt(struct life *l, struct http_req *req, struct http_identity *ret, struct err *e)
{
    const struct swarm_ops *ops = &l->s->conf.ops;
    struct str token = bearer(req);
    struct jwt_claims *claims;
    int r;

    if (!token.n && !looks_like_jwt(http_header_get(req, "x-auth-token")))
        token = http_header_get(req, "x-auth-token");
    if (!token.n)
        return refuse(req, err_set(e, ERR_UNAUTHORIZED, "Not authenticated"));
    if (!looks_like_jwt(token)) {
        r = ops->authenticate ? ops->authenticate(token, req->arena, ops->arg, ret, e) : -1;
        return r == 0 ? 0 : refuse(req, err_set(e, ERR_UNAUTHORIZED, "Invalid token"));
    }
    claims = arena_new(req->arena, struct jwt_claims);
    r = jwt_verify(token, str_of(l->s->settings->jwt_secret), swarm_now() / 1000, req->arena,
                   claims, e);
    if (r < 0)
        return refuse(req, r);
    *ret = (struct http_identity){
        .name = claims->sub.p,
        .scopes = NEED_NONE | NEED_READ | NEED_AGENTS,
        .guest = claims,
    };
    return 0;
}

int life_door(struct http_req *req, void *room, struct http_identity *ret, struct err *e)
{
    struct life *l = room;

    if (mode_is(l, "jwt"))
        return ask_jwt(l, req, ret, e);
    if (!mode_is(l, "none"))
        return HTTP_DOOR_NEXT;
    *ret =
        (struct http_identity){ .name = "anyone", .scopes = NEED_NONE | NEED_READ | NEED_AGENTS };
    return 0;
}

struct life_owner life_caller(struct http_req *req)
{
    const struct jwt_claims *claims = req->who.guest;

    if (!claims)
        return (struct life_owner){ 0 };
    return (struct life_owner){ claims->sub, claims->workspace };
}

int life_owned(struct http_req *req, const struct agent_info *row, struct err *e)
{
    struct life_owner who = life_caller(req);

    if (!who.user.n)
        return 0;
    if (row->workspace.n && who.workspace.n && !str_eq_nocase(row->workspace, who.workspace))
        return err_set(e, ERR_FORBIDDEN, "Access denied: agent belongs to different workspace");
    if (!str_eq(row->user, who.user))
        return err_set(e, ERR_FORBIDDEN, "Access denied: you do not own this agent");
    return 0;
}
