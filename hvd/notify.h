/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-event.h>

#include "hooks/client.h"

/* The host's own hooks: told when a job begins and when it ends. They have no say, nothing waits for them,
 * and what goes wrong with them is logged. */
struct notify;
struct job;

/* Strings are borrowed; config->folder is unused, as hvd.conf says it. */
int notify_new(sd_event *event, const struct hooks_client_config *config, struct notify **ret);
/* Those that run end. NULL is fine. */
struct notify *notify_free(struct notify *n);

/* HOOK_BEGIN or HOOK_END. n may be NULL. */
void notify_job(struct notify *n, const struct job *j, enum hook_phase phase);
