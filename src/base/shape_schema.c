/* SPDX-License-Identifier: MIT */
/*
 * base/shape_schema.c — shapes as JSON Schema, for the OpenAPI document.
 */
#include "base/shape.h"

static json_t *ref_to(const struct shape *shape)
{
    return json_pack("{s:s++}", "$ref", "#/components/schemas/", shape->name, "");
}

static json_t *type_of(const struct shape_field *f)
{
    switch (f->kind) {
    case SHAPE_STR:
        return json_pack("{s:s}", "type", "string");
    case SHAPE_INT:
        return json_pack("{s:s}", "type", "integer");
    case SHAPE_BOOL:
        return json_pack("{s:s}", "type", "boolean");
    case SHAPE_REAL:
        return json_pack("{s:s}", "type", "number");
    case SHAPE_STRS:
        return json_pack("{s:s,s:{s:s}}", "type", "array", "items", "type", "string");
    case SHAPE_LIST:
        return json_pack("{s:s,s:o}", "type", "array", "items", ref_to(f->of));
    case SHAPE_OBJ:
        return ref_to(f->of);
    case SHAPE_JSON:
        break;
    }
    if (f->object)
        return json_pack("{s:s,s:b}", "type", "object", "additionalProperties", 1);
    return json_object();
}

/* null beside the type itself. */
static json_t *or_null(json_t *schema)
{
    json_t *type = json_object_get(schema, "type");

    if (!type) /* a reference, or any value, which null is already one of */
        return json_object_size(schema) > 0
                   ? json_pack("{s:[o,{s:s}]}", "anyOf", schema, "type", "null")
                   : schema;
    json_object_set_new(schema, "type", json_pack("[O,s]", type, "null"));
    return schema;
}

static void add_bounds(json_t *schema, const struct shape_field *f)
{
    static const char *const names[][2] = {
        [SHAPE_STR] = { "minLength", "maxLength" }, [SHAPE_INT] = { "minimum", "maximum" },
        [SHAPE_REAL] = { "minimum", "maximum" },    [SHAPE_STRS] = { "minItems", "maxItems" },
        [SHAPE_LIST] = { "minItems", "maxItems" },  [SHAPE_OBJ] = { NULL, NULL },
    };

    if (!names[f->kind][0] || (f->min == 0 && f->max == 0))
        return;
    json_object_set_new(schema, names[f->kind][0], json_integer(f->min));
    if (f->max >= f->min && f->max != INT64_MAX)
        json_object_set_new(schema, names[f->kind][1], json_integer(f->max));
}

static void add_choices(json_t *schema, const struct shape_field *f)
{
    json_t *choices = json_array();

    for (const char *const *choice = f->one_of; *choice; choice++)
        json_array_append_new(choices, json_string(*choice));
    if (f->nullable && f->kind == SHAPE_STR)
        json_array_append_new(choices, json_null());
    if (f->kind == SHAPE_STRS)
        schema = json_object_get(schema, "items");
    json_object_set_new(schema, "enum", choices);
}

static json_t *schema_of(const struct shape_field *f)
{
    json_t *schema = type_of(f);

    add_bounds(schema, f);
    if (f->nullable)
        schema = or_null(schema);
    if (f->one_of)
        add_choices(schema, f);
    if (f->def)
        json_object_set_new(schema, "default", json_loads(f->def, JSON_DECODE_ANY, NULL));
    if (f->doc)
        json_object_set_new(schema, "description", json_string(f->doc));
    if (f->secret)
        json_object_set_new(schema, "writeOnly", json_true());
    return schema;
}

json_t *shape_schema(const struct shape *shape)
{
    json_t *schema = json_pack("{s:s,s:s}", "type", "object", "title", shape->name);
    json_t *properties = json_object(), *required = json_array();

    if (shape->doc)
        json_object_set_new(schema, "description", json_string(shape->doc));
    for (size_t i = 0; i < shape->n; i++) {
        const struct shape_field *f = &shape->fields[i];

        json_object_set_new(properties, f->name, schema_of(f));
        if (f->required)
            json_array_append_new(required, json_string(f->name));
    }
    json_object_set_new(schema, "properties", properties);
    if (json_array_size(required) > 0)
        json_object_set_new(schema, "required", required);
    else
        json_decref(required);
    return schema;
}
