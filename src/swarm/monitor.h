/* SPDX-License-Identifier: MIT */
/*
 * swarm/monitor.h — are the workflows of agents well? Numbers from the engine's tables, and one
 * chore that looks for what is stuck, failed or without an owner.
 *
 * The chore says what it finds once per change, and gives work of dead processes back to its queue
 * when the engine has not done so. It never repeats a workflow that has ended with an error: that
 * is its result.
 */
#pragma once

#include "swarm/swarm_int.h"

struct monitor;

int monitor_new(struct swarm *s, struct monitor **ret, struct err *e) MUST_CHECK;
CO int monitor_start(struct monitor *m, struct err *e) MUST_CHECK;
CO void monitor_stop(struct monitor *m);
void monitor_free(struct monitor *m);

/*
 * {"recovered":bool,"status":…,"workflowUuid":…}: re-enqueues what is PENDING under a dead process,
 * resumes what was cancelled or is dead, takes over what waits for a version that nobody runs,
 * makes a dead message due again, leaves everything else. *ret_status: as it is afterwards, or
 * "not_found". In the arena.
 */
CO int monitor_recover(struct monitor *m, struct str id, bool *ret_recovered,
                       const char **ret_status, struct arena *a, struct err *e) MUST_CHECK;

/* Status of a message, seen as the workflow that sends it: SUCCESS once it is in the mailbox. */
const char *monitor_message_status(int mail_status);

/* GET …/agents/{id}/workflows, a row of the agents' table: its room is the struct life. */
CO int monitor_agent_api(struct http_req *req, struct err *e);
extern const struct shape monitor_agent_shape;

/* Routes /api/v1/workflows/health and what belongs to it, /api/v1/swarm/status. */
enum { MONITOR_TABLES = 2 };
void monitor_tables(struct monitor *m, struct http_table out[MONITOR_TABLES]);
