/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-bus.h>

#include "common/json.h"
#include "hmc-cli/cli.h"

#define HVD_NAME                "org.opendlpar.hvd1"
#define HVD_PATH                "/org/opendlpar/hvd1"
#define HVD_PARTITION_PATH      HVD_PATH "/partition"
#define HVD_JOB_PATH            HVD_PATH "/job"
#define HVD_MANAGER_INTERFACE   HVD_NAME ".Manager"
#define HVD_PARTITION_INTERFACE HVD_NAME ".Partition"
#define HVD_JOB_INTERFACE       HVD_NAME ".Job"

/* For what libvirt answers in the end: it waits for a domain that somebody else has in hand for 30 s (9.0),
 * and hvd's calls to it wait for one another. */
#define HVD_LIBVIRT_TIMEOUT_USEC (90 * USEC_PER_SEC)

static inline void bus_message_unrefp(sd_bus_message **m)
{
        sd_bus_message_unref(*m);
}
#define _cleanup_message_   _cleanup_(bus_message_unrefp)
#define _cleanup_bus_error_ _cleanup_(sd_bus_error_free)

/* Functions that return an "exit code" have said what went wrong when it is not 0; see enum cli_exit. */

/* Connects as the global options say, and does not wait for the bus to answer. Exit code. */
int bus_open(struct cli *cli);

/* How long to wait for the answer to a call that takes hvd at most usec: longer where somebody may be asked
 * for a password first. */
uint64_t bus_timeout(uint64_t usec);

void bus_close(struct cli *cli);
/* How a verb without options of its own begins: takes its words and connects. False: *ret_exit is the exit
 * code, and all has been said. */
bool bus_begin(struct cli *cli, const struct cli_verb *verb, int argc, char **argv, const char **words,
        int *ret_exit);

/* Says why a call failed, from the bus's error if there is one, else from r. Exit code, never 0: 3 when hvd
 * was not reached, else 1. */
int bus_fail(const struct cli *cli, const sd_bus_error *error, int r);
bool bus_error_is_unreachable(const sd_bus_error *error, int r);
/* The error's stable code, "no-headroom". */
const char *bus_error_code(const sd_bus_error *error);
/* "hvd is not reachable on the system bus: <why>". Exit code 3. */
int bus_fail_unreachable(const struct cli *cli, const char *why);

/* The object path of a partition. The caller frees it. 0 or -errno. */
int bus_partition_path(const char *name, char **ret_path);
/* Makes a partition's call fail in hvd's own words: to be called when the object at its path is unknown. Asks
 * hvd for the partition by name and says that error; if there is none, the original one. Exit code, never 0.
 */
int bus_fail_partition(const struct cli *cli, const char *name, const sd_bus_error *error, int r);

/* GetAll of an interface, and waits. The caller owns *ret. 0, or -errno with *ret_error set. */
int bus_get_all(const struct cli *cli, const char *path, const char *interface, struct json_object **ret,
        sd_bus_error *ret_error);
/* All that ListPartitions or ListJobs lists, as an array of their properties, sorted by the number or string
 * `key`. Without -o json of the properties only those that `wanted` names (keys, with a NULL behind them;
 * NULL: all): of a thousand partitions all of them take longer to build than everything else together. Exit
 * code. */
int bus_get_objects(const struct cli *cli, const char *method, const char *key, const char *const *wanted,
        struct json_object **ret);

/* Reads a{sv} at the message's position: keys in snake_case, arrays of structs with named members as objects.
 * Adds to *o (made if NULL), replacing what it has. 0 or -errno. */
int bus_read_properties(sd_bus_message *m, struct json_object **o);
/* Reads the next complete value. `name` is the property's (for the names of struct members); may be NULL. */
int bus_read_value(sd_bus_message *m, const char *name, struct json_object **ret);
