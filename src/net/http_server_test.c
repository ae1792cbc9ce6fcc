/* SPDX-License-Identifier: MIT */
/* Requests in every form the wire has for them, and the answers they get. */
#include "net/http_server.h"

#include "net/http_site_test.h"
#include "test.h"

static CO int keep_alive(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    for (int i = 1; i <= 20; i++) {
        CO_CHECK(say(&c, "GET /t/things/x" H "\r\n", e) == 0);
        CO_CHECK(hears(&c, "{\"name\":\"x\",\"count\":0}", i, e));
    }
    CO_CHECK(starts(&c, "HTTP/1.1 200 OK\r\nDate: "));
    CO_CHECK(has(&c, "\r\nContent-Type: application/json\r\nContent-Length: 22\r\n\r\n{"));
    CO_CHECK(!strstr(c.text, "Server:") && !strstr(c.text, "Connection:"));
    CO_CHECK(http_server_connections(server) == 1);
    return 0;
}

TEST(one_connection_serves_many_requests)
{
    CHECK(serve(&usual, keep_alive));
}

static CO int pipeline(struct err *e)
{
    CLIENT(c);

    CO_CHECK(talk(&c,
                  "GET /t/things/a" H "\r\nGET /t/nap" H "\r\n"
                  "POST /t/raw" H "Content-Length: 3\r\n\r\nraw"
                  "GET /t/none" H "\r\nGET /t/things/b" H CLOSE "\r\nGET /t/things/c" H "\r\n",
                  e));
    CO_CHECK(has(&c, "\"a\""));
    CO_CHECK(strstr(c.text, "\"a\"") < strstr(c.text, "\r\n\r\nraw"));
    CO_CHECK(strstr(c.text, "\r\n\r\nraw") < strstr(c.text, "{\"detail\":\"Not Found\"}"));
    CO_CHECK(strstr(c.text, "Not Found\"}") < strstr(c.text, "\"b\""));
    CO_CHECK(!strstr(c.text, "\"c\""));
    return 0;
}

TEST(pipelined_requests_are_answered_in_order_up_to_a_close)
{
    CHECK(serve(&usual, pipeline));
}

static CO int pipeline_deep(struct err *e)
{
    struct buf b = { .max = BIG };
    CLIENT(c);

    for (int i = 0; i < 3000; i++)
        CO_CHECK(buf_add_z(&b, "GET /no" H "\r\n", e) == 0);
    CO_CHECK(buf_add(&b, "GET /t/things/end" H CLOSE "\r\n",
                     sizeof("GET /t/things/end" H CLOSE "\r\n"), e) == 0);
    CO_CHECK(talk(&c, buf_str(&b).p, e));
    CO_CHECK(has(&c, "\"end\""));
    buf_done(&b);
    return 0;
}

TEST(a_long_pipeline_of_refusals_is_no_recursion)
{
    CHECK(serve(&usual, pipeline_deep));
}

static CO int byte_by_byte(struct err *e)
{
    static const char text[] = "\r\nPOST /t/things" H "Transfer-Encoding: chunked\r\n\r\n"
                               "9\r\n{\"name\": \r\n5;x\r\n\"abc\"\r\n1\r\n}\r\n0\r\nT: t\r\n\r\n";
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
        CO_CHECK(fiber_write_all(c.fd, text + i, 1, deadline_in(PATIENCE_MS), e) == 0);
        CO_CHECK(fiber_yield(e) == 0);
    }
    CO_CHECK(hears(&c, "{\"name\":\"abc\",\"count\":0}", 1, e));
    CO_CHECK(starts(&c, "HTTP/1.1 201 Created\r\n"));
    return 0;
}

TEST(a_request_may_come_byte_by_byte)
{
    CHECK(serve(&usual, byte_by_byte));
}

static CO int big_bodies(struct err *e)
{
    struct buf b = { .max = BIG };
    CLIENT(c);
    size_t n = 60 * 1024;

    for (int chunked = 0; chunked < 2; chunked++) {
        buf_clear(&b);
        CO_CHECK(
            buf_printf(&b, e, "POST /t/things" H CLOSE "%s\r\n%s{\"name\":\"abc\",\"x\":\"",
                       chunked ? "Transfer-Encoding: chunked\r\n" : "Content-Length: 61461\r\n",
                       chunked ? "F015\r\n" : "") == 0);
        for (size_t i = 0; i < n; i++)
            CO_CHECK(buf_add(&b, "y", 1, e) == 0);
        CO_CHECK(buf_add_z(&b, "\"}", e) == 0);
        if (chunked)
            CO_CHECK(buf_add_z(&b, "\r\n0\r\n\r\n", e) == 0);
        CO_CHECK(buf_add(&b, "", 1, e) == 0);
        CO_CHECK(talk(&c, buf_str(&b).p, e));
        CO_CHECK(has(&c, "{\"name\":\"abc\",\"count\":0}"));
    }
    buf_done(&b);
    return 0;
}

TEST(bodies_larger_than_the_read_buffer_are_gathered)
{
    CHECK(serve(&usual, big_bodies));
}

#define PREFLIGHT "Access-Control-Request-Method: POST\r\n"

static CO int statuses(struct err *e)
{
    static const struct {
        const char *request, *start, *part;
    } cases[] = {
        { "GET /t/none" H CLOSE "\r\n", "HTTP/1.1 404 ", "{\"detail\":\"Not Found\"}" },
        { "GET /none" H CLOSE "\r\n", "HTTP/1.1 404 ", "{\"error\":\"Not Found\"}" },
        { "PUT /t/things" H CLOSE "\r\n", "HTTP/1.1 405 ", "\r\nAllow: POST, DELETE\r\n" },
        { "HEAD /t/things/x" H CLOSE "\r\n", "HTTP/1.1 405 ", "Content-Length: 31\r\n" },
        { "HEAD /docs" H CLOSE "\r\n", "HTTP/1.1 200 ", "Content-Type: text/html" },
        { "OPTIONS /docs" H CLOSE "\r\n", "HTTP/1.1 204 ", "Allow: GET, HEAD" },
        { "OPTIONS /t/things" H CLOSE "\r\n", "HTTP/1.1 405 ", "Allow: POST, DELETE" },
        { "FROB /t/things" H CLOSE "\r\n", "HTTP/1.1 405 ", "{\"detail\":\"Method Not Allowed\"}" },
        { "GET /t/query/?a=b" H CLOSE "\r\n", "HTTP/1.1 307 ",
          "\r\nLocation: http://h/t/query?a=b\r\n" },
        { "GET /t/things/%zz" H CLOSE "\r\n", "HTTP/1.1 400 ", "{\"detail\":" },
        { "DELETE /t/things" H CLOSE "\r\n", "HTTP/1.1 204 No Content\r\n", "nosniff" },
        { "GET /t/things/x HTTP/1.0\r\n\r\n", "HTTP/1.1 200 ", "Connection: close\r\n" },
        { "GET / HTTP/2.0\r\n\r\n", "HTTP/1.1 505 ", "Connection: close\r\n" },
        { "GET /\r\n\r\n", "HTTP/1.1 400 ", "{\"error\":" },
        { "GET / HTTP/1.1\nHost", "HTTP/1.1 400 ", "carriage return" },
        { "POST /t/raw" H "Content-Length: 1025\r\n\r\n", "HTTP/1.1 413 ",
          "{\"detail\":\"Request body too large\"}" },
        { "GET /t/things/x" H "Origin: http://bad\r\n" CLOSE "\r\n", "HTTP/1.1 403 ",
          "{\"error\":\"Forbidden: " },
        { "GET /t/things/x" H "Origin: http://good\r\n" CLOSE "\r\n", "HTTP/1.1 200 ",
          "\r\nAccess-Control-Allow-Origin: http://good\r\nVary: Origin\r\n" },
        { "GET /t/secret" H "Origin: http://good\r\n" CLOSE "\r\n", "HTTP/1.1 401 ",
          "\r\nAccess-Control-Allow-Origin: http://good\r\n" },
        { "OPTIONS /t/things" H "Origin: http://good\r\n" PREFLIGHT CLOSE "\r\n", "HTTP/1.1 204 ",
          "\r\nAccess-Control-Allow-Methods: POST, DELETE\r\n" },
        { "OPTIONS /x/thing" H "Origin: http://good\r\n" PREFLIGHT CLOSE "\r\n", "HTTP/1.1 204 ",
          "\r\nAccess-Control-Allow-Headers: Authorization, Content-Type, " },
        { "OPTIONS /t/things" H "Origin: http://bad\r\n" PREFLIGHT CLOSE "\r\n", "HTTP/1.1 403 ",
          "{\"error\":\"Forbidden: " },
        { "OPTIONS /t/things" H PREFLIGHT CLOSE "\r\n", "HTTP/1.1 405 ", "" },
        { "OPTIONS /t/none" H "Origin: http://good\r\n" PREFLIGHT CLOSE "\r\n", "HTTP/1.1 404 ",
          "" },
        { "GET /t/things/x HTTP/1.1\r\nHost: evil\r\n" CLOSE "\r\n", "HTTP/1.1 403 ", "" },
        { "GET /t/secret" H CLOSE "\r\n", "HTTP/1.1 401 ", "{\"error\":\"Unauthorized\"}" },
        { "GET /t/secret" H CLOSE "\r\n", "HTTP/1.1 401 ", "WWW-Authenticate: Bearer\r\n" },
        { "GET /t/secret" H CLOSE "Authorization: Bearer other\r\n\r\n", "HTTP/1.1 403 ",
          "{\"error\":\"Forbidden: this needs the scope read\"}" },
        { "GET /t/secret" H CLOSE "Authorization: Bearer reader\r\n\r\n", "HTTP/1.1 204 ", "" },
        { "GET /t/secret" H CLOSE "Authorization: Bearer admin\r\n\r\n", "HTTP/1.1 204 ", "" },
        { "GET /t/fail/0" H CLOSE "\r\n", "HTTP/1.1 400 ", "{\"detail\":\"it \\\"failed\\\"\"}" },
        { "GET /t/fail/1" H CLOSE "\r\n", "HTTP/1.1 401 ", "WWW-Authenticate" },
        { "GET /t/fail/2" H CLOSE "\r\n", "HTTP/1.1 403 ", "{\"detail\":\"it " },
        { "GET /t/fail/3" H CLOSE "\r\n", "HTTP/1.1 404 ", "{\"detail\":\"it " },
        { "GET /t/fail/4" H CLOSE "\r\n", "HTTP/1.1 409 ", "{\"detail\":\"it " },
        { "GET /t/fail/5" H CLOSE "\r\n", "HTTP/1.1 413 ", "{\"detail\":\"it " },
        { "GET /t/fail/6" H CLOSE "\r\n", "HTTP/1.1 503 ", "Retry-After: 1\r\n" },
        { "GET /t/fail/7" H CLOSE "\r\n", "HTTP/1.1 504 ", "{\"detail\":\"it " },
        { "GET /t/fail/8" H CLOSE "\r\n", "HTTP/1.1 500 ",
          "{\"detail\":\"Internal Server Error\",\"id\":\"" },
        { "GET /x/thing" H CLOSE "\r\n", "HTTP/1.1 204 ", "" },
        { "GET /X/Thing/" H CLOSE "\r\n", "HTTP/1.1 204 ", "" },
        { "OPTIONS /x/thing" H CLOSE "\r\n", "HTTP/1.1 200 ", "\r\n\r\nGET, HEAD" },
        { "POST /x/thing" H CLOSE "\r\n", "HTTP/1.1 404 ", "{\"error\":\"Cannot POST /x/thing\"}" },
        { "GET /x/\"no" H CLOSE "\r\n", "HTTP/1.1 404 ", "Cannot GET /x/\\\"no" },
        { "GET /x/%22no?q" H CLOSE "\r\n", "HTTP/1.1 404 ", "{\"error\":\"Cannot GET /x/%22no\"}" },
        { "OPTIONS /o/none" H CLOSE "\r\n", "HTTP/1.1 200 ", "\r\nX-Own: 1\r\n\r\nOK" },
        { "GET /o/none" H CLOSE "\r\n", "HTTP/1.1 404 ", "\r\nX-Own: 1\r\n\r\nown error" },
        { "POST /o/close" H CLOSE "\r\n", "HTTP/1.1 404 ", "own error" },
        { "GET /o/secret" H CLOSE "\r\n", "HTTP/1.1 401 ", "{\"error\":\"who?\"}" },
        { "GET /o/close" H "\r\n", "HTTP/1.1 200 ", "\r\nConnection: close\r\n" },
        { "POST /o/body" H "Content-Length: 10\r\n\r\n0123456789", "HTTP/1.1 200 ", "bye" },
        { "POST /o/body" H "Content-Length: 11\r\n\r\n01234567890", "HTTP/1.1 413 ", "own" },
        { "GET /openapi.json" H CLOSE "\r\n", "HTTP/1.1 200 ", "{\"openapi\":\"3.1.0\"" },
        { "GET /docs" H CLOSE "\r\n", "HTTP/1.1 200 ", "Content-Security-Policy: default-src" },
    };
    CLIENT(c);

    for (size_t i = 0; i < LEN(cases); i++) {
        CO_CHECK(talk(&c, cases[i].request, e));
        CO_CHECK(starts(&c, cases[i].start));
        CO_CHECK(has(&c, cases[i].part));
        if (strncmp(cases[i].request, "HEAD", 4) == 0 || strstr(cases[i].start, "204"))
            CO_CHECK(strcmp(strstr(c.text, "\r\n\r\n"), "\r\n\r\n") == 0);
        if (strstr(cases[i].start, "204"))
            CO_CHECK(!strstr(c.text, "Content-Length"));
    }
    return 0;
}

TEST(every_kind_of_answer_has_its_status_and_form)
{
    CHECK(serve_quietly(&usual, statuses));
}

#define UPGRADE "Connection: Upgrade, close\r\nUpgrade: WebSocket\r\n"

static CO int upgrades(struct err *e)
{
    static const struct {
        const char *request, *start, *part;
    } cases[] = {
        { "GET /t/none" H UPGRADE "\r\n", "HTTP/1.1 200 ", "\r\n\r\n/t/none anonymous" },
        { "GET /t/things/x" H UPGRADE "\r\n", "HTTP/1.1 200 ", "/t/things/x anonymous" },
        { "GET /" H UPGRADE "\r\n", "HTTP/1.1 200 ", "\r\n\r\n/ anonymous" },
        { "GET //" H UPGRADE "\r\n", "HTTP/1.1 200 ", "\r\n\r\n// anonymous" },
        { "GET /t/things/%zz" H UPGRADE "\r\n", "HTTP/1.1 200 ", "/t/things/%zz anonymous" },
        { "GET /t/secret" H UPGRADE "Authorization: Bearer reader\r\n\r\n", "HTTP/1.1 200 ",
          "/t/secret reader" },
        { "GET /t/secret" H UPGRADE "Authorization: Bearer nobody\r\n\r\n", "HTTP/1.1 200 ",
          "/t/secret anonymous" },
        { "GET /fail" H UPGRADE "\r\n", "HTTP/1.1 503 ", "{\"error\":\"full\"}" },
        { "POST /t/none" H UPGRADE "\r\n", "HTTP/1.1 404 ", "" },
        { "GET /t/none" H "Connection: close\r\nUpgrade: h2c\r\n\r\n", "HTTP/1.1 404 ", "" },
        { "GET /t/none" H UPGRADE "Origin: http://bad\r\n\r\n", "HTTP/1.1 403 ", "" },
        { "GET /t/none HTTP/1.1\r\nHost: evil\r\n" UPGRADE "\r\n", "HTTP/1.1 403 ", "" },
    };
    CLIENT(c);

    for (size_t i = 0; i < LEN(cases); i++) {
        CO_CHECK(talk(&c, cases[i].request, e));
        CO_CHECK(starts(&c, cases[i].start));
        CO_CHECK(has(&c, cases[i].part));
    }
    return 0;
}

TEST(a_websocket_on_any_path_is_for_who_takes_them_all)
{
    CHECK(serve_quietly(&usual, upgrades));
}

static CO int inputs(struct err *e)
{
    static const struct {
        const char *type, *body;
        int status;
        const char *answer;
    } cases[] = {
        { "application/json", "{\"name\":\"x\"}", 201, "{\"name\":\"x\",\"count\":0}" },
        { "APPLICATION/JSON ; charset=utf-8", "{\"name\":\"x\"}", 201, "\"x\"" },
        { "application/vnd.x+json", "{\"name\":\"x\"}", 201, "\"x\"" },
        { NULL, "{\"name\":\"x\"}", 201, "\"x\"" },
        { "application/x-www-form-urlencoded", "{\"name\":\"x\"}", 422,
          "{\"detail\":[{\"type\":\"model_attributes_type\",\"loc\":[\"body\"],\"msg\":\"Input "
          "should "
          "be a valid dictionary or object to extract fields from\",\"input\":\"{\\\"name\\\":"
          "\\\"x\\\"}\"}]}" },
        { "application/json", "", 422,
          "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\"],\"msg\":\"Field required\","
          "\"input\":null}]}" },
        { "text/plain", "", 422, "\"type\":\"missing\",\"loc\":[\"body\"]" },
        { "application/json", " null ", 422, "\"type\":\"missing\",\"loc\":[\"body\"]" },
        { "application/json", "[1]", 422,
          "{\"detail\":[{\"type\":\"model_attributes_type\",\"loc\":[\"body\"],\"msg\":\"Input "
          "should "
          "be a valid dictionary or object to extract fields from\",\"input\":[1]}]}" },
        { "application/json", "{bad", 422,
          "{\"detail\":[{\"type\":\"json_invalid\",\"loc\":[\"body\",1],\"msg\":\"JSON decode "
          "error\","
          "\"input\":{},\"ctx\":{\"error\":\"Expecting property name enclosed in double "
          "quotes\"}}]}" },
        { "application/json", "{\"name\":3,\"count\":2000}", 422,
          "{\"detail\":[{\"type\":\"string_type\",\"loc\":[\"body\",\"name\"],\"msg\":\"Input "
          "should be "
          "a valid "
          "string\",\"input\":3},{\"type\":\"less_than_equal\",\"loc\":[\"body\",\"count\"]" },
        { "application/json", "{}", 422,
          "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\",\"name\"],\"msg\":\"Field "
          "required\","
          "\"input\":{}}]}" },
        { "application/json", "[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]", 400,
          "{\"detail\":\"There was an error parsing the body\"}" },
    };
    CLIENT(c);

    for (size_t i = 0; i < LEN(cases); i++) {
        char text[512], start[32];

        fmt_z(text, sizeof(text), "POST /t/things" H CLOSE "%s%s%sContent-Length: %zu\r\n\r\n%s",
              cases[i].type ? "Content-Type: " : "", cases[i].type ? cases[i].type : "",
              cases[i].type ? "\r\n" : "", strlen(cases[i].body), cases[i].body);
        fmt_z(start, sizeof(start), "HTTP/1.1 %d ", cases[i].status);
        CO_CHECK(talk(&c, text, e));
        CO_CHECK(starts(&c, start));
        CO_CHECK(has(&c, cases[i].answer));
    }
    CO_CHECK(talk(&c, "POST /t/optional" H CLOSE "Content-Length: 0\r\n\r\n", e));
    CO_CHECK(has(&c, "{\"name\":\"by default\"}"));
    CO_CHECK(talk(&c, "POST /t/optional" H CLOSE "Content-Length: 2\r\n\r\n[]", e));
    CO_CHECK(starts(&c, "HTTP/1.1 422 "));
    CO_CHECK(talk(&c, "GET /t/query?name=a%20b&count=7&x=y" H CLOSE "\r\n", e));
    CO_CHECK(has(&c, "{\"name\":\"a b\",\"count\":7}"));
    CO_CHECK(talk(&c, "GET /t/query?name=a&count=x" H CLOSE "\r\n", e));
    CO_CHECK(has(&c, "\"type\":\"int_parsing\",\"loc\":[\"query\",\"count\"]"));
    return 0;
}

TEST(bodies_and_queries_are_judged_by_their_shapes)
{
    CHECK(serve(&usual, inputs));
}

static CO int continues(struct err *e)
{
    CLIENT(c);

    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "POST /t/raw" H "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", e) == 0);
    CO_CHECK(hears(&c, "HTTP/1.1 100 Continue\r\n\r\n", 1, e));
    CO_CHECK(say(&c, "abc", e) == 0);
    CO_CHECK(hears(&c, "\r\n\r\nabc", 1, e));
    CO_CHECK(say(&c, "POST /t/raw" H "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", e) ==
             0);
    CO_CHECK(hears(&c, "\r\n\r\nabc", 2, e));

    CO_CHECK(talk(&c, "POST /t/raw" H "Expect: 100-continue\r\nContent-Length: 9999\r\n\r\n", e));
    CO_CHECK(starts(&c, "HTTP/1.1 413 "));
    CO_CHECK(talk(&c, "POST /t/no" H "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", e));
    CO_CHECK(starts(&c, "HTTP/1.1 404 "));
    return 0;
}

TEST(expect_100_continue_is_answered_once_the_head_is_accepted)
{
    CHECK(serve(&usual, continues));
}

static CO int refused_bodies(struct err *e)
{
    CLIENT(c);

    CO_CHECK(talk(&c,
                  "POST /t/no" H "Content-Length: 5\r\n\r\nhello"
                  "POST /t/no" H "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                  "GET /t/things/next" H CLOSE "\r\n",
                  e));
    CO_CHECK(has(&c, "\"next\""));
    CO_CHECK(talk(&c, "POST /t/no" H "Content-Length: 100000\r\n\r\nhello", e));
    CO_CHECK(starts(&c, "HTTP/1.1 404 "));
    CO_CHECK(has(&c, "Connection: close"));
    return 0;
}

TEST(the_body_of_a_refused_request_is_read_past_when_it_is_short)
{
    CHECK(serve(&usual, refused_bodies));
}

static CO int uploads_past_the_limit(struct err *e)
{
    char block[4096];
    CLIENT(c);

    memset(block, 'x', sizeof(block));
    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "POST /t/raw" H "Content-Length: 4194304\r\n\r\n", e) == 0);
    for (int i = 0; i < 1024; i++) /* a client that writes all of it before it reads */
        CO_CHECK(fiber_write_all(c.fd, block, sizeof(block), deadline_in(PATIENCE_MS), e) == 0);
    CO_CHECK(ends(&c, e));
    CO_CHECK(starts(&c, "HTTP/1.1 413 "));
    CO_CHECK(has(&c, "Connection: close"));
    return 0;
}

TEST(a_client_that_sends_too_much_still_reads_its_413)
{
    CHECK(serve(&usual, uploads_past_the_limit));
}

static CO int heads_too_large(struct err *e)
{
    char block[1024];
    CLIENT(c);

    memset(block, 'x', sizeof(block) - 1);
    block[sizeof(block) - 1] = '\0';
    CO_CHECK(client_open(&c, e) == 0);
    CO_CHECK(say(&c, "GET /t" H "A: ", e) == 0);
    for (int i = 0; i < 9; i++)
        CO_CHECK(say(&c, block, e) == 0);
    CO_CHECK(ends(&c, e));
    CO_CHECK(starts(&c, "HTTP/1.1 431 "));
    return 0;
}

TEST(a_head_past_its_limit_is_431)
{
    CHECK(serve(&usual, heads_too_large));
}
