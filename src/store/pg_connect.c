/* SPDX-License-Identifier: MIT */
/*
 * Connecting to PostgreSQL within a deadline, and what is asked of a server before it is used.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "store/pg_db_int.h"

static void swallow(void *arg, const char *text)
{
    /* Notices ("table exists, skipping") are not for our standard error. */
}

static int check_url(const struct pg_lib *pg, const char *url, struct err *e)
{
    char *why = NULL; /* is not shown: it quotes the URL, and that may hold a password */
    PQconninfoOption *options = pg->conninfoParse(url, &why);

    pg->freemem(why);
    if (!options)
        return err_set(e, ERR_INVALID,
                       "the database's URL is not one of PostgreSQL"
                       " (postgres://user:password@host:port/database?options)");
    pg->conninfoFree(options);
    return 0;
}

static PGconn *start(const struct pg_lib *pg, const char *url)
{
    /* What stands before dbname is a default that the URL may overrule. */
    static const char *const names[] = {
        "application_name", "keepalives_idle",  "keepalives_interval",
        "keepalives_count", "tcp_user_timeout", "target_session_attrs",
        "dbname",           "client_encoding",  NULL,
    };
    const char *const values[] = {
        "chela", "30", "10", "3", "60000", "read-write", url, "UTF8", NULL,
    };

    return pg->connectStartParams(names, values, 1);
}

/* One step of the handshake done: wait for the next. */
static int wait_socket(struct pg_db *db, PostgresPollingStatusType want, uint64_t deadline_ms,
                       struct err *e)
{
    struct pollfd fds[] = { { .fd = db->pg->socket(db->conn) }, { db->stop_fd, POLLIN, 0 } };
    uint64_t now = now_ms();
    int n;

    fds[0].events = want == PGRES_POLLING_READING ? POLLIN : POLLOUT;
    if (now >= deadline_ms)
        return err_set(e, ERR_UNAVAILABLE, "connect to the database: no answer in time");
    n = poll(fds, db->stop_fd >= 0 ? 2 : 1,
             deadline_ms - now > 60000 ? 60000 : (int)(deadline_ms - now));
    if (n > 0 && fds[1].revents)
        return err_set(e, ERR_CANCELED, "connect to the database: nobody waits for it any more");
    return n < 0 && errno != EINTR ? err_sys(e, "connect to the database") : 0;
}

static int shake_hands(struct pg_db *db, uint64_t deadline_ms, struct err *e)
{
    PostgresPollingStatusType want = PGRES_POLLING_WRITING;
    const char *text;
    int r;

    while (want != PGRES_POLLING_OK) {
        if (db->pg->status(db->conn) == CONNECTION_BAD || want == PGRES_POLLING_FAILED) {
            text = db->pg->errorMessage(db->conn);
            return err_set(e, ERR_UNAVAILABLE, "connect to the database: %.*s", pg_first_line(text),
                           text);
        }
        r = wait_socket(db, want, deadline_ms, e);
        if (r < 0)
            return r;
        want = db->pg->connectPoll(db->conn);
    }
    return 0;
}

/*
 * What is the same as long as the server does not crash or restart: when it was started, and its
 * own processes, which a crash of any of its sessions replaces.
 */
static int note_life(struct pg_db *db, struct err *e)
{
    PGresult *result =
        db->pg->exec(db->conn, "SELECT pg_postmaster_start_time()::text || coalesce((SELECT"
                               " string_agg(' ' || pid, '' ORDER BY pid) FROM pg_stat_activity"
                               " WHERE datid IS NULL AND usesysid IS NULL), '')");
    int r = pg_good(db, result) ? 0 : pg_fail(db, result, "greet", e);

    if (r == 0)
        fmt_z(db->xid.life, sizeof(db->xid.life), "%.*s", (int)sizeof(db->xid.life) - 1,
              db->pg->getvalue(result, 0, 0));
    db->pg->clear(result);
    return r;
}

static int greet(struct pg_db *db, struct err *e)
{
    const char *encoding = db->pg->parameterStatus(db->conn, "server_encoding");
    PGresult *result;
    int r;

    if (db->pg->serverVersion(db->conn) < 140000)
        return err_set(e, ERR_INVALID, "PostgreSQL 14 or newer is needed, not %d",
                       db->pg->serverVersion(db->conn) / 10000);
    if (!encoding || strcmp(encoding, "UTF8") != 0)
        return err_set(e, ERR_INVALID, "the database's encoding is %s, and must be UTF8",
                       encoding ? encoding : "unknown");
    db->name = xasprintf("%s on %s:%s", db->pg->db(db->conn), db->pg->host(db->conn),
                         db->pg->port(db->conn));
    result = db->pg->exec(db->conn,
                          "SELECT pg_backend_pid(), current_setting('synchronous_commit') = 'off'");
    r = pg_good(db, result) ? 0 : pg_fail(db, result, "greet", e);
    if (r == 0) {
        db->pooled =
            strtol(db->pg->getvalue(result, 0, 0), NULL, 10) != db->pg->backendPID(db->conn);
        db->lazy = db->pg->getvalue(result, 0, 1)[0] == 't';
    }
    db->pg->clear(result);
    if (r == 0 && db->lazy && !db->pooled) {
        /* What is acknowledged is on the disk, whatever the server is used to. */
        r = pg_simple(db, "synchronous_commit", "SET synchronous_commit = 'on'", e);
        db->lazy = false;
    }
    return r < 0 ? r : note_life(db, e);
}

int pg_db_open(const char *url, uint64_t deadline_ms, struct pg_db **ret, struct err *e)
{
    return pg_db_open_unless(url, deadline_ms, -1, ret, e);
}

int pg_db_open_unless(const char *url, uint64_t deadline_ms, int stop_fd, struct pg_db **ret,
                      struct err *e)
{
    const struct pg_lib *pg;
    struct pg_db *db;
    int r;

    r = pg_lib_load(&pg, e);
    if (r == 0)
        r = check_url(pg, url, e);
    if (r < 0)
        return r;
    db = xcalloc(1, sizeof(*db));
    db->pg = pg;
    db->stop_fd = stop_fd;
    db->unprepared = &db->own_unprepared;
    pg_db_statements_init(db);
    db->conn = start(pg, url);
    if (!db->conn)
        abort(); /* out of memory */
    (void)pg->setNoticeProcessor(db->conn, swallow, NULL);
    r = shake_hands(db, deadline_ms, e);
    if (r == 0)
        r = greet(db, e);
    if (r < 0) {
        pg_db_close(db);
        return r;
    }
    metric_add(&store_metric_connections, 0, 1);
    *ret = db;
    return 0;
}

void pg_db_close(struct pg_db *db)
{
    if (!db)
        return;
    if (db->name)
        metric_add(&store_metric_connections, 0, -1);
    db->pg->clear(db->taken);
    db->pg->finish(db->conn);
    pg_db_statements_done(db);
    free(db->name);
    free(db);
}

bool pg_db_listening(const char *url)
{
    const struct pg_lib *pg;

    return pg_lib_load(&pg, NULL) == 0 && pg->ping(url) == PQPING_OK;
}

void pg_db_share(struct pg_db *db, atomic_bool *unprepared)
{
    db->unprepared = unprepared;
}

const char *pg_db_name(const struct pg_db *db)
{
    return db->name;
}
