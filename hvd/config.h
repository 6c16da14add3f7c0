/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/error.h"
#include "hvd/policy/policy.h"

/* What the administrator wrote down: hvd.conf, hvd.conf.d/NAME.conf beside it (in name order, later wins) and
 * partitions.d/NAME.conf beside it, one file a partition. Reads files and blocks for as long as that takes.
 */

#define CONFIG_PATH_DEFAULT      "/etc/opendlpar/hvd.conf"
#define PARTITIONS_MAX           1024U
#define PARTITION_NAME_MAX       63U
#define SOCKET_PATH_MAX          107U /* sun_path without its NUL */
#define HOOKS_FOLDER_MAX         199U
#define LIBVIRT_URI_MAX          199U
#define PARTITION_WEIGHT_DEFAULT 128U
#define PARTITION_WEIGHT_MAX     255U

struct partition_profile {
        uint64_t min_bytes, desired_bytes, max_bytes; /* 0: not set */
        unsigned weight;                              /* 1 to PARTITION_WEIGHT_MAX */
};

struct partition_definition {
        char name[PARTITION_NAME_MAX + 1];
        char domain[40]; /* libvirt's UUID of it; empty: a QEMU of one's own, with the sockets below */
        char qmp_path[SOCKET_PATH_MAX + 1];     /* the QMP monitor's UNIX socket */
        char channel_path[SOCKET_PATH_MAX + 1]; /* the guest channel's */
        struct partition_profile profile;
};

/* Whether libvirt's guests are served. */
enum libvirt_use {
        LIBVIRT_AUTO, /* when there is a libvirt; none is no matter */
        LIBVIRT_YES,  /* one that is out of reach is worth a warning */
        LIBVIRT_NO,
};

struct config {
        int log_level;                           /* syslog's */
        uint64_t job_wait_usec;                  /* a job's deadline where the request has none */
        uint64_t block_attempt_usec;             /* for one block's way offline */
        uint64_t retry_after_usec;               /* from a busy device's failure to its second try */
        uint64_t pool_total_bytes;               /* 0: auto, the host's MemTotal less the reserve */
        uint64_t pool_reserve_bytes;             /* may be 0 */
        unsigned jobs_kept;                      /* ended jobs in the store */
        unsigned jobs_queued;                    /* jobs waiting for one partition */
        char hooks_folder[HOOKS_FOLDER_MAX + 1]; /* of the host's own hooks; need not exist */
        uint64_t hook_limit_usec;                /* for one of them */
        enum libvirt_use libvirt;
        char libvirt_uri[LIBVIRT_URI_MAX + 1];
        enum policy_mode policy_mode; /* the host's, where none was set over the bus */
        uint64_t policy_period_usec;  /* between two rounds of the policy while nothing urges */
        uint64_t policy_sample_usec;  /* between two samples of a guest at the quickest */
        struct policy_config policy;
        struct partition_definition *partitions; /* owned; by name */
        size_t n_partitions;
};

/* Reads the whole set. A missing file at path is an error only if must_exist; missing folders never are.
 * Anything wrong anywhere (unknown section or key, bad value, key given twice in a file, line too long,
 * required key missing, unreadable file, two partitions with one socket) refuses the whole set: -EINVAL with
 * ERROR_CONFIG "FILE:LINE: what is wrong; what would be right" (without LINE where a file or folder could not
 * be read), and *ret is untouched. Names that begin with '.' or do not end in ".conf" are passed over. */
int config_load(const char *path, bool must_exist, struct config **ret, struct error *ret_error);
struct config *config_free(struct config *c); /* NULL is fine; returns NULL */

/* 1 to PARTITION_NAME_MAX of [A-Za-z0-9._-], not beginning with '.' or '-'. NULL is not valid. */
bool partition_name_valid(const char *name);

/* Copies an absolute socket path into a definition's field; ERROR_INVALID_ARGUMENT if it is relative, too
 * long or holds control characters. */
int partition_socket_parse(const char *value, char ret[static SOCKET_PATH_MAX + 1], struct error *ret_error);

/* min <= desired <= max as far as they are set, and weight in range: INVALID_ARGUMENT says what would be
 * right. */
int partition_profile_check(const struct partition_profile *p, struct error *ret_error);

/* A definition from the bus or from a file, as a whole: name and sockets given, sockets different, min <=
 * desired <= max as far as they are set, weight in range. ERROR_INVALID_ARGUMENT says what would be right. */
int partition_definition_check(const struct partition_definition *d, struct error *ret_error);
