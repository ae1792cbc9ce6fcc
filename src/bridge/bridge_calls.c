/* SPDX-License-Identifier: MIT */
/* bridge/bridge_calls.c — see bridge_calls.h; what is not a function of some other file already. */
#include "bridge/bridge_calls.h"

#include "bridge/bridge_int.h"
#include "bridge/session.h"

struct agents *bridge_agents(struct bridge *b)
{
    return &b->agents;
}

struct tracker *bridge_tracker(struct bridge *b)
{
    return &b->tracker;
}

CO int bridge_session_write(struct bridge *b, struct str id, struct out *o, struct err *e)
{
    const struct lane *lane = lane_find(&b->sessions, id);

    return session_write(b->store, id, lane ? lane->sid : 0, lane ? lane->seq : 0, o, e);
}

CO int bridge_session_ensure(struct bridge *b, struct str id, struct str user, struct err *e)
{
    bool created;
    int r;

    r = session_ensure(b->store, id, user, bridge_sids(b, 1), &created, e);
    if (r < 0)
        return r;
    b->n_sessions += created;
    return created && b->n_sessions > b->conf->sessions_max ? sessions_drop_surplus(b, e) : 0;
}

CO int bridge_session_delete(struct bridge *b, struct str id, struct err *e)
{
    int r = session_delete(b->store, id, e);

    if (r == 0)
        b->n_sessions--;
    return r;
}

CO int bridge_session_append(struct bridge *b, struct str id, struct str role, struct str content,
                             struct str agent, struct err *e)
{
    return session_append(b->store, id, role, content, agent, e);
}
