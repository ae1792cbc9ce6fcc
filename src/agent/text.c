/* SPDX-License-Identifier: MIT */
/*
 * agent/text.c — the encodings of Node's Buffer, and masking of credentials.
 *
 * Strings of JavaScript are UTF-16; what Node says of a character in ascii and latin1 is said of
 * its units there, so a character beyond U+FFFF counts twice.
 */
#include "agent/text.h"

#include <ctype.h>
#include <strings.h>

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* Bytes at p that are one maximal part of a character without being a whole one, at least 1. */
static size_t broken_part(const unsigned char *p, size_t n)
{
    unsigned char low = 0x80, high = 0xBF;
    size_t want, i;

    if (p[0] >= 0xC2 && p[0] <= 0xDF)
        want = 2;
    else if (p[0] >= 0xE0 && p[0] <= 0xEF)
        want = 3;
    else if (p[0] >= 0xF0 && p[0] <= 0xF4)
        want = 4;
    else
        return 1;
    if (p[0] == 0xE0)
        low = 0xA0;
    else if (p[0] == 0xED)
        high = 0x9F;
    else if (p[0] == 0xF0)
        low = 0x90;
    else if (p[0] == 0xF4)
        high = 0x8F;
    for (i = 1; i < want && i < n; i++) {
        if (p[i] < low || p[i] > high)
            break;
        low = 0x80;
        high = 0xBF;
    }
    return i;
}

/* The length of the good stretch at p: neither NUL nor broken. */
static size_t good_stretch(const char *p, size_t n)
{
    size_t i = 0, step;

    while (i < n && p[i] != '\0') {
        step = utf8_step(p + i, n - i);
        if (step == 0)
            break;
        i += step;
    }
    return i;
}

int text_utf8(struct str bytes, struct buf *ret, struct err *e)
{
    size_t i = 0, n;
    int r = 0;

    while (r == 0 && i < bytes.n) {
        n = good_stretch(bytes.p + i, bytes.n - i);
        r = buf_add(ret, bytes.p + i, n, e);
        i += n;
        if (r == 0 && i < bytes.n) {
            i += broken_part((const unsigned char *)bytes.p + i, bytes.n - i);
            r = buf_add_z(ret, REPLACEMENT, e);
        }
    }
    return r;
}

bool text_encoding_parse(const char *name, enum text_encoding *ret)
{
    static const struct {
        const char *name;
        enum text_encoding encoding;
    } rows[] = {
        { "utf8", TEXT_UTF8 },           { "utf-8", TEXT_UTF8 },    { "ascii", TEXT_ASCII },
        { "latin1", TEXT_LATIN1 },       { "binary", TEXT_LATIN1 }, { "base64", TEXT_BASE64 },
        { "base64url", TEXT_BASE64URL }, { "hex", TEXT_HEX },       { "utf16le", TEXT_UTF16LE },
        { "utf-16le", TEXT_UTF16LE },    { "ucs2", TEXT_UTF16LE },  { "ucs-2", TEXT_UTF16LE },
    };

    for (size_t i = 0; i < LEN(rows); i++)
        if (strcasecmp(rows[i].name, name) == 0) {
            *ret = rows[i].encoding;
            return true;
        }
    return false;
}

/* The character at p, which is well-formed, and its length. */
static size_t code_point(const char *p, size_t n, uint32_t *ret)
{
    const unsigned char *u = (const unsigned char *)p;
    size_t step = utf8_step(p, n);

    switch (step) {
    case 2:
        *ret = (u[0] & 0x1Fu) << 6 | (u[1] & 0x3Fu);
        return 2;
    case 3:
        *ret = (u[0] & 0x0Fu) << 12 | (u[1] & 0x3Fu) << 6 | (u[2] & 0x3Fu);
        return 3;
    case 4:
        *ret = (u[0] & 0x07u) << 18 | (u[1] & 0x3Fu) << 12 | (u[2] & 0x3Fu) << 6 | (u[3] & 0x3Fu);
        return 4;
    default: /* one byte; a bad one cannot come from JSON and counts as itself */
        *ret = u[0];
        return 1;
    }
}

/* The text's UTF-16 units, of each the low byte or, wide, both. */
static int decode_units(struct str text, bool wide, struct buf *ret, struct err *e)
{
    uint32_t c;

    for (size_t i = 0; i < text.n;) {
        unsigned char out[4];
        uint32_t unit[2];
        size_t n_units = 1, n = 0;
        int r;

        i += code_point(text.p + i, text.n - i, &c);
        unit[0] = c;
        if (c > 0xFFFF) {
            unit[0] = 0xD800 + ((c - 0x10000) >> 10);
            unit[1] = 0xDC00 + ((c - 0x10000) & 0x3FF);
            n_units = 2;
        }
        for (size_t k = 0; k < n_units; k++) {
            out[n++] = unit[k] & 0xFF;
            if (wide)
                out[n++] = unit[k] >> 8 & 0xFF;
        }
        r = buf_add(ret, out, n, e);
        if (r < 0)
            return r;
    }
    return 0;
}

/* clang-format off */
#define NO 0xFF /* is no digit of base64, of either alphabet */
static const unsigned char base64_digits[256] = {
    NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO, NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,
    NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,62,NO,62,NO,63, 52,53,54,55,56,57,58,59,60,61,NO,NO,NO,NO,NO,NO,
    NO, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9,10,11,12,13,14, 15,16,17,18,19,20,21,22,23,24,25,NO,NO,NO,NO,63,
    NO,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40, 41,42,43,44,45,46,47,48,49,50,51,NO,NO,NO,NO,NO,
    NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO, NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,
    NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO, NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,
    NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO, NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,
    NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO, NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,NO,
};
/* clang-format on */

/* The whole groups of digits at the start of text, four by four; the number of characters. */
static size_t decode_groups(struct str text, char *out)
{
    const unsigned char *p = (const unsigned char *)text.p;
    size_t i;

    for (i = 0; i + 4 <= text.n; i += 4) {
        uint32_t a = base64_digits[p[i]], b = base64_digits[p[i + 1]];
        uint32_t c = base64_digits[p[i + 2]], d = base64_digits[p[i + 3]];
        uint32_t bits = a << 18 | b << 12 | c << 6 | d;

        if ((a | b | c | d) == NO) /* digits are below 64, together too */
            break;
        *out++ = (char)(bits >> 16);
        *out++ = (char)(bits >> 8 & 0xFF);
        *out++ = (char)(bits & 0xFF);
    }
    return i;
}

static int decode_base64(struct str text, struct buf *ret, struct err *e)
{
    uint32_t bits = 0;
    unsigned n_bits = 0;
    size_t n, i;
    char *out;
    int r;

    r = buf_reserve(ret, text.n / 4 * 3 + 3, &out, e);
    if (r < 0)
        return r;
    i = decode_groups(text, out);
    n = i / 4 * 3;
    for (; i < text.n && text.p[i] != '='; i++) {
        unsigned char v = base64_digits[(unsigned char)text.p[i]];

        if (v == NO)
            continue;
        bits = (bits << 6 | v) & 0xFFFFFF;
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            out[n++] = (char)(bits >> n_bits & 0xFF);
        }
    }
    buf_commit(ret, n);
    return 0;
}

static int decode_hex(struct str text, struct buf *ret, struct err *e)
{
    struct err bad;
    int r;

    for (size_t i = 0; i + 1 < text.n; i += 2) {
        unsigned char byte;

        if (hex_parse((struct str){ text.p + i, 2 }, &byte, 1, &bad) < 0)
            return 0;
        r = buf_add(ret, &byte, 1, e);
        if (r < 0)
            return r;
    }
    return 0;
}

int text_decode(enum text_encoding encoding, struct str text, struct buf *ret, struct err *e)
{
    switch (encoding) {
    case TEXT_UTF8:
        break;
    case TEXT_ASCII:
    case TEXT_LATIN1:
        return decode_units(text, false, ret, e);
    case TEXT_UTF16LE:
        return decode_units(text, true, ret, e);
    case TEXT_BASE64:
    case TEXT_BASE64URL:
        return decode_base64(text, ret, e);
    case TEXT_HEX:
        return decode_hex(text, ret, e);
    }
    return buf_add_str(ret, text, e);
}

static int add_code_point(struct buf *ret, uint32_t c, struct err *e)
{
    char out[4];
    size_t n = 0;

    if (c < 0x80) {
        out[n++] = (char)c;
    } else if (c < 0x800) {
        out[n++] = (char)(0xC0 | c >> 6);
        out[n++] = (char)(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        out[n++] = (char)(0xE0 | c >> 12);
        out[n++] = (char)(0x80 | (c >> 6 & 0x3F));
        out[n++] = (char)(0x80 | (c & 0x3F));
    } else {
        out[n++] = (char)(0xF0 | c >> 18);
        out[n++] = (char)(0x80 | (c >> 12 & 0x3F));
        out[n++] = (char)(0x80 | (c >> 6 & 0x3F));
        out[n++] = (char)(0x80 | (c & 0x3F));
    }
    return buf_add(ret, out, n, e);
}

static int no_nul(struct err *e)
{
    return err_set(e, ERR_INVALID, "the file holds NUL characters: read it as base64");
}

/* ascii: seven bits of each byte, as Node has it. */
static int encode_bytes(struct str bytes, bool ascii, struct buf *ret, struct err *e)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < bytes.n; i++) {
        unsigned char c = (unsigned char)bytes.p[i];

        if (ascii)
            c &= 0x7F;
        if (c == 0 && !ascii)
            return no_nul(e);
        r = c == 0 ? buf_add_z(ret, REPLACEMENT, e) : add_code_point(ret, c, e);
    }
    return r;
}

static uint32_t unit_at(struct str bytes, size_t i)
{
    return (unsigned char)bytes.p[i] | (uint32_t)(unsigned char)bytes.p[i + 1] << 8;
}

static int encode_utf16(struct str bytes, struct buf *ret, struct err *e)
{
    size_t i = 0;
    int r = 0;

    while (r == 0 && i + 1 < bytes.n) {
        uint32_t c = unit_at(bytes, i), low;

        i += 2;
        if (c == 0)
            return no_nul(e);
        if (c >= 0xD800 && c <= 0xDFFF) {
            low = c <= 0xDBFF && i + 1 < bytes.n ? unit_at(bytes, i) : 0;
            if (low >= 0xDC00 && low <= 0xDFFF) {
                c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
                i += 2;
            } else {
                c = 0xFFFD;
            }
        }
        r = add_code_point(ret, c, e);
    }
    return r;
}

static int encode_base64(struct str bytes, bool url, struct buf *ret, struct err *e)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const char *digits = url ? safe : plain;
    const unsigned char *p = (const unsigned char *)bytes.p;
    size_t n = 0;
    char *out;
    int r;

    r = buf_reserve(ret, bytes.n / 3 * 4 + 4, &out, e);
    if (r < 0)
        return r;
    for (size_t i = 0; i < bytes.n; i += 3) {
        size_t left = bytes.n - i;
        uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                     (left > 2 ? p[i + 2] : 0);

        out[n++] = digits[v >> 18 & 63];
        out[n++] = digits[v >> 12 & 63];
        if (left > 1)
            out[n++] = digits[v >> 6 & 63];
        else if (!url)
            out[n++] = '=';
        if (left > 2)
            out[n++] = digits[v & 63];
        else if (!url)
            out[n++] = '=';
    }
    buf_commit(ret, n);
    return 0;
}

static int encode_hex(struct str bytes, struct buf *ret, struct err *e)
{
    char *out;
    int r;

    r = buf_reserve(ret, 2 * bytes.n + 1, &out, e);
    if (r < 0)
        return r;
    hex_format((const unsigned char *)bytes.p, bytes.n, out);
    buf_commit(ret, 2 * bytes.n);
    return 0;
}

int text_encode(enum text_encoding encoding, struct str bytes, struct buf *ret, struct err *e)
{
    switch (encoding) {
    case TEXT_UTF8:
        break;
    case TEXT_ASCII:
        return encode_bytes(bytes, true, ret, e);
    case TEXT_LATIN1:
        return encode_bytes(bytes, false, ret, e);
    case TEXT_UTF16LE:
        return encode_utf16(bytes, ret, e);
    case TEXT_BASE64:
        return encode_base64(bytes, false, ret, e);
    case TEXT_BASE64URL:
        return encode_base64(bytes, true, ret, e);
    case TEXT_HEX:
        return encode_hex(bytes, ret, e);
    }
    return text_utf8(bytes, ret, e);
}

size_t text_whole(enum text_encoding encoding, struct str bytes)
{
    const unsigned char *p = (const unsigned char *)bytes.p;
    size_t back;

    if (encoding == TEXT_UTF16LE) {
        bytes.n -= bytes.n % 2;
        if (bytes.n >= 2 && (p[bytes.n - 1] & 0xFC) == 0xD8)
            bytes.n -= 2; /* the first half of a pair */
        return bytes.n;
    }
    if (encoding != TEXT_UTF8)
        return bytes.n;
    for (back = 1; back <= 3 && back <= bytes.n; back++) {
        size_t at = bytes.n - back;

        if (p[at] < 0x80)
            break;
        if (p[at] < 0xC0)
            continue;
        if (p[at] >= 0xC2 && p[at] <= 0xF4 && utf8_step(bytes.p + at, back) == 0 &&
            broken_part(p + at, back) == back)
            return at;
        break;
    }
    return bytes.n;
}

size_t text_json_len(struct str text)
{
    size_t n = 0;

    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];

        if (c == '"' || c == '\\')
            n += 2;
        else
            n += c < 0x20 || c == 0x7F ? 6 : 1;
    }
    return n;
}

/* The end of the credentials in the authority that begins at i, at its '@'; i: there are none. */
static size_t user_end(struct str text, size_t i)
{
    size_t end = i;

    for (size_t k = i;
         k < text.n && !isspace((unsigned char)text.p[k]) && !strchr("/?#\"'`|;<>", text.p[k]); k++)
        if (text.p[k] == '@')
            end = k;
    return end;
}

static size_t word_end(struct str text, size_t i)
{
    while (i < text.n && !isspace((unsigned char)text.p[i]) && !strchr("\"'`|;<>", text.p[i]))
        i++;
    return i;
}

char *text_masked(struct arena *a, struct str text)
{
    static const char mask[] = "***";
    char *out = arena_raw(a, 2 * text.n + 4); /* "://u@" and "Bearer t" grow by at most two */
    size_t n = 0, i = 0, end;

    while (i < text.n) {
        if (text.n - i > 3 && memcmp(text.p + i, "://", 3) == 0) {
            memcpy(out + n, "://", 3);
            n += 3;
            i += 3;
            end = user_end(text, i);
        } else if (text.n - i > 7 && strncasecmp(text.p + i, "bearer ", 7) == 0) {
            memcpy(out + n, text.p + i, 7);
            n += 7;
            i += 7;
            end = word_end(text, i);
        } else {
            out[n++] = text.p[i++];
            continue;
        }
        if (end > i) {
            memcpy(out + n, mask, 3);
            n += 3;
            i = end;
        }
    }
    out[n] = '\0';
    return out;
}
