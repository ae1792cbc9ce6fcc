/* SPDX-License-Identifier: MIT */
/* machine/seed.c — what a guest's agent is told: its config.json. */
#include <string.h>

#include "machine/qemu_int.h"

#define CONFIG_MAX (1 * MIB)
/* A guest that went back to a snapshot has a connection that nobody knows any more. */
#define KEEP_ALIVE_S      3
#define RECONNECT_LAST_MS 5000

static json_t *capabilities_of(const struct machine_spec *spec)
{
    json_t *list = json_array();

    for (size_t i = 0; i < spec->n_capabilities; i++)
        json_array_append_new(list, json_string(spec->capabilities[i]));
    return list;
}

/* Tasks find the way out by the variables that most programs know; what the user set wins. */
static json_t *env_of(const struct machine_spec *spec, const char *proxy)
{
    static const char *const names[] = { "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY" };
    json_t *env = json_object();

    for (size_t i = 0; proxy && i < LEN(names); i++)
        json_object_set_new(env, names[i], json_string(proxy));
    if (spec->env)
        json_object_update(env, (json_t *)(uintptr_t)spec->env);
    return env;
}

int seed_agent_config(const struct machine_spec *spec, const char *hub_url, const char *proxy,
                      struct arena *a, struct str *ret, struct err *e)
{
    AUTO(json_decref)
    json_t *j = json_pack(
        "{s:s, s:s, s:s, s:s, s:o, s:o, s:i, s:{s:i, s:i}}", "agentId", spec->agent_id, "token",
        spec->token, "hubUrl", hub_url, "type", spec->type ? spec->type : "generic", "capabilities",
        capabilities_of(spec), "env", env_of(spec, proxy), "keepAliveSeconds", KEEP_ALIVE_S,
        "reconnect", "maxAttempts", 0, "maxDelay", RECONNECT_LAST_MS);

    if (!j)
        return err_set(e, ERR_INVALID, "the agent's configuration holds what is no text");
    return json_text(j, CONFIG_MAX, a, ret, e);
}
