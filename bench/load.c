/* SPDX-License-Identifier: MIT */
/*
 * bench/load.c — a closed loop of N callers, one thread, epoll.
 *
 * Every caller keeps one connection, sends a request, waits for the whole answer, checks it, and
 * sends the next. Latencies go into a histogram of 1/64 octave, so its error is below 1.6 %.
 * Answers that complete inside the window [warm-up, warm-up + seconds) are counted; one JSON object
 * on stdout says what was seen. wrk was not used: its Lua costs as much as the bridge it measures.
 *
 *     load --port N [--path P] [--callers N] [--warmup S] [--seconds S] [--calls N] [--rate N]
 *          [--mode raw|plain|session|mix] [--agent NAME] [--flaky NAME] [--tag TAG]
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "histogram.h"

enum {
    ANSWER_MAX = 256 << 10,
    REQUEST_MAX = 1024,
    EVENTS = 256,
    SESSIONS_PER_CALLER = 4, /* of the mix; bounds what the server has to keep */
    PATIENCE_S = 60,         /* for answers that are missing at the end */
};

enum kind { RAW, PLAIN, SESSION, FALLBACK, STREAM, DELETE, KIND_N };

enum body { BODY_LENGTH, BODY_CHUNKED, BODY_NONE };

struct caller {
    int fd;
    unsigned index;
    uint64_t turn, sent_ns;
    enum kind kind;
    bool waits; /* for an answer */
    size_t request_len, len;
    char request[REQUEST_MAX];
    char *answer; /* ANSWER_MAX bytes */
};

struct load {
    const char *path, *mode, *agent, *flaky, *tag;
    double port, callers_n, warmup_s, seconds, rate, calls_max;
    unsigned n_callers;
    int epoll;
    bool stopping;
    uint64_t begin_ns, from_ns, until_ns;
    uint64_t started, waiting, all, errors, by_kind[KIND_N];
    struct histogram window;
    struct caller *callers;
    struct caller **idle; /* paced callers waiting for their turn: a ring of n_callers */
    unsigned first_idle, n_idle;
    char first_error[256];
};

static const char *const kind_name[KIND_N] = { "raw",      "plain",  "session",
                                               "fallback", "stream", "delete" };

/* The soak's mix: of 20 calls 8 have a session, 6 none, 3 fall back, 2 stream, 1 deletes. */
static const enum kind mix[20] = {
    SESSION, PLAIN, SESSION,  FALLBACK, PLAIN,   SESSION, STREAM, PLAIN,  SESSION, SESSION,
    PLAIN,   PLAIN, FALLBACK, SESSION,  SESSION, STREAM,  PLAIN,  DELETE, SESSION, FALLBACK,
};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void request_make(const struct load *load, struct caller *c, const char *method,
                         const char *fmt, ...) __attribute__((format(printf, 4, 5)));

static void request_make(const struct load *load, struct caller *c, const char *method,
                         const char *fmt, ...)
{
    char body[REQUEST_MAX / 2];
    va_list args;
    int n;

    va_start(args, fmt);
    n = vsnprintf(body, sizeof(body), fmt, args);
    va_end(args);
    n = snprintf(c->request, sizeof(c->request),
                 "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%.0f\r\nContent-Type: application/json\r\n"
                 "Content-Length: %d\r\n\r\n%s",
                 method, load->path, load->port, n, body);
    c->request_len = (size_t)n;
    if (c->request_len >= sizeof(c->request)) {
        fprintf(stderr, "load: the request is too long\n");
        exit(2);
    }
}

static void delete_make(const struct load *load, struct caller *c, unsigned session)
{
    c->request_len = (size_t)snprintf(c->request, sizeof(c->request),
                                      "DELETE /api/vps/sessions/%s-%u-%u HTTP/1.1\r\n"
                                      "Host: 127.0.0.1:%.0f\r\n\r\n",
                                      load->tag, c->index, session, load->port);
}

/* Write this caller's next request; what does not change from turn to turn is written once. */
static void next_request(const struct load *load, struct caller *c)
{
    static const char *const prompt = "Summarise what changed since yesterday, in one sentence.";
    unsigned session = (unsigned)(c->turn / 20 % SESSIONS_PER_CALLER);
    bool mixed = strcmp(load->mode, "mix") == 0;

    if (!mixed && c->request_len)
        return;
    if (mixed)
        c->kind = mix[(c->turn + c->index) % 20];
    switch (c->kind) {
    case RAW:
        request_make(load, c, "POST",
                     "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}",
                     load->agent, prompt);
        break;
    case SESSION:
        request_make(load, c, "POST",
                     "{\"agent_name\":\"%s\",\"prompt\":\"%s\",\"session_id\":\"%s-%u-%u\","
                     "\"user_id\":\"bench\"}",
                     load->agent, prompt, load->tag, c->index, session);
        break;
    case DELETE:
        delete_make(load, c, session);
        break;
    default:
        request_make(load, c, "POST", "{\"agent_name\":\"%s\",\"prompt\":\"%s\"%s}",
                     c->kind == FALLBACK ? load->flaky : load->agent, prompt,
                     c->kind == STREAM ? ",\"stream\":true" : "");
    }
}

static void caller_connect(const struct load *load, struct caller *c)
{
    struct sockaddr_in addr = { .sin_family = AF_INET,
                                .sin_port = htons((uint16_t)load->port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
    int on = 1;

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0 ||
        epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &ev) < 0)
        die("epoll_ctl");
}

static void note_error(struct load *load, const struct caller *c, const char *what)
{
    if (!load->errors++)
        snprintf(load->first_error, sizeof(load->first_error), "%s: %s: %.160s", kind_name[c->kind],
                 what, c->len ? c->answer : "");
}

static void caller_send(struct load *load, struct caller *c)
{
    if (load->calls_max > 0 && (double)load->started >= load->calls_max)
        load->stopping = true;
    if (load->stopping)
        return;
    next_request(load, c);
    load->started++;
    load->waiting++;
    c->waits = true;
    c->turn++;
    c->len = 0;
    c->sent_ns = now_ns();
    /* A small request on an idle connection always fits; if not, the answer never comes. */
    if (send(c->fd, c->request, c->request_len, MSG_NOSIGNAL) != (ssize_t)c->request_len)
        shutdown(c->fd, SHUT_RDWR);
}

/* Send at once, or, when the load is paced, as soon as the rate allows one more. */
static void caller_next(struct load *load, struct caller *c)
{
    double passed_s = (double)(now_ns() - load->begin_ns) / 1e9;

    if (load->rate > 0 && (double)load->started >= passed_s * load->rate)
        load->idle[(load->first_idle + load->n_idle++) % load->n_callers] = c;
    else
        caller_send(load, c);
}

static void idle_wake(struct load *load)
{
    double due = (double)(now_ns() - load->begin_ns) / 1e9 * load->rate;

    while (load->n_idle && (double)load->started < due && !load->stopping) {
        struct caller *c = load->idle[load->first_idle];

        load->first_idle = (load->first_idle + 1) % load->n_callers;
        load->n_idle--;
        caller_send(load, c);
    }
}

static enum body body_kind(const char *head, size_t n, size_t *ret_length)
{
    const char *p = memmem(head, n, "ontent-", 7);

    for (; p; p = memmem(p + 7, n - (size_t)(p + 7 - head), "ontent-", 7)) {
        if (strncasecmp(p + 7, "length:", 7) == 0) {
            *ret_length = strtoul(p + 14, NULL, 10);
            return BODY_LENGTH;
        }
    }
    return strncmp(head + 9, "204", 3) == 0 ? BODY_NONE : BODY_CHUNKED;
}

/*
 * True once the answer is whole; *ret_body is where its body begins. One request is in flight, so a
 * chunked answer is whole when what has come ends with the last chunk.
 */
static bool answer_whole(const struct caller *c, const char **ret_body)
{
    const char *end = memmem(c->answer, c->len, "\r\n\r\n", 4);
    size_t head, length = 0;

    if (!end)
        return false;
    head = (size_t)(end - c->answer) + 4;
    *ret_body = c->answer + head;
    switch (body_kind(c->answer, head, &length)) {
    case BODY_LENGTH:
        return c->len >= head + length;
    case BODY_NONE:
        return true;
    case BODY_CHUNKED:
        break;
    }
    return c->len >= head + 5 && memcmp(c->answer + c->len - 5, "0\r\n\r\n", 5) == 0;
}

static bool answer_right(const struct caller *c, const char *body)
{
    const char *status = c->answer + 9;

    if (c->kind == DELETE)
        return strncmp(status, "204", 3) == 0 || strncmp(status, "404", 3) == 0;
    if (strncmp(status, "200", 3) != 0)
        return false;
    if (c->kind == STREAM && !strstr(body, "event: result"))
        return false;
    return strstr(body, c->kind == RAW ? "\"content\":" : "\"success\":true") != NULL;
}

static void answer_count(struct load *load, const struct caller *c, const char *body)
{
    uint64_t now = now_ns();

    load->all++;
    load->by_kind[c->kind]++;
    if (!answer_right(c, body))
        note_error(load, c, "wrong answer");
    if (now < load->from_ns || now >= load->until_ns)
        return;
    histogram_add(&load->window, now - c->sent_ns);
}

/* A server may close a connection that was idle between paced calls: that is no error. */
static void caller_lost(struct load *load, struct caller *c)
{
    if (c->waits)
        note_error(load, c, "connection lost");
    close(c->fd);
    caller_connect(load, c);
}

static void caller_read(struct load *load, struct caller *c)
{
    ssize_t n = recv(c->fd, c->answer + c->len, ANSWER_MAX - 1 - c->len, 0);
    const char *body;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        c->len += (size_t)n;
        c->answer[c->len] = '\0';
        if (!answer_whole(c, &body))
            return;
        answer_count(load, c, body);
    } else {
        caller_lost(load, c);
    }
    if (!c->waits)
        return;
    load->waiting--;
    c->waits = false;
    caller_next(load, c);
}

static void note_missing(struct load *load)
{
    for (unsigned i = 0; i < load->n_callers; i++) {
        if (load->callers[i].waits)
            note_error(load, &load->callers[i], "no answer");
    }
}

static void load_run(struct load *load)
{
    struct epoll_event events[EVENTS];

    for (unsigned i = 0; i < load->n_callers; i++)
        caller_connect(load, &load->callers[i]);
    load->begin_ns = now_ns();
    load->from_ns = load->begin_ns + (uint64_t)(load->warmup_s * 1e9);
    load->until_ns = load->from_ns + (uint64_t)(load->seconds * 1e9);
    for (unsigned i = 0; i < load->n_callers; i++)
        caller_next(load, &load->callers[i]);
    while (load->waiting || (load->n_idle && !load->stopping)) {
        int n = epoll_wait(load->epoll, events, EVENTS, load->n_idle ? 1 : 1000);

        for (int i = 0; i < n; i++)
            caller_read(load, events[i].data.ptr);
        if (now_ns() >= load->until_ns)
            load->stopping = true;
        if (now_ns() >= load->until_ns + PATIENCE_S * 1000000000ull) {
            note_missing(load);
            break;
        }
        if (load->n_idle)
            idle_wake(load);
    }
}

static void print_text(const char *text)
{
    for (; *text; text++)
        putchar(*text < ' ' || *text == '"' || *text == '\\' ? ' ' : *text);
}

static void load_print(const struct load *load)
{
    double until_s = (double)(now_ns() - load->begin_ns) / 1e9 - load->warmup_s;
    double window_s = until_s < load->seconds ? until_s : load->seconds;
    const struct histogram *h = &load->window;
    double n = h->n ? (double)h->n : 1.0;

    printf("{\"callers\":%u,\"seconds\":%.3f,\"calls\":%lu,\"calls_all\":%lu,\"errors\":%lu,"
           "\"calls_per_s\":%.1f,\"mean_us\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,"
           "\"p99_us\":%.1f,\"max_us\":%.1f,",
           load->n_callers, window_s, (unsigned long)h->n, (unsigned long)load->all,
           (unsigned long)load->errors, (double)h->n / window_s, (double)h->sum_ns / n / 1000.0,
           histogram_us(h, 0.50), histogram_us(h, 0.90), histogram_us(h, 0.99),
           (double)h->max_ns / 1000.0);
    for (unsigned i = 0; i < KIND_N; i++)
        printf("\"n_%s\":%lu,", kind_name[i], (unsigned long)load->by_kind[i]);
    printf("\"first_error\":\"");
    print_text(load->first_error);
    printf("\"}\n");
}

static enum kind kind_of_mode(const char *mode)
{
    for (unsigned i = 0; i < KIND_N; i++) {
        if (strcmp(mode, kind_name[i]) == 0)
            return (enum kind)i;
    }
    return PLAIN;
}

static void callers_make(struct load *load)
{
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    load->callers = calloc(load->n_callers, sizeof(*load->callers));
    load->idle = calloc(load->n_callers, sizeof(struct caller *));
    if (load->epoll < 0 || !load->callers || !load->idle)
        die("callers");
    for (unsigned i = 0; i < load->n_callers; i++) {
        load->callers[i].index = i;
        load->callers[i].kind = kind_of_mode(load->mode);
        load->callers[i].answer = malloc(ANSWER_MAX);
        if (!load->callers[i].answer)
            die("callers");
    }
}

/* Every option takes a value: text, or a number. */
static bool options_parse(struct load *load, int argc, char **argv)
{
    const struct {
        const char *name;
        const char **text;
        double *number;
    } options[] = {
        { "--path", &load->path, NULL },         { "--mode", &load->mode, NULL },
        { "--agent", &load->agent, NULL },       { "--flaky", &load->flaky, NULL },
        { "--tag", &load->tag, NULL },           { "--port", NULL, &load->port },
        { "--callers", NULL, &load->callers_n }, { "--warmup", NULL, &load->warmup_s },
        { "--seconds", NULL, &load->seconds },   { "--calls", NULL, &load->calls_max },
        { "--rate", NULL, &load->rate },
    };
    const size_t n = sizeof(options) / sizeof(options[0]);

    for (int i = 1; i < argc; i += 2) {
        size_t at = 0;

        while (at < n && strcmp(argv[i], options[at].name) != 0)
            at++;
        if (at == n || i + 1 == argc)
            return false;
        if (options[at].text)
            *options[at].text = argv[i + 1];
        else
            *options[at].number = strtod(argv[i + 1], NULL);
    }
    return load->port > 0 && load->callers_n >= 1 && load->seconds > 0;
}

int main(int argc, char **argv)
{
    static struct load load = {
        .path = "/api/vps/call",
        .mode = "plain",
        .agent = "echo",
        .flaky = "flaky",
        .tag = "bench",
        .callers_n = 1,
        .warmup_s = 0.5,
        .seconds = 3,
    };

    if (!options_parse(&load, argc, argv)) {
        fprintf(stderr, "usage: load --port N [--callers N] [--seconds S] [--mode MODE] …\n");
        return 2;
    }
    load.n_callers = (unsigned)load.callers_n;
    signal(SIGPIPE, SIG_IGN);
    callers_make(&load);
    load_run(&load);
    load_print(&load);
    return load.errors ? 3 : 0;
}
