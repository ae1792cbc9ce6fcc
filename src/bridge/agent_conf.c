/* SPDX-License-Identifier: MIT */
/*
 * bridge/agent_conf.c — agents that the settings declare: bridge.agents (VPS_AGENTS) in the form
 * of POST /api/vps/register, and the two endpoints of the original's failover helper.
 */
#include "base/str.h"
#include "bridge/bridge_int.h"
#include "bridge/shapes.h"
#include "net/url.h"

CO static int declare(struct bridge *b, const struct agent_spec *spec, struct err *e)
{
    struct agent_problem problem;
    struct agent_entry *entry;

    return bridge_register(b, spec, &entry, &problem, e);
}

CO static int declare_json(struct bridge *b, const json_t *one, struct arena *a, struct err *e)
{
    struct register_in in;
    struct agent_spec spec;
    int r;

    r = shape_decode(&shape_register_in, one, a, &in, NULL, e);
    if (r < 0)
        return r;
    register_spec(&in, a, &spec);
    return declare(b, &spec, e);
}

CO static int declare_list(struct bridge *b, struct arena *a, struct err *e)
{
    json_t *list;
    int r;

    r = json_parse(str_of(b->conf->agents), 16, a, &list, NULL, e);
    if (r < 0)
        return r;
    if (!json_is_array(list))
        return err_set(e, ERR_INVALID, "must be a JSON list of agents");
    for (size_t i = 0; i < json_array_size(list); i++) {
        r = declare_json(b, json_array_get(list, i), a, e);
        if (r < 0)
            return err_wrap(e, "agent %zu", i + 1);
    }
    return 0;
}

CO static int declare_url(struct bridge *b, const char *name, const char *text,
                          const char *fallback, struct err *e)
{
    const struct str fallbacks[] = { str_of(fallback) };
    struct agent_spec spec = {
        .name = str_of(name),
        .fallbacks = fallbacks,
        .n_fallbacks = fallback ? 1 : 0,
    };
    struct url url;
    int r;

    r = url_parse(str_of(text), &url, e);
    if (r < 0)
        return r;
    if (!str_eq_z(url.path, "/") || url.query.n)
        return err_set(e, ERR_INVALID, "must be a URL without a path, like http://10.0.0.5:8000");
    spec.host = url.host;
    spec.port = url.port;
    spec.protocol = url.scheme;
    return declare(b, &spec, e);
}

CO int bridge_register_declared(struct bridge *b, struct err *e)
{
    const struct bridge_conf *conf = b->conf;
    bool vps = conf->vps_endpoint && *conf->vps_endpoint;
    bool cf = conf->cf_endpoint && *conf->cf_endpoint;
    struct arena arena = { 0 };
    int r = 0;

    if (conf->agents && *conf->agents)
        r = declare_list(b, &arena, e);
    arena_done(&arena);
    if (r < 0)
        return err_wrap(e, "bridge.agents (VPS_AGENTS)");
    if (vps)
        r = declare_url(b, "vps", conf->vps_endpoint, "cloudflare", e);
    if (r < 0)
        return err_wrap(e, "bridge.vps_endpoint");
    if (cf)
        r = declare_url(b, "cloudflare", conf->cf_endpoint, NULL, e);
    return r < 0 ? err_wrap(e, "bridge.cf_endpoint") : 0;
}
