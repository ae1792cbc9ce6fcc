/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a URL, a host, a query and an address list: no crash, and what is accepted keeps
 * its promises (slices inside the text, a port, no user info in the host).
 */
#include <assert.h>

#include "fuzz.h"
#include "net/outbound.h"
#include "net/url.h"

static void check_url(struct str text)
{
    struct url u;
    struct err e;

    if (url_parse(text, &u, &e) < 0)
        return;
    assert(u.host.n > 0 && u.port > 0 && u.path.n > 0 && u.path.p[0] == '/');
    assert(u.host.p >= text.p && u.host.p + u.host.n <= text.p + text.n);
    assert(!memchr(u.host.p, '@', u.host.n) && !memchr(u.host.p, '/', u.host.n));
}

static void check_escapes(struct str text, struct arena *a)
{
    struct str encoded = percent_encode(text, a), back;
    struct shape_pair *pairs;
    struct err e;
    size_t n;

    if (!text.n || !memchr(text.p, '\0', text.n)) {
        int r = percent_decode(encoded, a, &back, &e);

        assert(r == 0 && str_eq(back, text));
    }
    (void)!percent_decode(text, a, &back, &e);   /* any outcome is fine */
    (void)!query_parse(text, a, &pairs, &n, &e); /* the same */
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };
    struct outbound_policy policy;
    struct arena a = { 0 };
    struct err e;
    char *z;
    bool v6;

    check_url(text);
    check_escapes(text, &a);
    (void)!host_check(text, &v6, &e); /* any outcome is fine */
    z = arena_strndup(&a, text.p, text.n);
    (void)!outbound_policy_parse(z, z, &policy, &e); /* the same */
    arena_done(&a);
    return 0;
}
