/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* hvd.conf, a file beside it that comes later, and two partitions: the input's pieces, cut at each NUL. What
 * is taken is within its limits, what is refused comes with file and reason. */

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/config.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {
        "hvd.conf",
        "hvd.conf.d/10-more.conf",
        "partitions.d/web1.conf",
        "partitions.d/web2.conf",
};

static void require(bool condition)
{
        if (!condition)
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct config *c = NULL;
        struct error error = { 0 };
        char path[96];

        folder_make(names, ARRAY_SIZE(names));
        folder_write_pieces(data, size, ARRAY_SIZE(names));
        snprintf(path, sizeof(path), "%s/hvd.conf", folder.path);
        if (config_load(path, true, &c, &error) < 0) {
                require(error.code == ERROR_CONFIG &&
                        strncmp(error.message, folder.path, strlen(folder.path)) == 0);
                require(!c);
                return 0;
        }
        require(c->log_level >= 0 && c->log_level <= 7);
        require(c->job_wait_usec > 0 && c->job_wait_usec <= 7 * 24 * 3600 * USEC_PER_SEC);
        require(c->jobs_queued >= 1 && c->jobs_queued <= 256 && c->jobs_kept >= 1 && c->jobs_kept <= 1000000);
        require(c->n_partitions == 2);
        for (size_t i = 0; i < c->n_partitions; i++)
                require(partition_definition_check(&c->partitions[i], NULL) == 0);
        config_free(c);
        return 0;
}
