/* SPDX-License-Identifier: MIT */
/* bridge/api.h — the handlers behind the bridge's routes, and how they answer. */
#pragma once

#include "bridge/bridge_int.h"
#include "net/http.h"

/* {"detail":"..."} with a status: the handler's own refusals, of any length. */
int reply_detail(struct http_req *req, int status, const char *fmt, ...) PRINTF(3, 4) MUST_CHECK;

/* A 422 in pydantic's form about one value of the request. */
int reply_problem(struct http_req *req, const char *where, const char *field, const char *text,
                  struct str input) MUST_CHECK;

/* A ready JSON text. */
int reply_json(struct http_req *req, struct str text);

/* call_api.c */
CO int api_call(struct http_req *req, struct err *e);

/* agents_api.c */
CO int api_register(struct http_req *req, struct err *e);
CO int api_agents(struct http_req *req, struct err *e);
CO int api_agent(struct http_req *req, struct err *e);
CO int api_agent_delete(struct http_req *req, struct err *e);
CO int api_health(struct http_req *req, struct err *e);
CO int api_agent_health(struct http_req *req, struct err *e);
CO int api_health_reset(struct http_req *req, struct err *e);
CO int api_status(struct http_req *req, struct err *e);
CO int api_tracker(struct http_req *req, struct err *e);

/* sessions_api.c */
CO int api_session(struct http_req *req, struct err *e);
CO int api_session_delete(struct http_req *req, struct err *e);
CO int api_sessions(struct http_req *req, struct err *e);
CO int api_session_stats(struct http_req *req, struct err *e);
CO int api_cleanup(struct http_req *req, struct err *e);
CO int api_export(struct http_req *req, struct err *e);
CO int api_import(struct http_req *req, struct err *e);
