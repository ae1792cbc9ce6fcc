/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet_store.c — rows of machines. A write takes what is in memory when its turn has come, and
 * a machine's writes follow each other, so the row ends as what is in memory.
 */
#include <string.h>

#include "base/log.h"
#include "hub/fleet_int.h"

/* clang-format off */
static const struct sql sql_load = {
    "machines load",
    "SELECT name, driver, spec, state, reason, wanted, operation, deadline, created_at, updated_at"
    " FROM hub_machines WHERE instance = ?1 ORDER BY created_at, name",
    NULL,
};
static const struct sql sql_insert = {
    "machine insert",
    "INSERT INTO hub_machines (name, driver, instance, spec, state, reason, wanted, operation, deadline, created_at, updated_at)"
    " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    NULL,
};
static const struct sql sql_save = {
    "machine save",
    "UPDATE hub_machines SET state = ?3, reason = ?4, wanted = ?5, operation = ?6, deadline = ?7, updated_at = ?8"
    " WHERE name = ?1 AND instance = ?2",
    NULL,
};
static const struct sql sql_delete = {
    "machine delete", "DELETE FROM hub_machines WHERE name = ?1 AND instance = ?2", NULL,
};
/* clang-format on */

struct writing { /* a copy: the store's thread looks at no machine */
    const struct sql *sql;
    struct sql_arg args[11];
    size_t n;
};

static int write_body(struct store_tx *tx, void *arg, struct err *e)
{
    const struct writing *w = arg;

    return store_run(tx, w->sql, w->args, w->n, NULL, NULL, e);
}

static struct sql_arg text(struct arena *a, const char *z)
{
    return *z ? SQL_Z(arena_strdup(a, z)) : SQL_NULL;
}

static const char *wanted(const struct machine *m)
{
    return m->wanted_running ? "running" : "stopped";
}

CO int machine_save(struct machine *m, struct err *e)
{
    struct fleet *f = m->fleet;
    struct arena arena = { 0 };
    int r = fiber_lane_enter(&m->save_lane, DEADLINE_NONE, e);

    if (r < 0)
        return r;
    if (!m->gone) {
        struct writing w = {
            &sql_save,
            { text(&arena, m->name), SQL_Z(f->h->conf.instance),
              SQL_Z(machine_state_names[m->state]), text(&arena, m->reason), SQL_Z(wanted(m)),
              text(&arena, m->operation), SQL_INT(m->deadline), SQL_INT(m->updated_at) },
            8,
        };

        r = store_do(f->h->conf.store, write_body, &w, e);
    }
    fiber_lane_leave(&m->save_lane);
    arena_done(&arena);
    return r;
}

CO int machine_insert(struct machine *m, struct err *e)
{
    struct fleet *f = m->fleet;
    struct arena arena = { 0 };
    struct str spec;
    int r = json_text(m->spec, 1 * MIB, &arena, &spec, e);

    if (r == 0) {
        struct writing w = {
            &sql_insert,
            { SQL_Z(m->name), SQL_Z(m->driver->name), SQL_Z(f->h->conf.instance), SQL_STR(spec),
              SQL_Z(machine_state_names[m->state]), SQL_NULL, SQL_Z(wanted(m)),
              text(&arena, m->operation), SQL_INT(m->deadline), SQL_INT(m->created_at),
              SQL_INT(m->updated_at) },
            11,
        };

        r = store_do(f->h->conf.store, write_body, &w, e);
    }
    arena_done(&arena);
    if (r == -ERR_CONFLICT)
        return err_set(e, ERR_CONFLICT,
                       "another daemon on this database has a machine of that name");
    return r;
}

CO int machine_delete(struct machine *m, struct err *e)
{
    struct writing w = { &sql_delete, { SQL_Z(m->name), SQL_Z(m->fleet->h->conf.instance) }, 2 };
    int r = fiber_lane_enter(&m->save_lane, DEADLINE_NONE, e);

    if (r < 0)
        return r;
    r = store_do(m->fleet->h->conf.store, write_body, &w, e);
    fiber_lane_leave(&m->save_lane);
    return r;
}

/* --- load --- */

struct loading {
    const char *instance;
    struct arena arena;
    json_t *rows; /* an array of arrays */
};

static int take_row(struct store_row *row, void *arg, struct err *e)
{
    struct loading *l = arg;
    json_t *one = json_array();

    for (int i = 0; i < 7; i++) {
        struct str s = row_str(row, i);

        json_array_append_new(one, s.p ? json_stringn(s.p, s.n) : json_null());
    }
    for (int i = 7; i < 10; i++)
        json_array_append_new(one, json_integer(row_int(row, i)));
    json_array_append_new(l->rows, one);
    return 0;
}

static int load_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct loading *l = arg;
    const struct sql_arg args[] = { SQL_Z(l->instance) };

    json_array_clear(l->rows);
    return store_run(tx, &sql_load, args, LEN(args), take_row, l, e);
}

static const char *column(const json_t *row, size_t i)
{
    const char *z = json_string_value(json_array_get(row, i));

    return z ? z : "";
}

static int64_t number(const json_t *row, size_t i)
{
    return json_integer_value(json_array_get(row, i));
}

/* A row that cannot be read is left alone, and said. */
static int take_machine(struct fleet *f, const json_t *row, struct err *e)
{
    const struct machine_driver *driver = machine_driver_find(column(row, 1));
    struct arena arena = { 0 };
    enum machine_state state = MS_FAILED;
    json_t *spec = NULL;
    struct machine *m;
    int r = machine_name_check(str_of(column(row, 0)), e);

    if (r == 0)
        r = json_parse(str_of(column(row, 2)), 64, &arena, &spec, NULL, e);
    if (r == 0 && (!driver || !json_is_object(spec) ||
                   machine_state_parse(str_of(column(row, 3)), &state) < 0))
        r = err_set(e, ERR_INTERNAL, "the row's driver, spec or state is none");
    if (r == 0) {
        m = machine_new(f, str_of(column(row, 0)), driver, json_incref(spec));
        m->state = state;
        m->wanted_running = strcmp(column(row, 5), "running") == 0;
        fmt_z(m->reason, sizeof(m->reason), "%.*s", REASON_MAX - 1, column(row, 4));
        fmt_z(m->operation, sizeof(m->operation), "%.*s", OPERATION_MAX - 1, column(row, 6));
        m->deadline = number(row, 7);
        m->created_at = number(row, 8);
        m->updated_at = number(row, 9);
        machine_add(m);
    }
    arena_done(&arena);
    return r;
}

CO int fleet_load(struct fleet *f, struct err *e)
{
    struct loading l = { .instance = f->h->conf.instance, .rows = json_array() };
    int r = store_read(f->h->conf.store, load_body, &l, e);

    for (size_t i = 0; r >= 0 && i < json_array_size(l.rows); i++) {
        const json_t *row = json_array_get(l.rows, i);
        struct err why;

        if (take_machine(f, row, &why) < 0)
            log_error("a machine's row cannot be read", "machine", LOG_STR(column(row, 0)), "error",
                      LOG_ERR(&why));
    }
    json_decref(l.rows);
    return r < 0 ? r : 0;
}
