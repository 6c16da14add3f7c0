/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The planner's properties over random sequences of additions and removals, held against brute force.
 * PLAN_TEST_SEED repeats a failure, PLAN_TEST_ROUNDS makes a run longer. */

#include "plan-model.h"

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

static void model_unplug(struct model *m, size_t index)
{
        m->s.kernel_bytes -= m->devices[index].kernel_bytes;
        m->s.movable_bytes -= m->devices[index].movable_bytes;
        m->devices[index] = m->devices[--m->s.n_devices];
}

static uint64_t model_cap(const struct model *m)
{
        uint64_t share2 = 2 * (m->s.max_bytes - m->s.base_bytes) / m->s.slots;

        return MAX(share2 / m->s.granule_bytes * m->s.granule_bytes, m->s.granule_bytes);
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

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_random_sequences),
                cmocka_unit_test(test_random_sequences_pseries),
                cmocka_unit_test(test_removal_large),
        };

        if (getenv("PLAN_TEST_SEED"))
                seed = strtoull(getenv("PLAN_TEST_SEED"), NULL, 10);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
