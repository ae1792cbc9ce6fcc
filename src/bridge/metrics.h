/* SPDX-License-Identifier: MIT */
/* bridge/metrics.h — what the bridge counts; the rows are in metrics.c. */
#pragma once

#include "base/metric.h"
#include "bridge/classify.h"

extern struct metric bridge_m_calls, bridge_m_attempts, bridge_m_call_time, bridge_m_agents,
    bridge_m_sessions, bridge_m_running, bridge_m_swept;

enum { METRIC_CALL_SUCCESS, METRIC_CALL_FAILURE, METRIC_CALL_ABORTED };
