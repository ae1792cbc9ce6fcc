/* SPDX-License-Identifier: MIT */
/*
 * base/id.h — identifiers: random UUIDs (RFC 9562 v4, and v7, which sorts by time).
 */
#pragma once

#define UUID_TEXT 37

void uuid_v4(char out[UUID_TEXT]);
void uuid_v7(char out[UUID_TEXT]); /* of wall_us() */
