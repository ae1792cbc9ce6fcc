/* SPDX-License-Identifier: MIT */
/*
 * tests/fuzz/fuzz.h — one entry point for both lives of a fuzz target: libFuzzer's when built with
 * -Dfuzz=true, else a program that replays the files of a corpus directory (argv[1]) as a TAP test,
 * each whole and cut at every eighth of its length.
 *
 *     FUZZ(const uint8_t *data, size_t size) { ...; return 0; }
 */
#pragma once

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
#define FUZZ(...) int LLVMFuzzerTestOneInput(__VA_ARGS__)

#ifndef CHELA_FUZZ
static void fuzz_replay(const char *dir, const char *name)
{
    char path[4096];
    uint8_t *data, *exact;
    size_t size;
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "rb");
    data = malloc(1 << 20);
    if (!f || !data)
        exit(2);
    size = fread(data, 1, 1 << 20, f);
    fclose(f);
    for (int eighths = 0; eighths <= 8; eighths++) {
        size_t n = size * (size_t)eighths / 8;

        exact = malloc(n ? n : 1); /* so that a sanitizer sees the first byte too far */
        if (!exact)
            exit(2);
        memcpy(exact, data, n);
        LLVMFuzzerTestOneInput(exact, n);
        free(exact);
    }
    free(data);
}

int main(int argc, char **argv)
{
    struct dirent *entry;
    int n = 0;
    DIR *dir = argc > 1 ? opendir(argv[1]) : NULL;

    if (!dir) {
        fprintf(stderr, "usage: %s CORPUS-DIRECTORY\n", argv[0]);
        return 2;
    }
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.') {
            fuzz_replay(argv[1], entry->d_name);
            printf("ok %d - %s\n", ++n, entry->d_name);
        }
    closedir(dir);
    printf("1..%d\n", n);
    return n ? 0 : 1;
}
#endif
