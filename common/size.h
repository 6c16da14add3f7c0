/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

#define KIB           UINT64_C(1024)
#define MIB           (UINT64_C(1024) * KIB)
#define GIB           (UINT64_C(1024) * MIB)
#define TIB           (UINT64_C(1024) * GIB)
#define USEC_PER_MSEC UINT64_C(1000)
#define USEC_PER_SEC  UINT64_C(1000000)
#define USEC_INFINITY UINT64_MAX

/* Parses a size: a whole decimal number and a binary unit, K M G T with an optional "iB" or "B" ("512M",
 * "2G", "1536MiB"; K and M are the same in lower case). Zero, a sign, a fraction, a missing unit, and more
 * than 2^63-1 bytes are errors with a sentence that says what would be right. Bytes. */
int size_parse(const char *s, uint64_t *ret_bytes, struct error *ret_error);

/* "512 MiB", "1.5 GiB" when that is exact in halves or quarters, else the largest unit that divides; any
 * bytes. */
#define SIZE_FORMAT_MAX 32
const char *size_format(uint64_t bytes, char buffer[static SIZE_FORMAT_MAX]);
/* A form that size_parse() reads back: "1536M". */
const char *size_format_exact(uint64_t bytes, char buffer[static SIZE_FORMAT_MAX]);
#define SIZE(bytes)       size_format((bytes), (char[SIZE_FORMAT_MAX]) { 0 })
#define SIZE_EXACT(bytes) size_format_exact((bytes), (char[SIZE_FORMAT_MAX]) { 0 })

/* Parses a time span for --wait: "500ms", "20s", "5m", "1h", or a plain number of seconds. More than zero, at
 * most 7 days. Microseconds. */
int timespan_parse(const char *s, uint64_t *ret_usec, struct error *ret_error);

/* CLOCK_MONOTONIC, microseconds. */
uint64_t now_monotonic_usec(void);
