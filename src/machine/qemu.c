/* SPDX-License-Identifier: MIT */
/* machine/qemu.c — not built yet. */
#include "machine/machine.h"

static CO int probe(const struct machine_host *host, struct err *e)
{
    return err_set(e, ERR_UNAVAILABLE, "machines of this kind are not built yet");
}

const struct machine_driver machine_qemu = { .name = "qemu", .probe = probe };
