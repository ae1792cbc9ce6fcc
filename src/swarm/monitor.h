/* SPDX-License-Identifier: MIT */
/*
 * swarm/monitor.h — are the workflows of agents well? Numbers from the engine's tables, and one
 * chore that looks for what is stuck, failed or without an owner.
 */
#pragma once

#include "swarm/swarm_int.h"

struct monitor;

int monitor_new(struct swarm *s, struct monitor **ret, struct err *e) MUST_CHECK;
CO int monitor_start(struct monitor *m, struct err *e) MUST_CHECK;
CO void monitor_stop(struct monitor *m);
void monitor_free(struct monitor *m);

/* {"recovered":bool,"status":…,"workflowUuid":…}: re-enqueues what is PENDING under a dead process,
 * resumes what was cancelled or is dead, leaves everything else. *status {..}: "not_found". */
CO int monitor_recover(struct monitor *m, struct str id, bool *ret_recovered,
                       const char **ret_status, struct arena *a, struct err *e) MUST_CHECK;

/* Routes: /api/v1/workflows/health, …/metrics, …/failed, /api/v1/swarm/status; the room is the
 * struct monitor. */
extern const struct http_route monitor_routes[];
extern const size_t monitor_routes_len;
