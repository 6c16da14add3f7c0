/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "hvd/partition.h"
#include "hvd/plan.h"
#include "proto/message.h"

/* What the guest says that the pages of its memory blocks are: asked for, kept, and put into figures and
 * words. */
struct survey {
        uint64_t page_bytes;
        struct block_survey *blocks; /* owned; sorted and disjoint */
        size_t n_blocks;
};
void survey_done(struct survey *s);

/* How closely the guest is to look. A guest that has not seen all pages by then has seen an even sample. */
enum survey_care {
        SURVEY_QUICK,    /* a few percent of what the removal of an idle device takes */
        SURVEY_THOROUGH, /* as long as the guest does it, 2 s for 256 blocks */
};

/* Asks for the blocks of the targets (sorted, disjoint, copied). done comes exactly once, with a survey that
 * is the callee's to take over (steal its fields) or an error, and never from inside this call. AGENT_TOO_OLD
 * when guestd has no survey, and as partition_refresh(). */
struct survey_ask;
typedef void (*survey_answer_t)(struct survey *s, const struct error *error, void *userdata);
int survey_start(struct partition *p, const struct mem_range *targets, size_t n_targets,
        enum survey_care care, survey_answer_t done, void *userdata, struct survey_ask **ret,
        struct error *ret_error);
/* Drops the callback. NULL is fine. */
struct survey_ask *survey_ask_free(struct survey_ask *a);
/* Whether its guestd has a survey at all. */
bool survey_is_possible(const struct partition *p);

/* The first block at or behind the address, or NULL. */
const struct block_survey *survey_find(const struct survey *s, uint64_t address);
/* The pages of one kind in the whole block: as many of all as of those that were looked at. */
uint64_t survey_estimate(const struct survey *s, const struct block_survey *b, enum page_kind kind);
/* What keeps the block from going offline: the kind with the most such pages, INVALID if there is none. */
enum page_kind survey_obstacle(const struct block_survey *b);

/* Fills in what the planner wants to know of its devices. */
void survey_apply(const struct survey *s, struct plan_device *devices, size_t n_devices);
/* Why a device would stay: the block of it that holds most, which pages, how many. False: nothing keeps it.
 */
bool survey_explain(const struct survey *s, uint64_t start, uint64_t length, uint64_t *ret_block,
        struct error *ret_error);
