/* SPDX-License-Identifier: MIT */
/* The routes under /api/v1/messages: messages as JSON, and what mail_look.c can do to them. */
#include "swarm/mail_int.h"

const struct http_route mail_routes[] = { { 0 } };
const size_t mail_routes_len = 0;
