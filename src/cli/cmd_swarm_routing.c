/* SPDX-License-Identifier: MIT */
/*
 * cli/cmd_swarm_routing.c — chela swarm routing: does a message from WhatsApp find its way? Our
 * gateway is asked over HTTP, the OpenClaw gateway through the daemon, and the settings of OpenClaw
 * are read from their file, which is on this machine or not there at all. What cannot be asked is
 * part of the result, with the reason.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/paths.h"
#include "cli/cmd_int.h"
#include "cli/json5.h"

#define ASK_MS     10000
#define CONFIG_MAX (4 * MIB)
#define RAW_MAX    (1 * MIB)

static const struct cli_flag routing_flags[] = {
    { "group", "ID", "the WhatsApp group that must be registered (default: any)" },
    { "config", "FILE",
      "OpenClaw's settings (default $OPENCLAW_CONFIG, ~/.openclaw/openclaw.json)" },
};

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static void put(json_t *object, const char *key, json_t *value)
{
    json_object_set_new(object, key, value);
}

/* What was answered, as the text that a person can look at. */
static void put_raw(struct cli *cli, json_t *object, const json_t *answer, const char *error)
{
    struct err unwritten;
    struct str text;

    if (answer && !json_is_null(answer) &&
        json_text(answer, RAW_MAX, &cli->arena, &text, &unwritten) == 0)
        put(object, "raw_output", json_stringn(text.p, text.n));
    else
        put(object, "raw_output", json_string(error ? error : ""));
}

/* --- our gateway --- */

/* Where to try: an address that means "all" is reached on loopback. */
static const char *health_url(struct cli *cli, const char *gateway)
{
    const char *colon = gateway ? strrchr(gateway, ':') : NULL;

    if (cli->url && cli->url[0])
        return arena_printf(&cli->arena, "%s%s", cli->url,
                            cli->url[strlen(cli->url) - 1] == '/' ? "health" : "/health");
    if (!colon)
        return NULL;
    if (strncmp(gateway, "0.0.0.0:", 8) == 0)
        return arena_printf(&cli->arena, "http://127.0.0.1%s/health", colon);
    if (strncmp(gateway, "[::]:", 5) == 0)
        return arena_printf(&cli->arena, "http://[::1]%s/health", colon);
    return arena_printf(&cli->arena, "http://%s/health", gateway);
}

static CO bool listens(struct cli *cli, const char *url)
{
    const struct http_call call = { .url = url, .deadline_ms = now_ms() + ASK_MS };
    struct http_answer answer = { 0 };
    struct err e;

    if (!url)
        return false;
    if (http_fetch(cli->client, &call, &cli->arena, &answer, &e) == 0)
        return true;
    return answer.fail == HTTP_FAIL_RESET || answer.fail == HTTP_FAIL_PROTOCOL ||
           answer.fail == HTTP_FAIL_TLS; /* somebody is there */
}

static CO json_t *check_gateway(struct cli *cli)
{
    json_t *out = json_object(), *status = NULL;
    const char *gateway, *colon;
    struct err e = { 0 };
    int r = api_call(cli, HTTP_M_GET, "/api/v1/status", (struct str){ 0 }, &status, &e);

    cli->no_daemon = cli->refused = false; /* that is told as a result, not as an error */
    gateway = json_string_value(json_object_get(json_object_get(status, "listeners"), "gateway"));
    colon = gateway ? strrchr(gateway, ':') : NULL;
    put(out, "running", json_boolean(r == 0));
    put(out, "listening", json_boolean(listens(cli, health_url(cli, gateway))));
    put(out, "port", colon ? json_integer(strtol(colon + 1, NULL, 10)) : json_null());
    put_raw(cli, out, status, e.msg);
    return out;
}

/* --- the OpenClaw gateway --- */

static bool any_account(const json_t *channels, const char *key)
{
    const json_t *accounts =
        json_object_get(json_object_get(channels, "channelAccounts"), "whatsapp");
    const json_t *account;
    size_t i;

    json_array_foreach(accounts, i, account)
    {
        if (is_true(account, key))
            return true;
    }
    return false;
}

static json_t *check_whatsapp(struct cli *cli, const json_t *probe, const char *error)
{
    const json_t *channels = json_object_get(probe, "channels");
    const json_t *one = json_object_get(json_object_get(channels, "channels"), "whatsapp");
    json_t *out = json_object();

    put(out, "connected",
        json_boolean(is_true(one, "connected") || any_account(channels, "connected")));
    put(out, "running", json_boolean(is_true(one, "running") || any_account(channels, "running")));
    put(out, "enabled",
        json_boolean(is_true(one, "configured") || any_account(channels, "enabled")));
    put_raw(cli, out, channels, error);
    return out;
}

static json_t *check_sessions(struct cli *cli, const json_t *probe, const char *error)
{
    const json_t *answer = json_object_get(probe, "sessions");
    const json_t *list = json_object_get(answer, "sessions"), *session, *model;
    json_t *out = json_object();
    bool whatsapp = false;
    size_t i;

    json_array_foreach(list, i, session)
    {
        const char *key = json_string_value(json_object_get(session, "key"));

        whatsapp |= key && strstr(key, "whatsapp");
    }
    model = json_object_get(json_object_get(answer, "defaults"), "model");
    put(out, "active", json_boolean(json_array_size(list) > 0));
    put(out, "has_whatsapp_session", json_boolean(whatsapp));
    put(out, "model", model ? json_deep_copy(model) : json_null());
    put_raw(cli, out, answer, error);
    return out;
}

/* --- OpenClaw's settings --- */

static const char *config_path(struct cli *cli, const struct args *args)
{
    const char *given = args_flag(&cmd_swarm_routing, args, "config");
    const char *home = getenv("HOME");

    if (!given)
        given = getenv("OPENCLAW_CONFIG");
    if (given && given[0])
        return given;
    return arena_printf(&cli->arena, "%s/.openclaw/openclaw.json", home ? home : "");
}

static int read_config(struct cli *cli, const char *path, json_t **ret, struct err *e)
{
    AUTO(buf_done) struct buf text = { 0 };
    FILE *file = fopen(path, "re");
    char *room;
    size_t n;
    int r = 0;

    if (!file)
        return err_sys(e, "open '%s'", path);
    buf_init(&text, CONFIG_MAX);
    do {
        n = 0;
        r = buf_reserve(&text, 16 * KIB, &room, e);
        if (r == 0) {
            n = fread(room, 1, 16 * KIB, file);
            buf_commit(&text, n);
        }
    } while (n);
    if (r == 0 && ferror(file))
        r = err_sys(e, "read '%s'", path);
    fclose(file);
    if (r == 0)
        r = json5_parse(buf_str(&text), &cli->arena, ret, e);
    return r < 0 ? err_wrap(e, "'%s' cannot be read", path) : 0;
}

/* Secrets of the channel stay where they are. */
static json_t *without_secrets(const json_t *whatsapp)
{
    static const char *const marks[] = { "token", "secret", "password", "key" };
    json_t *copy = json_deep_copy(whatsapp);
    const char *name;
    json_t *value;

    json_object_foreach(copy, name, value)
    {
        for (size_t i = 0; i < LEN(marks); i++)
            if (strcasestr(name, marks[i]) && json_is_string(value)) {
                put(copy, name, json_string("***"));
                break;
            }
    }
    return copy;
}

static json_t *member_or(const json_t *object, const char *key, json_t *otherwise)
{
    json_t *value = json_object_get(object, key);

    if (!value)
        return otherwise;
    json_decref(otherwise);
    return json_deep_copy(value);
}

/* A group mentions the bot unless its own entry, or that of all groups, says that it need not. */
static json_t *describe(const json_t *whatsapp, const char *group)
{
    json_t *groups = json_object_get(whatsapp, "groups");
    const json_t *all = json_object_get(groups, "*"), *one = NULL, *mention;
    json_t *out = json_object();

    if (group)
        one = json_object_get(groups, group);
    else if (json_object_size(groups))
        one = json_object_iter_value(json_object_iter(groups));
    mention = json_object_get(one ? one : all, "requireMention");
    put(out, "configured", json_boolean(json_is_object(whatsapp)));
    put(out, "group_registered", json_boolean(one || all));
    put(out, "require_mention", json_boolean(!json_is_false(mention)));
    put(out, "dm_policy", member_or(whatsapp, "dmPolicy", json_null()));
    put(out, "allowed_numbers", member_or(whatsapp, "allowFrom", json_array()));
    put(out, "group_policy", member_or(whatsapp, "groupPolicy", json_null()));
    put(out, "config", json_is_object(whatsapp) ? without_secrets(whatsapp) : json_object());
    return out;
}

static json_t *check_routing(struct cli *cli, const struct args *args)
{
    json_t *config = NULL, *out;
    struct err e;

    if (read_config(cli, config_path(cli, args), &config, &e) == 0)
        return describe(json_object_get(json_object_get(config, "channels"), "whatsapp"),
                        args_flag(&cmd_swarm_routing, args, "group"));
    out = json_object();
    put(out, "configured", json_false());
    put(out, "error", json_string(e.msg));
    return out;
}

/* --- the whole --- */

static bool passes(const json_t *all)
{
    const json_t *gateway = json_object_get(all, "gateway");
    const json_t *routing = json_object_get(all, "routing");

    return is_true(gateway, "running") && is_true(gateway, "listening") &&
           is_true(json_object_get(all, "whatsapp"), "connected") &&
           is_true(json_object_get(all, "sessions"), "active") && is_true(routing, "configured") &&
           is_true(routing, "group_registered");
}

static void row(struct cli *cli, struct table *t, const json_t *all, const char *part,
                const char *key, const char *hint)
{
    const json_t *of = json_object_get(all, part);
    const char *raw = json_string_value(json_object_get(of, "raw_output"));
    bool good = is_true(of, key);

    if (!raw || raw[0] == '{')
        raw = json_string_value(json_object_get(of, "error"));
    table_cell(t, "%s", part);
    table_cell(t, "%s", key);
    table_cell(t, "%s", good ? "yes" : "NO");
    table_cell(t, "%s", good ? "" : raw && *raw ? harmless(cli, stdout, raw) : hint);
}

static int print_routing(struct cli *cli, const json_t *all, struct err *e)
{
    static const char *const columns[] = { "PART", "CHECK", "OK", "~WHY NOT" };
    struct table *t = table_new(columns, LEN(columns));

    row(cli, t, all, "gateway", "running", "start chelad");
    row(cli, t, all, "gateway", "listening", "nothing answers at its address");
    row(cli, t, all, "whatsapp", "enabled", "set the channel up in OpenClaw");
    row(cli, t, all, "whatsapp", "running", "start the channel in OpenClaw");
    row(cli, t, all, "whatsapp", "connected", "link it: openclaw channels login");
    row(cli, t, all, "sessions", "active", "no session yet: nobody has written");
    row(cli, t, all, "sessions", "has_whatsapp_session", "nobody has written over WhatsApp");
    row(cli, t, all, "routing", "configured", "no channels.whatsapp in OpenClaw's settings");
    row(cli, t, all, "routing", "group_registered", "no such group in channels.whatsapp.groups");
    printf("overall: %s\n", json_string_value(json_object_get(all, "overall_status")));
    return table_print(t, e);
}

static CO int routing(struct cli *cli, const struct args *args, struct err *e)
{
    AUTO(json_decref) json_t *all = json_object();
    json_t *probe = NULL;
    char now[TIME_TEXT];
    const char *error;
    struct err why = { 0 };
    int r;

    time_format_z(wall_us(), now);
    put(all, "timestamp", json_string(now));
    put(all, "gateway", check_gateway(cli));
    r = api_call(cli, HTTP_M_GET, "/api/v1/swarm/openclaw", (struct str){ 0 }, &probe, &why);
    cli->no_daemon = cli->refused = false;
    error = r < 0 ? why.msg : json_string_value(json_object_get(probe, "error"));
    put(all, "whatsapp", check_whatsapp(cli, probe, error));
    put(all, "sessions", check_sessions(cli, probe, error));
    put(all, "routing", check_routing(cli, args));
    put(all, "overall_status", json_string(passes(all) ? "PASS" : "FAIL"));
    r = cli->json ? print_json(all, e) : print_routing(cli, all, e);
    return r < 0 ? r : passes(all) ? CLI_OK : CLI_FAILED;
}

const struct cli_cmd cmd_swarm_routing = {
    .name = "swarm routing",
    .words = "",
    CLI_FLAGS(routing_flags),
    .doc = "Does a message find its way? Checks this gateway, OpenClaw's, and OpenClaw's settings.",
    .example = "swarm routing --json",
    .run = routing,
};
