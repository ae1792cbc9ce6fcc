/* SPDX-License-Identifier: MIT */
/* Error bodies of both dialects, to the byte. */
#include "net/http_int.h"

#include "test.h"

static struct http_job job;

/* The body of an answer to this error; *ret_status its status. */
static const char *say(const struct http_dialect *dialect, enum err_code code, const char *msg,
                       const struct shape_issue *issues, const char *where, int *ret_status)
{
    struct err e;

    arena_reset(&job.arena);
    job.req = (struct http_req){ .arena = &job.arena, .server_private = &job, .id = "id-1" };
    (void)err_set(&e, code, "%s", msg);
    dialect->error(&job.req, &e, http_status_of(code), issues, where);
    *ret_status = job.req.status;
    CHECK_STR(job.req.type, "application/json");
    return arena_str(&job.arena, job.req.text).p;
}

TEST(errors_without_issues_are_one_text)
{
    int status;

    CHECK_STR(say(&dialect_fastapi, ERR_NOT_FOUND, "Agent 'é\"' not found", NULL, NULL, &status),
              "{\"detail\":\"Agent 'é\\\"' not found\"}");
    CHECK_INT(status, 404);
    CHECK_STR(say(&dialect_plain, ERR_CONFLICT, "a\nb", NULL, NULL, &status),
              "{\"error\":\"a\\nb\"}");
    CHECK_INT(status, 409);
    CHECK_STR(say(&dialect_express, ERR_NOT_FOUND, "Cannot GET /x", NULL, NULL, &status),
              "{\"error\":\"Cannot GET /x\"}");
    CHECK_INT(status, 404);
}

TEST(what_failed_inside_is_not_told)
{
    int status;

    CHECK_STR(say(&dialect_fastapi, ERR_INTERNAL, "disk at /secret", NULL, NULL, &status),
              "{\"detail\":\"Internal Server Error\",\"id\":\"id-1\"}");
    CHECK_INT(status, 500);
    CHECK_STR(say(&dialect_plain, ERR_INTERNAL, "disk at /secret", NULL, NULL, &status),
              "{\"error\":\"Internal Server Error\",\"id\":\"id-1\"}");
    CHECK_INT(status, 500);
}

TEST(issues_are_listed_as_pydantic_lists_them)
{
    json_t *input = json_pack("{s:i}", "port", 0), *text = json_string("ü\x01");
    struct shape_issue second = {
        .type = "greater_than_equal",
        .msg = "Input should be greater than or equal to 1",
        .field = "port",
        .index = -1,
        .ctx_key = "ge",
        .ctx_value = 1,
        .input = text,
    };
    struct shape_issue first = {
        .next = &second,
        .type = "missing",
        .msg = "Field required",
        .field = "name",
        .index = -1,
        .input = input,
    };
    struct shape_issue member = {
        .type = "string_type",
        .msg = "Input should be a valid string",
        .field = "list",
        .index = 2,
    };
    int status;

    CHECK_STR(
        say(&dialect_fastapi, ERR_INVALID, "name: Field required", &first, "body", &status),
        "{\"detail\":[{\"type\":\"missing\",\"loc\":[\"body\",\"name\"],\"msg\":\"Field "
        "required\",\"input\":{\"port\":0}},{\"type\":\"greater_than_equal\",\"loc\":[\"body\","
        "\"port\"],\"msg\":\"Input should be greater than or equal to 1\",\"input\":"
        "\"ü\\u0001\",\"ctx\":{\"ge\":1}}]}");
    CHECK_INT(status, 422);
    CHECK_STR(
        say(&dialect_fastapi, ERR_INVALID, "x", &member, "query", &status),
        "{\"detail\":[{\"type\":\"string_type\",\"loc\":[\"query\",\"list\",2],\"msg\":\"Input "
        "should be a valid string\",\"input\":null}]}");
    CHECK_STR(say(&dialect_plain, ERR_INVALID, "name: Field required", &first, "body", &status),
              "{\"error\":\"name: Field required\"}");
    CHECK_INT(status, 400);
    json_decref(input);
    json_decref(text);
    arena_done(&job.arena);
    buf_done(&job.out_body);
}

TEST(codes_become_statuses)
{
    static const struct {
        enum err_code code;
        int status;
    } cases[] = {
        { ERR_INVALID, 400 },     { ERR_UNAUTHORIZED, 401 }, { ERR_FORBIDDEN, 403 },
        { ERR_NOT_FOUND, 404 },   { ERR_CONFLICT, 409 },     { ERR_LIMIT, 413 },
        { ERR_UNAVAILABLE, 503 }, { ERR_TIMEOUT, 504 },      { ERR_INTERNAL, 500 },
    };

    for (size_t i = 0; i < LEN(cases); i++)
        CHECK_INT(http_status_of(cases[i].code), cases[i].status);
    CHECK_STR(http_status_reason(418), "I'm a teapot");
    CHECK_STR(http_status_reason(799), "Unknown");
}
