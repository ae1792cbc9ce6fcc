/* SPDX-License-Identifier: MIT */
/*
 * net/outbound.c — the table of refused ranges and how an address is held against it. All is done
 * on 128 bits: IPv4 becomes ::ffff:a.b.c.d, and an IPv6 address that carries an IPv4 one inside
 * (6to4, NAT64, IPv4-compatible) is judged as both.
 */
#include "net/outbound.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/macro.h"

#define V4(a, b, c, d) \
    { \
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d \
    }

/* clang-format off */
static const struct refused {
    struct cidr range;
    const char *why;
} refused[] = {
    { { V4(169, 254, 0, 0), 96 + 16 },     "link-local address" },
    { { V4(100, 100, 100, 200), 128 },     "metadata address" },
    { { V4(168, 63, 129, 16), 128 },       "metadata address" },
    { { V4(192, 0, 0, 192), 128 },         "metadata address" },
    { { V4(0, 0, 0, 0), 96 + 8 },          "unspecified address" },
    { { V4(224, 0, 0, 0), 96 + 4 },        "multicast address" },
    { { V4(255, 255, 255, 255), 128 },     "broadcast address" },
    { { { 0xfe, 0x80 }, 10 },              "link-local address" },
    { { { 0xff }, 8 },                     "multicast address" },
    { { { 0 }, 128 },                      "unspecified address" },
    { { { 0xfd, 0x20, 0x00, 0xce, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x02, 0x54 }, 128 }, "metadata address" },
    { { { 0xfd, 0x00, 0x0e, 0xc2 }, 32 },   "metadata address" }, /* EC2: ::254, and credentials of pods at ::23 */
};

/* Where IPv6 carries IPv4, and at which byte. */
static const struct clothes {
    struct cidr range;
    unsigned at;
} clothes[] = {
    { { { 0 }, 96 }, 12 },                              /* ::a.b.c.d, IPv4-compatible */
    { { { [8] = 0xff, [9] = 0xff }, 96 }, 12 },         /* ::ffff:0:a.b.c.d, RFC 2765 */
    { { { 0x20, 0x02 }, 16 }, 2 },                      /* 6to4 */
    { { { 0x00, 0x64, 0xff, 0x9b }, 96 }, 12 },         /* NAT64, well-known prefix */
    { { { 0x00, 0x64, 0xff, 0x9b, 0x00, 0x01 }, 48 }, 12 }, /* NAT64, local use (RFC 8215) */
};
/* clang-format on */

static bool covers(const struct cidr *c, const unsigned char addr[16])
{
    unsigned whole = c->bits / 8, rest = c->bits % 8;

    if (memcmp(c->addr, addr, whole) != 0)
        return false;
    return rest == 0 || ((c->addr[whole] ^ addr[whole]) >> (8 - rest)) == 0;
}

static bool listed(const struct cidr *rows, size_t n, const unsigned char addr[16])
{
    for (size_t i = 0; i < n; i++)
        if (covers(&rows[i], addr))
            return true;
    return false;
}

static void map_v4(const unsigned char v4[4], unsigned char out[16])
{
    static const unsigned char prefix[12] = { [10] = 0xff, [11] = 0xff };

    memcpy(out, prefix, 12);
    memcpy(out + 12, v4, 4);
}

/* NULL: allowed. */
static const char *judge(const struct outbound_policy *p, const unsigned char addr[16])
{
    if (listed(p->deny, p->n_deny, addr))
        return "address denied by outbound.deny";
    if (listed(p->allow, p->n_allow, addr))
        return NULL;
    for (size_t i = 0; i < LEN(refused); i++)
        if (covers(&refused[i].range, addr))
            return refused[i].why;
    return NULL;
}

/* ::1 lies in the IPv4-compatible range but means loopback. */
static bool is_loopback6(const unsigned char addr[16])
{
    static const unsigned char one[16] = { [15] = 1 };

    return memcmp(addr, one, 16) == 0;
}

static const char *judge6(const struct outbound_policy *p, const unsigned char addr[16])
{
    const char *why = judge(p, addr);
    unsigned char inner[16];

    if (is_loopback6(addr) || listed(p->allow, p->n_allow, addr))
        return why;
    for (size_t i = 0; i < LEN(clothes) && !why; i++)
        if (covers(&clothes[i].range, addr)) {
            map_v4(addr + clothes[i].at, inner);
            why = judge(p, inner);
        }
    return why;
}

bool outbound_allowed(const struct outbound_policy *p, const struct sockaddr *addr,
                      const char **ret_why)
{
    unsigned char bytes[16];
    const char *why;

    if (!p)
        return true;
    if (addr->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)addr;

        map_v4((const unsigned char *)&in->sin_addr, bytes);
        why = judge(p, bytes);
    } else if (addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)addr;

        why = judge6(p, in->sin6_addr.s6_addr);
    } else {
        why = "not an internet address";
    }
    if (why)
        *ret_why = why;
    return !why;
}

/* "10.0.0.0/8" or "192.0.2.1"; bits below the prefix are cleared. */
static int parse_cidr(struct str text, struct cidr *ret, struct err *e)
{
    struct str rest = text, host;
    unsigned char v4[4];
    struct cidr c = { .bits = 128 };
    char name[INET6_ADDRSTRLEN];
    long long bits, most;

    if (!str_split(&rest, '/', &host) || host.n >= sizeof(name))
        return err_set(e, ERR_INVALID, "'" STR_FMT "' is not an address range", STR_ARG(text));
    fmt_z(name, sizeof(name), STR_FMT, STR_ARG(host));
    if (inet_pton(AF_INET, name, v4) == 1) {
        map_v4(v4, c.addr);
        most = 32;
    } else if (inet_pton(AF_INET6, name, c.addr) == 1) {
        most = 128;
    } else {
        return err_set(e, ERR_INVALID, "'" STR_FMT "' is not an address range", STR_ARG(text));
    }
    if (host.n < text.n) {
        if (int_parse(rest, 0, most, &bits, e) < 0)
            return err_wrap(e, "'" STR_FMT "'", STR_ARG(text));
        c.bits = (unsigned)(128 - most + bits);
    }
    for (unsigned bit = c.bits; bit < 128; bit++)
        c.addr[bit / 8] &= (unsigned char)~(0x80 >> bit % 8);
    *ret = c;
    return 0;
}

static int parse_list(const char *text, struct cidr rows[OUTBOUND_ROWS], size_t *ret_n,
                      struct err *e)
{
    struct str rest = str_of(text), part;
    size_t n = 0;
    int r;

    while (rest.n > 0 && str_split(&rest, ',', &part)) {
        part = str_trim(part);
        if (part.n == 0)
            continue;
        if (n == OUTBOUND_ROWS)
            return err_set(e, ERR_LIMIT, "over %d address ranges", OUTBOUND_ROWS);
        r = parse_cidr(part, &rows[n], e);
        if (r < 0)
            return r;
        n++;
    }
    *ret_n = n;
    return 0;
}

int outbound_policy_parse(const char *allow, const char *deny, struct outbound_policy *ret,
                          struct err *e)
{
    struct outbound_policy p = { 0 };
    int r;

    r = parse_list(allow ? allow : "", p.allow, &p.n_allow, e);
    if (r < 0)
        return err_wrap(e, "outbound.allow");
    r = parse_list(deny ? deny : "", p.deny, &p.n_deny, e);
    if (r < 0)
        return err_wrap(e, "outbound.deny");
    *ret = p;
    return 0;
}
