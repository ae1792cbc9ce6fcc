/* SPDX-License-Identifier: MIT */
/*
 * daemon/sd_notify.h — tell systemd how we are (sd_notify(3)). Without NOTIFY_SOCKET nothing
 * happens. The protocol is one datagram of VARIABLE=value lines, so no library is needed.
 */
#pragma once

#include <stdint.h>

/* "READY=1", "STOPPING=1", "WATCHDOG=1", "STATUS=...". Never fails: the manager's ears are its own
 * matter. */
void sd_notify_send(const char *state);

/* Half of WATCHDOG_USEC in ms when the watchdog is meant for this process, else 0. */
uint64_t sd_watchdog_ms(void);
