/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as content of a file in any encoding, as a repository's name, as a line of passwd and
 * of /proc: no crash; what is encoded is valid UTF-8 without NUL, and what keeps bytes gives them
 * back.
 */
#include <assert.h>
#include <stdlib.h>

#include "agent/git.h"
#include "agent/health_int.h"
#include "agent/pty.h"
#include "agent/text.h"
#include "fuzz.h"

static void check_utf8(const struct buf *b)
{
    assert(b->n == 0 || utf8_valid(buf_str(b).p, b->n));
    assert(b->n == 0 || !memchr(buf_str(b).p, 0, b->n));
}

static void there_and_back(enum text_encoding encoding, struct str bytes)
{
    struct buf text, back;
    struct err e;

    buf_init(&text, 16 * MIB);
    buf_init(&back, 16 * MIB);
    if (text_encode(encoding, bytes, &text, &e) == 0) {
        check_utf8(&text);
        assert(text_json_len(buf_str(&text)) >= text.n);
        if (encoding == TEXT_BASE64 || encoding == TEXT_BASE64URL || encoding == TEXT_HEX ||
            encoding == TEXT_LATIN1) {
            assert(text_decode(encoding, buf_str(&text), &back, &e) == 0);
            assert(back.n == bytes.n);
            assert(bytes.n == 0 || memcmp(buf_str(&back).p, bytes.p, bytes.n) == 0);
        }
    }
    buf_clear(&back);
    assert(text_decode(encoding, bytes, &back, &e) == 0); /* of any text, too */
    assert(text_whole(encoding, bytes) <= bytes.n);
    buf_done(&text);
    buf_done(&back);
}

static void lines(struct str bytes)
{
    char *z = str_dup(bytes);
    struct pty_user user = { 0 };
    struct cpu_times cpu = { 0 };
    struct arena a = { 0 };
    uint64_t n = 0;
    struct err e;

    if (git_repo_check(z, GIT_PROTOCOLS, &e) == 0)
        assert(*z != '-' && strncmp(z, "ext::", 5) != 0);
    if (pty_user_parse(bytes, 0, &user))
        assert(user.name && user.home && user.shell);
    pty_user_done(&user);
    if (cpu_times_parse(bytes, &cpu))
        assert(cpu_percent(&(struct cpu_times){ 0 }, &cpu) <= 100);
    (void)proc_number(bytes, "MemTotal", &n); /* found or not */
    assert(strlen(text_masked(&a, bytes)) <= 2 * bytes.n + 4);
    arena_done(&a);
    free(z);
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str bytes = { (const char *)data, size };

    for (int encoding = TEXT_UTF8; encoding <= TEXT_UTF16LE; encoding++)
        there_and_back((enum text_encoding)encoding, bytes);
    lines(bytes);
    return 0;
}
