/* SPDX-License-Identifier: MIT */
/*
 * daemon/auth.h — who is calling, and may that Host or Origin be. Fills in http_server_ops.
 *
 * In order: the unix socket's peer is admin (the file is 0600); a valid token (admin token of the
 * state directory, a configured one, an API key) names its holder; a TCP caller on loopback needs
 * none while no key exists and no token is configured, unless it comes from a browser (Origin) or
 * through a proxy (any forwarding header). Everybody else is 401.
 */
#pragma once

#include "daemon/keys.h"
#include "daemon/settings.h"
#include "net/http_server.h"

struct auth {
    const struct settings *settings; /* hosts and origins are live */
    const struct keys *keys;
    const char *admin_token; /* of the state directory */
    const char *bind_host;
    const char *origins; /* more web pages that may call; NULL: none */
    bool always;         /* a token, on loopback too */
};

/* Does every caller need a token now? */
bool auth_required(const struct auth *a);

/* Is a token configured or an API key made, so that a public address may be served? */
bool auth_configured(const struct auth *a);

/* Whose token is this? Texts in the arena; -ERR_UNAUTHORIZED. For tokens that come otherwise than
 * in a header. */
int auth_token(const struct auth *a, struct str token, struct arena *arena,
               struct http_identity *ret, struct err *e) MUST_CHECK;

/* http_server_ops whose arg is a. */
struct http_server_ops auth_ops(struct auth *a);
