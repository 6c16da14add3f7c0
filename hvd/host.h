/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>

/* The number behind `key` in a file below the host's /proc, or 0: as the kernel writes it, in its unit. */
uint64_t host_figure(const char *proc, const char *name, const char *key);
