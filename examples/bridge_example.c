/* SPDX-License-Identifier: MIT */
/*
 * examples/bridge_example.c — libchela in one page: two agents, one of them down, a conversation,
 * and what became of the agents' health.
 *
 *     cc bridge_example.c $(pkg-config --cflags --libs chela) -o bridge_example
 *     chela-agent http --port 5001 -- cat &
 *     ./bridge_example 5001 "Hello"
 */
#include <chela/bridge.h>
#include <stdio.h>
#include <stdlib.h>

static void print_piece(const char *agent_name, const char *text, size_t n, void *arg)
{
    size_t *pieces = arg;

    (void)agent_name;
    ++*pieces;
    fwrite(text, 1, n, stdout);
}

static int register_agents(struct chela_bridge *bridge, int port, struct chela_error *error)
{
    const char *const fallbacks[] = { "backup", NULL };
    const struct chela_agent_config main_agent = {
        .name = "main",
        .host = "127.0.0.1",
        .port = 1, /* nobody listens there */
        .max_retries = 2,
        .fallback_agents = fallbacks,
    };
    const struct chela_agent_config backup = {
        .name = "backup",
        .host = "127.0.0.1",
        .port = port,
    };
    int r = chela_bridge_register(bridge, &main_agent, error);

    return r < 0 ? r : chela_bridge_register(bridge, &backup, error);
}

static int converse(struct chela_bridge *bridge, const char *prompt, struct chela_error *error)
{
    size_t pieces = 0;
    const struct chela_call call = {
        .agent_name = "main",
        .prompt = prompt,
        .session_id = "example",
        .user_id = "ada",
        .on_delta = print_piece,
        .on_delta_arg = &pieces,
    };
    struct chela_session *session;
    struct chela_result *result;
    int r;

    printf("answer: ");
    r = chela_bridge_call(bridge, &call, &result, error);
    if (r < 0)
        return r;
    printf("\nagent: %s, pieces: %zu, failed over: %s\n",
           result->success ? result->agent_name : result->error, pieces,
           result->retried ? "yes" : "no");
    chela_result_free(result);

    r = chela_bridge_session(bridge, "example", &session, error);
    if (r < 0)
        return r;
    for (size_t i = 0; i < session->n_messages; i++)
        printf("%s: %s\n", session->messages[i].role, session->messages[i].content);
    chela_session_free(session);
    return 0;
}

static int print_health(struct chela_bridge *bridge, const char *name, struct chela_error *error)
{
    struct chela_health health;
    int r = chela_bridge_health(bridge, name, &health, error);

    if (r == 0)
        printf("%s is %s\n", name, chela_health_status_name(health.status));
    return r;
}

int main(int argc, char **argv)
{
    const struct chela_bridge_config config = { .backoff_initial = 0.05 };
    struct chela_bridge *bridge = NULL;
    struct chela_error error;
    int r;

    if (argc != 3) {
        fprintf(stderr, "usage: %s PORT PROMPT\n", argv[0]);
        return 2;
    }
    r = chela_bridge_new(&config, &bridge, &error);
    if (r == 0)
        r = register_agents(bridge, atoi(argv[1]), &error);
    if (r == 0)
        r = converse(bridge, argv[2], &error);
    if (r == 0)
        r = print_health(bridge, "main", &error);
    if (r == 0)
        r = print_health(bridge, "backup", &error);
    if (r < 0)
        fprintf(stderr, "%s\n", error.text);
    chela_bridge_free(bridge);
    return r < 0;
}
