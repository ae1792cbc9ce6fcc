/* SPDX-License-Identifier: MIT */
/*
 * swarm/life_name.c — what is made from an agent's name: the slug, the session key, the agent's id
 * with OpenClaw. Letters and digits of every script count, so "Müller 2" is "müller-2".
 */
#include <locale.h>
#include <wchar.h>
#include <wctype.h>

#include "swarm/life_int.h"

enum { SLUG_MAX = 160 }; /* bytes: a session key with its prefix and number fits MAIL_SESSION */

static locale_t letters(void)
{
    static locale_t it;

    if (!it)
        it = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    return it;
}

/* The code point at p and its length; UTF-8 that is well-formed. */
static wint_t code_at(const char *p, size_t n, size_t *ret_len)
{
    static const unsigned char masks[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
    size_t len = utf8_step(p, n);
    wint_t c;

    *ret_len = len ? len : 1;
    if (!len)
        return L'-';
    c = (unsigned char)p[0] & masks[len];
    for (size_t i = 1; i < len; i++)
        c = c << 6 | ((unsigned char)p[i] & 0x3f);
    return c;
}

static size_t put_code(char *out, wint_t c)
{
    size_t len = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char marks[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

    for (size_t i = len - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(marks[len] | c);
    return len;
}

static bool counts(wint_t c)
{
    locale_t l = letters();

    return l ? iswalnum_l(c, l) != 0 : c >= 0x80;
}

const char *life_slug(struct str name, struct arena *a)
{
    char *out = arena_alloc(a, name.n * 4 + 8), *p = out;
    locale_t l = letters();
    bool gap = false;

    for (size_t i = 0, len; i < name.n && p - out < SLUG_MAX; i += len) {
        wint_t c = code_at(name.p + i, name.n - i, &len);

        if (c < 0x80 ? !((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z'))
                     : !counts(c)) {
            gap = p != out;
            continue;
        }
        if (gap)
            *p++ = '-';
        gap = false;
        p += put_code(p, l ? towlower_l(c, l) : c);
    }
    *p = '\0';
    return p == out ? "agent" : out;
}

/* The first lifecycle service's form: lower case, blanks and underscores to "-". */
static char *web_name(struct str name, struct arena *a)
{
    char *out = arena_alloc(a, name.n * 4 + 8), *p = out;
    locale_t l = letters();

    for (size_t i = 0, len; i < name.n && p - out < SLUG_MAX; i += len) {
        wint_t c = code_at(name.p + i, name.n - i, &len);

        if (c == ' ' || c == '_')
            c = '-';
        p += put_code(p, l ? towlower_l(c, l) : c);
    }
    *p = '\0';
    return out;
}

void life_keys(const char *form, struct str name, unsigned n, struct arena *a, struct str *session,
               struct str *agent)
{
    const char *slug = life_slug(name, a);
    const char *key = str_eq_z(STR("web"), form)
                          ? arena_printf(a, "agent:web:%s", web_name(name, a))
                          : arena_printf(a, "agent:%s:main", slug);

    *session = str_of(n ? arena_printf(a, "%s-%u", key, n) : key);
    *agent = str_of(n ? arena_printf(a, "%s-%u", slug, n) : slug);
}
