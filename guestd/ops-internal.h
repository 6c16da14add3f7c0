/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "guestd/bell.h"
#include "guestd/ops.h"
#include "guestd/settings.h"
#include "guestd/zones.h"

/* What ops.c, run.c, pledge.c and the op-*.c share. Nobody else includes this. */

enum op_phase {
        PHASE_IDLE,
        PHASE_WAITING,      /* ONLINE, AWAIT_REMOVED: for uevents */
        PHASE_WORKING,      /* a worker carries the request out */
        PHASE_ASSISTING,    /* OFFLINE: a worker helps a set that does not go, and then it is tried again */
        PHASE_PUTTING_BACK, /* a worker undoes an OFFLINE, or the grace is over */
        PHASE_PAUSING,      /* between two tries of putting back */
        PHASE_RESTORING,    /* pools of huge pages that it gave up for nothing */
};

enum assist_kind {
        ASSIST_RECLAIM = 1 << 0, /* page cache instead of its migration */
        ASSIST_POOLS = 1 << 1,   /* huge pages that nobody uses, for headroom */
        ASSIST_RETRY = 1 << 2,   /* a block that was only busy */
};

/* What became of the block whose attempt takes long, by its pages; see op-stall.c. */
struct op_stall {
        struct loop_timer timer;
        struct worker *worker; /* looks at its pages */
        struct work_item item;
        uint64_t look_usec; /* when the look under way began */
        uint64_t left;      /* pages in it that are not free; 0: nobody has looked */
        unsigned n_same;    /* looks in a row that found as many */
        bool is_pinned;     /* nothing is left in it that moves */
        bool is_gigantic;   /* it lies in a gigantic page */
        bool has_huge_pages;
};

/* The one changing request under way. Everything is reset when it ends. */
struct op_run {
        enum op_phase phase;
        enum op op;
        uint64_t id; /* 0: nobody waits for an answer (any more) */
        struct mem_range *targets;
        size_t n_targets;
        enum zone zone;
        uint64_t began_usec, deadline_usec, attempt_usec;
        enum error_code stopped; /* NONE, or why the work was ended early: CANCELLED, DEADLINE, INTERRUPTED */

        uint64_t n_blocks, n_pending; /* targets' blocks, and those not yet as wanted (WAITING) */
        uint64_t settle_at_usec; /* ONLINE: when blocks that are still offline get a worker; 0: not set */
        uint64_t settle_usec;

        struct work_item *items; /* the worker's, and what is to be put back */
        size_t n_items;
        size_t n_offline;             /* of items, by the walks before the one under way */
        bool each;                    /* each target is a set of its own */
        size_t n_kept;                /* items of sets that went wholly, though a later one did not */
        struct work_item *back_items; /* the part of items that a try of putting back works on */
        size_t n_back_items;
        unsigned tries;
        struct worker *worker;

        unsigned assisted; /* enum assist_kind: each at most once */
        struct assist_order order;
        struct assistance *assistance; /* what was done, once something was */
        /* Of each pool in settings.pools: at the beginning, what it has lost since, and where that is told.
         */
        uint64_t pool_sizes[POOLS_MAX], pool_taken[POOLS_MAX];
        size_t pool_member[POOLS_MAX];
        struct op_stall stall;

        struct block_failure *failures; /* PROTO_FAILURES_MAX of them, once there is one */
        size_t n_failures;
        bool failed; /* something did not go as asked, also beyond what failures[] holds */
        uint64_t progress_usec, progress_bytes;
        struct loop_timer timer;
};

/* The SURVEY under way. */
struct op_survey {
        uint64_t id; /* 0: there is none */
        struct work_item *items;
        size_t n_items;
        uint64_t next; /* address of the first block that did not fit; 0: all did */
        struct worker *worker;
};

/* The HOOK under way. */
struct op_hook {
        bool under_way;
        uint64_t id; /* 0: nobody waits for an answer (any more) */
        enum hook_phase phase;
};

/* A block that is offline by a request that was complete, and not yet removed. */
struct pledge {
        struct work_item item; /* where it was before */
        bool is_orphaned;      /* the session is lost, and no later one has asked for it */
};

struct ops {
        struct loop *loop;
        struct blocks *blocks;
        struct monitor *monitor;
        struct ops_config config;
        struct ops_link link;
        void *userdata;
        struct children *children;

        bool session;
        bool prepared; /* from PREPARE to RELEASE: auto_online_blocks is ours */
        struct settings settings;
        struct loop_timer release_timer, rest_timer;
        /* What zones held when blocks->n_changes was this; kernel_bytes is 0 before the first look. */
        struct {
                uint64_t at_change;
                struct zone_account account;
        } zones;
        bool quiet;        /* the monitor is paused between the requests of one operation */
        bool catching_up;  /* and now hands over what it held */
        struct bell *bell; /* while a run waits in that quiet */

        struct op_run run;
        struct op_survey survey;
        struct op_hook hook;
        struct loop_timer hook_timer;

        struct pledge *pledges; /* sorted by block */
        size_t n_pledges, n_pledges_allocated;
        struct loop_timer grace_timer; /* armed while any is orphaned */

        struct loop_timer event_timer;

        /* Pools of huge pages that are to grow back after a set has left: see pool-debt.c. */
        struct {
                struct loop_timer timer;
                struct worker *worker;
                uint64_t left[POOLS_MAX]; /* the size of each in settings.pools when we were done with it */
                bool interrupted;         /* while they grew, since then */
        } debt;
};

/* run.c */
/* Notes why a block did not do what was asked; neighbours with the same code become one run. */
void run_fail(struct ops *ops, uint32_t block, const struct error *error);
bool run_has_failure(struct ops *ops, uint32_t block);
/* At most one progress message in 100 ms, and only when something moved. */
void run_progress(struct ops *ops, uint64_t done_bytes, uint64_t total_bytes);
/* Answers with the failures as noted, complete if there are none; the run may go on without an audience. */
void run_answer(struct ops *ops);
/* Ends the run without a word: kills its worker, frees everything. */
void run_reset(struct ops *ops);
/* Answers and ends. */
void run_finish(struct ops *ops);
/* The worker is through, or gone, and nothing of it is to be noted: takes in what the monitor held. */
void run_drop_work(struct ops *ops);
/* What the answer is to say of assistance; NULL without memory for it. */
struct assistance *run_assistance(struct ops *ops);
/* Starts a worker on items for the run and pauses the monitor. 0 or -errno. */
int run_work(struct ops *ops, enum work work, const struct work_item *items, size_t n_items,
        const struct worker_limits *limits, const struct worker_handlers *handlers);
/* In a worker's on_done: notes what failed and why it was killed, frees it, takes in what the monitor held.
 * Returns whether every item was done without a failure. */
bool run_work_done(struct ops *ops);
/* Quiet until the host asks again, or the session ends: an addition of 2 GiB sends 32 events and more, and
 * being woken for each costs an emulated guest of one CPU a quarter of the time that the addition itself
 * takes. */
void ops_be_quiet(struct ops *ops);
/* Ends the quiet, and takes in what was said meanwhile. */
void ops_listen(struct ops *ops);
/* Grace periods need no hurry any more, if nothing is under way, nor prepared, nor to be removed. */
void ops_rest(struct ops *ops);

/* op-wait.c: ONLINE and AWAIT_REMOVED */
void wait_begin(struct ops *ops);
void wait_on_block(struct ops *ops, uint32_t number, enum block_state before, enum block_state after);
/* Counts again, after an overflow. */
void wait_recount(struct ops *ops);
/* Ends it now. */
void wait_stop(struct ops *ops, enum error_code why);
void wait_on_timer(struct ops *ops);

/* op-offline.c */
void offline_begin(struct ops *ops);
void offline_stop(struct ops *ops, enum error_code why);
void offline_on_timer(struct ops *ops);
/* Goes on with what is not offline yet. */
int offline_walk(struct ops *ops);
/* The item does not go: puts back what the run took offline of its set, and answers. */
void offline_undo(struct ops *ops, size_t item);
/* Takes the items over and puts them online, in each one's zone. The run must be idle. */
void put_back_begin(struct ops *ops, struct work_item *items, size_t n_items);

/* op-assist.c */
/* The walk has ended: whether something can be done so that it may go on. If so it is under way, and the walk
 * then goes on. */
bool assist_begin(struct ops *ops);
/* The run has failed and undone what it did: begins to give back huge pages that it took, and answers when
 * that is done. False if there are none. */
bool assist_restore(struct ops *ops);
/* RECLAIM. */
void reclaim_begin(struct ops *ops, const struct message *m);
void reclaim_stop(struct ops *ops, enum error_code why);

/* op-stall.c: watches a walk for blocks that do not become emptier, long before the attempt's limit. */
void stall_watch(struct ops *ops);
void stall_reset(struct ops *ops);
/* How long a look at a block of so many pages may take. */
uint64_t stall_look_usec(uint64_t n_pages);
/* The words for a block that lies in a gigantic page. */
void stall_explain_gigantic(struct ops *ops, uint32_t block, struct error *error);

/* pool-debt.c */
void debt_init(struct ops *ops);
/* An OFFLINE begins: remembers the pools' sizes, if there are any. */
void debt_note(struct ops *ops);
/* What has become of the pools since, for the answer: first what was lost, later what came back. */
void debt_account(struct ops *ops);
/* The OFFLINE has ended: what is changed from here on is the administrator's doing. */
void debt_end(struct ops *ops);
/* Nothing is under way: what is smaller than it was grows back after a while. */
void debt_settle(struct ops *ops);
/* A request comes in between. */
void debt_interrupt(struct ops *ops);
/* The run's order is to make the pools as they were when it began. False if they are. */
bool debt_order_of_run(struct ops *ops);

/* op-survey.c */
void survey_begin(struct ops *ops, const struct message *m);
/* One is under way; it answers that it was stopped. */
void survey_stop(struct ops *ops, enum error_code why);
/* Ends it without a word. */
void survey_reset(struct ops *ops);

/* op-hook.c */
void hook_begin(struct ops *ops, const struct message *m);
/* The one under way ends soon, and answers. */
void hook_stop(struct ops *ops);
void hook_on_session(struct ops *ops, bool up);
/* Without a session: what is to be settled is, when the grace is over. */
void hook_await_session(struct ops *ops);
bool hook_owes(const struct ops *ops);
void hook_on_timer(struct loop_timer *timer);

/* pledge.c */
void pledge_add(struct ops *ops, const struct work_item *items, size_t n_items);
/* The block is no longer offline, or was asked for. */
void pledge_drop(struct ops *ops, uint32_t block);
void pledge_on_session(struct ops *ops, bool up);
/* A request of a session: the pledged blocks that it is about are no longer orphaned. */
void pledge_take_over(struct ops *ops, const struct mem_range *targets, size_t n_targets);
void pledge_on_timer(struct loop_timer *timer);
