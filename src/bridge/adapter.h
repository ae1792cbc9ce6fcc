/* SPDX-License-Identifier: MIT */
/*
 * bridge/adapter.h — the dialects agents speak: what they are asked, and the text in what they
 * answer, whole or as a stream of events. Pure.
 *
 *     messages     POST /v1/messages            the original's, near to Anthropic's
 *     openai       POST /v1/chat/completions
 *     responses    POST /v1/responses
 */
#pragma once

#include "base/json.h"
#include "bridge/classify.h"
#include "bridge/out.h"

enum agent_api { API_MESSAGES, API_OPENAI, API_RESPONSES, API_KINDS };

struct ask_turn { /* an earlier message of the session */
    struct str role, content;
};

struct ask {
    struct str model; /* the registered name of the agent being tried */
    struct str prompt;
    struct str session_id; /* {NULL, 0}: none */
    const struct ask_turn *earlier;
    size_t n_earlier;
    bool stream;
};

struct adapter {
    const char *name, *path;
    void (*body)(const struct ask *ask, struct out *o);
    /* The text in a whole answer, in the arena; -ERR_INVALID with what is wrong with it. */
    int (*text)(const json_t *answer, struct arena *a, struct str *ret, struct err *e);
};
extern const struct adapter adapters[API_KINDS];

/* API_KINDS: no such name. */
enum agent_api agent_api_of(struct str name);

/* adapter->text() on unparsed bytes; texts of errors begin with "Invalid response: ". */
int adapter_read(const struct adapter *adapter, struct str body, struct arena *a, struct str *ret,
                 struct err *e) MUST_CHECK;

/*
 * One event of a stream. The events of all three dialects are known whatever the agent's own:
 * OpenAI's chunks, Anthropic's content_block_delta, OpenResponses' response.output_text.delta.
 */
enum delta_kind {
    DELTA_NONE,
    DELTA_BEGIN, /* of a stream that will say that it has come to its end */
    DELTA_TEXT,
    DELTA_END,
    DELTA_ERROR
};
struct delta {
    struct str text;      /* of DELTA_TEXT; of DELTA_ERROR: what went wrong. In the arena. */
    enum error_type type; /* of DELTA_ERROR */
};
enum delta_kind delta_read(struct str data, struct arena *a, struct delta *ret);
