/* SPDX-License-Identifier: MIT */
/*
 * hub/fleet_int.h — what the files of the fleet share.
 *
 *   fleet_table.c   states, operations, which is allowed where
 *   fleet_spec.c    what a machine is to be: from a request, as a row's text, for its driver
 *   fleet_store.c   rows
 *   fleet.c         machines in memory, the one mover, who waits for one
 *   fleet_flow.c    operations as workflows; fleet_step.c their steps
 *   fleet_lost.c    how long is kept what belonged to no machine
 *   fleet_keep.c    adoption, watching, starting again, deadlines, sweeping, the end
 *   fleet_api.c     routes
 *   fleet_shell.c   shells of operators
 *
 * Memory is what counts while the daemon lives: one daemon has a machine (the row's instance). A
 * machine is moved in memory, at once, and then written; machine_save() writes what is in memory
 * then, so that the last write is right whoever came first.
 */
#pragma once

#include "base/strmap.h"
#include "hub/fleet.h"
#include "machine/egress.h"
#include "machine/machine.h"

enum machine_state {
    MS_CREATING,
    MS_STARTING,
    MS_RUNNING,
    MS_STOPPING,
    MS_STOPPED,
    MS_SNAPSHOTTING,
    MS_RESTORING,
    MS_DESTROYING,
    MS_FAILED,
    MS_STATES,
};
enum machine_op {
    MO_CREATE,
    MO_START,
    MO_STOP,
    MO_RESTART,
    MO_SNAPSHOT,
    MO_RESTORE,
    MO_DESTROY,
    MO_OPS,
};
struct machine_rule {      /* a row of the table */
    const char *name;      /* of the operation; also of its workflow */
    enum machine_state to; /* while it is under way */
    bool from[MS_STATES];
    const char *done; /* the audit log's word for it */
    const char *doc;
};
extern const struct machine_rule machine_rules[MO_OPS];
extern const char *const machine_state_names[MS_STATES];

bool machine_state_transient(enum machine_state s);
int machine_state_parse(struct str name, enum machine_state *ret); /* -1: none */
/* May the operation begin? ERR_CONFLICT says why not. busy: another one is under way. */
int machine_op_judge(enum machine_op op, enum machine_state state, bool busy, struct err *e)
    MUST_CHECK;
/* How long it may take, of the settings. */
int64_t machine_op_ms(const struct hub_settings *s, enum machine_op op);

/* How a machine that died comes back: wait before the n-th start in a row (n from 1), ms; -1: it
 * has died too often. */
#define MACHINE_DEATHS_MAX 6
#define MACHINE_WELL_MS    (10 * 60 * 1000) /* up so long: earlier deaths are forgotten */
int64_t machine_backoff_ms(unsigned deaths);

/* --- one machine --- */

#define REASON_MAX    400
#define OPERATION_MAX 120

struct machine {
    struct strmap_node node;
    struct fleet *fleet;
    unsigned refs; /* holders over waits; one is the map's */
    bool gone;     /* out of the map */
    char name[MACHINE_NAME_MAX + 1];
    const struct machine_driver *driver;
    json_t *spec; /* see fleet_spec.c; not changed once it is made */
    enum machine_state state;
    char reason[REASON_MAX];       /* "": none */
    char operation[OPERATION_MAX]; /* the workflow's id; "": none is under way */
    char progress[80];
    bool wanted_running;
    int64_t deadline; /* of the transient state, ms since 1970 */
    int64_t created_at, updated_at, started_at;
    char address[64], accel[8];

    struct fiber_lane lane, save_lane; /* one driver call at a time; one write */
    struct egress *egress;
    bool watched;       /* a fiber waits for its end */
    unsigned deaths;    /* in a row */
    int64_t restart_at; /* ms since 1970; 0: not planned */
    uint64_t begun_ms;  /* of the operation, for the histogram */
};

struct fleet_waiter { /* on the stack of a fiber that waits for something to change */
    struct fleet_waiter *next;
    struct fiber *fiber;
};

struct shell;

struct fleet {
    struct hub *h;
    struct machine_host host;
    char *dir, *images, *agent, *socket; /* of host */
    struct strmap map;
    struct machine **list; /* in order of creation */
    size_t n, cap;
    struct fleet_waiter *waiting;
    struct fiber_group *group;
    bool ready, stopping;
    struct durable_type types[MO_OPS];
    struct durable_queue queue;
    char queue_name[32];
    struct shell *shells; /* of fleet_shell.c */
    size_t n_shells;
};

/* Borrowed: valid until the next wait, longer with a reference. NULL: none. */
struct machine *machine_find(struct fleet *f, struct str name);
struct machine *machine_ref(struct machine *m);
void machine_unref(struct machine *m);
static inline void machine_unref_auto(struct machine **m)
{
    if (*m)
        machine_unref(*m);
}
/* Into the map / out of it. add takes the object. */
struct machine *machine_new(struct fleet *f, struct str name, const struct machine_driver *driver,
                            json_t *spec);
void machine_add(struct machine *m);
void machine_remove(struct machine *m);

/* Something has changed: whoever waits looks again. */
void fleet_wake(struct fleet *f);
/* Park until fleet_wake(), the deadline (0 too) or cancel. */
CO int fleet_wait(struct fleet *f, uint64_t deadline_ms, struct err *e) MUST_CHECK;

/*
 * The one mover. reason NULL: none (well), also for a text of length 0. Leaving a transient state
 * ends the operation. Tells events and waiters; does not write: machine_save() does.
 */
void machine_move(struct machine *m, enum machine_state to, const char *reason);
void machine_progress_set(struct machine *m, const char *text);
CO int machine_save(struct machine *m, struct err *e) MUST_CHECK;

/*
 * Begin an operation: judged, moved, written, its workflow started. args: further arguments of it
 * ("snapshot", "force"), a reference that is taken, or NULL. ERR_CONFLICT; ERR_UNAVAILABLE while we
 * stop. m must be held by a reference.
 */
CO int machine_begin(struct machine *m, enum machine_op op, json_t *args, struct err *e) MUST_CHECK;

/* --- store --- */

CO int machine_insert(struct machine *m, struct err *e) MUST_CHECK; /* ERR_CONFLICT: it is there */
CO int machine_delete(struct machine *m, struct err *e) MUST_CHECK;
CO int fleet_load(struct fleet *f, struct err *e) MUST_CHECK;

/* --- spec --- */

struct machine_wish { /* of POST /machines */
    const char *name, *driver, *type, *image, *hubUrl;
    int64_t cpus;
    json_t *memory, *disk, *capabilities, *allow, *env, *profile;
};
/* Check it and make the spec that the row keeps; a new reference. */
int machine_spec_make(const struct fleet *f, const struct machine_wish *wish,
                      const struct machine_driver **ret_driver, json_t **ret, struct err *e)
    MUST_CHECK;
/* What a driver is told; texts borrowed from m->spec and the arena. token NULL: the old one. */
void machine_job_make(struct machine *m, struct arena *a, const char *token, uint64_t deadline_ms,
                      struct machine_job *ret);
/* M of the API, a new reference. */
json_t *machine_json(struct machine *m);
/* metadata for the registration of its agent, a new reference */
json_t *machine_metadata(const struct machine *m);

/* --- workflows --- */

#define FLEET_CLASS "MachineWorkflow"
CO int machine_flow(struct workflow *w, void *ctx, struct err *e);

struct operation { /* one run of a workflow; its steps take it as their argument */
    struct workflow *w;
    struct fleet *f;
    struct machine *m; /* held */
    enum machine_op op;
    uint64_t deadline_ms;
    bool was_running, force;
    const char *snapshot; /* "": none */
    bool failed;          /* for the last step: it says why */
    struct err why;
};
/* Bodies of steps; each may be run again after it was cut off. */
CO int step_create(void *operation, struct buf *out, struct err *e);
CO int step_bring_up(void *operation, struct buf *out, struct err *e); /* start, and its agent */
CO int step_stop(void *operation, struct buf *out, struct err *e);
CO int step_snapshot(void *operation, struct buf *out, struct err *e);
CO int step_restore(void *operation, struct buf *out, struct err *e);
CO int step_undo(void *operation, struct buf *out, struct err *e);    /* of a failed creation */
CO int step_destroy(void *operation, struct buf *out, struct err *e); /* the row goes too */
CO int step_settle(void *operation, struct buf *out, struct err *e);  /* the state it ends in */

/* How it ended, in the audit log. */
CO void operation_audit(const struct operation *p);

/* Open the machine's way out, if it is not open. */
int machine_egress_open(struct machine *m, struct err *e) MUST_CHECK;
CO void machine_egress_close(struct machine *m);

/* --- keeping --- */

/* It runs now: note when and where (look NULL: not known), and look after it from here on. */
void machine_runs(struct machine *m, const struct machine_look *look);
/* It is off though it should run: plan its next start, or give it up. reason: of its end. */
void machine_died(struct machine *m, const char *reason);
CO int fleet_keep(void *fleet, struct err *e); /* adoption, then deadlines and restarts for ever */
CO void fleet_end_machines(struct fleet *f);   /* machine.on_exit */
CO void fleet_lost_trim(struct fleet *f);      /* of machines/.lost what is too old, or too much */
/* What the driver finds; ret->reason is in the arena. */
CO int machine_look_now(struct machine *m, struct arena *a, struct machine_look *ret, struct err *e)
    MUST_CHECK;
/* Stop it, by force when that is not done by the deadline; closes its way out and its socket. */
CO int machine_halt(struct machine *m, bool force, uint64_t deadline_ms, struct err *e) MUST_CHECK;

void fleet_shells_end(struct fleet *f);
