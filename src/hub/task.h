/* SPDX-License-Identifier: MIT */
/*
 * hub/task.h — a task from acceptance to result.
 *
 *   queued → sent → running → completed | failed | timeout | canceled | lost
 *
 * A task is on disk before it is acknowledged (hub_tasks), its result before the agent is told that
 * it may forget it. What has not ended is in memory too, by id and by agent; ended ones are read
 * from the store. Writes of one turn share a commit.
 *
 * sent: handed to a socket, nothing heard of it. running: the agent said so (status {taskId,
 * state:"running"|"queued"|"accepted"}); agents of the original protocol never do. When the link
 * goes, a task keeps its state for hub.lease; an agent that returns says what it has (resync) and
 * is told what it does not have again. An agent that deduplicates (says so in its resync) is sent a
 * `sent` task again; to one of the original protocol a task whose outcome is unknown is not sent
 * again, unless the task says retry: true: after the lease it ends as `lost`. A canceled or late
 * task is told so (message `cancel`).
 *
 * Before a task's frame is given to a socket the row says `sent`, so that after a crash no row says
 * less than what has happened. It costs nothing: when the agent is connected at acceptance, the row
 * is born so; what waits for an agent is marked in one write when it connects. The state shown is
 * that of the memory, which knows better whether it was really sent.
 */
#pragma once

#include "hub/hub_int.h"

enum task_state {
    TASK_QUEUED,
    TASK_SENT,
    TASK_RUNNING,
    TASK_COMPLETED,
    TASK_FAILED,
    TASK_TIMEOUT,
    TASK_CANCELED,
    TASK_LOST,
};
const char *task_state_name(enum task_state s);

int tasks_new(struct hub *h, struct tasks **ret, struct err *e) MUST_CHECK;
CO int tasks_start(struct tasks *t, struct err *e) MUST_CHECK; /* loads what has not ended */
CO void tasks_stop(struct tasks *t);                           /* lets go who waits for results */
void tasks_free(struct tasks *t);

/*
 * Accept a task for a registered agent: on disk when this returns, sent when the agent is
 * connected. body: the request's object (borrowed); its id (or taskId) is the task's, else a new
 * UUIDv4 is. from: who asked ("host" for operators). id gets the id. ERR_NOT_FOUND no such agent,
 * ERR_CONFLICT a task of that id is known, ERR_LIMIT queue full (hub.queue_full = refuse),
 * ERR_INVALID an id that is no id.
 */
#define TASK_ID_MAX 128
CO int task_submit(struct tasks *t, struct str agent, const json_t *body, struct str from,
                   const char *peer, char id[TASK_ID_MAX + 1], struct err *e) MUST_CHECK;

/* The TaskRecord, a new reference, once it has ended or at the deadline. ERR_NOT_FOUND. agent
 * {NULL,0}: whichever. */
CO int task_get(struct tasks *t, struct str agent, struct str id, uint64_t deadline_ms,
                json_t **ret, struct err *e) MUST_CHECK;
/* Newest first; before: a seq to go on from, or 0. state NULL: all. An array, a new reference. */
CO int task_list(struct tasks *t, struct str agent, const char *state, int64_t before, size_t max,
                 json_t **ret, struct err *e) MUST_CHECK;

/* Cancel: a waiting one ends at once, a running one is told to. ERR_CONFLICT: it has ended. */
CO int task_cancel(struct tasks *t, struct str agent, struct str id, struct err *e) MUST_CHECK;

/* currentTasks of the Agent object: [{id, type, startedAt, payload}], a new reference. */
json_t *task_current(struct tasks *t, struct str agent);
size_t task_current_count(struct tasks *t, struct str agent);
size_t tasks_active(const struct tasks *t);

/*
 * An agent is about to be connected: before its first task_flush(). Writes of those that wait for
 * it that they may have been sent, before any is, and where several daemons share a database finds
 * what the others have for it. Free on SQLite when nothing waits.
 */
CO int task_prepare(struct tasks *t, struct str agent, struct err *e) MUST_CHECK;

/* --- called by link, on the loop's thread; none of them waits --- */

/* An agent has connected: send what waits whose order is less than `before` (INT64_MAX: all, and
 * from now on what comes is sent at once), in order. */
void task_flush(struct tasks *t, struct str agent, int64_t before);
void task_gone(struct tasks *t, struct str agent); /* its socket is gone: leases begin */
/* Its socket has room again, or it is not drained any more: go on sending. */
void task_resume(struct tasks *t, struct str agent);
/* A `response` of it with a payload object. Decides whether it counts (unknown and double ones do
 * not), writes it, then tells the agent {type:"ack", payload:{taskId}}. */
void task_response(struct tasks *t, struct str agent, const json_t *payload);
/* `status` with taskId: running, queued; `status` with state "resync": what it holds. True when it
 * was about tasks. */
bool task_status(struct tasks *t, struct str agent, const json_t *payload);
/* `log` with taskId, stream, offset and data: live output. True when it was. */
bool task_output(struct tasks *t, struct str agent, const json_t *payload);
/* The agent has been deregistered: what waits or runs ends as failed. */
CO int task_forget_agent(struct tasks *t, struct str agent, struct err *e) MUST_CHECK;
/* It has lost its memory (a machine was set back): what it has ends as lost; what waits stays. */
CO int task_lose_agent(struct tasks *t, struct str agent, const char *reason, struct err *e)
    MUST_CHECK;

/* POST /agents/:id/task, GET /agents/:id/tasks, GET /agents/:id/tasks/:taskId, GET /tasks,
 * GET /tasks/:taskId, GET /tasks/:taskId/output (SSE), POST …/cancel; room: struct tasks. */
extern const struct http_route task_routes[];
extern const size_t task_routes_len;
