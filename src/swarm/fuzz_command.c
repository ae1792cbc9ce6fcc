/* SPDX-License-Identifier: MIT */
/*
 * Any bytes as a command: no crash, what is found lies within the text, only numbered commands have
 * an issue, and a command stays the same with blanks around it and a mention before it.
 */
#include <assert.h>

#include "fuzz.h"
#include "swarm/command_parse.h"

static void inside(struct str part, struct str text)
{
    assert(!part.n || (part.p >= text.p && part.p + part.n <= text.p + text.n));
}

FUZZ(const uint8_t *data, size_t size)
{
    struct str text = { (const char *)data, size };
    struct command_parsed p, again;
    struct buf b;
    struct err e;

    (void)command_look(text, &p); /* what it is is in p */
    inside(p.raw, text);
    inside(p.number, text);
    assert((p.fault == CMD_FINE && p.kind < CMD_LIST) == (p.issue > 0));
    buf_init(&b, 2 * size + 1024);
    assert(command_fault_text(&p, &b, &e) == 0);
    assert((b.n > 0) == (p.fault != CMD_FINE));
    buf_clear(&b);
    if (p.fault == CMD_FINE && size && *p.raw.p != '@' &&
        buf_printf(&b, &e, " @x \t" STR_FMT "\n", STR_ARG(text)) == 0) {
        assert(command_look(buf_str(&b), &again) == CMD_FINE);
        assert(again.kind == p.kind && again.issue == p.issue);
    }
    buf_done(&b);
    return 0;
}
