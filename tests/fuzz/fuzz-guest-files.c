/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What guestd reads of /proc, /sys and its own state file: the input's pieces, cut at each NUL, are these
 * files, and one a uevent. A kernel is no enemy, but another version may say anything. */

#include "common/cleanup.h"
#include "common/size.h"
#include "guestd/blocks.h"
#include "guestd/memory.h"
#include "guestd/pools.h"
#include "guestd/settings.h"
#include "guestd/uevent.h"
#include "guestd/zones.h"
#include "tests/fuzz/folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEMORY "devices/system/memory/"
#define POOL   "devices/system/node/node0/hugepages/hugepages-2048kB/"
#define OTHER  "devices/system/node/node1/hugepages/hugepages-2048kB/"

enum {
        FILE_MEMINFO,
        FILE_ZONEINFO,
        FILE_PRESSURE,
        FILE_BLOCK_SIZE,
        FILE_STATE,
        FILE_ZONES,
        FILE_AUTO_ONLINE,
        FILE_POOL_PAGES,
        FILE_POOL_FREE,
        FILE_POOL_SURPLUS,
        FILE_POOL_RESERVED,
        FILE_SETTINGS,
        FILE_UEVENT,
        FILE_VMSTAT,
        FILE_OTHER_PAGES,
        FILE_OTHER_FREE,
        FILE_OTHER_SURPLUS,
        FILE_MAX,
};

static const char *const names[FILE_MAX] = {
        [FILE_MEMINFO] = "meminfo",
        [FILE_ZONEINFO] = "zoneinfo",
        [FILE_PRESSURE] = "pressure/memory",
        [FILE_BLOCK_SIZE] = MEMORY "block_size_bytes",
        [FILE_STATE] = MEMORY "memory8/state",
        [FILE_ZONES] = MEMORY "memory8/valid_zones",
        [FILE_AUTO_ONLINE] = MEMORY "auto_online_blocks",
        [FILE_POOL_PAGES] = POOL "nr_hugepages",
        [FILE_POOL_FREE] = POOL "free_hugepages",
        [FILE_POOL_SURPLUS] = POOL "surplus_hugepages",
        [FILE_POOL_RESERVED] = "kernel/mm/hugepages/hugepages-2048kB/resv_hugepages",
        [FILE_SETTINGS] = "settings",
        [FILE_UEVENT] = "uevent",
        [FILE_VMSTAT] = "vmstat",
        [FILE_OTHER_PAGES] = OTHER "nr_hugepages",
        [FILE_OTHER_FREE] = OTHER "free_hugepages",
        [FILE_OTHER_SURPLUS] = OTHER "surplus_hugepages",
};

static void require(bool condition)
{
        if (!condition)
                abort();
}

static void check_memory(int fd)
{
        struct guest_memory m;
        struct memory_now now;

        if (memory_read(fd, NULL, &m) == 0)
                require(m.some_avg10_centi <= 10000 && m.full_avg10_centi <= 10000);
        if (memory_read_now(fd, &now) == 0)
                (void)memory_margin(0, now.total_bytes);
        if (memory_read_headroom(folder.fds[FILE_MEMINFO], &now) == 0)
                (void)memory_margin(1, now.total_bytes);
}

/* What is read has to be what can be sent. */
static void check_sample(int fd)
{
        struct message m = { .type = MESSAGE_EVENT, .session = "0011223344556677" };
        char *line = NULL;
        size_t length;

        m.event.type = EVENT_SAMPLE;
        if (memory_read_sample(fd, &m.event.sample) < 0)
                return;
        require(message_encode(&m, &line, &length) == 0);
        free(line);
}

static void check_blocks(int fd)
{
        struct block_range *ranges = NULL;
        struct blocks b;
        char word[AUTO_ONLINE_MAX];
        uint64_t next;
        size_t n = 0;

        if (blocks_open(&b, fd) < 0)
                return;
        require(b.block_bytes > 0 && (b.block_bytes & (b.block_bytes - 1)) == 0);
        zones_learn(fd, &b);
        if (blocks_ranges(&b, 0, 16, &ranges, &n, &next) == 0)
                for (size_t i = 0; i < n; i++)
                        require(ranges[i].length > 0 && ranges[i].state < BLOCK_STATE_MAX &&
                                ranges[i].zone < ZONE_MAX);
        free(ranges);
        require(blocks_refresh(&b, 8) < BLOCK_STATE_MAX);
        if (blocks_get_auto_online(&b, word) >= 0)
                require(memchr(word, '\0', sizeof(word)));
        blocks_close(&b);
}

static void check_pools(int fd)
{
        struct pool v[POOLS_MAX];
        uint64_t wanted[POOLS_MAX];
        size_t n = pools_read(fd, v, POOLS_MAX);

        require(n <= POOLS_MAX);
        if (pools_plan(v, n, 64 * MIB, wanted))
                for (size_t i = 0; i < n; i++)
                        require(wanted[i] <= v[i].n_pages);
}

static void check_settings(int fd)
{
        char path[96];
        struct settings s;

        snprintf(path, sizeof(path), "%s/settings", folder.path);
        settings_init(&s, fd, fd, path);
        require(s.n_pools <= POOLS_MAX);
        for (int i = 0; i < SETTING_MAX; i++)
                require(!s.ours[i] || s.was[i][0]);
}

/* settings_init() replaces its file, or takes it away. */
static void renew_settings(void)
{
        char path[96];
        struct stat st;

        require(fstat(folder.fds[FILE_SETTINGS], &st) == 0);
        if (st.st_nlink > 0)
                return;
        folder.sizes[FILE_SETTINGS] = 0;
        snprintf(path, sizeof(path), "%s/settings", folder.path);
        close(folder.fds[FILE_SETTINGS]);
        folder.fds[FILE_SETTINGS] = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (folder.fds[FILE_SETTINGS] < 0)
                folder_die(path);
}

static void check_uevent(void)
{
        char text[UEVENT_MAX];
        ssize_t n = pread(folder.fds[FILE_UEVENT], text, sizeof(text) - 1, 0);
        enum block_state state;
        uint32_t number;

        require(n >= 0);
        text[n] = '\0';
        if (uevent_read_block(text, (size_t)n, &number, &state) == 0)
                require(state < BLOCK_STATE_MAX && strchr(text, '@'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        folder_make(names, FILE_MAX);
        renew_settings();
        folder_write_pieces(data, size, FILE_MAX);

        _cleanup_close_ int fd = open(folder.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        require(fd >= 0);
        check_memory(fd);
        check_sample(fd);
        check_blocks(fd);
        check_pools(fd);
        check_settings(fd);
        check_uevent();
        return 0;
}
