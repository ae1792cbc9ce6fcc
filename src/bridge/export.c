/* SPDX-License-Identifier: MIT */
/*
 * bridge/export.c — writing the file. The store's thread writes it into a temporary file out of
 * one snapshot, page by page, so neither memory nor a slow reader of it is a bound.
 */
#include "bridge/export.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/offload.h"
#include "bridge/bridge_int.h"
#include "bridge/session_int.h"

enum { PAGE = 200 };

static const struct sql sql_page = {
    "export page",
    "SELECT sid, session_id, user_id, created_us, active_us, done_seq, metadata FROM vps_sessions"
    " WHERE sid > ?1 ORDER BY sid LIMIT ?2",
};
static const struct sql sql_messages = {
    "export messages",
    "SELECT seq, ts_us, role, content, agent, interrupted FROM vps_messages WHERE sid = ?1"
    " ORDER BY seq",
};

struct row_copy {
    int64_t sid, created_us, active_us, done_seq;
    struct str session_id, user_id, metadata;
};

struct exporting {
    FILE *f;
    struct arena arena; /* of one page */
    struct row_copy page[PAGE];
    size_t n_page;
    int64_t done_seq;  /* of the session whose messages are being written */
    size_t n_messages; /* of it, so far */
    long long n;
};

static json_t *text_of(struct str s)
{
    return json_stringn_nocheck(s.n ? s.p : "", s.n); /* the store holds UTF-8 */
}

static json_t *stamp_of(int64_t us)
{
    char text[TIME_TEXT];

    time_format_naive(us, text);
    return json_string_nocheck(text);
}

static int page_row(struct store_row *row, void *arg, struct err *e)
{
    struct exporting *x = arg;

    if (x->n_page < PAGE)
        x->page[x->n_page++] = (struct row_copy){
            .sid = row_int(row, 0),
            .session_id = arena_str(&x->arena, row_str(row, 1)),
            .user_id = arena_str(&x->arena, row_str(row, 2)),
            .created_us = row_int(row, 3),
            .active_us = row_int(row, 4),
            .done_seq = row_int(row, 5),
            .metadata = arena_str(&x->arena, row_str(row, 6)),
        };
    return 0;
}

/* Write a value as JSON and free it; its lines after the first begin with indent. */
static int put(struct exporting *x, json_t *j, const char *indent, struct err *e)
{
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);

    json_decref(j);
    if (!text)
        return err_set(e, ERR_INTERNAL, "a session cannot be written as JSON");
    for (const char *line = text, *end; line; line = end ? end + 1 : NULL) {
        end = strchr(line, '\n');
        fwrite(line, 1, end ? (size_t)(end - line) : strlen(line), x->f);
        if (end)
            fputs(indent, x->f);
    }
    free(text);
    return 0;
}

/* Each message goes out as it is read: a session may have gigabytes of them. */
static int message_row(struct store_row *row, void *arg, struct err *e)
{
    struct exporting *x = arg;
    json_t *m = json_object();

    json_object_set_new_nocheck(m, "timestamp", stamp_of(row_int(row, 1)));
    json_object_set_new_nocheck(m, "role", text_of(row_str(row, 2)));
    json_object_set_new_nocheck(m, "content", text_of(row_str(row, 3)));
    json_object_set_new_nocheck(m, "agent", text_of(row_str(row, 4)));
    if (row_int(row, 5) || (row_int(row, 0) > x->done_seq && str_eq_z(row_str(row, 2), "user")))
        json_object_set_new_nocheck(m, "interrupted", json_true());
    fputs(x->n_messages++ ? ",\n        " : "\n        ", x->f);
    return put(x, m, "\n        ", e);
}

static int put_member(struct exporting *x, const char *name, json_t *value, struct err *e)
{
    fprintf(x->f, "%s\n      \"%s\": ", strcmp(name, "session_id") == 0 ? "" : ",", name);
    return put(x, value, "\n      ", e);
}

static int put_messages(struct store_tx *tx, struct exporting *x, const struct row_copy *s,
                        struct err *e)
{
    const struct sql_arg sid = SQL_INT(s->sid);
    int r;

    x->done_seq = s->done_seq;
    x->n_messages = 0;
    fputs(",\n      \"messages\": [", x->f);
    r = store_run(tx, &sql_messages, &sid, 1, message_row, x, e);
    fputs(x->n_messages ? "\n      ]" : "]", x->f);
    return r;
}

static int write_session(struct store_tx *tx, struct exporting *x, const struct row_copy *s,
                         struct err *e)
{
    json_t *metadata;
    int r;

    r = json_parse(s->metadata, JSON_DEPTH, &x->arena, &metadata, NULL, e);
    if (r < 0)
        return r;
    fputs(x->n++ ? ",\n    " : "\n    ", x->f);
    r = put(x, text_of(s->session_id), "", e);
    fputs(": {", x->f);
    if (r == 0)
        r = put_member(x, "session_id", text_of(s->session_id), e);
    if (r == 0)
        r = put_member(x, "user_id", text_of(s->user_id), e);
    if (r == 0)
        r = put_member(x, "created_at", stamp_of(s->created_us), e);
    if (r == 0)
        r = put_member(x, "last_activity", stamp_of(s->active_us), e);
    if (r == 0)
        r = put_messages(tx, x, s, e);
    if (r == 0)
        r = put_member(x, "metadata", json_incref(metadata), e);
    fputs("\n    }", x->f);
    return r;
}

static int export_body(struct store_tx *tx, void *arg, struct err *e)
{
    struct exporting *x = arg;
    struct sql_arg args[] = { SQL_INT(0), SQL_INT(PAGE) };
    int r;

    x->n = 0;
    if (ftruncate(fileno(x->f), 0) < 0)
        return err_sys(e, "export: empty the temporary file");
    rewind(x->f);
    do {
        x->n_page = 0;
        arena_reset(&x->arena);
        r = store_run(tx, &sql_page, args, LEN(args), page_row, x, e);
        for (size_t i = 0; r >= 0 && i < x->n_page; i++)
            r = write_session(tx, x, &x->page[i], e);
        if (r < 0)
            return r;
        if (x->n_page)
            args[0] = SQL_INT(x->page[x->n_page - 1].sid);
    } while (x->n_page == PAGE);
    if (fflush(x->f) || ferror(x->f))
        return err_sys(e, "export: write the temporary file");
    return 0;
}

CO int export_open(struct bridge *b, struct export *ret, struct err *e)
{
    struct exporting *x;
    char now[TIME_TEXT];
    FILE *f = tmpfile();
    int r;

    if (!f)
        return err_sys(e, "export: make a temporary file");
    x = xcalloc(1, sizeof(*x));
    x->f = f;
    r = store_read(b->store, export_body, x, e);
    ret->n = x->n;
    arena_done(&x->arena);
    free(x);
    if (r < 0) {
        fclose(f);
        return r;
    }
    rewind(f);
    time_format_naive(wall_us(), now);
    fmt_z(ret->head, sizeof(ret->head),
          "{\n  \"exported_at\": \"%s\",\n  \"total_sessions\": %lld,\n  \"sessions\": {", now,
          ret->n);
    ret->tail = ret->n ? "\n  }\n}" : "}\n}";
    ret->body = f;
    return 0;
}

void export_close(struct export *x)
{
    fclose(x->body);
    x->body = NULL;
}

/* --- to a file --- */

struct filing {
    struct export *x;
    const char *path;
};

static int copy_to(int fd, struct export *x, const char *path, struct err *e)
{
    char piece[4096];
    size_t n;
    bool ok;
    FILE *f = fdopen(fd, "w"); /* takes the fd */

    if (!f) {
        close(fd);
        return err_sys(e, "open '%s'", path);
    }
    fputs(x->head, f);
    while ((n = fread(piece, 1, sizeof(piece), x->body)) > 0)
        fwrite(piece, 1, n, f);
    fputs(x->tail, f);
    ok = !ferror(x->body) && !fflush(f) && !ferror(f) && !fsync(fd);
    if (!ok)
        (void)err_sys(e, "write '%s'", path);
    fclose(f);
    return ok ? 0 : -(int)e->code;
}

static int file_it(void *arg, struct err *e)
{
    struct filing *filing = arg;
    char *temporary = xasprintf("%s.XXXXXX", filing->path);
    int fd = mkostemp(temporary, O_CLOEXEC), r; /* mode 0600 */

    if (fd < 0) {
        r = err_sys(e, "make '%s'", temporary);
        free(temporary);
        return r;
    }
    r = copy_to(fd, filing->x, temporary, e);
    if (r == 0 && rename(temporary, filing->path) < 0)
        r = err_sys(e, "rename '%s' to '%s'", temporary, filing->path);
    if (r < 0)
        unlink(temporary);
    free(temporary);
    return r;
}

CO int export_to_file(struct bridge *b, const char *path, long long *ret_n, struct err *e)
{
    struct export x;
    struct filing filing = { &x, path };
    int r;

    r = export_open(b, &x, e);
    if (r < 0)
        return r;
    r = offload(file_it, &filing, e);
    export_close(&x);
    if (r == 0)
        *ret_n = x.n;
    return r;
}
