/* SPDX-License-Identifier: MIT */
/* hub/dead.c — dead letters as operators see them; link_store.c writes them. */
#include "hub/link_int.h"

/* clang-format off */
static const struct sql sql_dead_list = { "hub dead list", "SELECT message, error, created_at FROM hub_dead ORDER BY position DESC", NULL };
static const struct sql sql_dead_clear = { "hub dead clear", "DELETE FROM hub_dead", NULL };
/* clang-format on */

struct listing {
    json_t *list;
    size_t bytes;
};

/* The newest first. */
static int take(struct store_row *row, void *arg, struct err *e)
{
    struct listing *l = arg;
    struct str message = row_str(row, 0), error = row_str(row, 1);
    json_t *parsed;

    l->bytes += message.n + error.n;
    if (l->bytes > LINK_DEAD_SHOWN)
        return 1;
    parsed = json_loadb(message.p, message.n, JSON_DECODE_ANY, NULL);

    if (!parsed)
        parsed = json_stringn(message.p, message.n);
    json_array_append_new(l->list,
                          json_pack("{s:o?, s:s%, s:I}", "message", parsed, "error", error.p,
                                    error.n, "timestamp", (json_int_t)row_int(row, 2)));
    return 0;
}

static int list_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct listing *l = arg;
    int r;

    json_array_clear(l->list);
    l->bytes = 0;
    r = store_run(tx, &sql_dead_list, NULL, 0, take, l, e);
    return r < 0 ? r : 0;
}

CO int dead_list(struct hub *h, json_t **ret, struct err *e)
{
    struct listing l = { .list = json_array() };
    int r = store_read(h->conf.store, list_body, &l, e);

    if (r < 0) {
        json_decref(l.list);
        return r;
    }
    *ret = json_array();
    for (size_t i = json_array_size(l.list); i-- > 0;)
        json_array_append(*ret, json_array_get(l.list, i));
    json_decref(l.list);
    return 0;
}

static int clear_body(struct store_tx *tx, void *arg, struct err *e)
{
    int r = store_run(tx, &sql_dead_clear, NULL, 0, NULL, NULL, e);

    *(int64_t *)arg = r < 0 ? 0 : store_changed(tx);
    return r < 0 ? r : 0;
}

CO int dead_clear(struct hub *h, struct err *e)
{
    int64_t gone = 0;
    int r = link_store_drop_dead(h->links, e);

    if (r == 0)
        r = store_do(h->conf.store, clear_body, &gone, e);
    if (r >= 0)
        h->links->dead -= (size_t)gone < h->links->dead ? (size_t)gone : h->links->dead;
    return r < 0 ? r : 0;
}

size_t dead_count(const struct hub *h)
{
    const struct links *l = h->links;

    return l->dead + l->n_dead_items;
}
