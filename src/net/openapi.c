/* SPDX-License-Identifier: MIT */
/*
 * net/openapi.c — the route tables as an OpenAPI 3.1 document: paths, parameters, bodies, answers
 * and the schemas they name. Nothing is written twice: all of it is in the rows.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "net/http_int.h"

/* The shapes met so far become components; a shape's fields may name further ones. */
static void add_schema(json_t *schemas, const struct shape *shape)
{
    if (!shape || json_object_get(schemas, shape->name))
        return;
    json_object_set_new(schemas, shape->name, shape_schema(shape));
    for (size_t i = 0; i < shape->n; i++)
        if (shape->fields[i].kind == SHAPE_OBJ || shape->fields[i].kind == SHAPE_LIST)
            add_schema(schemas, shape->fields[i].of);
}

static json_t *json_media(json_t *schemas, const struct shape *shape)
{
    add_schema(schemas, shape);
    return json_pack("{s:{s:{s:s+}}}", "application/json", "schema", "$ref",
                     "#/components/schemas/", shape->name);
}

static void add_path_parameters(json_t *list, const char *path)
{
    for (const char *open = strchr(path, '{'); open; open = strchr(open + 1, '{')) {
        size_t n = strcspn(open + 1, "}");

        json_array_append_new(list, json_pack("{s:s%,s:s,s:b,s:{s:s}}", "name", open + 1, n, "in",
                                              "path", "required", 1, "schema", "type", "string"));
    }
}

static void add_query_parameters(json_t *list, const struct shape *query)
{
    json_t *schema, *properties;

    if (!query)
        return;
    schema = shape_schema(query);
    properties = json_object_get(schema, "properties");
    for (size_t i = 0; i < query->n; i++) {
        const struct shape_field *f = &query->fields[i];

        json_array_append_new(list, json_pack("{s:s,s:s,s:b,s:O}", "name", f->name, "in", "query",
                                              "required", f->required, "schema",
                                              json_object_get(properties, f->name)));
    }
    json_decref(schema);
}

static json_t *describe(const char *text)
{
    return json_pack("{s:s}", "description", text);
}

static json_t *responses_of(const struct http_table *table, const struct http_route *route,
                            json_t *schemas)
{
    json_t *all = json_object(), *good;
    int status = route->status ? route->status : 200;
    char code[12];

    if (route->flags & ROUTE_WS)
        status = 101;
    fmt_z(code, sizeof(code), "%d", status);
    good = describe(http_status_reason(status));
    if (route->out)
        json_object_set_new(good, "content", json_media(schemas, route->out));
    if (route->flags & ROUTE_STREAM) {
        if (!json_object_get(good, "content"))
            json_object_set_new(good, "content", json_object());
        json_object_set_new(json_object_get(good, "content"), "text/event-stream",
                            json_pack("{s:{s:s}}", "schema", "type", "string"));
    }
    json_object_set_new(all, code, good);
    if (!(route->need & NEED_NONE)) {
        json_object_set_new(all, "401", describe("No valid credential"));
        json_object_set_new(all, "403", describe("A credential that is not for this"));
    }
    if (route->in || route->query)
        json_object_set_new(all, table->dialect == &dialect_fastapi ? "422" : "400",
                            describe("The input does not fit its schema"));
    if (route->in)
        json_object_set_new(all, "413", describe("Request body too large"));
    json_object_set_new(all, "default", describe("An error, as JSON"));
    return all;
}

/* "post_api_vps_sessions_id": a name no other operation has. */
static json_t *operation_id(const struct http_route *route)
{
    char id[256];
    size_t n = 0;

    for (const char *p = http_method_name(route->method); *p && n < sizeof(id) - 1; p++)
        id[n++] = (char)tolower((unsigned char)*p);
    for (const char *p = route->path; *p && n < sizeof(id) - 1; p++)
        if (isalnum((unsigned char)*p))
            id[n++] = *p;
        else if (id[n - 1] != '_')
            id[n++] = '_';
    return json_stringn(id, n);
}

static json_t *operation_of(const struct http_table *table, const struct http_route *route,
                            json_t *schemas)
{
    json_t *op = json_pack("{s:s,s:o}", "summary", route->doc, "operationId", operation_id(route));
    json_t *parameters = json_array();

    if (route->tag)
        json_object_set_new(op, "tags", json_pack("[s]", route->tag));
    add_path_parameters(parameters, route->path);
    add_query_parameters(parameters, route->query);
    if (json_array_size(parameters) > 0)
        json_object_set(op, "parameters", parameters);
    json_decref(parameters);
    if (route->in)
        json_object_set_new(op, "requestBody",
                            json_pack("{s:b,s:o}", "required", !(route->flags & ROUTE_OPTIONAL),
                                      "content", json_media(schemas, route->in)));
    json_object_set_new(op, "responses", responses_of(table, route, schemas));
    if (route->need & NEED_NONE)
        json_object_set_new(op, "security", json_array());
    return op;
}

static void add_route(json_t *paths, json_t *schemas, const struct http_table *table,
                      const struct http_route *route)
{
    json_t *item = json_object_get(paths, route->path);
    char method[16];
    size_t i;

    if (!item) {
        item = json_object();
        json_object_set_new(paths, route->path, item);
    }
    fmt_z(method, sizeof(method), "%s", http_method_name(route->method));
    for (i = 0; method[i]; i++)
        method[i] = (char)tolower((unsigned char)method[i]);
    json_object_set_new(item, method, operation_of(table, route, schemas));
}

json_t *http_openapi(const struct http_table *const *tables, size_t n, const char *title,
                     const char *version)
{
    json_t *paths = json_object(), *schemas = json_object();

    for (size_t t = 0; t < n; t++)
        for (size_t i = 0; i < tables[t]->n; i++)
            if (!(tables[t]->routes[i].flags & ROUTE_HIDDEN))
                add_route(paths, schemas, tables[t], &tables[t]->routes[i]);
    return json_pack(
        "{s:s,s:{s:s,s:s},s:[{s:[]},{s:[]}],s:o,s:{s:o,s:{s:{s:s,s:s},s:{s:s,s:s,s:s}}}}",
        "openapi", "3.1.0", "info", "title", title, "version", version, "security", "bearer",
        "token", "paths", paths, "components", "schemas", schemas, "securitySchemes", "bearer",
        "type", "http", "scheme", "bearer", "token", "type", "apiKey", "in", "header", "name",
        "X-Auth-Token");
}
