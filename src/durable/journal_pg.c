/* SPDX-License-Identifier: MIT */
#include "durable/journal_int.h"
CO int batch_send_pg(struct batch *b, struct err *e)
{
    return batch_send_tx(b, e);
}
