/* SPDX-License-Identifier: MIT */
#include "store/pg_lib.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static struct pg_lib lib;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char problem[160]; /* empty: it is loaded */

static const struct {
    const char *name;
    size_t offset;
} functions[] = {
#define PG_ROW(name) { "PQ" #name, offsetof(struct pg_lib, name) },
    PG_FUNCTIONS(PG_ROW)
#undef PG_ROW
};

static void load(void)
{
    void *handle = dlopen("libpq.so.5", RTLD_NOW | RTLD_LOCAL);

    if (!handle) {
        (void)snprintf(problem, sizeof(problem), "%s", dlerror());
        return;
    }
    for (size_t i = 0; i < LEN(functions); i++) {
        void *function = dlsym(handle, functions[i].name);

        if (!function) {
            (void)snprintf(problem, sizeof(problem), "it has no %s", functions[i].name);
            return;
        }
        memcpy((char *)&lib + functions[i].offset, &function, sizeof(function));
    }
}

int pg_lib_load(const struct pg_lib **ret, struct err *e)
{
    (void)pthread_once(&once, load);
    if (problem[0])
        return err_set(e, ERR_UNAVAILABLE,
                       "PostgreSQL's client library cannot be loaded (Debian: libpq5): %s",
                       problem);
    *ret = &lib;
    return 0;
}
