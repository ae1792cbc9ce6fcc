/* SPDX-License-Identifier: MIT */
/* The pure parts: the breaker, the backoff, frames, refusals, hellos and what a device signs. */
#include "base/secret.h"
#include "openclaw/openclaw_int.h"
#include "test.h"

TEST(five_failures_in_a_row_open_the_breaker_for_a_minute_and_two_successes_close_it)
{
    struct oc_breaker b = { 0 };
    uint64_t now = 1000;

    for (int i = 0; i < OC_BREAK_AFTER - 1; i++)
        CHECK(!oc_breaker_bad(&b, now));
    oc_breaker_good(&b); /* in a row */
    for (int i = 0; i < OC_BREAK_AFTER - 1; i++)
        CHECK(!oc_breaker_bad(&b, now));
    CHECK(oc_breaker_lets(&b, now));
    CHECK(oc_breaker_bad(&b, now));
    CHECK(!oc_breaker_bad(&b, now)); /* open already */
    CHECK(!oc_breaker_lets(&b, now + OC_BREAK_MS - 1));
    CHECK(oc_breaker_lets(&b, now + OC_BREAK_MS));
    oc_breaker_good(&b);
    CHECK(b.half);
    oc_breaker_good(&b);
    CHECK(!b.half && !b.open);
}

TEST(a_failure_while_half_open_opens_it_again)
{
    struct oc_breaker b = { 0 };

    for (int i = 0; i < OC_BREAK_AFTER; i++)
        oc_breaker_bad(&b, 0);
    CHECK(oc_breaker_lets(&b, OC_BREAK_MS));
    oc_breaker_good(&b);
    CHECK(oc_breaker_bad(&b, OC_BREAK_MS));
    CHECK(!oc_breaker_lets(&b, 2 * OC_BREAK_MS - 1));
    oc_breaker_met(&b); /* a handshake: it may be tried */
    CHECK(oc_breaker_lets(&b, OC_BREAK_MS) && b.half);
}

TEST(waits_double_up_to_thirty_seconds_with_a_little_chance)
{
    static const uint64_t want[] = { 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000 };

    for (unsigned n = 0; n < LEN(want); n++) {
        CHECK_INT(oc_backoff_ms(OC_BACKOFF_FIRST_MS, OC_BACKOFF_LAST_MS, n, 0), want[n]);
        CHECK_INT(oc_backoff_ms(OC_BACKOFF_FIRST_MS, OC_BACKOFF_LAST_MS, n, 0.9999), want[n] + 100);
    }
    CHECK_INT(oc_backoff_ms(OC_BACKOFF_FIRST_MS, OC_BACKOFF_LAST_MS, 4000000000U, 0), 30000);
}

static struct oc_frame frame;
static struct arena arena;

static int parse(const char *text)
{
    struct err e;

    arena_reset(&arena);
    return oc_frame_parse(str_of(text), &arena, &frame, &e);
}

TEST(frames_are_answers_events_or_neither)
{
    CHECK_INT(parse("{\"type\":\"res\",\"id\":\"7\",\"ok\":true,\"payload\":{\"a\":1}}"), 0);
    CHECK(frame.kind == OC_FRAME_ANSWER && frame.ok && str_eq_z(frame.id, "7") && frame.payload);
    CHECK_INT(parse("{\"type\":\"res\",\"id\":\"7\",\"ok\":\"yes\"}"), 0);
    CHECK(frame.kind == OC_FRAME_ANSWER && !frame.ok && !frame.payload && !frame.error);
    CHECK_INT(parse("{\"type\":\"error\",\"id\":\"7\",\"error\":\"no\"}"), 0);
    CHECK(frame.kind == OC_FRAME_ANSWER && !frame.ok && frame.error);
    CHECK_INT(parse("{\"type\":\"error\",\"error\":\"no\"}"), 0);
    CHECK(frame.kind == OC_FRAME_OTHER);
    CHECK_INT(parse("{\"type\":\"event\",\"event\":\"chat\",\"payload\":{},\"seq\":12}"), 0);
    CHECK(frame.kind == OC_FRAME_EVENT && strcmp(frame.name, "chat") == 0 && frame.seq == 12);
    CHECK_INT(parse("{\"type\":\"evt\",\"event\":\"x\"}"), 0);
    CHECK(frame.kind == OC_FRAME_EVENT && frame.seq == -1 && !frame.payload);
    CHECK_INT(parse("{\"type\":\"workflow_result\"}"), 0);
    CHECK(frame.kind == OC_FRAME_OTHER);
    CHECK_INT(parse("[]"), -ERR_INVALID);
    CHECK_INT(parse("{"), -ERR_INVALID);
    CHECK_INT(parse(""), -ERR_INVALID);
    arena_done(&arena);
}

static struct oc_refusal refusal(const char *text)
{
    struct oc_refusal why;
    json_t *error = json_loads(text, JSON_DECODE_ANY, NULL);

    oc_refusal_read(error, &why);
    json_decref(error);
    return why;
}

TEST(a_refusal_is_read_by_its_code_details_and_words)
{
    struct oc_refusal why;

    why = refusal("{\"code\":\"INVALID_REQUEST\",\"message\":\"x\",\"details\":{\"code\":"
                  "\"AUTH_TOKEN_MISSING\"}}");
    CHECK(why.code == ERR_UNAUTHORIZED && !why.wants_device && !why.starting);
    why = refusal("{\"code\":\"NOT_PAIRED\",\"details\":{\"code\":\"PAIRING_REQUIRED\"}}");
    CHECK(why.code == ERR_UNAUTHORIZED && why.wants_device);
    CHECK_STR(why.text, "Unknown error");
    why = refusal("{\"code\":\"INVALID_REQUEST\",\"message\":\"missing scope: operator.admin\"}");
    CHECK(why.code == ERR_FORBIDDEN);
    why = refusal("{\"code\":\"UNAVAILABLE\",\"retryAfterMs\":500}");
    CHECK(why.starting && why.retry_ms == 500);
    why = refusal("{\"code\":\"UNAVAILABLE\",\"retryAfterMs\":-5}");
    CHECK(!why.starting && why.retry_ms == 0);
    why = refusal("{\"code\":\"UNAVAILABLE\",\"details\":{\"reason\":\"startup-sidecars\"}}");
    CHECK(why.starting);
    why = refusal("{\"code\":\"UNAVAILABLE\",\"retryAfterMs\":500,\"details\":{\"code\":"
                  "\"OUTBOUND_DELIVERY_QUEUED\"}}");
    CHECK(why.queued && !why.starting);
    why = refusal("\"just words\"");
    CHECK_STR(why.text, "just words");
    oc_refusal_read(NULL, &why);
    CHECK(why.code == ERR_UNAVAILABLE);
}

static int hello(const char *text, struct oc_peer *peer)
{
    json_t *payload = json_loads(text, 0, NULL);
    struct err e;
    int r = oc_peer_read(payload, peer, &e);

    json_decref(payload);
    return r;
}

TEST(a_hello_names_the_protocol_and_bounds_that_are_believed_within_reason)
{
    struct oc_peer peer;

    CHECK_INT(hello("{\"protocol\":4,\"features\":{\"methods\":[1,\"sessions.subscribe\"]},"
                    "\"policy\":{\"maxPayload\":26214400,\"tickIntervalMs\":30000},\"auth\":{"
                    "\"scopes\":[]},\"server\":{\"version\":\"2026.9.6\"}}",
                    &peer),
              0);
    CHECK(peer.protocol == 4 && peer.subscribes && peer.powerless && !peer.basic);
    CHECK(peer.tick_ms == 30000 && peer.max_payload == 26214400);
    CHECK_INT(
        hello("{\"protocol\":3,\"policy\":{\"maxPayload\":1e99,\"tickIntervalMs\":-1}}", &peer), 0);
    CHECK(peer.basic && !peer.subscribes && !peer.powerless && peer.tick_ms == 0);
    CHECK(peer.max_payload == OC_BASIC_MAX);
    CHECK_INT(hello("{\"protocol\":4,\"policy\":{\"maxPayload\":999999999999}}", &peer), 0);
    CHECK(peer.max_payload == OC_FRAME_MAX);
    CHECK_INT(hello("{}", &peer), -ERR_UNAVAILABLE);
    CHECK_INT(hello("{\"protocol\":\"4\"}", &peer), -ERR_UNAVAILABLE);
    CHECK_INT(hello("[]", &peer), -ERR_UNAVAILABLE);
}

TEST(base64url_has_no_padding)
{
    static const struct {
        const char *in, *out;
    } rows[] = { { "", "" },        { "f", "Zg" },        { "fo", "Zm8" },
                 { "foo", "Zm9v" }, { "foob", "Zm9vYg" }, { "\xff\xef\xbe", "_---" } };
    char out[20];

    for (size_t i = 0; i < LEN(rows); i++) {
        oc_base64url((const unsigned char *)rows[i].in, strlen(rows[i].in), out);
        CHECK_STR(out, rows[i].out);
    }
}

static unsigned char bits_of(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    return (unsigned char)(strchr(digits, c) - digits);
}

TEST(a_device_signs_the_text_that_gateways_check)
{
    const struct oc_claim claim = {
        "cli", "mode", "operator", "a,b", "linux", "token", "nonce", 42
    };
    struct oc_device d = { .loaded = true };
    unsigned char public[SECRET_KEY], signature[SECRET_SIGNATURE] = { 0 };
    struct str text;
    unsigned held = 0, n = 0;
    uint32_t bits = 0;
    json_t *device;
    char want[300];

    memset(d.key, 7, sizeof(d.key));
    ed25519_public(d.key, public);
    sha256_hex((struct str){ (char *)public, sizeof(public) }, d.id);
    oc_base64url(public, sizeof(public), d.public_text);
    device = oc_device_sign(&d, &claim);
    text = json_member_str(device, "signature");
    for (size_t i = 0; i < text.n && n < sizeof(signature); i++) {
        bits = bits << 6 | bits_of(text.p[i]);
        held += 6;
        if (held >= 8) {
            held -= 8;
            signature[n++] = (unsigned char)(bits >> held);
        }
    }
    fmt_z(want, sizeof(want), "v2|%s|cli|mode|operator|a,b|42|token|nonce", d.id);
    CHECK(ed25519_verify(public, str_of(want), signature));
    CHECK(str_eq_z(json_member_str(device, "id"), d.id));
    json_decref(device);
}
