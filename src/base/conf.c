/* SPDX-License-Identifier: MIT */
/*
 * base/conf.c — where settings come from and which source wins.
 *
 * Each row remembers what every source said about it, so precedence does not depend on the order
 * in which the sources are read, and a reload of the file needs nothing but the file.
 */
#include "base/conf.h"

#include <ctype.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/conf_int.h"
#include "base/log.h"

enum { FILE_MAX = 1 << 20, ENV_NAME_MAX = 128 };

const char *conf_keep(struct conf *c, const char *text)
{
    struct conf_text *kept;

    for (kept = c->texts; kept; kept = kept->next) {
        if (strcmp(kept->z, text) == 0)
            return kept->z;
    }
    kept = arena_raw(&c->arena, sizeof(*kept) + strlen(text) + 1);
    memcpy(kept->z, text, strlen(text) + 1);
    kept->next = c->texts;
    c->texts = kept;
    return kept->z;
}

struct conf_row *conf_row_find(const struct conf *c, struct str name)
{
    for (size_t i = 0; i < c->n; i++) {
        if (str_eq_z(name, c->rows[i].opt->name))
            return &c->rows[i];
    }
    return NULL;
}

const struct opt *conf_find(const struct conf *c, const char *name)
{
    const struct conf_row *row = conf_row_find(c, str_of(name));

    return row ? row->opt : NULL;
}

enum opt_source conf_source(const struct conf *c, const char *name)
{
    const struct conf_row *row = conf_row_find(c, str_of(name));

    return row ? row->source : OPT_FROM_DEFAULT;
}

static int add_row(struct conf *c, const struct opt *opt, size_t base, struct err *e)
{
    struct conf_row *row = &c->rows[c->n];
    union conf_value ignored;
    int r;

    if (conf_row_find(c, str_of(opt->name)))
        return err_set(e, ERR_INTERNAL, "two settings are named '%s'", opt->name);
    r = conf_value_parse(opt, opt->def, &ignored, e);
    if (r < 0)
        return err_wrap(e, "default of %s", opt->name);
    row->opt = opt;
    row->offset = base + opt->offset;
    row->given[OPT_FROM_DEFAULT] = (struct conf_given){ opt->def, "default" };
    c->n++;
    return 0;
}

int conf_new(const struct conf_table *tables, size_t n_tables, void *into, struct conf **ret,
             struct err *e)
{
    struct conf *c = xcalloc(1, sizeof(*c));
    size_t n = 0;

    for (size_t i = 0; i < n_tables; i++)
        n += tables[i].n;
    c->into = into;
    c->rows = xcalloc(n, sizeof(*c->rows));
    for (size_t i = 0; i < n_tables; i++) {
        for (size_t j = 0; j < tables[i].n; j++) {
            int r = add_row(c, &tables[i].opts[j], tables[i].base, e);

            if (r < 0) {
                conf_free(c);
                return r;
            }
        }
    }
    *ret = c;
    return 0;
}

void conf_free(struct conf *c)
{
    if (!c)
        return;
    arena_done(&c->arena);
    free(c->rows);
    free(c);
}

static void give(struct conf *c, struct conf_row *row, enum opt_source source, const char *text,
                 const char *where)
{
    row->given[source] = (struct conf_given){ conf_keep(c, text), conf_keep(c, where) };
}

int conf_flag(struct conf *c, const char *name, const char *value, struct err *e)
{
    struct conf_row *row = conf_row_find(c, str_of(name));
    AUTO(free) char *where = xasprintf("--%s", name);

    if (!row)
        return conf_unknown(c, name, e);
    give(c, row, OPT_FROM_FLAG, value, where);
    return 0;
}

/* A variable's value; an empty one counts as not set, which is what ${NAME:-} in a manifest means.
 */
static const char *env_get(const char *const *environ_, struct str name)
{
    for (; *environ_; environ_++) {
        if (strncmp(*environ_, name.p, name.n) == 0 && (*environ_)[name.n] == '=')
            return (*environ_)[name.n + 1] ? *environ_ + name.n + 1 : NULL;
    }
    return NULL;
}

/* "gateway.port" is CHELA_GATEWAY_PORT. */
static void own_variable(const struct opt *opt, char out[ENV_NAME_MAX])
{
    fmt_z(out, ENV_NAME_MAX, "CHELA_%s", opt->name);
    for (char *p = out; *p; p++)
        *p = isalnum((unsigned char)*p) ? (char)toupper((unsigned char)*p) : '_';
}

static void give_env(struct conf *c, struct conf_row *row, struct str variable, const char *value,
                     struct str unit)
{
    bool bare = value[strspn(value, "0123456789.")] == '\0';
    AUTO(free) char *where = xasprintf("$" STR_FMT, STR_ARG(variable));
    AUTO(free)
    char *text = xasprintf("%s" STR_FMT, value, bare ? (int)unit.n : 0, unit.n ? unit.p : "");

    give(c, row, OPT_FROM_ENV, text, where);
}

static void read_env(struct conf *c, struct conf_row *row, const char *const *environ_)
{
    struct str rest = str_of(row->opt->env), item, name;
    char own[ENV_NAME_MAX];
    const char *value;

    own_variable(row->opt, own);
    value = env_get(environ_, str_of(own));
    if (value) {
        give_env(c, row, str_of(own), value, STR(""));
        return;
    }
    while (str_split(&rest, ',', &item)) {
        if (!str_split(&item, ':', &name))
            continue;
        value = env_get(environ_, name);
        if (value) {
            give_env(c, row, name, value, item);
            return;
        }
    }
}

/*
 * "CHELA_GATEWAY_PROT=1" is a mistake that nothing else would show. Only names of a section of ours
 * are judged: other programs have variables that begin with CHELA_ too.
 */
static void warn_unknown(const struct conf *c, struct str variable)
{
    char own[ENV_NAME_MAX];
    bool section = false;

    for (size_t i = 0; i < c->n; i++) {
        struct str prefix;

        own_variable(c->rows[i].opt, own);
        if (str_eq_z(variable, own))
            return;
        prefix = (struct str){ own, strlen("CHELA_") + strcspn(c->rows[i].opt->name, ".") + 1 };
        section = section || str_starts(variable, prefix);
    }
    if (section)
        log_warn("no setting has this variable, ignoring it", "variable", LOG_SLICE(variable));
}

int conf_env(struct conf *c, const char *const *environ_, struct err *e)
{
    (void)e; /* values are checked by conf_apply, with all the others */
    for (const char *const *entry = environ_; *entry; entry++) {
        if (strncmp(*entry, "CHELA_", 6) == 0)
            warn_unknown(c, (struct str){ *entry, strcspn(*entry, "=") });
    }
    for (size_t i = 0; i < c->n; i++) {
        c->rows[i].given[OPT_FROM_ENV] = (struct conf_given){ 0 };
        read_env(c, &c->rows[i], environ_);
    }
    return 0;
}

struct file_reading {
    struct conf *c;
    const char *path;
};

static int on_file_value(void *arg, const char *name, const char *value, int line, struct err *e)
{
    struct file_reading *reading = arg;
    struct conf_row *row = conf_row_find(reading->c, str_of(name));
    AUTO(free) char *where = xasprintf("line %d of %s", line, reading->path);
    int r;

    if (!row) {
        r = conf_unknown(reading->c, name, e);
        return r < 0 ? err_wrap(e, "line %d", line) : r;
    }
    if (row->given[OPT_FROM_FILE].text)
        return err_set(e, ERR_INVALID, "line %d: '%s' was set before (%s)", line, name,
                       row->given[OPT_FROM_FILE].where);
    give(reading->c, row, OPT_FROM_FILE, value, where);
    return 0;
}

/* 0, or 1 when there is no such file. Can everybody read it? */
static int read_file(const char *path, struct buf *b, bool *ret_open, struct err *e)
{
    AUTO(close_fd) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    ssize_t got;
    char *p;
    int r;

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 1;
    if (fd < 0)
        return err_sys(e, "open '%s'", path);
    *ret_open = fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IROTH);
    for (;;) {
        r = buf_reserve(b, 4096, &p, e);
        if (r < 0)
            return err_wrap(e, "read '%s'", path);
        got = read(fd, p, 4096);
        if (got < 0)
            return err_sys(e, "read '%s'", path);
        if (got == 0)
            return 0;
        buf_commit(b, (size_t)got);
    }
}

/* What the file said before, to go back to. */
static struct conf_given *save_file(const struct conf *c)
{
    struct conf_given *saved = xcalloc(c->n, sizeof(*saved));

    for (size_t i = 0; i < c->n; i++)
        saved[i] = c->rows[i].given[OPT_FROM_FILE];
    return saved;
}

static void restore_file(struct conf *c, const struct conf_given *saved)
{
    for (size_t i = 0; i < c->n; i++)
        c->rows[i].given[OPT_FROM_FILE] = saved[i];
}

static void warn_of_secrets(const struct conf *c, const char *path)
{
    for (size_t i = 0; i < c->n; i++) {
        const char *text = c->rows[i].given[OPT_FROM_FILE].text;

        if (!(c->rows[i].opt->flags & OPT_SECRET) || !text || !*text)
            continue;
        log_warn("the settings file holds a secret and every user can read it: chmod 600", "file",
                 LOG_STR(path), "setting", LOG_STR(c->rows[i].opt->name));
        return;
    }
}

int conf_file(struct conf *c, const char *path, bool must_exist, struct err *e)
{
    AUTO(free) struct conf_given *saved = save_file(c);
    AUTO(buf_done) struct buf text;
    struct file_reading reading = { c, path };
    bool open_to_all = false;
    int r;

    buf_init(&text, FILE_MAX);
    r = read_file(path, &text, &open_to_all, e);
    if (r < 0)
        return r;
    if (r > 0 && must_exist)
        return err_set(e, ERR_NOT_FOUND, "there is no settings file '%s'", path);
    for (size_t i = 0; i < c->n; i++)
        c->rows[i].given[OPT_FROM_FILE] = (struct conf_given){ 0 };
    r = conf_file_parse(buf_str(&text), on_file_value, &reading, e);
    if (r < 0) {
        restore_file(c, saved);
        return err_wrap(e, "settings file '%s'", path);
    }
    if (open_to_all)
        warn_of_secrets(c, path);
    return 0;
}

static enum opt_source winner(const struct conf_row *row)
{
    enum opt_source source = OPT_FROM_FLAG;

    while (source > OPT_FROM_DEFAULT && !row->given[source].text)
        source--;
    return source;
}

static void put(struct conf *c, const struct conf_row *row, const union conf_value *v)
{
    char *slot = c->into + row->offset;

    if (row->opt->kind == OPT_STR)
        memcpy(slot, &v->text, sizeof(v->text));
    else
        memcpy(slot, &v->number, sizeof(v->number));
}

/* Make the winning text of one row the one in force, if it may change now. */
static void apply_row(struct conf *c, struct conf_row *row, const union conf_value *v)
{
    enum opt_source source = winner(row);
    bool first = !row->now.text;

    if (!first && strcmp(row->now.text, row->given[source].text) == 0) {
        row->now.where = row->given[source].where;
        row->source = source;
        return;
    }
    if (!first && !(row->opt->flags & OPT_LIVE)) {
        log_warn("a changed setting needs a restart, ignoring it until then", "setting",
                 LOG_STR(row->opt->name), "from", LOG_STR(row->given[source].where));
        return;
    }
    put(c, row, v);
    row->now = row->given[source];
    row->source = source;
    if (!first)
        log_info("setting changed", "setting", LOG_STR(row->opt->name), "value",
                 LOG_STR(row->opt->flags & OPT_SECRET ? "***" : row->now.text));
}

int conf_apply(struct conf *c, struct err *e)
{
    AUTO(free) union conf_value *values = xcalloc(c->n, sizeof(*values));

    for (size_t i = 0; i < c->n; i++) {
        const struct conf_row *row = &c->rows[i];
        const struct conf_given *given = &row->given[winner(row)];
        int r = conf_value_parse(row->opt, given->text, &values[i], e);

        if (r < 0)
            return err_wrap(e, "%s (%s)", row->opt->name, given->where);
    }
    for (size_t i = 0; i < c->n; i++)
        apply_row(c, &c->rows[i], &values[i]);
    return 0;
}

int conf_reload(struct conf *c, const char *path, struct err *e)
{
    AUTO(free) struct conf_given *saved = save_file(c);
    int r;

    r = conf_file(c, path, false, e);
    if (r == 0)
        r = conf_apply(c, e);
    if (r < 0)
        restore_file(c, saved);
    return r;
}
