/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "store-fixture.h"

#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/size.h"

char path[80];
static char root[64];

int setup(void **state)
{
        snprintf(root, sizeof(root), "/tmp/test-store.XXXXXX");
        if (!mkdtemp(root))
                return -1;
        snprintf(path, sizeof(path), "%s/hvd.db", root);
        return 0;
}

int teardown(void **state)
{
        static const char *const suffixes[] = { "", "-wal", "-shm", "-journal" };
        char file[96];

        for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
                snprintf(file, sizeof(file), "%s%s", path, suffixes[i]);
                unlink(file);
        }
        return rmdir(root);
}

struct store *open_store(void)
{
        struct error error = { 0 };
        struct store *s = NULL;

        if (store_open(path, &s, &error) < 0)
                fail_msg("%s", error.message);
        return s;
}

void run_sql(const char *sql)
{
        sqlite3 *db;

        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
}
