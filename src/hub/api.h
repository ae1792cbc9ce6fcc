/* SPDX-License-Identifier: MIT */
/* hub/api.h — routes of the HTTP port that belong to no other part (/health, /metrics, /agents…,
 * /admin…; the room is the struct hub), and what all routes of the hub need. */
#pragma once

#include "hub/hub_int.h"

extern const struct http_route api_routes[];
extern const size_t api_routes_len;

#define HUB_JSON "application/json; charset=utf-8"
enum { HUB_DEPTH = 64 }; /* nesting of a document from outside */

/*
 * The request's body as the original read it: a JSON object or array when Content-Type is
 * application/json, else (also without a body) an empty object. Borrowed from the arena.
 * ERR_INVALID: not JSON, or something else at its top.
 */
int hub_body(struct http_req *req, json_t **ret, struct err *e) MUST_CHECK;

/* What stands behind "/agent/ID" in the request's path is a token: nobody sees it there from now
 * on, the log included. */
void hub_hide_token(struct http_req *req);

/* Answer {"error": text}. */
void hub_refuse(struct http_req *req, int status, const char *text);

/* Answer with a finished JSON text, or with a document whose reference is taken. status 0: 200. */
int hub_reply(struct http_req *req, int status, struct buf *b, struct err *e) MUST_CHECK;
int hub_reply_json(struct http_req *req, int status, json_t *body, struct err *e) MUST_CHECK;
