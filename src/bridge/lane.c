/* SPDX-License-Identifier: MIT */
/* bridge/lane.c — see lane.h. */
#include "bridge/lane.h"

#include <string.h>

struct lane *lane_find(const struct lanes *all, struct str key)
{
    struct strmap_node *node = strmap_find(&all->map, key);

    return node ? container_of(node, struct lane, node) : NULL;
}

static void drop(struct lanes *all, struct lane *lane)
{
    if (--lane->users)
        return;
    strmap_remove(&all->map, &lane->node);
    free(lane);
}

CO int lane_enter(struct lanes *all, struct str key, uint64_t deadline_ms, struct lane **ret,
                  struct err *e)
{
    struct lane *lane = lane_find(all, key);
    int r;

    if (!lane) {
        lane = xcalloc(1, sizeof(*lane) + key.n + 1);
        memcpy(lane->key, key.p, key.n);
        strmap_add(&all->map, &lane->node, (struct str){ lane->key, key.n });
    }
    lane->users++;
    r = fiber_lane_enter(&lane->queue, deadline_ms, e);
    if (r < 0) {
        drop(all, lane);
        return r;
    }
    *ret = lane;
    return 0;
}

void lane_leave(struct lanes *all, struct lane *lane)
{
    if (!lane)
        return;
    lane->sid = lane->seq = 0;
    fiber_lane_leave(&lane->queue);
    drop(all, lane);
}

void lanes_done(struct lanes *all)
{
    strmap_done(&all->map);
}
