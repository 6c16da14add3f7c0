/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "common/json.h"

/* What is said about a job, from its properties as bus_read_properties() gives them. Pure. */

/* DONE, PARTIAL, FAILED or CANCELLED. */
bool report_job_is_final(struct json_object *job);
/* The exit code of a final state; CLI_DONE for one that is not final (--no-wait). */
int report_job_exit(struct json_object *job);

/* The end of a job for a person: a line, and reasons where something stayed. */
void report_job(FILE *f, struct json_object *job);
/* The plan of a dry run, a sentence a line; or why there is none. */
void report_plan(FILE *f, struct json_object *job);
/* "opendlpar-dimm-3, block 0x140000000: no-headroom: <message>"; without a newline. */
void report_reason(FILE *f, struct json_object *reason);
/* "web1: offlining 768 MiB of 2 GiB [####......] 12 s left"; without a newline. now_usec is CLOCK_REALTIME.
 */
void report_progress(FILE *f, struct json_object *job, uint64_t now_usec);
