/* SPDX-License-Identifier: MIT */
/*
 * swarm/notify.h — the OpenClaw client of the backend, and what is said through it.
 *
 * A notification is a message like any other (mail.h), to the session of the settings; its key is
 * (event, issue, workflow step), so that it is said once. The driver of mail delivers to sessions
 * that openclaw.route names: "agent:…" by a turn, "<channel>:<peer>" by a post. A token bucket
 * (openclaw.notify_rate a minute and session) holds what comes too fast; notifications that wait
 * for it are joined into one text. A failed notification never fails the workflow that made it.
 */
#pragma once

#include "swarm/swarm_int.h"

struct notify;

int notify_new(struct swarm *s, struct notify **ret, struct err *e) MUST_CHECK;
CO int notify_start(struct notify *n, struct err *e) MUST_CHECK;
CO void notify_stop(struct notify *n);
void notify_free(struct notify *n);

enum notify_event {
    NOTIFY_AGENT_SPAWNED,
    NOTIFY_WORK_STARTED,
    NOTIFY_PR_CREATED,
    NOTIFY_TESTS_PASSING,
    NOTIFY_TESTS_FAILING,
    NOTIFY_WORK_COMPLETED,
    NOTIFY_ERROR,
    NOTIFY_EVENTS,
};
extern const char *const notify_event_names[NOTIFY_EVENTS]; /* "agent_spawned" ... */
struct notification {
    enum notify_event event;
    int64_t issue;
    struct str agent, task, url, error, coverage; /* what the event's template names; {0}: absent */
    int64_t pr;
};
/* The text of a notification, byte for byte as the original's templates. Pure. */
int notify_text(const struct notification *n, struct buf *out, struct err *e) MUST_CHECK;

/* Say it durably. to {0}: the session of the settings. key makes it one. */
CO int notify_send(struct notify *n, struct str to, struct str key, struct str text, struct err *e)
    MUST_CHECK;
/* The same in a transaction of a workflow's step (store thread). ERR_CONFLICT: said before in other
 * words; it and ERR_LIMIT (the mailbox is full) have spoilt nothing. */
int notify_send_tx(struct store_tx *tx, const struct notify *n, struct str to, struct str key,
                   struct str text, struct err *e) MUST_CHECK;

/* After that transaction's commit. */
void notify_sent(struct notify *n, struct str to);

struct oc_client *notify_client(struct notify *n); /* NULL: openclaw.url is not set */

/* What the OpenClaw gateway tells of messages in channels goes to whoever sets this (command.c): a
 * text that a peer has written in a session. Must not wait; lent during the call. */
struct inbound {
    struct str session, id, from, text, channel;
};
extern void (*notify_inbound)(struct swarm *s, const struct inbound *in);

/* GET /api/v1/openclaw/status; the room is the struct notify. */
extern const struct http_route notify_routes[];
extern const size_t notify_routes_len;
