/* SPDX-License-Identifier: MIT */
/*
 * Any text is a settings file or refused, and any value in it parses as each kind or is refused.
 */
#include "base/conf_int.h"
#include "fuzz.h"

static int on_value(void *arg, const char *name, const char *value, int line, struct err *e)
{
    static const char *const one_of[] = { "a", "b", NULL };
    union conf_value v;

    if (!name || !value || line < 1)
        abort();
    for (enum opt_kind kind = OPT_STR; kind <= OPT_BOOL; kind++) {
        struct opt opt = { .name = "x.y", .kind = kind, .min = -100, .max = 1 << 20 };

        if (conf_value_parse(&opt, value, &v, e) < 0 && !e->msg[0])
            abort();
        opt.one_of = one_of;
        opt.min = opt.max = 0;
        if (conf_value_parse(&opt, value, &v, e) == 0 && kind == OPT_STR && v.text != value)
            abort();
    }
    return strcmp(name, "stop.here") == 0 ? err_set(e, ERR_INVALID, "stopped") : 0;
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };
    struct err e = { .code = ERR_INTERNAL };

    if (conf_file_parse(text, on_value, NULL, &e) < 0 && e.code != ERR_INVALID)
        abort();
    return 0;
}
