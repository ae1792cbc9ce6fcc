/* SPDX-License-Identifier: MIT */
/* durable/admin_int.h — reading bodies and writing answers of the admin routes. */
#pragma once

#include "durable/api_int.h"

/* --- answers; each takes the reference --- */
int admin_reply(struct http_req *req, int status, json_t *answer, struct err *e) MUST_CHECK;
int admin_error(struct http_req *req, int status, const char *text, struct err *e) MUST_CHECK;
json_t *admin_keep(json_t *j, struct arena *a); /* until the arena is freed; j */

/* New references. */
json_t *admin_workflow(const struct durable_info *w, struct arena *a);
json_t *admin_step(const struct durable_step_info *s, struct arena *a);

void admin_put(json_t *o, const char *key, struct str value); /* unless it is empty */

/* --- bodies: ERR_INVALID names what is wrong --- */
int admin_body(struct http_req *req, json_t **ret, struct err *e) MUST_CHECK; /* empty: {} */
int admin_object(struct http_req *req, json_t **ret, struct err *e) MUST_CHECK;

/* Members; absent ones leave *ret as it is, but times and lists, which become 0 and empty. */
int admin_texts(const json_t *body, const char *key, struct arena *a, const struct str **ret,
                size_t *ret_n, struct err *e) MUST_CHECK; /* a text or a list of texts */
int admin_time(const json_t *body, const char *key, int64_t *ret, struct err *e) MUST_CHECK;
int admin_number(const json_t *body, const char *key, int64_t max, int64_t *ret, struct err *e)
    MUST_CHECK;
int admin_filter(const json_t *body, struct durable_filter *f, struct arena *a, struct err *e)
    MUST_CHECK;
