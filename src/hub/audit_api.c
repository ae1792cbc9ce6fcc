/* SPDX-License-Identifier: MIT */
/*
 * hub/audit_api.c — reading the end of the audit log, and what the command line did without the hub
 * (a shell entered from the host): it tells us here.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/offload.h"
#include "hub/audit_int.h"
#include "net/http.h"

#define READ_MAX (4 * MIB)

struct lines_query {
    int64_t lines;
};
/* clang-format off */
static const struct shape_field lines_fields[] = {
    FIELD(struct lines_query, lines, .coerce = true, .def = "100", .min = 1, .max = 100000, .doc = "The newest so many, at most 4 MiB of them."),
};
static const struct shape lines_shape = SHAPE(struct lines_query, "AuditLines", lines_fields);

struct own_body {
    const char *event, *agentId, *command, *cwd, *reason;
};
static const struct shape_field own_fields[] = {
    FIELD(struct own_body, event, .required = true, .min = 5, .max = 64, .doc = "cli. and what was done."),
    FIELD(struct own_body, agentId, .nullable = true), FIELD(struct own_body, command, .nullable = true),
    FIELD(struct own_body, cwd, .nullable = true), FIELD(struct own_body, reason, .nullable = true),
};
static const struct shape own_shape = SHAPE(struct own_body, "AuditAct", own_fields);
/* clang-format on */

struct reading {
    const char *path;
    int64_t lines;
    struct buf text;
    size_t skip;
};

/* Blocking: on a thread of the pool. */
static int read_lines(void *arg, struct err *e)
{
    struct reading *rd = arg;
    AUTO(close_fd) int fd = open(rd->path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    long long at;
    char *p;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(e, "open the audit log");
    at = st.st_size > (long long)READ_MAX ? st.st_size - (long long)READ_MAX : 0;
    while (at < st.st_size) {
        ssize_t n;
        int r = buf_reserve(&rd->text, (size_t)(st.st_size - at), &p, e);

        if (r < 0)
            return r;
        n = pread(fd, p, (size_t)(st.st_size - at), at);
        if (n < 0)
            return err_sys(e, "read the audit log");
        if (n == 0)
            break;
        buf_commit(&rd->text, (size_t)n);
        at += n;
    }
    p = rd->text.p + rd->text.off;
    for (rd->skip = rd->text.n; rd->skip > 0; rd->skip--)
        if (p[rd->skip - 1] == '\n' && rd->skip < rd->text.n && --rd->lines == 0)
            break;
    return 0;
}

static CO int get_audit(struct http_req *req, struct err *e)
{
    const struct lines_query *query = req->query;
    struct audit *a = req->room;
    struct reading rd = { .lines = query->lines };
    int r;

    audit_flush(audit_hub(a));
    rd.path = arena_printf(req->arena, "%s/audit.log", audit_hub(a)->conf.state_dir);
    buf_init(&rd.text, READ_MAX + 1);
    r = offload(read_lines, &rd, e);
    if (r == 0) {
        struct str all = buf_str(&rd.text);

        http_reply_text(req, 200, "application/x-ndjson",
                        arena_str(req->arena, (struct str){ all.p + rd.skip, all.n - rd.skip }));
    }
    buf_done(&rd.text);
    return r;
}

static CO int post_audit(struct http_req *req, struct err *e)
{
    const struct own_body *in = req->in;
    struct hub *h = audit_hub(req->room);
    AUTO(json_decref) json_t *body = NULL;

    if (strncmp(in->event, "cli.", 4) != 0 ||
        in->event[strspn(in->event, "abcdefghijklmnopqrstuvwxyz._")])
        return err_set(e, ERR_INVALID, "event must be 'cli.' and small letters");
    body = json_object();
    if (in->command)
        json_object_set_new(body, "command", json_string(in->command));
    if (in->cwd)
        json_object_set_new(body, "cwd", json_string(in->cwd));
    audit(h, &(struct audit_line){
                 .event = in->event,
                 .agent = str_of(in->agentId),
                 .from = str_of(req->who.name),
                 .peer = req->peer,
                 .body = body,
                 .reason = in->reason,
             });
    audit_flush(h);
    http_reply_text(req, 200, "application/json; charset=utf-8", STR("{\"status\":\"recorded\"}"));
    return 0;
}

/* clang-format off */
const struct http_route audit_routes[] = {
    { HTTP_M_GET, "/admin/audit", get_audit, .need = NEED_AGENTS, .query = &lines_shape,
      .doc = "The newest lines of the audit log, one JSON object a line.", .tag = "hub" },
    { HTTP_M_POST, "/admin/audit", post_audit, .need = NEED_AGENTS, .in = &own_shape,
      .doc = "Record what was done to an agent from outside of the hub.", .tag = "hub" },
};
/* clang-format on */
const size_t audit_routes_len = LEN(audit_routes);
