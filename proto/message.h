/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"

/* The guest protocol: what hvd and guestd say to each other over the virtio-serial port. PROTOCOL.md is its
 * specification; this is its pure codec: bytes in, messages out, no file descriptors and no clock.
 *
 * A message is one line of JSON. Either side may begin with PROTO_RESYNC, which makes the reader forget what
 * it had of a line. Framing is common/lines.h with PROTO_LINE_MAX and resync on. */

#define PROTO_PORT_NAME         "org.opendlpar.guestd.0"
#define PROTO_VERSION           1 /* what we speak */
#define PROTO_VERSION_MIN       1 /* the oldest that we accept */
#define PROTO_RESYNC            0xFF
#define PROTO_LINE_MAX          (64U * 1024U) /* bytes of a line without its newline */
#define PROTO_RANGES_MAX        512U          /* targets or ranges in one message */
#define PROTO_SURVEYS_MAX       256U          /* blocks in one reply to SURVEY */
#define PROTO_PAGE_MIN          4096U
#define PROTO_POOLS_MAX         16U /* pools of huge pages in one reply */
#define PROTO_FAILURES_MAX      64U /* failures in one reply: beside all ranges they fit in PROTO_LINE_MAX */
#define PROTO_REASON_MAX        192U /* bytes of a failure's message in a reply; the encoder cuts longer ones */
#define PROTO_TOKEN_LENGTH      16U          /* characters of a nonce or session id: lower case hexadecimal */
#define PROTO_STRING_MAX        256U         /* bytes of any other string */
#define PROTO_CAPS_MAX          32U          /* capabilities in a handshake */
#define PROTO_ADDRESS_MAX       (1ULL << 52) /* guest physical addresses and lengths lie below */
#define PROTO_NODES_MAX         4096U        /* NUMA nodes are below */
#define PROTO_BLOCK_MIN         (1ULL << 20) /* a block size, and what every address and length is a multiple of */
#define PROTO_BLOCK_MAX         (1ULL << 36)
#define PROTO_ID_MAX            ((1ULL << 53) - 1)
#define PROTO_DEADLINE_MAX_MSEC (7ULL * 24 * 3600 * 1000)

#define PROTO_HOOKS_MAX     16U /* hooks in one reply to HOOK */
#define PROTO_HOOK_NAME_MAX 64U /* bytes of a hook's name */

/* What a guestd that knows SURVEY says among its capabilities. */
#define PROTO_CAPABILITY_SURVEY "survey"
/* And RECLAIM, and says what it did to help blocks that did not go. */
#define PROTO_CAPABILITY_ASSIST "assist"
/* And one that knows the key `gentle` of OFFLINE. */
#define PROTO_CAPABILITY_GENTLE "gentle"
/* And its key `each`. */
#define PROTO_CAPABILITY_SETS "sets"
/* Likewise HOOK. */
#define PROTO_CAPABILITY_HOOKS "hooks"
/* And SAMPLE, after which it sends samples unasked. */
#define PROTO_CAPABILITY_SAMPLES "samples"

/* The limits of what SAMPLE asks for. */
#define PROTO_INTERVAL_MIN_MSEC 100U
#define PROTO_INTERVAL_MAX_MSEC 3600000U
#define PROTO_WINDOW_MIN_MSEC   500U /* the kernel's own limits */
#define PROTO_WINDOW_MAX_MSEC   10000U
/* Counters of a sample are below, and go on from 0. */
#define PROTO_COUNTER_END (1ULL << 53)

enum zone {
        ZONE_UNKNOWN, /* offline, or the kernel did not say */
        ZONE_KERNEL,  /* DMA, DMA32, Normal: usually cannot leave again */
        ZONE_MOVABLE,
        ZONE_NONE, /* online, and the kernel says that it cannot go offline (valid_zones "none") */
        ZONE_MAX,
        ZONE_INVALID = -1,
};

enum block_state {
        BLOCK_OFFLINE,
        BLOCK_ONLINE,
        BLOCK_CHANGING, /* going-offline, or a state that this version does not know */
        BLOCK_ABSENT,   /* no such block in the guest; only in results */
        BLOCK_STATE_MAX,
        BLOCK_STATE_INVALID = -1,
};

/* Bytes of guest physical address space; both multiples of the guest's block size. */
struct mem_range {
        uint64_t start, length;
};

/* A run of neighbouring blocks that are alike. */
struct block_range {
        uint64_t start, length;
        enum block_state state;
        enum zone zone;
        unsigned node;
};

/* Why a run of blocks did not do what was asked. */
struct block_failure {
        uint64_t start, length;
        struct error error;
};

/* What a page is to one who wants its block to go offline. */
enum page_kind {
        PAGE_FREE,
        PAGE_MOVABLE,   /* of a program or of the page cache: the kernel moves it */
        PAGE_HUGE,      /* hugetlb: moves if there is a free one elsewhere */
        PAGE_SLAB,      /* the kernel's; none of the following move */
        PAGE_TABLE,     /* the kernel's: a page table */
        PAGE_UNMOVABLE, /* the kernel's otherwise */
        PAGE_PINNED,    /* a program's, in no page table and yet held: it will hardly move */
        PAGE_KIND_MAX,
        PAGE_KIND_INVALID = -1,
};

/* One block's pages. Those that were looked at are spread evenly over it. */
struct block_survey {
        uint64_t start, length;
        uint64_t sampled;              /* pages looked at; length / page_bytes: all */
        uint64_t pages[PAGE_KIND_MAX]; /* of them; their sum may be less, as a block has holes */
        uint64_t cost_bytes;           /* an estimate for the whole block: what is to be moved elsewhere */
};

/* When hooks are called: executables of the administrator's, in the guest and on the host. */
enum hook_phase {
        HOOK_CHECK,  /* may what is asked for happen? */
        HOOK_PRE,    /* it is about to */
        HOOK_POST,   /* it did, wholly or in part */
        HOOK_UNDO,   /* nothing moved after all */
        HOOK_SETTLE, /* whoever asked for PRE is gone: POST or UNDO, by what the guest sees of its memory */
        HOOK_BEGIN,  /* on the host alone, never on the wire */
        HOOK_END,
        HOOK_PHASE_MAX,
        HOOK_PHASE_INVALID = -1,
};

enum hook_operation {
        HOOK_ADD,
        HOOK_REMOVE,
        HOOK_OPERATION_MAX,
        HOOK_OPERATION_INVALID = -1,
};

enum hook_outcome {
        HOOK_OUTCOME_NONE, /* not over yet, or not known */
        HOOK_OUTCOME_DONE,
        HOOK_OUTCOME_PARTIAL,
        HOOK_OUTCOME_FAILED,
        HOOK_OUTCOME_CANCELLED,
        HOOK_OUTCOME_DEADLINE,
        HOOK_OUTCOME_MAX,
        HOOK_OUTCOME_INVALID = -1,
};

/* What hooks are told, beside the bytes that were asked for. */
struct hook_call {
        enum hook_phase phase;
        enum hook_operation operation;
        enum hook_outcome outcome;
        bool has_node;
        unsigned node; /* the operator's choice */
        uint64_t job;
        uint64_t done_bytes;
        char reason[PROTO_REASON_MAX + 1]; /* for people; may be empty */
};

/* A hook that has something to say, or about which there is something to say. */
struct hook_result {
        char name[PROTO_HOOK_NAME_MAX + 1]; /* its file's; empty: all of them */
        struct error error;
};

/* The guest's memory at one moment, in bytes. */
struct guest_memory {
        uint64_t total_bytes;     /* MemTotal */
        uint64_t free_bytes;      /* MemFree */
        uint64_t available_bytes; /* MemAvailable */
        uint64_t swap_total_bytes, swap_free_bytes;
        uint64_t kernel_bytes;  /* present pages in zones that are not Movable */
        uint64_t movable_bytes; /* present pages in zone Movable */
        uint64_t online_blocks, offline_blocks;
        bool has_pressure;
        unsigned some_avg10_centi, full_avg10_centi; /* PSI memory avg10, hundredths of a percent */
        uint64_t margin_bytes; /* what is to stay available whatever leaves; 0: the guest does not say */
};

/* Why a sample was sent. */
enum sample_cause {
        SAMPLE_ASKED,    /* in the reply to SAMPLE */
        SAMPLE_PERIODIC, /* nothing new */
        SAMPLE_CHANGE,   /* what is used or free is no longer what the last one said */
        SAMPLE_HEADROOM, /* less than half of the headroom that the host told is available */
        SAMPLE_PRESSURE, /* tasks stalled for as long as the host asked to be told of */
        SAMPLE_CAUSE_MAX,
        SAMPLE_CAUSE_INVALID = -1,
};

/* The guest's memory in short, and what happened to it since it booted. */
struct guest_sample {
        enum sample_cause cause;
        uint64_t total_bytes, available_bytes, free_bytes; /* MemTotal, MemAvailable, MemFree */
        /* Of zone Movable: what is present, free, and page cache that was not used lately. */
        uint64_t movable_bytes, movable_free_bytes, movable_cache_bytes;
        uint64_t margin_bytes; /* what is to stay available whatever leaves */
        /* Counters; what came back soon after it was reclaimed, page cache and else, and what was swapped. */
        uint64_t refault_file_bytes, refault_anon_bytes;
        uint64_t swap_in_bytes, swap_out_bytes;
        bool has_pressure; /* the kernel has PSI */
        bool is_watched;   /* and will wake the agent when tasks stall */
        unsigned some_avg10_centi, full_avg10_centi;
        uint64_t some_total_usec, full_total_usec; /* counters */
};

/* When samples are to be sent. */
struct sampling {
        uint64_t interval_msec;     /* between two at the quickest; 0: none are sent unasked */
        uint64_t interval_max_msec; /* and at the slowest, while nothing changes */
        uint64_t stall_msec; /* at once when tasks stall for so long within a window; 0: not for that */
        uint64_t window_msec;
        uint64_t headroom_bytes; /* and when less than half of this is available; 0: not for that */
};

enum message_type {
        MESSAGE_HELLO,    /* guest: first words of a session */
        MESSAGE_WELCOME,  /* host: the session begins */
        MESSAGE_REFUSE,   /* host: no session, and why */
        MESSAGE_REQUEST,  /* host */
        MESSAGE_REPLY,    /* guest: exactly one reply or failure for a request */
        MESSAGE_FAILURE,  /* guest: the request was not carried out at all */
        MESSAGE_PROGRESS, /* guest: a request is under way */
        MESSAGE_EVENT,    /* guest: something changed unasked */
        MESSAGE_TYPE_MAX,
        MESSAGE_TYPE_INVALID = -1,
};

enum op {
        OP_GET_STATE,  /* -> memory */
        OP_GET_BLOCKS, /* from -> ranges, next */
        OP_PREPARE,    /* zone, bytes: make blocks that will be plugged come up in that zone -> memory */
        OP_RELEASE,    /* undo PREPARE: restore the guest's own auto_online_blocks -> memory */
        OP_ONLINE,     /* targets, zone, deadline: wait until the blocks exist, see them online -> outcome */
        OP_OFFLINE,    /* targets, deadline, attempt: all blocks of the set or none -> outcome */
        OP_AWAIT_REMOVED, /* targets, deadline: wait until the blocks are gone -> outcome */
        OP_CANCEL,        /* target_id: stop that request; it replies by itself */
        OP_SURVEY,  /* targets, deadline: what their pages are; only with the capability -> surveys, next */
        OP_RECLAIM, /* bytes, deadline: make so much room by inactive page cache; only with the capability
                       "assist" -> assistance */
        OP_HOOK,    /* bytes, deadline, hook: runs the guest's hooks; only with the capability -> complete */
        OP_SAMPLE,  /* sampling: when to send samples from now on; only with the capability -> sample */
        OP_MAX,
        OP_INVALID = -1,
};

enum event_type {
        EVENT_BLOCKS_CHANGED, /* blocks came, went or changed state with no request under way */
        EVENT_SAMPLE,         /* the guest's memory in short, as SAMPLE asked for */
        EVENT_TYPE_MAX,
        EVENT_TYPE_INVALID = -1,
};

struct message_hello {
        unsigned version, version_min;
        char nonce[PROTO_TOKEN_LENGTH + 1]; /* new for each hello */
        char boot_id[64];                   /* /proc/sys/kernel/random/boot_id */
        char agent[64];                     /* "guestd 0.1.0" */
        char arch[32];                      /* uname -m */
        uint64_t block_bytes;               /* the guest's memory block size */
        char **capabilities;                /* NULL-terminated, owned; may be NULL */
        bool hooks; /* there are hooks to be called; the session's events say when that changes */
};

struct message_welcome {
        unsigned version;                   /* the version of this session: at most the hello's */
        char nonce[PROTO_TOKEN_LENGTH + 1]; /* the hello's, so that a stale welcome is not taken */
};

struct message_refuse {
        char nonce[PROTO_TOKEN_LENGTH + 1];
        struct error error;
};

struct message_request {
        enum op op;
        struct mem_range *targets; /* owned */
        size_t n_targets;
        enum zone zone;           /* KERNEL or MOVABLE, where the op has one */
        uint64_t bytes;           /* PREPARE */
        uint64_t from;            /* GET_BLOCKS: first address wanted */
        uint64_t deadline_msec;   /* from the moment of receipt; 0 where the op has none */
        uint64_t attempt_msec;    /* OFFLINE: limit for one block's attempt */
        bool gentle;              /* OFFLINE: there is time; only with the capability */
        bool each;                /* OFFLINE: each target is a set of its own; likewise */
        uint64_t target_id;       /* CANCEL */
        struct hook_call hook;    /* HOOK */
        struct sampling sampling; /* SAMPLE */
};

/* A pool of huge pages, and how many it has lost, and got back since. */
struct assisted_pool {
        unsigned node;
        uint64_t page_bytes, taken, restored;
};

/* What the guest did so that blocks could go. */
struct assistance {
        uint64_t reclaimed_bytes; /* page cache */
        uint64_t compactions;
        uint64_t retries; /* of blocks that were busy */
        struct assisted_pool pools[PROTO_POOLS_MAX];
        size_t n_pools;
};

struct message_reply {
        enum op op;
        bool has_memory;
        struct guest_memory memory;
        bool complete;              /* ONLINE, OFFLINE, AWAIT_REMOVED: every target is as asked, so
                                       that there are no failures; HOOK: none refused or failed */
        struct block_range *ranges; /* owned; GET_BLOCKS, and what the targets are now */
        size_t n_ranges;
        struct block_failure *failures; /* owned */
        size_t n_failures;
        struct assistance *assistance; /* owned; OFFLINE, RECLAIM; NULL: none was needed */
        uint64_t page_bytes;           /* SURVEY */
        struct block_survey *surveys;  /* owned */
        size_t n_surveys;
        struct hook_result *hooks; /* owned; HOOK: those that refused, failed or were not run */
        size_t n_hooks;
        struct guest_sample sample; /* SAMPLE */
        bool has_next;
        uint64_t next; /* there are more: GET_BLOCKS, or SURVEY of the targets' rest, from this address */
};

struct message_progress {
        uint64_t done_bytes, total_bytes;
};

struct message_event {
        enum event_type type;
        bool has_hooks, hooks;      /* as in the hello, now */
        struct guest_sample sample; /* SAMPLE */
};

struct message {
        enum message_type type;
        char session[PROTO_TOKEN_LENGTH + 1]; /* all but HELLO and REFUSE */
        uint64_t id;                          /* REQUEST, REPLY, FAILURE, PROGRESS */
        union {
                struct message_hello hello;
                struct message_welcome welcome;
                struct message_refuse refuse;
                struct message_request request;
                struct message_reply reply;
                struct error failure;
                struct message_progress progress;
                struct message_event event;
        };
};

/* Frees what the message owns and zeroes it; a zeroed message is fine. */
void message_done(struct message *m);

/* Encodes into one line with its newline; the caller frees *ret_line. Checks every limit: -EMSGSIZE if the
 * line would be longer than PROTO_LINE_MAX, -EINVAL if a field is out of range; what it writes,
 * message_decode() takes. Messages for people are made printable and cut. An error code that a guest has no
 * business to send becomes block-failed (in failures) or internal. */
int message_encode(const struct message *m, char **ret_line, size_t *ret_length);

/* Decodes one line (without newline). Checks syntax, types, ranges, limits, that targets are aligned to
 * nothing less than 1 MiB, non-empty, sorted and disjoint, and that all that the type and op need is there;
 * unknown keys are ignored, so that versions can grow. On failure *ret_m is untouched and *ret_error
 * (ERROR_AGENT_MISBEHAVED) says what was wrong: -EPROTO; or -ENOMEM (ERROR_INTERNAL). On success the caller
 * calls message_done(). An error code that is unknown, or that a guest has no business to send, decodes as
 * block-failed (in failures) or internal. */
int message_decode(const char *line, size_t length, struct message *ret_m, struct error *ret_error);

const char *zone_to_string(enum zone z);
enum zone zone_from_string(const char *s);
const char *block_state_to_string(enum block_state s);
enum block_state block_state_from_string(const char *s);
const char *page_kind_to_string(enum page_kind k);
enum page_kind page_kind_from_string(const char *s);
const char *hook_phase_to_string(enum hook_phase p);
enum hook_phase hook_phase_from_string(const char *s);
const char *hook_operation_to_string(enum hook_operation o);
enum hook_operation hook_operation_from_string(const char *s);
const char *hook_outcome_to_string(enum hook_outcome o);
enum hook_outcome hook_outcome_from_string(const char *s);
const char *sample_cause_to_string(enum sample_cause c);
enum sample_cause sample_cause_from_string(const char *s);
const char *op_to_string(enum op op);
enum op op_from_string(const char *s);

/* The guard against a guest that runs out of kernel memory: may `add` more bytes become Movable? The limit is
 * 301 % of kernel memory, as the kernel's own memory_hotplug.auto_movable_ratio: 3:1 and a little for holes.
 */
bool zone_ratio_allows(uint64_t kernel_bytes, uint64_t movable_bytes, uint64_t add_bytes);
/* The most bytes that may still become Movable. */
uint64_t zone_ratio_budget(uint64_t kernel_bytes, uint64_t movable_bytes);

/* The guard against a guest that runs out of memory altogether: what must stay available to it (MemAvailable)
 * when some of it leaves, unless the guest is told otherwise. Of MemTotal, and at least so much. */
#define MARGIN_PERCENT 1U
#define MARGIN_BYTES   (32ULL * 1024 * 1024)
uint64_t margin_of(uint64_t total_bytes);
