/* SPDX-License-Identifier: MIT */
/*
 * SQLite behind the store's transaction (sqlite3.h is included here and nowhere else).
 *
 * Statements are prepared once per connection and found by the address of their struct sql. An
 * extended result code becomes one of our errors in classify(), the only place that knows them.
 */
#include "store/sqlite_db.h"

#include <assert.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include "store/translate.h"

#define CACHE_KIB        1024       /* pages a reader keeps; malloc'ed as they come */
#define CACHE_WRITER_KIB 8192       /* the same of the writer: more would go to the log twice */
#define WAL_KEEP         (16 * MIB) /* a log that grew longer is cut when it starts over */
#define WAL_ROOM         8 /* the log is only made ready on a disk with so many times its size */
#define CHECK_WHOLE      (8 * MIB) /* files up to this are checked page by page at open */
#define STATEMENT_MEMORY (1 * MIB) /* undo records of a savepoint kept out of files */
#define SLOTS            256       /* of the statement table: a power of two, it grows */

struct slot {
    const struct sql *sql;
    sqlite3_stmt *stmt;
    bool busy; /* an each() of it is running */
};

struct sqlite_db {
    struct store_tx tx;
    sqlite3 *db;
    char *path;
    enum sqlite_mode mode;
    struct slot *slots;
    size_t n_slots, used;
    sqlite3_stmt *verbs[VERB_VERBS];
    int wal_pages, wal_moved; /* in the log; how many the last checkpoint has seen */
    bool damaged;
};

struct sqlite_row {
    struct store_row row;
    sqlite3_stmt *stmt;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;

static void configure(void)
{
    /* Refused, harmlessly, when the program used SQLite before us. */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); /* a lock around every malloc */
    (void)sqlite3_config(SQLITE_CONFIG_STMTJRNL_SPILL, (int)STATEMENT_MEMORY);
}

/* Errors */

static enum err_code classify(const struct sqlite_db *db, int rc)
{
    switch (rc) {
    case SQLITE_CONSTRAINT_UNIQUE:
    case SQLITE_CONSTRAINT_PRIMARYKEY:
    case SQLITE_CONSTRAINT_FOREIGNKEY:
    case SQLITE_CONSTRAINT_TRIGGER:
    case SQLITE_CONSTRAINT_ROWID:
        return ERR_CONFLICT;
    default:
        break;
    }
    switch (rc & 0xff) {
    case SQLITE_FULL:
    case SQLITE_IOERR:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return ERR_UNAVAILABLE;
    case SQLITE_READONLY:
        return db->mode == DB_WRITER ? ERR_UNAVAILABLE : ERR_INTERNAL;
    case SQLITE_TOOBIG:
        return ERR_LIMIT;
    default:
        return ERR_INTERNAL;
    }
}

static int fail(struct sqlite_db *db, int rc, const char *what, struct err *e)
{
    if ((rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB) {
        db->damaged = true;
        return err_set(e, ERR_UNAVAILABLE, "the database file '%s' is damaged (%s): %s", db->path,
                       sqlite3_errmsg(db->db), "stop the program and restore a backup");
    }
    if ((rc & 0xff) == SQLITE_IOERR)
        return err_set(e, classify(db, rc), "%s: %s: %s", what, sqlite3_errstr(rc),
                       strerror(sqlite3_system_errno(db->db)));
    return err_set(e, classify(db, rc), "%s: %s", what, sqlite3_errmsg(db->db));
}

/* Rows */

static sqlite3_stmt *row_stmt(const struct store_row *row)
{
    return ((const struct sqlite_row *)row)->stmt;
}

static enum sql_kind kind(const struct store_row *row, int col)
{
    switch (sqlite3_column_type(row_stmt(row), col)) {
    case SQLITE_INTEGER:
        return SQL_K_INT;
    case SQLITE_FLOAT:
        return SQL_K_REAL;
    case SQLITE_TEXT:
        return SQL_K_TEXT;
    case SQLITE_BLOB:
        return SQL_K_BLOB;
    default:
        return SQL_K_NULL;
    }
}

static int64_t integer(const struct store_row *row, int col)
{
    return sqlite3_column_int64(row_stmt(row), col);
}

static double real(const struct store_row *row, int col)
{
    return sqlite3_column_double(row_stmt(row), col);
}

static struct str str(const struct store_row *row, int col)
{
    sqlite3_stmt *stmt = row_stmt(row);
    const void *p;

    switch (sqlite3_column_type(stmt, col)) {
    case SQLITE_NULL:
        return (struct str){ NULL, 0 };
    case SQLITE_BLOB:
        p = sqlite3_column_blob(stmt, col);
        break;
    default:
        p = sqlite3_column_text(stmt, col);
        break;
    }
    if (!p) /* an empty blob */
        return STR("");
    return (struct str){ p, (size_t)sqlite3_column_bytes(stmt, col) };
}

/* Statements */

static size_t home(const struct sqlite_db *db, const struct sql *sql)
{
    return (size_t)(((uintptr_t)sql >> 3) * 0x9E3779B97F4A7C15u >> 32) & (db->n_slots - 1);
}

static struct slot *look(const struct sqlite_db *db, const struct sql *sql)
{
    size_t i = home(db, sql);

    while (db->slots[i].sql && db->slots[i].sql != sql)
        i = (i + 1) & (db->n_slots - 1);
    return &db->slots[i];
}

static void grow(struct sqlite_db *db)
{
    struct slot *old = db->slots;
    size_t n = db->n_slots;

    db->n_slots = n ? 2 * n : SLOTS;
    db->slots = xcalloc(db->n_slots, sizeof(*db->slots));
    for (size_t i = 0; i < n; i++) {
        if (old[i].sql)
            *look(db, old[i].sql) = old[i];
    }
    free(old);
}

static int prepare(struct sqlite_db *db, const struct sql *sql, unsigned flags, sqlite3_stmt **ret,
                   struct err *e)
{
    AUTO(free) char *own = translate_sqlite(sql->text);
    int rc = sqlite3_prepare_v3(db->db, own ? own : sql->text, -1, flags, ret, NULL);

    if (rc != SQLITE_OK)
        return fail(db, rc, sql->name, e);
    if (!*ret)
        return err_set(e, ERR_INTERNAL, "%s: no statement", sql->name);
    return 0;
}

/* The prepared statement; its place in the table is marked, unless it is in use: then a copy. */
static int acquire(struct sqlite_db *db, const struct sql *sql, sqlite3_stmt **ret, struct err *e)
{
    struct slot *slot;
    int r;

    if (4 * (db->used + 1) > 3 * db->n_slots)
        grow(db);
    slot = look(db, sql);
    if (slot->busy)
        return prepare(db, sql, 0, ret, e);
    if (!slot->sql) {
        r = prepare(db, sql, SQLITE_PREPARE_PERSISTENT, &slot->stmt, e);
        if (r < 0)
            return r;
        slot->sql = sql;
        db->used++;
    }
    slot->busy = true;
    *ret = slot->stmt;
    return 0;
}

static void release(struct sqlite_db *db, const struct sql *sql, sqlite3_stmt *stmt)
{
    struct slot *slot = look(db, sql);

    if (slot->stmt != stmt) {
        (void)sqlite3_finalize(stmt);
        return;
    }
    (void)sqlite3_reset(stmt); /* its error was reported by the step */
    (void)sqlite3_clear_bindings(stmt);
    slot->busy = false;
}

static int bind(sqlite3_stmt *stmt, int i, const struct sql_arg *arg)
{
    switch (arg->kind) {
    case SQL_K_INT:
        return sqlite3_bind_int64(stmt, i, arg->i);
    case SQL_K_REAL:
        return sqlite3_bind_double(stmt, i, arg->r);
    case SQL_K_TEXT:
        return sqlite3_bind_text64(stmt, i, arg->s.p ? arg->s.p : "", arg->s.n, SQLITE_STATIC,
                                   SQLITE_UTF8);
    case SQL_K_BLOB:
        return sqlite3_bind_blob64(stmt, i, arg->s.p ? arg->s.p : "", arg->s.n, SQLITE_STATIC);
    case SQL_K_TEXTS:
    case SQL_K_INTS:
        return SQLITE_MISMATCH;
    case SQL_K_NULL:
        break;
    }
    return sqlite3_bind_null(stmt, i);
}

static int bind_all(struct sqlite_db *db, const struct sql *sql, sqlite3_stmt *stmt,
                    const struct sql_arg *args, size_t n_args, struct err *e)
{
    size_t want = (size_t)sqlite3_bind_parameter_count(stmt);

    if (want != n_args)
        return err_set(e, ERR_INTERNAL, "%s: %zu arguments given, %zu wanted", sql->name, n_args,
                       want);
    for (size_t i = 0; i < n_args; i++) {
        int rc = bind(stmt, (int)i + 1, &args[i]);

        if (rc == SQLITE_MISMATCH)
            return err_set(e, ERR_INTERNAL, "%s: SQLite takes no arrays", sql->name);
        if (rc != SQLITE_OK)
            return fail(db, rc, sql->name, e);
    }
    return 0;
}

static int step_all(struct sqlite_db *db, const struct sql *sql, sqlite3_stmt *stmt,
                    int (*each)(struct store_row *row, void *arg, struct err *e), void *arg,
                    struct err *e)
{
    struct sqlite_row row = { { kind, integer, real, str }, stmt };
    int rc;

    while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        int r = each ? each(&row.row, arg, e) : 0;

        if (r != 0)
            return r;
    }
    if (rc != SQLITE_DONE)
        return fail(db, rc, sql->name, e);
    return 0;
}

static int run(struct store_tx *tx, const struct sql *sql, const struct sql_arg *args,
               size_t n_args, int (*each)(struct store_row *row, void *arg, struct err *e),
               void *arg, struct err *e)
{
    struct sqlite_db *db = container_of(tx, struct sqlite_db, tx);
    sqlite3_stmt *stmt;
    int r;

    r = acquire(db, sql, &stmt, e);
    if (r < 0)
        return r;
    r = bind_all(db, sql, stmt, args, n_args, e);
    if (r == 0)
        r = step_all(db, sql, stmt, each, arg, e);
    tx->changed = r >= 0 && !sqlite3_stmt_readonly(stmt) ? sqlite3_changes64(db->db) : 0;
    release(db, sql, stmt);
    return r;
}

static int script(struct store_tx *tx, const char *text, struct err *e)
{
    struct sqlite_db *db = container_of(tx, struct sqlite_db, tx);
    AUTO(free) char *own = translate_sqlite(text);
    int rc = sqlite3_exec(db->db, own ? own : text, NULL, NULL, NULL);

    return rc == SQLITE_OK ? 0 : fail(db, rc, "script", e);
}

int sqlite_db_verb(struct sqlite_db *db, enum sqlite_verb verb, struct err *e)
{
    static const struct sql texts[VERB_VERBS] = {
        [VERB_BEGIN] = { "begin", "BEGIN IMMEDIATE" },
        [VERB_BEGIN_READ] = { "begin", "BEGIN" },
        [VERB_COMMIT] = { "commit", "COMMIT" },
        [VERB_ROLLBACK] = { "rollback", "ROLLBACK" },
        [VERB_SAVE] = { "savepoint", "SAVEPOINT one" },
        [VERB_KEEP] = { "release", "RELEASE one" },
        [VERB_UNDO] = { "roll back to savepoint", "ROLLBACK TO one" },
        [VERB_FK_ON] = { "foreign keys", "PRAGMA foreign_keys = ON" },
        [VERB_FK_OFF] = { "foreign keys", "PRAGMA foreign_keys = OFF" },
    };
    int rc, r;

    if (!db->verbs[verb]) {
        r = prepare(db, &texts[verb], SQLITE_PREPARE_PERSISTENT, &db->verbs[verb], e);
        if (r < 0)
            return r;
    }
    rc = sqlite3_step(db->verbs[verb]);
    r = rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : fail(db, rc, texts[verb].name, e);
    (void)sqlite3_reset(db->verbs[verb]);
    return r;
}

void sqlite_db_give_up(struct sqlite_db *db)
{
    struct err ignored; /* SQLite has rolled back by itself, or will when the next one begins */
    int r = sqlite_db_open_tx(db) ? sqlite_db_verb(db, VERB_ROLLBACK, &ignored) : 0;

    (void)r;
}

struct store_tx *sqlite_db_tx(struct sqlite_db *db)
{
    return &db->tx;
}

bool sqlite_db_open_tx(const struct sqlite_db *db)
{
    return !sqlite3_get_autocommit(db->db);
}

bool sqlite_db_damaged(const struct sqlite_db *db)
{
    return db->damaged;
}

/* The write-ahead log */

static int note_wal(void *arg, sqlite3 *handle, const char *schema, int pages)
{
    struct sqlite_db *db = arg;

    db->wal_pages = pages;
    if (pages < db->wal_moved) /* the log has begun anew */
        db->wal_moved = 0;
    return SQLITE_OK;
}

int sqlite_db_wal_pages(const struct sqlite_db *db)
{
    return db->wal_pages - db->wal_moved;
}

void sqlite_db_checkpoint(struct sqlite_db *db)
{
    /* What cannot be moved now, for a reader's sake or a full disk's, is moved with what follows.
     */
    (void)sqlite3_wal_checkpoint_v2(db->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    db->wal_moved = db->wal_pages;
}

void sqlite_db_extend_wal(struct sqlite_db *db, long long bytes)
{
    static const char zeros[64 * 1024];
    sqlite3_file *wal = NULL;
    sqlite3_int64 size;
    struct statvfs disk;

    /* On a small disk the log must not take what its own pages need to be moved out of it. */
    if (statvfs(db->path, &disk) != 0 ||
        disk.f_bavail < (unsigned long long)bytes * WAL_ROOM / disk.f_frsize)
        return;

    if (sqlite3_file_control(db->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, (void *)&wal) !=
            SQLITE_OK ||
        !wal || !wal->pMethods || wal->pMethods->xFileSize(wal, &size) != SQLITE_OK)
        return;
    while (size < bytes) {
        if (wal->pMethods->xWrite(wal, zeros, (int)sizeof(zeros), size) != SQLITE_OK)
            return;
        size += (sqlite3_int64)sizeof(zeros);
    }
    (void)wal->pMethods->xSync(wal, SQLITE_SYNC_NORMAL); /* else the first commit pays for it */
}

/* Open and close */

static int one_text(struct store_row *row, void *arg, struct err *e)
{
    struct str s = row_str(row, 0);

    fmt_z(arg, 64, "%.*s", (int)(s.n < 60 ? s.n : 60), s.p ? s.p : "");
    return 0;
}

static int pragma(struct sqlite_db *db, const char *text, char answer[64], struct err *e)
{
    struct sql sql = { text, text, NULL };
    sqlite3_stmt *stmt = NULL;
    int r;

    answer[0] = '\0';
    r = prepare(db, &sql, 0, &stmt, e);
    if (r < 0)
        return r;
    r = step_all(db, &sql, stmt, one_text, answer, e);
    (void)sqlite3_finalize(stmt);
    return r < 0 ? r : 0;
}

static int pragma_is(struct sqlite_db *db, const char *text, const char *want, struct err *e)
{
    char answer[64];
    int r = pragma(db, text, answer, e);

    if (r < 0)
        return r;
    if (want && strcmp(answer, want) != 0)
        return err_set(e, ERR_INTERNAL, "the database '%s' answers '%s' to '%s'", db->path, answer,
                       text);
    return 0;
}

static bool in_memory(const struct sqlite_db *db)
{
    return strcmp(db->path, ":memory:") == 0;
}

/*
 * SQLite does not wait for others when it changes the mode (they might do the same and wait for
 * us), so when programs start at once all but one have to try again.
 */
static int turn_to_wal(struct sqlite_db *db, uint64_t busy_ms, struct err *e)
{
    const struct timespec pause = { 0, 5 * 1000000 };
    uint64_t deadline = now_ms() + busy_ms;
    int r;

    for (;;) {
        r = pragma_is(db, "PRAGMA journal_mode = WAL", "wal", e);
        if (r != -ERR_UNAVAILABLE || (sqlite3_errcode(db->db) & 0xff) != SQLITE_BUSY ||
            now_ms() >= deadline)
            return r;
        (void)nanosleep(&pause, NULL);
    }
}

static int set_up(struct sqlite_db *db, uint64_t busy_ms, struct err *e)
{
    char cache[64], keep[64];
    int r;

    fmt_z(cache, sizeof(cache), "PRAGMA cache_size = -%d",
          db->mode == DB_WRITER ? CACHE_WRITER_KIB : CACHE_KIB);
    fmt_z(keep, sizeof(keep), "PRAGMA journal_size_limit = %lld", (long long)WAL_KEEP);
    /* First: it counts only before the file was looked at. */
    r = db->mode == DB_ALONE ? pragma_is(db, "PRAGMA locking_mode = EXCLUSIVE", NULL, e) : 0;
    if (r == 0)
        r = pragma_is(db, cache, NULL, e);
    if (r == 0 && db->mode == DB_WRITER && !in_memory(db))
        r = turn_to_wal(db, busy_ms, e);
    if (r == 0)
        r = pragma_is(db, "PRAGMA synchronous = FULL", NULL, e);
    if (r == 0)
        r = pragma_is(db, "PRAGMA synchronous", "2", e);
    if (r == 0)
        r = pragma_is(db, "PRAGMA foreign_keys = ON", NULL, e);
    if (r == 0)
        r = pragma_is(db, "PRAGMA foreign_keys", "1", e);
    if (r == 0)
        r = pragma_is(db, keep, NULL, e);
    /* What undoes a savepoint is not worth a file: transactions here are short. */
    if (r == 0 && db->mode == DB_WRITER)
        r = pragma_is(db, "PRAGMA temp_store = MEMORY", NULL, e);
    if (r == 0)
        r = pragma_is(db, "PRAGMA secure_delete = FAST", NULL, e);
    if (r == 0 && db->mode != DB_WRITER)
        r = pragma_is(db, "PRAGMA query_only = ON", NULL, e);
    return r;
}

static int check(struct sqlite_db *db, struct err *e)
{
    struct stat st;
    char answer[64];
    int r;

    r = pragma(db, "SELECT count(*) FROM sqlite_schema", answer, e);
    if (r < 0 || in_memory(db) || db->mode == DB_READER)
        return r;
    if (stat(db->path, &st) == 0 && st.st_size > (off_t)CHECK_WHOLE)
        return 0;
    r = pragma(db, "PRAGMA quick_check(1)", answer, e);
    if (r == 0 && strcmp(answer, "ok") != 0)
        return err_set(e, ERR_INTERNAL, "the database file '%s' is damaged (%s): restore a backup",
                       db->path, answer);
    return r;
}

/* A new file is for its owner alone, and its name is on the disk before anything in it is. */
static int make_file(const char *path, struct err *e)
{
    AUTO(free) char *copy = xstrdup(path);
    AUTO(close_fd) int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    AUTO(close_fd) int dir = -1;

    if (fd < 0)
        return errno == EEXIST ? 0 : err_sys(e, "make database '%s'", path);
    dir = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fsync(dir) < 0)
        return err_sys(e, "sync the directory of '%s'", path);
    return 0;
}

static int open_handle(struct sqlite_db *db, uint64_t busy_ms, struct err *e)
{
    int flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_READWRITE;
    int rc, r;

    if (db->mode == DB_WRITER && !in_memory(db)) {
        r = make_file(db->path, e);
        if (r < 0)
            return r;
    }
    rc = sqlite3_open_v2(db->path, &db->db, flags, NULL);
    if (rc != SQLITE_OK)
        return fail(db, rc, db->path, e);
    (void)sqlite3_extended_result_codes(db->db, 1);
    (void)sqlite3_busy_timeout(db->db, busy_ms < INT_MAX ? (int)busy_ms : INT_MAX);
    (void)sqlite3_wal_hook(db->db, note_wal, db); /* also ends automatic checkpoints */
    return 0;
}

int sqlite_db_open(const char *path, enum sqlite_mode mode, uint64_t busy_ms,
                   struct sqlite_db **ret, struct err *e)
{
    struct sqlite_db *db = xcalloc(1, sizeof(*db));
    int r;

    (void)pthread_once(&once, configure);
    db->path = xstrdup(path);
    db->mode = mode;
    db->tx.run = run;
    db->tx.script = script;
    r = open_handle(db, busy_ms, e);
    if (r == 0)
        r = set_up(db, busy_ms, e);
    if (r == 0)
        r = check(db, e);
    if (r < 0) {
        if (db->damaged && e)
            e->code = ERR_INTERNAL; /* at the start: not something that passes */
        r = e ? -(int)e->code : r;
        sqlite_db_close(db);
        return r;
    }
    *ret = db;
    return 0;
}

void sqlite_db_close(struct sqlite_db *db)
{
    if (!db)
        return;
    for (size_t i = 0; i < db->n_slots; i++)
        (void)sqlite3_finalize(db->slots[i].stmt);
    for (size_t i = 0; i < VERB_VERBS; i++)
        (void)sqlite3_finalize(db->verbs[i]);
    (void)sqlite3_close(db->db);
    free(db->slots);
    free(db->path);
    free(db);
}
