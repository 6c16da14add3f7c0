/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <syslog.h>

#include "common/cleanup.h"

/* Lines to stderr, each with a syslog priority prefix ("<6>...") when stderr is the journal or not a
 * terminal, as sd-daemon(3) describes: the journal files them by priority, and no other sink is needed. */
void log_set_max_level(int level);
/* "error", "warning", "notice", "info", "debug" -> level, or -EINVAL. */
int log_level_from_string(const char *s);
void log_line(int level, const char *format, ...) _printf_(2, 3);

#define log_debug(...)   log_line(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)    log_line(LOG_INFO, __VA_ARGS__)
#define log_notice(...)  log_line(LOG_NOTICE, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_error(...)   log_line(LOG_ERR, __VA_ARGS__)
