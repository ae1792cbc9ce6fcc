/* SPDX-License-Identifier: MIT */
/*
 * base/shape_int.h — between shape_decode.c and shape_coerce.c.
 */
#pragma once

#include "base/shape.h"

/* How a value became a number: 0, or one of these. */
enum coerce { COERCE_WRONG_TYPE = 1, COERCE_UNPARSABLE, COERCE_FRACTION, COERCE_NOT_FINITE };

/*
 * The conversions of pydantic's lax mode: to an integer from whole reals, booleans and text like
 * " 5 ", "5.0", "1_000"; to a boolean from 0, 1 and words; to a real from numbers, booleans and
 * text.
 */
enum coerce coerce_int(const json_t *in, int64_t *ret);
enum coerce coerce_bool(const json_t *in, bool *ret);
enum coerce coerce_real(const json_t *in, double *ret);
