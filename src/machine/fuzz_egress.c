/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as the head of a request to a machine's proxy: no crash, and what is accepted names a
 * host that can stand in a list, and a request that has one Host and ends where it says.
 */
#include <assert.h>

#include "fuzz.h"
#include "machine/egress.h"

static void check_origin(struct str origin, const struct egress_head *head)
{
    const char *host = memmem(origin.p, origin.n, "\r\nHost: ", 8);

    assert(origin.n > 4 && memcmp(origin.p + origin.n - 4, "\r\n\r\n", 4) == 0);
    assert(memmem(origin.p, origin.n, "\r\n\r\n", 4) == origin.p + origin.n - 4);
    assert(host && !memmem(host + 2, origin.n - (size_t)(host + 2 - origin.p), "\r\nHost:", 7));
}

FUZZ(const uint8_t *data, size_t size)
{
    static const char *const allow[] = { "*.example.com", "one.test:8080", "[2001:db8::1]:443",
                                         "*" };
    struct str bytes = { (const char *)data, size };
    AUTO(buf_done) struct buf origin;
    struct egress_head head;
    struct err e;

    buf_init(&origin, 2 * EGRESS_HEAD_MAX);
    if (egress_head_parse(bytes, &head, &origin, &e) == 0) {
        assert(head.size <= size && head.port > 0 && head.port < 65536 && *head.host);
        assert(!strpbrk(head.host, "/@ \r\n\t"));
        if (!head.tunnel)
            check_origin(buf_str(&origin), &head);
        (void)egress_allows(allow, 4, str_of(head.host), head.port, NULL);
    }
    {
        AUTO(free) char *entry = size ? strndup((const char *)data, size) : strdup("");
        const char *list[] = { entry };
        bool exact;

        (void)egress_allows(list, 1, STR("a.example.com"), 443, &exact);
    }
    return 0;
}
