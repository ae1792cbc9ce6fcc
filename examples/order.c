/* SPDX-License-Identifier: MIT */
/*
 * examples/order.c — orders that survive the death of the program: reserve stock, charge, ship; and
 * when shipping fails, undo what was done. Kill it whenever you like and start it again with the
 * same arguments: it goes on where it was.
 *
 *     cc order.c $(pkg-config --cflags --libs chela) -o order
 *     ./order shop lamp o-1 o-2 o-3
 *     ./order shop piano o-4            (is too heavy: refunded, and back on the shelf)
 *     cat shop/ledger
 *
 * The stock is a table beside the workflows' own, so reserving is exactly once. The ledger stands
 * for a service elsewhere (a bank, a carrier): a call there may happen and the program die before
 * that is known here, so it is made again, and the service knows it by its key.
 */
#define _POSIX_C_SOURCE 200809L
#include <chela/durable.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHELF 100000 /* of each item, at first */

struct order {
    struct chela_workflow *w;
    const char *dir;
    char id[64], item[64];
};

/* --- the service elsewhere --- */

static int say(struct chela_error *error, const char *text)
{
    error->type = CHELA_ERROR_UNKNOWN;
    snprintf(error->text, sizeof(error->text), "%s", text);
    return CHELA_E_FAILED;
}

static int holds_line(FILE *f, const char *line)
{
    char have[256];

    while (fgets(have, sizeof(have), f))
        if (strcmp(have, line) == 0)
            return 1;
    return 0;
}

/* "o-1 charge" in the ledger, once for each key however often it is asked for. */
static int ledger(const struct order *o, const char *what, struct chela_error *error)
{
    struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    char path[512], line[256];
    int fd, n, r = 0;
    FILE *f;

    snprintf(path, sizeof(path), "%s/ledger", o->dir);
    n = snprintf(line, sizeof(line), "%s %s\n", o->id, what);
    fd = open(path, O_RDWR | O_APPEND | O_CREAT, 0644);
    f = fd < 0 ? NULL : fdopen(fd, "a+");
    if (!f)
        return say(error, "the ledger does not open");
    if (fcntl(fd, F_SETLKW, &whole) < 0)
        r = say(error, "the ledger is locked");
    rewind(f);
    if (r == 0 && !holds_line(f, line) && (write(fd, line, (size_t)n) != n || fsync(fd) < 0))
        r = say(error, "the ledger cannot be written");
    fclose(f);
    return r;
}

/* --- steps --- */

static int reserve(struct chela_tx *tx, void *arg, char **ret_json, struct chela_error *error)
{
    const struct order *o = arg;
    const struct chela_sql_arg item[] = { CHELA_SQL_TEXT(o->item) };
    int64_t changed;
    int r;

    (void)ret_json;
    r = chela_tx_run(tx, "UPDATE shop_stock SET n = n - 1 WHERE item = ?1 AND n > 0", item, 1, NULL,
                     NULL, &changed, error);
    if (r == 0 && changed == 0)
        return chela_fail(o->w, "OutOfStock", "there is none left", NULL, error);
    return r;
}

static int release(struct chela_tx *tx, void *arg, char **ret_json, struct chela_error *error)
{
    const struct order *o = arg;
    const struct chela_sql_arg item[] = { CHELA_SQL_TEXT(o->item) };

    (void)ret_json;
    return chela_tx_run(tx, "UPDATE shop_stock SET n = n + 1 WHERE item = ?1", item, 1, NULL, NULL,
                        NULL, error);
}

static int charge(void *arg, struct chela_cancel *cancel, char **ret_json,
                  struct chela_error *error)
{
    (void)cancel;
    (void)ret_json;
    return ledger(arg, "charge", error);
}

static int ship(void *arg, struct chela_cancel *cancel, char **ret_json, struct chela_error *error)
{
    const struct order *o = arg;

    (void)cancel;
    (void)ret_json;
    if (strcmp(o->item, "piano") == 0)
        return chela_fail(o->w, "TooHeavy", "nobody carries that", NULL, error);
    return ledger(o, "ship", error);
}

static int refund(void *arg, struct chela_cancel *cancel, char **ret_json,
                  struct chela_error *error)
{
    (void)cancel;
    (void)ret_json;
    return ledger(arg, "refund", error);
}

/* --- the workflow --- */

/* Is this run over (parked, cancelled, the program stops), and nothing to be undone? */
static int is_over(int r)
{
    return r == CHELA_E_PARKED || r == CHELA_E_CANCELED;
}

/* What was done is undone in turn; each of these is a step too, so a crash here is no harm. */
static int undo(struct chela_workflow *w, struct order *o, int charged, struct chela_error *error)
{
    static const struct chela_step_retry stubborn = { .tries = 100, .longest = 60 };
    int r = 0;

    if (charged)
        r = chela_step(w, "refund", &stubborn, refund, o, NULL, error);
    if (r == 0)
        r = chela_step_tx(w, "release", release, o, NULL, error);
    return r;
}

static int order(struct chela_workflow *w, const char *args_json, void *ctx,
                 struct chela_error *error)
{
    static const struct chela_step_retry patient = { .tries = 5, .jitter = 0.5 };
    struct order o = { .w = w, .dir = ctx };
    struct chela_error why;
    int charged = 0, r;

    snprintf(o.id, sizeof(o.id), "%s", chela_workflow_id(w));
    if (sscanf(args_json, "[\"%63[^\"]\"]", o.item) != 1)
        return chela_fail(w, "BadOrder", "an order is one item", NULL, error);
    r = chela_step_tx(w, "reserve", reserve, &o, NULL, error);
    if (r < 0)
        return r; /* nothing is done yet */
    r = chela_step(w, "charge", &patient, charge, &o, NULL, &why);
    if (r == 0) {
        charged = 1;
        r = chela_step(w, "ship", NULL, ship, &o, NULL, &why);
    }
    if (r == 0)
        return chela_return(w, "\"shipped\"", error);
    *error = why;
    if (is_over(r))
        return r;
    r = undo(w, &o, charged, error);
    if (r < 0)
        return r;
    *error = why; /* what it failed of */
    return CHELA_E_FAILED;
}

/* --- the program --- */

static int make_shelf(struct chela_tx *tx, void *arg, char **ret_json, struct chela_error *error)
{
    const struct chela_sql_arg row[] = { CHELA_SQL_TEXT(arg), CHELA_SQL_INT(SHELF) };
    int r;

    (void)ret_json;
    r = chela_tx_run(tx,
                     "CREATE TABLE IF NOT EXISTS shop_stock"
                     " (item TEXT PRIMARY KEY, n INTEGER NOT NULL)",
                     NULL, 0, NULL, NULL, NULL, error);
    if (r == 0)
        r = chela_tx_run(tx,
                         "INSERT INTO shop_stock (item, n) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                         row, 2, NULL, NULL, NULL, error);
    return r;
}

static void take_count(const struct chela_row *row, void *arg)
{
    *(int64_t *)arg = chela_row_int(row, 0);
}

struct shelf {
    const char *item;
    int64_t n;
};

static int count_shelf(struct chela_tx *tx, void *arg, char **ret_json, struct chela_error *error)
{
    struct shelf *shelf = arg;
    const struct chela_sql_arg item[] = { CHELA_SQL_TEXT(shelf->item) };

    (void)ret_json;
    return chela_tx_run(tx, "SELECT n FROM shop_stock WHERE item = ?1", item, 1, take_count,
                        &shelf->n, NULL, error);
}

static int open_shop(char *dir, char *item, struct chela_durable **ret, struct chela_error *error)
{
    const struct chela_durable_config config = { .state_dir = dir };
    const struct chela_workflow_type type = { .name = "order", .fn = order, .ctx = dir };
    int r = chela_durable_new(&config, ret, error);

    if (r == 0)
        r = chela_durable_tx(*ret, make_shelf, item, NULL, error);
    if (r == 0)
        r = chela_durable_register(*ret, &type, 1, error);
    return r == 0 ? chela_durable_run(*ret, error) : r;
}

/* Starting one that is there already is no second order: it has the same id. */
static int start_all(struct chela_durable *shop, const char *item, char **ids, int n,
                     struct chela_error *error)
{
    char args[80];
    int r = 0;

    snprintf(args, sizeof(args), "[\"%.63s\"]", item);
    for (int i = 0; r == 0 && i < n; i++) {
        const struct chela_start start = { .name = "order", .id = ids[i], .args_json = args };

        r = chela_durable_start(shop, &start, NULL, error);
    }
    return r;
}

static int await_all(struct chela_durable *shop, char **ids, int n, struct chela_error *error)
{
    enum chela_workflow_status status;
    char *json;
    int r = 0;

    for (int i = 0; r == 0 && i < n; i++) {
        r = chela_durable_await(shop, ids[i], 0, &status, &json, error);
        if (r == 0) {
            printf("%s %s %s\n", ids[i], chela_workflow_status_name(status), json);
            free(json);
        }
    }
    return r;
}

int main(int argc, char **argv)
{
    struct chela_durable *shop = NULL;
    struct chela_error error;
    struct shelf shelf;
    int r;

    if (argc < 4) {
        fprintf(stderr, "usage: %s DIR ITEM ORDER-ID...\n", argv[0]);
        return 2;
    }
    shelf = (struct shelf){ argv[2], 0 };
    r = open_shop(argv[1], argv[2], &shop, &error);
    if (r == 0)
        r = start_all(shop, argv[2], argv + 3, argc - 3, &error);
    if (r == 0)
        r = await_all(shop, argv + 3, argc - 3, &error);
    if (r == 0)
        r = chela_durable_tx(shop, count_shelf, &shelf, NULL, &error);
    if (r == 0)
        printf("%s: %lld left\n", shelf.item, (long long)shelf.n);
    else
        fprintf(stderr, "%s\n", error.text);
    chela_durable_free(shop);
    return r < 0;
}
