/* SPDX-License-Identifier: MIT */
/* The pure parts of WebSocket: UTF-8 in pieces, frames both ways, the handshake's texts. */
#include <stdlib.h>

#include "base/str.h"
#include "net/ws_int.h"
#include "test.h"

/* --- UTF-8 --- */

static const struct {
    const char *text;
    size_t fails_at; /* the byte at which it is known to be bad, SIZE_MAX: never */
    bool complete;
} texts[] = {
    { "", SIZE_MAX, true },
    { "plain", SIZE_MAX, true },
    { "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", SIZE_MAX, true },
    { "\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf4\x8f\xbf\xbf", SIZE_MAX, true },
    { "\xef\xbf\xbe\xef\xb7\x90", SIZE_MAX, true }, /* noncharacters are well-formed */
    { "\xc3", SIZE_MAX, false },
    { "\xe2\x82", SIZE_MAX, false },
    { "\xf0\x9f\x98", SIZE_MAX, false },
    { "a\x80", 1, false },
    { "\xc0\xaf", 0, false },
    { "\xc1\xbf", 0, false },
    { "\xe0\x80\xaf", 1, false },
    { "\xe0\x9f\xbf", 1, false },
    { "\xed\xa0\x80", 1, false },
    { "\xed\xbf\xbf", 1, false },
    { "\xf0\x80\x80\xaf", 1, false },
    { "\xf4\x90\x80\x80", 1, false },
    { "\xf5\x80\x80\x80", 0, false },
    { "\xff", 0, false },
    { "\xfe", 0, false },
    { "\xc3\x28", 1, false },
    { "\xe2\x28\xa1", 1, false },
    { "\xe2\x82\x28", 2, false },
    { "ok\xce\xba\xed\xa0\x80"
      "edited",
      5, false },
};

TEST(utf8_is_refused_at_the_first_impossible_byte)
{
    for (size_t i = 0; i < LEN(texts); i++) {
        struct ws_utf8 whole = { 0 }, bytewise = { 0 };
        size_t n = strlen(texts[i].text), at = SIZE_MAX;

        CHECK_INT(ws_utf8_feed(&whole, texts[i].text, n), texts[i].fails_at == SIZE_MAX);
        for (size_t k = 0; k < n && at == SIZE_MAX; k++)
            if (!ws_utf8_feed(&bytewise, texts[i].text + k, 1))
                at = k;
        CHECK_INT(at, texts[i].fails_at);
        if (at == SIZE_MAX)
            CHECK_INT(ws_utf8_complete(&bytewise), texts[i].complete);
        CHECK_INT(utf8_valid(texts[i].text, n), at == SIZE_MAX && texts[i].complete);
    }
}

/* --- frames --- */

TEST(frame_heads_have_the_shortest_length)
{
    static const struct {
        uint64_t n;
        const char *hex;
    } cases[] = {
        { 0, "8100" },
        { 125, "817d" },
        { 126, "817e007e" },
        { 65535, "817effff" },
        { 65536, "817f0000000000010000" },
    };
    static const unsigned char mask[4] = { 1, 2, 3, 4 };
    unsigned char head[WS_FRAME_HEAD_MAX];
    char hex[2 * WS_FRAME_HEAD_MAX + 1];

    for (size_t i = 0; i < LEN(cases); i++) {
        size_t n = ws_frame_head(WS_OP_TEXT, cases[i].n, NULL, head);

        hex_format(head, n, hex);
        CHECK_STR(hex, cases[i].hex);
        CHECK_INT(ws_frame_head(WS_OP_TEXT, cases[i].n, mask, head), n + 4);
        CHECK(memcmp(head + n, mask, 4) == 0 && (head[1] & 0x80));
    }
}

TEST(masking_twice_gives_the_text_back)
{
    static const unsigned char mask[4] = { 0x37, 0xfa, 0x21, 0x3d };
    char text[100], once[100], twice[100];

    for (size_t n = 0; n < sizeof(text); n++) {
        for (size_t i = 0; i < n; i++)
            text[i] = (char)(i * 3);
        ws_frame_mask(text, n, mask, once);
        ws_frame_mask(once, n, mask, twice);
        CHECK(memcmp(text, twice, n) == 0);
        for (size_t i = 0; i < n; i++)
            CHECK_INT((unsigned char)once[i], (unsigned char)text[i] ^ mask[i % 4]);
    }
}

/* Frames as hex, fed whole and byte by byte; what came out, as text. */
static const char *receive(const char *hex, bool masked, size_t max, size_t step)
{
    static const char *const kinds[] = { "more", "message", "ping", "pong", "close", "fail" };
    static char log[2048];
    unsigned char bytes[512];
    size_t n = strlen(hex) / 2, len = 0;
    struct ws_rx_event ev;
    struct ws_rx rx;

    log[0] = '\0';
    if (hex_parse(str_of(hex), bytes, n, NULL) < 0)
        return "bad hex in the test";
    ws_rx_init(&rx, masked, max);
    for (size_t i = 0; i < n; i += step) {
        ws_rx_give(&rx, (char *)bytes + i, n - i < step ? n - i : step);
        do {
            ws_rx_next(&rx, &ev);
            if (ev.kind == WS_RX_MORE)
                break;
            len += (size_t)snprintf(log + len, sizeof(log) - len, "%s", len ? " | " : "");
            len += (size_t)snprintf(log + len, sizeof(log) - len, "%s", kinds[ev.kind]);
            if (ev.kind == WS_RX_MESSAGE)
                len += (size_t)snprintf(log + len, sizeof(log) - len, " %d", ev.opcode);
            if (ev.kind == WS_RX_CLOSE || ev.kind == WS_RX_FAIL)
                len += (size_t)snprintf(log + len, sizeof(log) - len, " %u", ev.code);
            if (ev.kind != WS_RX_FAIL)
                len += (size_t)snprintf(log + len, sizeof(log) - len, " '" STR_FMT "'",
                                        STR_ARG(ev.data));
        } while (ev.kind != WS_RX_FAIL);
        if (ev.kind == WS_RX_FAIL)
            break;
    }
    if (ev.kind == WS_RX_MORE && !ws_rx_idle(&rx))
        len += (size_t)snprintf(log + len, sizeof(log) - len, "%s", len ? " | ..." : "...");
    ws_rx_done(&rx);
    return log;
}

/* clang-format off */
static const struct {
    const char *what, *hex, *log;
} unmasked[] = {
    { "a text", "8105" "48656c6c6f", "message 1 'Hello'" },
    { "an empty text", "8100", "message 1 ''" },
    { "a binary", "8202" "4142", "message 2 'AB'" },
    { "two messages at once", "810141" "820142", "message 1 'A' | message 2 'B'" },
    { "fragments", "010348656c" "80026c6f", "message 1 'Hello'" },
    { "empty fragments", "0100" "0000" "8000", "message 1 ''" },
    { "an empty last fragment", "010141" "8000", "message 1 'A'" },
    { "a ping between fragments", "010141" "89027069" "800142", "ping 'pi' | message 1 'AB'" },
    { "an empty ping", "8900", "ping ''" },
    { "a pong", "8a0141", "pong 'A'" },
    { "a ping and half a message", "8900" "010141", "ping '' | ..." },
    { "half a head", "81", "..." },
    { "half a long head", "817e01", "..." },
    { "half a payload", "810241", "..." },
    { "a close", "8800", "close 1005 ''" },
    { "a close with code", "880203e8", "close 1000 ''" },
    { "a close with reason", "880503e8627965", "close 1000 'bye'" },
    { "a close of an application", "88020bb8", "close 3000 ''" },
    { "nothing after a failure", "8f00" "810141", "fail 1002" },

    { "reserved bit 1", "c10141", "fail 1002" },
    { "reserved bit 2", "a10141", "fail 1002" },
    { "reserved bit 3", "910141", "fail 1002" },
    { "reserved bit on a ping", "d900", "fail 1002" },
    { "a mask nobody asked for", "8181" "00000000" "41", "fail 1002" },
    { "opcode 3", "830141", "fail 1002" },
    { "opcode 7", "8700", "fail 1002" },
    { "opcode 11", "8b00", "fail 1002" },
    { "opcode 15", "8f00", "fail 1002" },
    { "a fragmented ping", "090141", "fail 1002" },
    { "a long ping", "897e007e", "fail 1002" },
    { "a long close", "887e007e", "fail 1002" },
    { "a continuation of nothing", "800141", "fail 1002" },
    { "a message inside a message", "010141" "810142", "fail 1002" },
    { "a length not in its shortest form", "817e007d", "fail 1002" },
    { "a longer one", "817f000000000000ffff", "fail 1002" },
    { "a length of 2^63", "827f8000000000000000", "fail 1002" },
    { "a message too big", "8221" "414141414141414141414141414141414141414141414141414141414141414141", "fail 1009" },
    { "fragments too big", "021c" "41414141414141414141414141414141414141414141414141414141" "800541", "fail 1009" },
    { "a huge promise", "827f7fffffffffffffff41", "fail 1009" },
    { "bad UTF-8", "8101ff", "fail 1007" },
    { "bad UTF-8 in the first fragment", "0102c328", "fail 1007" },
    { "a character over two fragments", "0101c3" "8001a4", "message 1 '\xc3\xa4'" },
    { "a character over two fragments and a ping", "0101c3" "8900" "8001a4", "ping '' | message 1 '\xc3\xa4'" },
    { "text ending in a character", "8101c3", "fail 1007" },
    { "text ending in a character by an empty fragment", "0101c3" "8000", "fail 1007" },
    { "any bytes in a binary", "8201ff", "message 2 '\xff'" },
    { "a close of one byte", "880103", "fail 1002" },
    { "close code 0", "88020000", "fail 1002" },
    { "close code 999", "880203e7", "fail 1002" },
    { "close code 1004", "880203ec", "fail 1002" },
    { "close code 1005", "880203ed", "fail 1002" },
    { "close code 1006", "880203ee", "fail 1002" },
    { "close code 1012, registered later", "880203f4", "close 1012 ''" },
    { "close code 1013, registered later", "880203f5", "close 1013 ''" },
    { "close code 1015", "880203f7", "fail 1002" },
    { "close code 2999", "88020bb7", "fail 1002" },
    { "close code 5000", "88021388", "fail 1002" },
    { "a close reason that is not UTF-8", "880403e8c328", "fail 1007" },
    { "a close reason ending in a character", "880303e8c3", "fail 1007" },
};

static const struct {
    const char *what, *hex, *log;
} masked[] = {
    { "a text", "8185" "37fa213d" "7f9f4d5158", "message 1 'Hello'" },
    { "an empty text", "8180" "00000000", "message 1 ''" },
    { "two messages", "8181" "01010101" "40" "8181" "02020202" "40", "message 1 'A' | message 1 'B'" },
    { "a ping", "8982" "00000000" "4142", "ping 'AB'" },
    { "a close", "8882" "00000000" "03e8", "close 1000 ''" },
    { "no mask", "810141", "fail 1002" },
    { "no mask on a ping", "8900", "fail 1002" },
    { "half a mask", "8181" "0000", "..." },
};
/* clang-format on */

TEST(frames_from_a_server_are_received_or_refused)
{
    for (size_t i = 0; i < LEN(unmasked); i++)
        for (size_t step = 1; step < 40; step += step < 4 ? 1 : 9) {
            const char *log = receive(unmasked[i].hex, false, 32, step);

            if (strcmp(log, unmasked[i].log) != 0)
                printf("# %s, %zu bytes at a time\n", unmasked[i].what, step);
            CHECK_STR(log, unmasked[i].log);
        }
}

TEST(frames_from_a_client_are_received_or_refused)
{
    for (size_t i = 0; i < LEN(masked); i++)
        for (size_t step = 1; step < 40; step += step < 4 ? 1 : 9) {
            const char *log = receive(masked[i].hex, true, 32, step);

            if (strcmp(log, masked[i].log) != 0)
                printf("# %s, %zu bytes at a time\n", masked[i].what, step);
            CHECK_STR(log, masked[i].log);
        }
}

TEST(bad_text_fails_before_its_frame_ends)
{
    /* A head that promises 16 bytes; the third is impossible and the rest never comes. */
    CHECK_STR(receive("8110"
                      "4141ff",
                      false, 32, 1),
              "fail 1007");
    CHECK_STR(receive("0110"
                      "41ed",
                      false, 32, 1),
              "...");
    CHECK_STR(receive("0110"
                      "41eda0",
                      false, 32, 1),
              "fail 1007");
}

TEST(messages_of_all_sizes_come_through_whole)
{
    static const size_t sizes[] = { 0, 1, 125, 126, 127, 128, 4083, 4096, 65535, 65536, 200000 };

    for (size_t i = 0; i < LEN(sizes); i++)
        for (size_t step = 1000; step < 300000; step *= 17) {
            size_t n = sizes[i], given = 0, head;
            unsigned char *bytes = malloc(n + WS_FRAME_HEAD_MAX);
            struct ws_rx_event ev = { 0 };
            struct ws_rx rx;

            head = ws_frame_head(WS_OP_BINARY, n, NULL, bytes);
            for (size_t k = 0; k < n; k++)
                bytes[head + k] = (unsigned char)(k * 5 + k / 256);
            ws_rx_init(&rx, false, 200000);
            while (given < head + n) {
                size_t piece = head + n - given < step ? head + n - given : step;

                CHECK_INT(ev.kind, WS_RX_MORE);
                ws_rx_give(&rx, (char *)bytes + given, piece);
                given += piece;
                ws_rx_next(&rx, &ev);
            }
            CHECK_INT(ev.kind, WS_RX_MESSAGE);
            CHECK_INT(ev.data.n, n);
            CHECK(n == 0 || memcmp(ev.data.p, bytes + head, n) == 0);
            ws_rx_next(&rx, &ev);
            CHECK_INT(ev.kind, WS_RX_MORE);
            CHECK(ws_rx_idle(&rx));
            CHECK_INT(rx.message.cap, 0); /* an idle socket keeps no buffer */
            ws_rx_done(&rx);
            free(bytes);
        }
}

/* --- handshake --- */

TEST(accept_key_is_the_one_of_the_rfc)
{
    char accept[29];

    ws_accept_key(STR("dGhlIHNhbXBsZSBub25jZQ=="), accept);
    CHECK_STR(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

TEST(base64_pads)
{
    static const struct {
        const char *in, *out;
    } cases[] = { { "", "" },
                  { "f", "Zg==" },
                  { "fo", "Zm8=" },
                  { "foo", "Zm9v" },
                  { "foob", "Zm9vYg==" },
                  { "fooba", "Zm9vYmE=" },
                  { "foobar", "Zm9vYmFy" } };
    char out[16];

    for (size_t i = 0; i < LEN(cases); i++) {
        ws_base64((const unsigned char *)cases[i].in, strlen(cases[i].in), out);
        CHECK_STR(out, cases[i].out);
    }
}

TEST(keys_are_sixteen_bytes)
{
    unsigned char nonce[16] = { 0xff, 0xfe, [15] = 0x7f };
    char key[WS_KEY_TEXT];

    ws_base64(nonce, sizeof(nonce), key);
    CHECK(ws_key_valid(str_of(key)));
    CHECK(ws_key_valid(STR("dGhlIHNhbXBsZSBub25jZQ==")));
    CHECK(!ws_key_valid(STR("dGhlIHNhbXBsZSBub25jZR==")));
    CHECK(!ws_key_valid(STR("dGhlIHNhbXBsZSBub25jZQ=")));
    CHECK(!ws_key_valid(STR("dGhlIHNhbXBsZSBub25j ZQ=")));
    CHECK(!ws_key_valid(STR("dGhlIHNhbXBsZSBub25j\0Q==")));
    CHECK(!ws_key_valid(STR("")));
    CHECK(!ws_key_valid((struct str){ 0 }));
}

TEST(tokens_are_found_in_lists)
{
    CHECK(ws_has_token(STR("Upgrade"), "upgrade"));
    CHECK(ws_has_token(STR("keep-alive, Upgrade"), "upgrade"));
    CHECK(ws_has_token(STR("a ,UPGRADE\t,b"), "upgrade"));
    CHECK(!ws_has_token(STR("upgraded"), "upgrade"));
    CHECK(!ws_has_token(STR("up grade"), "upgrade"));
    CHECK(!ws_has_token((struct str){ 0 }, "upgrade"));
}

#define GOOD_STATUS  "HTTP/1.1 101 Switching Protocols\r\n"
#define GOOD_HEADERS "Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n"
#define GOOD_ACCEPT  "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"

TEST(a_client_judges_the_answer)
{
    static const struct {
        const char *head, *why; /* NULL: taken */
    } cases[] = {
        { GOOD_STATUS GOOD_HEADERS GOOD_ACCEPT, NULL },
        { GOOD_STATUS GOOD_HEADERS GOOD_ACCEPT "Sec-WebSocket-Protocol: chat\r\n", NULL },
        { "HTTP/1.1 101\r\n" GOOD_HEADERS GOOD_ACCEPT "X: y\r\n", NULL },
        { GOOD_STATUS GOOD_HEADERS GOOD_ACCEPT "Sec-WebSocket-Protocol: tea\r\n", "subprotocol" },
        { GOOD_STATUS GOOD_HEADERS GOOD_ACCEPT "Sec-WebSocket-Extensions: x\r\n", "extension" },
        { GOOD_STATUS GOOD_HEADERS GOOD_ACCEPT GOOD_ACCEPT, "two Sec-WebSocket-Accept" },
        { GOOD_STATUS GOOD_HEADERS, "wrong Sec-WebSocket-Accept" },
        { GOOD_STATUS GOOD_HEADERS "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=\r\n",
          "wrong Sec-WebSocket-Accept" },
        { GOOD_STATUS "Upgrade: websocket\r\n" GOOD_ACCEPT, "Connection" },
        { GOOD_STATUS "Connection: Upgrade\r\n" GOOD_ACCEPT, "does not upgrade" },
        { GOOD_STATUS "Upgrade: h2c\r\nConnection: Upgrade\r\n" GOOD_ACCEPT, "does not upgrade" },
        { "HTTP/1.1 200 OK\r\n" GOOD_HEADERS GOOD_ACCEPT, "200 instead of 101" },
        { "HTTP/1.0 101 Switching Protocols\r\n" GOOD_HEADERS GOOD_ACCEPT, "not HTTP/1.1" },
        { "HTTP/1.1 1011\r\n" GOOD_HEADERS GOOD_ACCEPT, "instead of 101" },
        { "SSH-2.0\r\n", "not HTTP/1.1" },
        { "", "empty" },
        { GOOD_STATUS GOOD_HEADERS GOOD_ACCEPT "no colon\r\n", "no header" },
        { GOOD_STATUS GOOD_HEADERS GOOD_ACCEPT "X: y\n", "bare line feed" },
        { GOOD_STATUS "\r\n" GOOD_HEADERS GOOD_ACCEPT, "no header" },
    };

    for (size_t i = 0; i < LEN(cases); i++) {
        struct err e = { 0 };
        int r = ws_check_answer(str_of(cases[i].head), "dGhlIHNhbXBsZSBub25jZQ==", "chat", &e);

        if ((r == 0) != !cases[i].why || (cases[i].why && !strstr(e.msg, cases[i].why)))
            printf("# case %zu: %d %s\n", i, r, e.msg);
        CHECK_INT(r, cases[i].why ? -ERR_UNAVAILABLE : 0);
        CHECK(!cases[i].why || strstr(e.msg, cases[i].why));
    }
}
