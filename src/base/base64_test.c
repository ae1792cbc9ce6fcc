/* SPDX-License-Identifier: MIT */
/* base/base64_test.c — RFC 4648 §10's vectors, all bytes there and back, and what is no base64. */
#include "base/base64.h"
#include "test.h"

static const struct {
    const char *plain, *coded;
} vectors[] = {
    { "", "" },
    { "f", "Zg==" },
    { "fo", "Zm8=" },
    { "foo", "Zm9v" },
    { "foob", "Zm9vYg==" },
    { "fooba", "Zm9vYmE=" },
    { "foobar", "Zm9vYmFy" },
};

TEST(the_vectors_of_the_standard)
{
    for (size_t i = 0; i < LEN(vectors); i++) {
        struct arena a = { 0 };
        struct str back = { 0 };
        struct err e;

        CHECK_STR(base64_encode(str_of(vectors[i].plain), &a).p, vectors[i].coded);
        CHECK_INT(base64_decode(str_of(vectors[i].coded), &a, &back, &e), 0);
        CHECK(str_eq_z(back, vectors[i].plain));
        arena_done(&a);
    }
}

TEST(all_bytes_come_back_at_every_length)
{
    char bytes[257];

    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (char)(255 - i);
    for (size_t n = 0; n <= sizeof(bytes); n++) {
        struct arena a = { 0 };
        struct str back = { 0 };
        struct err e;

        CHECK_INT(base64_decode(base64_encode((struct str){ bytes, n }, &a), &a, &back, &e), 0);
        CHECK(back.n == n && memcmp(back.p, bytes, n) == 0);
        arena_done(&a);
    }
}

TEST(padding_may_be_missing_and_nothing_else)
{
    static const char *const bad[] = { "Z", "Zm9vY", "Zg=a", "Zm 9v", "Zm9v\n", "-_-_", "Zm9\x01" };
    struct arena a = { 0 };
    struct str back;
    struct err e;

    CHECK_INT(base64_decode(STR("Zg"), &a, &back, &e), 0);
    CHECK(str_eq(back, STR("f")));
    for (size_t i = 0; i < LEN(bad); i++)
        CHECK_INT(base64_decode(str_of(bad[i]), &a, &back, &e), -ERR_INVALID);
    arena_done(&a);
}
