/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The planner: tables for what an operator sees, then properties over random sequences of additions and
 * removals, held against brute force. PLAN_TEST_SEED repeats a failure, PLAN_TEST_ROUNDS makes a run longer.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/plan.h"

static uint64_t seed = 20240229, random_state;

#define check(condition, ...)                                                                                \
        do {                                                                                                 \
                if (!(condition)) {                                                                          \
                        print_error("PLAN_TEST_SEED=%" PRIu64 ": %s: ", seed, #condition);                   \
                        print_error(" " __VA_ARGS__);                                                        \
                        fail();                                                                              \
                }                                                                                            \
        } while (0)

/* splitmix64 */
static uint64_t random_u64(void)
{
        uint64_t z = random_state += 0x9e3779b97f4a7c15;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
}

static uint64_t random_between(uint64_t low, uint64_t high)
{
        return low + random_u64() % (high - low + 1);
}

/* A guest, and its devices as plan_* change them. */
struct model {
        struct plan_snapshot s;
        struct plan_device devices[PLAN_DEVICES_MAX];
        uint64_t next_address;
        unsigned next_id;
};

static void model_init(struct model *m, uint64_t granule, uint64_t base, uint64_t max, unsigned slots)
{
        *m = (struct model){
                .s =
                        {
                                .granule_bytes = granule,
                                .base_bytes = base,
                                .max_bytes = max,
                                .slots = slots,
                                .kernel_bytes = base,
                                .devices = m->devices,
                        },
                .next_address = 4 * GIB,
        };
}

static struct plan_device *model_plug(struct model *m, uint64_t size_bytes, enum zone zone)
{
        struct plan_device *d = &m->devices[m->s.n_devices++];

        *d = (struct plan_device) {
                .address = m->next_address,
                .size_bytes = size_bytes,
                .is_dimm = true,
                .removable = true,
                .movable_bytes = zone == ZONE_MOVABLE ? size_bytes : 0,
                .kernel_bytes = zone == ZONE_KERNEL ? size_bytes : 0,
        };
        snprintf(d->id, sizeof(d->id), "dimm%u", m->next_id++);
        m->next_address += size_bytes;
        m->s.kernel_bytes += d->kernel_bytes;
        m->s.movable_bytes += d->movable_bytes;
        return d;
}

static void model_unplug(struct model *m, size_t index)
{
        m->s.kernel_bytes -= m->devices[index].kernel_bytes;
        m->s.movable_bytes -= m->devices[index].movable_bytes;
        m->devices[index] = m->devices[--m->s.n_devices];
}

static uint64_t model_rest(const struct model *m)
{
        uint64_t used = m->s.base_bytes;

        for (size_t i = 0; i < m->s.n_devices; i++)
                used += m->devices[i].size_bytes;
        return m->s.max_bytes - used;
}

static uint64_t model_cap(const struct model *m)
{
        uint64_t share2 = 2 * (m->s.max_bytes - m->s.base_bytes) / m->s.slots;

        return MAX(share2 / m->s.granule_bytes * m->s.granule_bytes, m->s.granule_bytes);
}

static bool accepts(const struct model *m, uint64_t size_bytes, enum zone_policy policy)
{
        struct plan_add add;

        return plan_addition(&m->s, size_bytes, policy, &add, NULL) == 0;
}

/* The sizes behind "ask for" in a message; how many there are. */
static size_t offered(const char *message, uint64_t ret[static 2])
{
        const char *p = strstr(message, "ask for ");
        char text[32];
        size_t n = 0;

        for (p = p ? p + strlen("ask for ") : NULL; p && n < 2; n++) {
                size_t length = strcspn(p, " ");

                assert_true(length < sizeof(text));
                memcpy(text, p, length);
                text[length] = '\0';
                assert_int_equal(size_parse(text, &ret[n], NULL), 0);
                p = strncmp(p + length, " or ", 4) == 0 ? p + length + 4 : NULL;
        }
        return n;
}

static void test_addition_pieces(void **state)
{
        static const struct {
                uint64_t base, max;
                unsigned slots;
                uint64_t size;
                enum zone_policy policy;
                const char *pieces;
        } rows[] = {
                /* the lab's guest: a share of 960M, so 2G are two DIMMs */
                { GIB, 16 * GIB, 16, 2 * GIB, ZONE_POLICY_AUTO, "1Gm 1Gm" },
                { GIB, 16 * GIB, 16, 256 * MIB, ZONE_POLICY_AUTO, "256Mm" },
                { GIB, 16 * GIB, 16, 2176 * MIB, ZONE_POLICY_MOVABLE, "1152Mm 1Gm" },
                { GIB, 16 * GIB, 16, 2 * GIB, ZONE_POLICY_KERNEL, "1Gk 1Gk" },
                /* 3:1 (301 %): 4G need 256M of kernel memory, and no whole DIMM of the even size */
                { GIB, 16 * GIB, 16, 4 * GIB, ZONE_POLICY_AUTO, "256Mk 1280Mm 1280Mm 1280Mm" },
                { 512 * MIB, 64 * GIB, 4, 2 * GIB, ZONE_POLICY_AUTO, "128Mk 1920Mm" },
                /* all of it, with every slot */
                { GIB, 3 * GIB, 4, 2 * GIB, ZONE_POLICY_MOVABLE, "512Mm 512Mm 512Mm 512Mm" },
                { GIB, 2 * GIB, 1, GIB, ZONE_POLICY_MOVABLE, "1Gm" },
                /* one slot cannot serve two zones: the kernel part takes it all */
                { 256 * MIB, 2304 * MIB, 1, 2 * GIB, ZONE_POLICY_AUTO, "2Gk" },
                /* fewer blocks than slots */
                { GIB, 1280 * MIB, 16, 256 * MIB, ZONE_POLICY_MOVABLE, "128Mm 128Mm" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct plan_add add;
                struct error error = { 0 };
                struct model m;
                char text[512] = "";

                model_init(&m, 128 * MIB, rows[i].base, rows[i].max, rows[i].slots);
                int e = plan_addition(&m.s, rows[i].size, rows[i].policy, &add, &error);
                if (e < 0)
                        fail_msg("row %zu: %s", i, error.message);
                for (size_t j = 0; j < add.n_pieces; j++)
                        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s%c", j ? " " : "",
                                SIZE_EXACT(add.pieces[j].size_bytes),
                                add.pieces[j].zone == ZONE_KERNEL ? 'k' : 'm');
                if (strcmp(text, rows[i].pieces) != 0)
                        fail_msg("row %zu: %s instead of %s", i, text, rows[i].pieces);
        }
}

/* What `add-memory P 1G` and its like come to on pseries, by what the guest was started with. */
static void test_addition_pseries(void **state)
{
        static const struct {
                uint64_t base, max;
                unsigned slots;
                uint64_t size;
                const char *pieces;
        } rows[] = {
                /* at most one LMB for each slot: each LMB is a device */
                { GIB, 4 * GIB, 16, GIB, "256M 256M 256M 256M" },
                { GIB, 5 * GIB, 16, GIB, "256M 256M 256M 256M" },
                { GIB, 8 * GIB, 32, GIB, "256M 256M 256M 256M" },
                { GIB, 9 * GIB, 32, GIB, "256M 256M 256M 256M" },
                /* beyond it not all that comes in one request, though a single LMB always does */
                { GIB, 16 * GIB, 32, GIB, "512M 512M" },
                { GIB, 16 * GIB, 16, GIB, "1G" },
                { GIB, 16 * GIB, 32, 256 * MIB, "256M" },
                { GIB, 16 * GIB, 16, 256 * MIB, "256M" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct plan_add add;
                struct model m;
                char text[128] = "";

                model_init(&m, PLAN_LMB_BYTES, rows[i].base, rows[i].max, rows[i].slots);
                assert_int_equal(plan_addition(&m.s, rows[i].size, ZONE_POLICY_AUTO, &add, NULL), 0);
                for (size_t j = 0; j < add.n_pieces; j++)
                        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", j ? " " : "",
                                SIZE_EXACT(add.pieces[j].size_bytes));
                if (strcmp(text, rows[i].pieces) != 0)
                        fail_msg("row %zu: %s instead of %s", i, text, rows[i].pieces);
        }
}

static void test_addition_errors(void **state)
{
        static const struct {
                uint64_t granule, base, max;
                unsigned slots;
                uint64_t plugged[4];
                uint64_t size;
                enum zone_policy policy;
                enum error_code code;
                const char *says;
        } rows[] = {
                { 0, GIB, 16 * GIB, 16, { 0 }, GIB, ZONE_POLICY_AUTO, ERROR_AGENT_ABSENT, "start guestd" },
                { 128 * MIB, GIB, 16 * GIB, 16, { 0 }, 0, ZONE_POLICY_AUTO, ERROR_INVALID_SIZE, "128M" },
                { 128 * MIB, GIB, 0, 0, { 0 }, GIB, ZONE_POLICY_AUTO, ERROR_NO_HOTPLUG, "maxmem" },
                { 128 * MIB, GIB, GIB, 4, { 0 }, GIB, ZONE_POLICY_AUTO, ERROR_NO_HOTPLUG, "maxmem" },
                { 128 * MIB, GIB, 2 * GIB, 0, { 0 }, GIB, ZONE_POLICY_AUTO, ERROR_NO_HOTPLUG, "0 slots" },
                { 128 * MIB, GIB, 16 * GIB, 16, { 0 }, 300 * MIB, ZONE_POLICY_AUTO, ERROR_UNALIGNED_SIZE,
                        "ask for 256M or 384M" },
                { 128 * MIB, GIB, 16 * GIB, 16, { 0 }, 64 * MIB, ZONE_POLICY_AUTO, ERROR_UNALIGNED_SIZE,
                        "ask for 128M" },
                { 128 * MIB, GIB, 16 * GIB, 16, { GIB, GIB }, 14 * GIB, ZONE_POLICY_AUTO, ERROR_BEYOND_MAX,
                        "13G left below maxmem 16G (1G at boot, 2G plugged); ask for 13G" },
                { 128 * MIB, GIB, 2 * GIB, 2, { GIB }, GIB, ZONE_POLICY_AUTO, ERROR_BEYOND_MAX,
                        "remove memory first" },
                { 128 * MIB, GIB, 4 * GIB, 2, { GIB, GIB }, GIB, ZONE_POLICY_AUTO, ERROR_NO_SLOTS,
                        "All 2 memory slots" },
                /* one slot takes all or nothing; of two slots of at most 4G, one must not be wasted */
                { 128 * MIB, GIB, 4 * GIB, 1, { 0 }, GIB, ZONE_POLICY_AUTO, ERROR_SLOT_RULE, "ask for 3G" },
                { 128 * MIB, GIB, 9 * GIB, 4, { GIB, GIB }, 4224 * MIB, ZONE_POLICY_AUTO, ERROR_SLOT_RULE,
                        "ask for 4G or 6G" },
                { 128 * MIB, GIB, 16 * GIB, 16, { 0 }, 4 * GIB, ZONE_POLICY_MOVABLE, ERROR_ZONE_RATIO,
                        "beside 1G of kernel memory, and 3:1 is the limit), not by 4G; ask for 3G" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct plan_add add, untouched;
                struct error error = { 0 };
                struct model m;
                uint64_t offers[2];

                model_init(&m, rows[i].granule, rows[i].base, rows[i].max, rows[i].slots);
                for (size_t j = 0; rows[i].plugged[j]; j++)
                        model_plug(&m, rows[i].plugged[j], ZONE_KERNEL);
                memset(&add, 0xa5, sizeof(add));
                untouched = add;
                assert_true(plan_addition(&m.s, rows[i].size, rows[i].policy, &add, &error) < 0);
                if (error.code != rows[i].code || !strstr(error.message, rows[i].says))
                        fail_msg("row %zu: %s: %s", i, error_code_name(error.code), error.message);
                assert_memory_equal(&add, &untouched, sizeof(add));
                for (size_t j = offered(error.message, offers); j-- > 0;)
                        assert_true(accepts(&m, offers[j], rows[i].policy));
        }
}

/* Devices that hvd did not plan can make max unreachable in pieces of at most cap; cap rises then. */
static void test_addition_foreign_devices(void **state)
{
        struct plan_add add;
        struct model m;

        model_init(&m, 128 * MIB, GIB, 17 * GIB, 4);
        for (int i = 0; i < 3; i++)
                model_plug(&m, 128 * MIB, ZONE_KERNEL);
        assert_int_equal(plan_addition(&m.s, model_rest(&m), ZONE_POLICY_KERNEL, &add, NULL), 0);
        assert_int_equal(add.n_pieces, 1);
        assert_false(accepts(&m, GIB, ZONE_POLICY_KERNEL));

        /* virtio-mem takes space and no slot; a size that is no multiple of the block costs the rest of its
         * block */
        model_init(&m, 128 * MIB, GIB, 17 * GIB, 4);
        model_plug(&m, 8 * GIB, ZONE_MOVABLE)->is_dimm = false;
        model_plug(&m, 64 * MIB, ZONE_KERNEL);
        assert_int_equal(plan_addition(&m.s, 8 * GIB - 128 * MIB, ZONE_POLICY_KERNEL, &add, NULL), 0);
        assert_int_equal(add.n_pieces, 3);
        assert_false(accepts(&m, 8 * GIB, ZONE_POLICY_KERNEL));
}

/* What an operator meets who adds 256M again and again to a guest of 16G and 16 slots. */
static void test_addition_small_steps(void **state)
{
        struct error error = { 0 };
        struct plan_add add;
        struct model m;
        uint64_t offers[2];
        int n = 0;

        model_init(&m, 128 * MIB, GIB, 16 * GIB, 16);
        for (; plan_addition(&m.s, 256 * MIB, ZONE_POLICY_AUTO, &add, &error) == 0; n++) {
                assert_int_equal(add.n_pieces, 1);
                model_plug(&m, 256 * MIB, add.pieces[0].zone);
        }
        assert_int_equal(n, 9);
        assert_int_equal(error.code, ERROR_SLOT_RULE);
        assert_int_equal(offered(error.message, offers), 1);
        assert_int_equal(offers[0], 1536 * MIB);
        assert_true(accepts(&m, offers[0], ZONE_POLICY_AUTO));
}

static void check_addition(
        const struct model *m, uint64_t size, enum zone_policy policy, const struct plan_add *add)
{
        uint64_t sum = 0, kernel = m->s.kernel_bytes, movable = m->s.movable_bytes;
        uint64_t cap = model_cap(m), rest = model_rest(m), low[ZONE_MAX], high[ZONE_MAX] = { 0 };
        size_t slots = m->s.slots - m->s.n_devices;

        memset(low, 0xff, sizeof(low));
        check(add->n_pieces >= 1 && add->n_pieces <= slots, "%zu pieces", add->n_pieces);
        for (size_t i = 0; i < add->n_pieces; i++) {
                const struct plan_piece *p = &add->pieces[i];

                check(p->size_bytes > 0 && p->size_bytes % m->s.granule_bytes == 0);
                check(p->size_bytes <= cap, "%s of %s", SIZE_EXACT(p->size_bytes), SIZE_EXACT(cap));
                check(p->zone == ZONE_MOVABLE || p->zone == ZONE_KERNEL);
                check(policy == ZONE_POLICY_AUTO ||
                        (policy == ZONE_POLICY_KERNEL) == (p->zone == ZONE_KERNEL));
                check(i == 0 || add->pieces[i - 1].zone <= p->zone, "kernel first");
                low[p->zone] = MIN(low[p->zone], p->size_bytes);
                high[p->zone] = MAX(high[p->zone], p->size_bytes);
                check(high[p->zone] - low[p->zone] <= m->s.granule_bytes, "even");
                if (p->zone == ZONE_MOVABLE)
                        check(zone_ratio_allows(kernel, movable, p->size_bytes),
                                "the ratio holds at each step");
                kernel += p->zone == ZONE_KERNEL ? p->size_bytes : 0;
                movable += p->zone == ZONE_MOVABLE ? p->size_bytes : 0;
                sum += p->size_bytes;
        }
        check(sum == size, "%s of %s", SIZE_EXACT(sum), SIZE_EXACT(size));
        check(rest - size <= (slots - add->n_pieces) * cap, "max stays reachable");
        check(add->n_pieces <= MAX(slots * size / rest, size / cap + 2), "no more slots than an even use");

        /* No smaller kernel part would do: one granule less breaks the ratio, or takes a slot that is not
         * there. */
        uint64_t g = m->s.granule_bytes, k = kernel - m->s.kernel_bytes;
        if (policy == ZONE_POLICY_AUTO && k > 0) {
                uint64_t n_max = slots - (rest - size + cap - 1) / cap;
                for (uint64_t less = k - g; k > 0; less -= g) {
                        uint64_t n = (less + cap - 1) / cap + (size - less + cap - 1) / cap;
                        check(n > n_max || !zone_ratio_allows(
                                                   m->s.kernel_bytes + less, m->s.movable_bytes, size - less),
                                "%s instead of %s", SIZE_EXACT(less), SIZE_EXACT(k));
                        if (less == 0)
                                break;
                }
        }
}

static void check_refusal(
        const struct model *m, uint64_t size, enum zone_policy policy, const struct error *error)
{
        uint64_t offers[2] = { 0 }, g = m->s.granule_bytes, rest = model_rest(m);
        size_t n = offered(error->message, offers);

        check(error->code == ERROR_SLOT_RULE || (error->code == ERROR_BEYOND_MAX && size > rest) ||
                        (error->code == ERROR_ZONE_RATIO && policy == ZONE_POLICY_MOVABLE),
                "%s", error->message);
        check(strlen(error->message) < ERROR_MESSAGE_MAX - 1);
        for (size_t i = 0; i < n; i++)
                check(accepts(m, offers[i], policy), "%s", error->message);
        /* They are the nearest ones, and there are none only if no size at all is accepted. */
        uint64_t below = MIN(size - g, rest), above = size + g;
        while (below > 0 && !accepts(m, below, policy))
                below -= g;
        while (above <= rest && !accepts(m, above, policy))
                above += g;
        size_t expected = (below > 0) + (above <= rest);
        check(n == expected, "%s", error->message);
        check(below == 0 || offers[0] == below, "%s", error->message);
        check(above > rest || offers[n - 1] == above, "%s", error->message);
        check(n > 0 || policy == ZONE_POLICY_MOVABLE || rest == 0, "%s", error->message);
}

struct best {
        uint64_t total, stuck, kernel, steps, movable;
        uint32_t mask; /* bit i: the i-th lowest address */
};

static bool better(const struct best *a, const struct best *b)
{
        return a->total != b->total       ? a->total > b->total
               : a->stuck != b->stuck     ? a->stuck < b->stuck
               : a->kernel != b->kernel   ? a->kernel < b->kernel
               : a->steps != b->steps     ? a->steps < b->steps
               : a->movable != b->movable ? a->movable < b->movable
                                          : a->mask > b->mask;
}

static int device_class(const struct plan_device *d)
{
        return d->stuck_bytes || d->has_obstacle ? 3 : d->kernel_bytes ? 2 : d->movable_bytes ? 1 : 0;
}

/* Every subset of up to 12 devices; devices[] is sorted by address first. */
static void check_best(const struct model *m, uint64_t size, const struct plan_remove *remove)
{
        const struct plan_device *list[12];
        struct best best = { 0 };
        uint32_t mask = 0;
        size_t n = 0;

        for (size_t i = 0; i < m->s.n_devices; i++) {
                const struct plan_device *d = &m->devices[i];
                size_t at = n;

                if (!d->removable || !d->is_dimm)
                        continue;
                if (n == ARRAY_SIZE(list))
                        return;
                for (; at > 0 && list[at - 1]->address > d->address; at--)
                        list[at] = list[at - 1];
                list[at] = d;
                n++;
        }
        for (uint32_t set = 0; set < UINT32_C(1) << n; set++) {
                struct best b = { .mask = set };

                for (size_t i = 0; i < n; i++) {
                        if (!(set & UINT32_C(1) << i))
                                continue;
                        uint64_t *classes[] = { NULL, &b.movable, &b.kernel, &b.stuck };
                        int class = device_class(list[i]);
                        b.total += list[i]->size_bytes;
                        b.steps += list[i]->migrate_bytes / PLAN_COST_STEP;
                        if (class > 0)
                                *classes[class] += list[i]->size_bytes;
                }
                if (b.total <= size && better(&b, &best))
                        best = b;
        }
        for (size_t i = 0; i < n; i++)
                for (size_t j = 0; j < remove->n_devices; j++)
                        if (&m->devices[remove->devices[j]] == list[i])
                                mask |= UINT32_C(1) << i;
        check(remove->total_bytes == best.total && mask == best.mask, "%s, mask %x; best is %s, %x",
                SIZE_EXACT(remove->total_bytes), mask, SIZE_EXACT(best.total), best.mask);
}

static uint64_t steps(const struct plan_device *d)
{
        return d->migrate_bytes / PLAN_COST_STEP;
}

static bool ratio_is_fit(
        const struct model *m, const struct plan_remove *remove, const struct plan_device *more)
{
        uint64_t kernel = m->s.kernel_bytes, movable = m->s.movable_bytes;

        for (size_t i = 0; i < remove->n_devices; i++) {
                kernel -= m->devices[remove->devices[i]].kernel_bytes;
                movable -= m->devices[remove->devices[i]].movable_bytes;
        }
        kernel -= more ? MIN(kernel, more->kernel_bytes) : 0;
        return movable <= kernel * 301 / 100 ||
               (double)movable * (double)m->s.kernel_bytes <= (double)m->s.movable_bytes * (double)kernel;
}

/* What stays for the zones' sake is kernel memory, and with the smallest of it the rest would not be fit. */
static void check_kept(const struct model *m, const struct plan_remove *remove)
{
        const struct plan_device *largest = NULL;

        for (size_t i = 0; i < m->s.n_devices; i++)
                if (m->devices[i].removable && m->devices[i].kernel_bytes > 0 &&
                        (!largest || m->devices[i].size_bytes > largest->size_bytes))
                        largest = &m->devices[i];
        check(largest && ratio_is_fit(m, remove, NULL) && !ratio_is_fit(m, remove, largest));
}

static void check_removal(const struct model *m, uint64_t size, const struct plan_remove *remove)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < remove->n_devices; i++) {
                const struct plan_device *d = &m->devices[remove->devices[i]];
                const struct plan_device *last = i > 0 ? &m->devices[remove->devices[i - 1]] : NULL;

                check(remove->devices[i] < m->s.n_devices && d->removable && d->is_dimm);
                check(!last || device_class(last) < device_class(d) ||
                                (device_class(last) == device_class(d) &&
                                        (steps(last) < steps(d) ||
                                                (steps(last) == steps(d) && last->address > d->address))),
                        "order");
                sum += d->size_bytes;
        }
        check(sum == remove->total_bytes && sum > 0 && sum <= size);
        if (remove->kept_bytes > 0)
                check_kept(m, remove);
        else
                check_best(m, size, remove);
}

static void random_addition(struct model *m)
{
        uint64_t g = m->s.granule_bytes, rest = model_rest(m) / g;
        enum zone_policy policy = random_between(0, ZONE_POLICY_MAX - 1);
        uint64_t most = random_between(0, 3) ? MAX(rest / 4, UINT64_C(1)) : rest + 2;
        uint64_t size = random_between(1, most) * g;
        struct error error = { 0 };
        struct plan_add add;

        if (rest == 0)
                return;
        if (plan_addition(&m->s, size, policy, &add, &error) < 0) {
                check_refusal(m, size, policy, &error);
                return;
        }
        check_addition(m, size, policy, &add);
        for (size_t i = 0; i < add.n_pieces; i++)
                model_plug(m, add.pieces[i].size_bytes, add.pieces[i].zone);
}

static void random_removal(struct model *m)
{
        uint64_t g = m->s.granule_bytes, plugged = m->s.max_bytes - m->s.base_bytes - model_rest(m), below,
                 above;
        struct plan_remove remove, any;
        struct error error = { 0 };

        for (size_t i = 0; i < m->s.n_devices; i++) {
                struct plan_device *d = &m->devices[i];
                d->removable = random_between(0, 7) > 0;
                d->stuck_bytes = random_between(0, 7) == 0 ? g : 0;
                d->offline_bytes = 0;
                d->has_obstacle = random_between(0, 5) == 0;
                /* Often alike but for what is less than a step, sometimes beyond all measure. */
                d->migrate_bytes =
                        random_between(0, 3) * PLAN_COST_STEP + random_between(0, PLAN_COST_STEP - 1);
                if (random_between(0, 15) == 0)
                        d->migrate_bytes = random_between(0, 1) ? d->size_bytes : 0;
        }
        uint64_t size = random_between(1, plugged / g + 1) * g;
        plan_nearest_removals(&m->s, size, &below, &above);
        if (plan_removal(&m->s, size, NULL, &remove, &error) < 0) {
                check(error.code == ERROR_NOT_PLUGGED || error.code == ERROR_NO_EXACT_FIT ||
                                error.code == ERROR_ZONE_RATIO,
                        "%s", error.message);
                check(error.code != ERROR_NO_EXACT_FIT || (below == 0 && above != UINT64_MAX), "%s",
                        error.message);
                return;
        }
        check_removal(m, size, &remove);
        check(below == remove.total_bytes + remove.kept_bytes);
        if (above != UINT64_MAX && remove.kept_bytes == 0 &&
                plan_removal(&m->s, above, NULL, &any, NULL) == 0 && any.kept_bytes == 0) {
                struct plan_remove other;
                check(above >= size && plan_removal(&m->s, above, NULL, &other, NULL) == 0 &&
                        other.total_bytes == above);
                /* and nothing lies between */
                check(plan_removal(&m->s, above - g, NULL, &other, NULL) < 0 || other.total_bytes < size ||
                        above == size);
        }

        /* A removal may end in the middle. Take them from the last index down: model_unplug() moves the last
         * one. */
        size_t n = random_between(0, 3) ? remove.n_devices : random_between(0, remove.n_devices);
        for (size_t index = m->s.n_devices; index-- > 0;)
                for (size_t i = 0; i < n; i++)
                        if (remove.devices[i] == index) {
                                model_unplug(m, index);
                                break;
                        }
}

/* In any state that sequences of ours lead to, the rest can be had in one request. */
static void check_max_reachable(const struct model *m)
{
        uint64_t rest = model_rest(m), slots = m->s.slots - m->s.n_devices;
        struct plan_add add;

        check(rest <= slots * model_cap(m));
        for (enum zone_policy policy = ZONE_POLICY_AUTO; rest > 0 && policy < ZONE_POLICY_MAX; policy++) {
                struct error error = { 0 };

                if (plan_addition(&m->s, rest, policy, &add, &error) == 0)
                        check_addition(m, rest, policy, &add);
                else
                        check(policy == ZONE_POLICY_MOVABLE && error.code == ERROR_ZONE_RATIO, "%s",
                                error.message);
        }
}

static void random_sequence(struct model *m)
{
        check_max_reachable(m);
        for (int i = 0; i < 40; i++) {
                if (m->s.n_devices > 0 && random_between(0, 2) == 0)
                        random_removal(m);
                else
                        random_addition(m);
                check_max_reachable(m);
        }
}

static int rounds_of(int usual)
{
        const char *rounds = getenv("PLAN_TEST_ROUNDS");

        return rounds ? atoi(rounds) : usual;
}

static void test_random_sequences(void **state)
{
        uint64_t first_seed = seed;

        for (int round = 0; round < rounds_of(400); round++) {
                struct model m;

                seed = first_seed + (uint64_t)round;
                random_state = seed;
                uint64_t g = 128 * MIB << random_between(0, 4);
                uint64_t base = random_between(1, 64) * g;
                unsigned slots = (unsigned)random_between(1, random_between(0, 3) ? 32 : PLAN_DEVICES_MAX);
                model_init(&m, g, base, base + random_between(1, 800) * g, slots);
                random_sequence(&m);
        }
        seed = first_seed;
}

/* A pseries guest: LMBs of 256M and at most 32 slots. Where there is a slot for each LMB, each is a device of
 * its own and can leave by itself, whatever came and left before. */
static void test_random_sequences_pseries(void **state)
{
        uint64_t first_seed = seed;

        for (int round = 0; round < rounds_of(300); round++) {
                bool ample = round % 3 == 0;
                struct model m;

                seed = first_seed + (uint64_t)round;
                random_state = seed;
                uint64_t base = random_between(1, 64) * PLAN_LMB_BYTES;
                uint64_t n_lmbs = random_between(1, ample ? 32 : 1024);
                model_init(&m, PLAN_LMB_BYTES, base, base + n_lmbs * PLAN_LMB_BYTES, 32);
                m.s.is_pseries = true;
                random_sequence(&m);
                check(m.s.n_devices <= 32);
                for (size_t i = 0; ample && i < m.s.n_devices; i++)
                        check(m.devices[i].size_bytes == PLAN_LMB_BYTES, "%s of %" PRIu64 " LMBs",
                                SIZE_EXACT(m.devices[i].size_bytes), n_lmbs);
        }
        seed = first_seed;
}

static void test_removal_errors(void **state)
{
        static const struct {
                uint64_t size;
                const char *device_id;
                enum error_code code;
                const char *says;
        } rows[] = {
                { 0, NULL, ERROR_INVALID_SIZE, "128M" },
                { 5 * GIB, NULL, ERROR_NOT_PLUGGED,
                        "4G plugged in DIMMs, and the 1G at boot cannot leave; ask for 3G" },
                { 1100 * MIB, NULL, ERROR_UNALIGNED_SIZE, "ask for 1G or 2G" },
                { 512 * MIB, NULL, ERROR_NO_EXACT_FIT, "ask for 1G" },
                { GIB, "dimm9", ERROR_UNKNOWN_DEVICE, "of 3 plugged there are: dimm0, dimm1, dimm2" },
                { GIB, "vm0", ERROR_UNKNOWN_DEVICE, "not a DIMM" },
                { GIB, "dimm2", ERROR_UNPLUG_PENDING, "dimm2 cannot be removed now" },
                { GIB, "dimm1", ERROR_NO_EXACT_FIT, "ask for 2G" },
        };
        struct plan_remove remove;
        struct error error;
        struct model m;

        model_init(&m, 128 * MIB, GIB, 32 * GIB, 16);
        assert_int_equal(plan_removal(&m.s, GIB, NULL, &remove, &error), -ERANGE);
        assert_int_equal(error.code, ERROR_NOT_PLUGGED);
        assert_int_equal(plan_removal(&m.s, GIB, "dimm0", &remove, &error), -ENODEV);

        model_plug(&m, GIB, ZONE_MOVABLE);
        model_plug(&m, 2 * GIB, ZONE_MOVABLE);
        model_plug(&m, GIB, ZONE_MOVABLE)->removable = false;
        struct plan_device *vm = model_plug(&m, 4 * GIB, ZONE_MOVABLE);
        vm->is_dimm = false;
        snprintf(vm->id, sizeof(vm->id), "vm0");

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                assert_true(plan_removal(&m.s, rows[i].size, rows[i].device_id, &remove, &error) < 0);
                if (error.code != rows[i].code || !strstr(error.message, rows[i].says))
                        fail_msg("row %zu: %s: %s", i, error_code_name(error.code), error.message);
        }
        assert_int_equal(plan_removal(&m.s, 2 * GIB, "dimm1", &remove, &error), 0);
        assert_int_equal(remove.n_devices, 1);
        assert_int_equal(remove.devices[0], 1);
        assert_int_equal(plan_removal(&m.s, 4 * GIB, NULL, &remove, &error), 0);
        assert_int_equal(remove.total_bytes, 3 * GIB);

        m.devices[0].removable = m.devices[1].removable = false;
        assert_int_equal(plan_removal(&m.s, GIB, NULL, &remove, &error), -ERANGE);
        assert_non_null(strstr(error.message, "None of the 4G"));
        assert_null(strstr(error.message, "reset"));

        m.devices[0].unplug_pending = true;
        assert_int_equal(plan_removal(&m.s, GIB, NULL, &remove, &error), -ERANGE);
        assert_non_null(strstr(error.message, "only with a reset of the guest"));
        assert_true(plan_removal(&m.s, GIB, "dimm0", &remove, &error) < 0);
        assert_int_equal(error.code, ERROR_UNPLUG_PENDING);
        assert_non_null(strstr(error.message, "only a reset of the guest"));
}

/* The largest that is served: 256 devices in 16 TiB of 128 MiB blocks, and beyond, where units grow. */
static void test_removal_large(void **state)
{
        for (int scale = 0; scale <= 2; scale += 2) {
                struct plan_remove remove;
                struct model m;
                uint64_t total = 0, target;

                random_state = seed;
                model_init(&m, 128 * MIB, GIB, 256 * TIB, PLAN_DEVICES_MAX);
                for (size_t i = 0; i < PLAN_DEVICES_MAX; i++)
                        total += model_plug(&m,
                                (random_between(256, 767) * 128 * MIB) << scale | (scale ? 128 * MIB : 0),
                                ZONE_MOVABLE)
                                         ->size_bytes;
                target = total / 2 / (128 * MIB) * (128 * MIB);
                assert_int_equal(plan_removal(&m.s, target, NULL, &remove, NULL), 0);
                assert_true(remove.total_bytes <= target);
                assert_true(remove.total_bytes >= target - (scale ? 256 * GIB : 0));
        }
}

static void test_reconcile(void **state)
{
        const uint64_t g = 128 * MIB;
        const struct plan_attached devices[] = {
                { "dimm1", PLAN_BACKEND_PREFIX "1", 5 * GIB, GIB },
                { "dimm0", PLAN_BACKEND_PREFIX "0", 4 * GIB, GIB },
                { "odd", "theirs", 8 * GIB + 64 * MIB, 256 * MIB },
        };
        const char *const backends[] = { "theirs", PLAN_BACKEND_PREFIX "0", PLAN_BACKEND_PREFIX "2", "pc.ram",
                PLAN_BACKEND_PREFIX "1", PLAN_BACKEND_PREFIX "10" };
        const struct block_range blocks[] = {
                { 0, 4 * GIB, BLOCK_ONLINE, ZONE_KERNEL },
                { 4 * GIB, g, BLOCK_ONLINE, ZONE_MOVABLE },
                { 4 * GIB + g, GIB, BLOCK_OFFLINE, ZONE_UNKNOWN }, /* over the border of two devices */
                { 5 * GIB + g, g, BLOCK_CHANGING, ZONE_UNKNOWN },
                { 5 * GIB + 2 * g, 2 * g, BLOCK_OFFLINE, ZONE_UNKNOWN },
                { 7 * GIB, GIB, BLOCK_OFFLINE, ZONE_UNKNOWN }, /* of no device */
                { 8 * GIB, 4 * g, BLOCK_OFFLINE, ZONE_UNKNOWN },
        };
        static const struct mem_range expected[] = {
                { 4 * GIB + 128 * MIB, GIB },
                { 5 * GIB + 256 * MIB, 256 * MIB },
                { 8 * GIB + 128 * MIB, 128 * MIB },
        };
        struct plan_reconcile r = {
                .granule_bytes = g,
                .devices = devices,
                .n_devices = ARRAY_SIZE(devices),
                .backends = backends,
                .n_backends = ARRAY_SIZE(backends),
                .blocks = blocks,
                .n_blocks = ARRAY_SIZE(blocks),
        };
        size_t orphans[ARRAY_SIZE(backends)], n;
        struct mem_range *ranges;

        assert_int_equal(plan_orphan_backends(&r, orphans), 2);
        assert_int_equal(orphans[0], 2);
        assert_int_equal(orphans[1], 5);

        assert_int_equal(plan_offline_ranges(&r, &ranges, &n), 0);
        assert_int_equal(n, ARRAY_SIZE(expected));
        assert_memory_equal(ranges, expected, sizeof(expected));
        free(ranges);

        r.n_blocks = 2;
        assert_int_equal(plan_offline_ranges(&r, &ranges, &n), 0);
        assert_int_equal(n, 0);
        assert_null(ranges);
}

static void test_zone_policy(void **state)
{
        for (enum zone_policy p = 0; p < ZONE_POLICY_MAX; p++)
                assert_int_equal(zone_policy_from_string(zone_policy_to_string(p)), p);
        assert_int_equal(zone_policy_from_string("Auto"), ZONE_POLICY_INVALID);
        assert_int_equal(zone_policy_from_string(NULL), ZONE_POLICY_INVALID);
        assert_null(zone_policy_to_string(ZONE_POLICY_INVALID));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_addition_pieces),
                cmocka_unit_test(test_addition_pseries),
                cmocka_unit_test(test_addition_errors),
                cmocka_unit_test(test_addition_foreign_devices),
                cmocka_unit_test(test_addition_small_steps),
                cmocka_unit_test(test_random_sequences),
                cmocka_unit_test(test_random_sequences_pseries),
                cmocka_unit_test(test_removal_errors),
                cmocka_unit_test(test_removal_large),
                cmocka_unit_test(test_reconcile),
                cmocka_unit_test(test_zone_policy),
        };

        if (getenv("PLAN_TEST_SEED"))
                seed = strtoull(getenv("PLAN_TEST_SEED"), NULL, 10);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
