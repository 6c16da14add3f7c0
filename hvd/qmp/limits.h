/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The client's times, for tests that cannot wait seconds. Nothing but tests/ includes this. */
struct qmp_client;

struct qmp_limits {
        uint64_t hello_usec;                     /* QMP_HELLO_USEC */
        uint64_t retry_min_usec, retry_max_usec; /* back-off between connections */
};

/* Takes effect with the next connection. */
void qmp_client_set_limits(struct qmp_client *c, const struct qmp_limits *limits);
/* Bytes that wait to be written. */
size_t qmp_client_queued(struct qmp_client *c);
