/* SPDX-License-Identifier: MIT */
/*
 * Tests of base/secret.c and secret_file.c.
 */
#include "base/secret.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

static struct arena arena;
static const unsigned char key[SECRET_KEY] = "0123456789abcdef0123456789abcde";
static const unsigned char other[SECRET_KEY] = "another key, and not the first!";

TEST(sha256_gives_the_published_digests)
{
    char hex[2 * SECRET_KEY + 1];

    sha256_hex(STR(""), hex);
    CHECK_STR(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_hex(STR("abc"), hex);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(sha256_of_parts_is_that_of_the_whole)
{
    unsigned char digest[SECRET_KEY];
    char hex[2 * SECRET_KEY + 1];
    struct sha256_sum *sum = sha256_new();

    sha256_add(sum, "a", 1);
    sha256_add(sum, "", 0);
    sha256_add(sum, "bc", 2);
    sha256_end(sum, digest);
    hex_format(digest, sizeof(digest), hex);
    CHECK_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(sha1_gives_the_published_digest)
{
    unsigned char digest[20];
    char hex[41];

    sha1("abc", 3, digest);
    hex_format(digest, sizeof(digest), hex);
    CHECK_STR(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
}

TEST(secrets_compare_whole)
{
    CHECK(secret_eq(STR("abc"), STR("abc")));
    CHECK(!secret_eq(STR("abc"), STR("abd")));
    CHECK(!secret_eq(STR("abc"), STR("ab")));
    CHECK(secret_eq(STR(""), STR("")));
}

TEST(tokens_are_256_bits_behind_their_prefix)
{
    char a[6 + 65], b[6 + 65];

    token_new("chela_", a);
    token_new("chela_", b);
    CHECK_INT(strlen(a), 6 + 64);
    CHECK(strncmp(a, "chela_", 6) == 0);
    CHECK(strcmp(a, b) != 0);
}

TEST(what_is_sealed_opens_again)
{
    static const char *const texts[] = { "", "t", "a longer token with \xc3\xbc" };

    for (size_t i = 0; i < LEN(texts); i++) {
        struct str sealed, twice, plain;

        CHECK_INT(secret_seal(key, STR("agent/ada"), str_of(texts[i]), &arena, &sealed, NULL), 0);
        CHECK_INT(secret_seal(key, STR("agent/ada"), str_of(texts[i]), &arena, &twice, NULL), 0);
        CHECK(str_starts(sealed, STR("v1.")) && sealed.p[11] == '.');
        CHECK(!str_eq(sealed, twice));
        CHECK_INT(secret_open(key, STR("agent/ada"), sealed, &arena, &plain, NULL), 0);
        CHECK(str_eq_z(plain, texts[i]));
    }
    arena_done(&arena);
}

TEST(what_was_changed_or_moved_does_not_open)
{
    struct str sealed, plain = { NULL, 0 };
    struct err e;
    char *copy;

    CHECK_INT(secret_seal(key, STR("agent/ada"), STR("hush"), &arena, &sealed, &e), 0);
    CHECK_INT(secret_open(key, STR("agent/bob"), sealed, &arena, &plain, &e), -ERR_INVALID);
    CHECK_INT(secret_open(other, STR("agent/ada"), sealed, &arena, &plain, &e), -ERR_FORBIDDEN);
    CHECK(strstr(e.msg, "sealed with another key"));
    for (size_t i = 0; i < sealed.n; i++) {
        copy = arena_strndup(&arena, sealed.p, sealed.n);
        copy[i] = copy[i] == '0' ? '1' : '0';
        CHECK(secret_open(key, STR("agent/ada"), (struct str){ copy, sealed.n }, &arena, &plain,
                          &e) < 0);
        CHECK(secret_open(key, STR("agent/ada"), (struct str){ sealed.p, i }, &arena, &plain, &e) <
              0);
    }
    CHECK(plain.p == NULL);
    arena_done(&arena);
}

TEST(a_key_is_hex_or_a_phrase)
{
    unsigned char a[SECRET_KEY], b[SECRET_KEY];
    char hex[2 * SECRET_KEY + 1];
    struct err e;

    hex_format(key, SECRET_KEY, hex);
    CHECK_INT(secret_key_of(str_of(hex), a, &e), 0);
    CHECK(memcmp(a, key, SECRET_KEY) == 0);
    CHECK_INT(secret_key_of(STR("a phrase"), a, &e), 0);
    CHECK_INT(secret_key_of(STR("a phrase"), b, &e), 0);
    CHECK(memcmp(a, b, SECRET_KEY) == 0);
    CHECK_INT(secret_key_of(STR("a phrase "), b, &e), 0);
    CHECK(memcmp(a, b, SECRET_KEY) != 0);
    CHECK_INT(secret_key_of(STR(""), b, &e), -ERR_INVALID);
}

static char dir[64];

static const char *path_in(const char *name)
{
    if (!dir[0]) {
        snprintf(dir, sizeof(dir), "/tmp/secret_test_XXXXXX");
        if (!mkdtemp(dir))
            abort();
    }
    return arena_printf(&arena, "%s/%s", dir, name);
}

static void put(const char *path, const char *text, mode_t mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);

    if (fd < 0 || write(fd, text, strlen(text)) < 0 || fchmod(fd, mode) < 0)
        abort();
    close(fd);
}

TEST(a_key_file_is_made_once_and_private)
{
    const char *path = path_in("made.key");
    unsigned char a[SECRET_KEY], b[SECRET_KEY];
    struct stat st;
    struct err e;

    CHECK_INT(secret_key_file(path, a, &e), 0);
    CHECK_INT(stat(path, &st), 0);
    CHECK_INT(st.st_mode & 07777, 0600);
    CHECK_INT(st.st_nlink, 1);
    CHECK_INT(st.st_size, 65);
    CHECK_INT(secret_key_file(path, b, &e), 0);
    CHECK(memcmp(a, b, SECRET_KEY) == 0);
    unlink(path);
    CHECK_INT(rmdir(dir), 0); /* no temporary file is left */
    dir[0] = '\0';
    arena_done(&arena);
}

TEST(a_key_file_that_others_can_read_or_that_holds_no_key_is_refused)
{
    const char *hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const char *path = path_in("bad.key"), *link = path_in("nowhere/x.key");
    unsigned char out[SECRET_KEY] = { 42 };
    struct err e;

    put(path, hex, 0640);
    CHECK_INT(secret_key_file(path, out, &e), -ERR_FORBIDDEN);
    CHECK(strstr(e.msg, "mode 0640") && strstr(e.msg, "chmod 600"));
    put(path, "too short", 0600);
    CHECK_INT(secret_key_file(path, out, &e), -ERR_INVALID);
    CHECK(!strstr(e.msg, "too short"));
    put(path, arena_printf(&arena, "%s00", hex), 0600);
    CHECK_INT(secret_key_file(path, out, &e), -ERR_INVALID);
    CHECK_INT(out[0], 42);
    put(path, arena_printf(&arena, "%s\n", hex), 0600);
    CHECK_INT(secret_key_file(path, out, &e), 0);
    CHECK_INT(out[31], 31);
    unlink(path);
    CHECK_INT(secret_key_file(link, out, &e), -ERR_NOT_FOUND);
    CHECK_INT(secret_key_file(dir, out, &e), -ERR_FORBIDDEN);
    rmdir(dir);
    dir[0] = '\0';
    arena_done(&arena);
}
