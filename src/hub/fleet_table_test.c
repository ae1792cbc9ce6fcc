/* SPDX-License-Identifier: MIT */
/* hub/fleet_table_test.c — which operation may begin in which state, and how machines come back. */
#include "hub/fleet_int.h"
#include "test.h"

TEST(destroying_may_begin_in_every_state_and_whatever_is_under_way)
{
    struct err e;

    for (int s = 0; s < MS_STATES; s++) {
        CHECK_INT(machine_op_judge(MO_DESTROY, (enum machine_state)s, false, &e), 0);
        CHECK_INT(machine_op_judge(MO_DESTROY, (enum machine_state)s, true, &e),
                  s == MS_DESTROYING ? -ERR_CONFLICT : 0);
    }
}

TEST(one_operation_at_a_time)
{
    struct err e;

    for (int op = MO_START; op < MO_DESTROY; op++)
        for (int s = 0; s < MS_STATES; s++) {
            CHECK_INT(machine_op_judge((enum machine_op)op, (enum machine_state)s, true, &e),
                      -ERR_CONFLICT);
            if (machine_state_transient((enum machine_state)s))
                CHECK_INT(machine_op_judge((enum machine_op)op, (enum machine_state)s, false, &e),
                          -ERR_CONFLICT);
        }
}

TEST(what_may_begin_from_rest)
{
    static const struct {
        enum machine_op op;
        bool running, stopped, failed;
    } rows[] = {
        { MO_START, false, true, true },    { MO_STOP, true, true, true },
        { MO_RESTART, true, true, true },   { MO_SNAPSHOT, true, true, false },
        { MO_RESTORE, true, true, true },   { MO_DESTROY, true, true, true },
        { MO_CREATE, false, false, false },
    };
    struct err e;

    for (size_t i = 0; i < LEN(rows); i++) {
        CHECK_INT(machine_op_judge(rows[i].op, MS_RUNNING, false, &e) == 0, rows[i].running);
        CHECK_INT(machine_op_judge(rows[i].op, MS_STOPPED, false, &e) == 0, rows[i].stopped);
        CHECK_INT(machine_op_judge(rows[i].op, MS_FAILED, false, &e) == 0, rows[i].failed);
    }
}

TEST(states_have_names_that_read_back)
{
    enum machine_state back = MS_FAILED;

    for (int s = 0; s < MS_STATES; s++) {
        CHECK_INT(machine_state_parse(str_of(machine_state_names[s]), &back), 0);
        CHECK_INT(back, s);
    }
    CHECK_INT(machine_state_parse(STR("asleep"), &back), -1);
}

TEST(a_machine_comes_back_ever_later_and_then_no_more)
{
    int64_t before = 0;

    for (unsigned n = 1; n < MACHINE_DEATHS_MAX; n++) {
        CHECK(machine_backoff_ms(n) > before);
        before = machine_backoff_ms(n);
    }
    CHECK_INT(machine_backoff_ms(MACHINE_DEATHS_MAX), -1);
    CHECK_INT(machine_backoff_ms(MACHINE_DEATHS_MAX + 7), -1);
}
