/* SPDX-License-Identifier: MIT */
/*
 * durable/opts.c — the settings [durable]. DBOS__APPVERSION is the variable that DBOS itself reads.
 */
#include "durable/routes.h"

#define ROW(kind, name, member, def, ...) \
    OPT(kind, "durable." name, struct durable_settings, member, def, __VA_ARGS__)
#define DAYS (24LL * 3600 * 1000)

/* clang-format off */
const struct opt durable_opts[] = {
    ROW(OPT_STR,  "app_version", app_version, "1", .env = "DBOS__APPVERSION",
        .doc = "Version of the workflows' code. Work that another version has begun waits for that version."),
    ROW(OPT_STR,  "app_name", app_name, "",
        .doc = "Application that owns what is started here, when several share one database; empty: none."),
    ROW(OPT_STR,  "listen_url", listen_url, "", .flags = OPT_SECRET,
        .doc = "postgres://... past the pooler, to LISTEN on; empty: the store's own."),
    ROW(OPT_INT,  "running", running, "2048", .min = 1, .max = 60000,
        .doc = "Workflows that run at once in this process; the rest wait in their queues."),
    ROW(OPT_MSEC, "park", park_ms, "5s", .min = 1, .max = 3600000,
        .doc = "A workflow that waits longer than this gives its memory up and is run again when it may go on."),
    ROW(OPT_MSEC, "lease", lease_ms, "30s", .min = 500, .max = 3600000,
        .doc = "A process that has been silent this long is taken for dead and its workflows are run elsewhere."),
    ROW(OPT_MSEC, "sweep", sweep_ms, "1s", .min = 10, .max = 60000,
        .doc = "How often delays, deadlines and queues are looked at when nothing tells of them."),
    ROW(OPT_SIZE, "payload_max", payload_max, "16M", .min = 1024, .max = 1LL << 29,
        .doc = "Largest value a workflow takes, records, sends or gives."),
    ROW(OPT_INT,  "steps_max", steps_max, "100000", .min = 1, .max = 10000000,
        .doc = "Recorded calls of one workflow."),
    ROW(OPT_MSEC, "retain", retain_ms, "0", .min = 0, .max = 36500 * DAYS,
        .doc = "Workflows that ended longer ago are deleted; 0: never."),
    ROW(OPT_INT,  "retain_rows", retain_rows, "0", .min = 0, .max = 4000000000LL,
        .doc = "Of the ended workflows so many are kept, the newest; 0: all."),
    ROW(OPT_INT,  "admin_port", admin_port, "-1", .min = -1, .max = 65535,
        .doc = "Port on 127.0.0.1 of the admin routes of DBOS, which always want an admin token; 0 picks a free one, -1: off."),
};
/* clang-format on */
const size_t durable_opts_len = LEN(durable_opts);

struct durable_conf durable_conf_of(const struct durable_settings *s, const char *instance)
{
    return (struct durable_conf){
        .app_version = *s->app_version ? s->app_version : NULL,
        .app_name = *s->app_name ? s->app_name : NULL,
        .instance = instance,
        .listen_url = *s->listen_url ? s->listen_url : NULL,
        .running = (unsigned)s->running,
        .park_ms = (uint64_t)s->park_ms,
        .lease_ms = (uint64_t)s->lease_ms,
        .sweep_ms = (uint64_t)s->sweep_ms,
        .payload_max = (size_t)s->payload_max,
        .steps_max = (unsigned)s->steps_max,
        .retain_ms = (uint64_t)s->retain_ms,
        .retain_rows = (unsigned)s->retain_rows,
    };
}
