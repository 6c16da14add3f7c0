/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every point at which hvd can be killed, and every answer that can go wrong, of an addition, a removal, a
 * move and a restoration. First hvd is ended at a point and started again; then one answer of a QEMU's or a
 * guest's is an error, is lost, comes late, or the connection ends or the guest is reset with it, each on a
 * machine of its own, all at once before one hvd. Afterwards both ends must be whole, hvd must know them as
 * they are, and the job must have ended in the store with what was really moved.
 *
 *     crash BUILD [--all] [--seed N] [--seconds N] [--only SCENARIO [POINT]]
 *
 * Without --all a sample: as many points as fit into the seconds, at least one of each scenario. */

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/integration/crash-rig.h"

#define WAIT_USEC     (8 * USEC_PER_SEC)
#define LATE_USEC     (12 * USEC_PER_SEC) /* beyond what hvd gives a command, and beyond the job */
#define CONVERGE_USEC (30 * USEC_PER_SEC)
#define SIZE_BYTES    GIB

static const struct scenario {
        const char *name, *kind;
        size_t n_machines;
        uint64_t plugged_bytes[2]; /* twice each: in two DIMMs */
        const char *from;
        bool broken; /* hvd meets an orphan, and DIMMs that are offline */
} scenarios[] = {
        { "add", "AddMemory", 1, { 0 }, "job SURVEYING" },
        { "remove", "RemoveMemory", 1, { SIZE_BYTES / 2 }, "job SURVEYING" },
        { "move", "MoveMemory", 2, { SIZE_BYTES / 2 }, "job SURVEYING" },
        { "restore", NULL, 1, { SIZE_BYTES / 2 }, NULL, true },
};

static struct {
        bool all;
        unsigned seed, seconds;
        const char *only;
        unsigned long point;
} arg = { .seconds = 45 };

static struct tally {
        unsigned long n_points, n_run, n_faults, n_understated;
} tally;

static struct rig rig;

static void set_up(const struct scenario *s, size_t n)
{
        rig_make_machines(&rig, n * s->n_machines, s->n_machines);
        for (size_t i = 0; i < rig.n_machines; i++) {
                uint64_t bytes = s->plugged_bytes[i % s->n_machines];

                for (unsigned k = 0; bytes > 0 && k < 2; k++)
                        machine_plug(rig.machines[i], bytes, !s->broken);
                if (s->broken)
                        machine_add_orphan(rig.machines[i]);
        }
}

static bool is_known(size_t machine)
{
        struct rig_view v;

        return rig_look(&rig, machine, &v) && v.running && v.ready && v.block_bytes > 0 &&
               v.plugged_bytes == machine_plugged_bytes(rig.machines[machine]);
}

static bool all_known(void)
{
        for (size_t i = 0; i < rig.n_machines; i++) {
                if (machine_complaint(rig.machines[i]))
                        rig_die(&rig, "p%zu: %s", i, machine_complaint(rig.machines[i]));
                if (!is_known(i))
                        return false;
        }
        return true;
}

static bool hvd_ended(void)
{
        int signal_number;

        if (!rig_hvd_ended(&rig, &signal_number))
                return false;
        if (signal_number != SIGKILL)
                rig_die(&rig, "hvd ended by signal %d, which nobody sent", signal_number);
        return true;
}

/* Whole, for long enough that nothing is under way any more. */
static void converge(const char *what, const char *where)
{
        uint64_t end = now_monotonic_usec() + CONVERGE_USEC, whole_usec = 0;
        const char *why = NULL;

        while (whole_usec == 0 || now_monotonic_usec() < whole_usec + 150 * USEC_PER_MSEC) {
                uint64_t now = now_monotonic_usec();

                why = NULL;
                /* What hvd does again and again has points as well. */
                if (hvd_ended())
                        rig_start_hvd(&rig, 0, NULL, false);
                for (size_t i = 0; i < rig.n_machines && !why; i++)
                        why = rig_differs(&rig, i);
                if (why)
                        whole_usec = 0;
                else if (whole_usec == 0)
                        whole_usec = now;
                if (now > end)
                        rig_die(&rig, "%s, %s: not whole again after %llu s: %s", what, where,
                                (unsigned long long)(CONVERGE_USEC / USEC_PER_SEC), why ? why : "at times");
                FAKE_RUN_UNTIL(rig.event, false, 20 * USEC_PER_MSEC);
        }
}

static int64_t moved_bytes(const struct scenario *s, size_t first)
{
        size_t last = first + s->n_machines - 1; /* of a move, what arrived counts */
        int64_t before = 2 * (int64_t)s->plugged_bytes[s->n_machines - 1];
        int64_t change = (int64_t)machine_plugged_bytes(rig.machines[last]) - before;

        return s->kind && strcmp(s->kind, "RemoveMemory") == 0 ? -change : change;
}

static bool is_end(const char *state)
{
        static const char *const ends[] = { "DONE", "PARTIAL", "FAILED", "CANCELLED" };

        for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
                if (strcmp(state, ends[i]) == 0)
                        return true;
        return false;
}

static bool job_is_over(uint32_t id)
{
        struct rig_job j;

        return rig_stored_job(&rig, id, &j) && j.over;
}

/* Reasons for which less counts as done than has moved: memory that one end did not confirm, a device without
 * its blocks in use yet, a backend whose device has left. */
static bool says_what_is_left(const char *reasons)
{
        if (strstr(reasons, "\"interrupted\""))
                return false;
        return strstr(reasons, "confirm") || strstr(reasons, "stays plugged") || strstr(reasons, "has left");
}

/* What the store says must be what is so; DONE means all of it. Less is true where hvd was not answered: what
 * it had not heard of when the job ended it does not claim. */
static void judge(
        const struct scenario *s, size_t first, uint32_t id, const char *what, const char *where, bool exact)
{
        int64_t moved = moved_bytes(s, first);
        struct rig_job j;

        if (!s->kind || id == 0)
                return;
        if (!rig_stored_job(&rig, id, &j))
                rig_die(&rig, "%s, %s: the store has no job %u", what, where, id);
        if (!j.over || !is_end(j.state))
                rig_die(&rig, "%s, %s: the job has not ended: %s", what, where, j.state);
        exact = exact && !says_what_is_left(j.reasons);
        if (strcmp(j.state, "DONE") == 0
                        ? moved != (int64_t)SIZE_BYTES || j.done_bytes != SIZE_BYTES
                        : moved < (int64_t)j.done_bytes || (exact && moved != (int64_t)j.done_bytes))
                rig_die(&rig, "%s, %s: the job ended %s with %llu MiB done, and %lld MiB moved: %s", what,
                        where, j.state, j.done_bytes / 1048576ULL, (long long)moved / 1048576LL, j.reasons);
        if (strcmp(j.state, "DONE") != 0 && strcmp(j.reasons, "[]") == 0)
                rig_die(&rig, "%s, %s: the job ended %s and does not say why", what, where, j.state);
        if ((int64_t)j.done_bytes < moved) {
                tally.n_understated++;
                printf("%-8s %s: %s with %llu MiB, and %lld MiB moved\n", "", where, j.state,
                        j.done_bytes / 1048576ULL, (long long)moved / 1048576LL);
        }
}

/* One point: 0 runs through to the end. True: hvd was ended at it. */
static bool run_point(const struct scenario *s, unsigned long at)
{
        char where[160];
        uint32_t id = 0;
        bool ended;

        set_up(s, 1);
        ended = !rig_start_hvd(&rig, at, s->from, true) || !rig_define(&rig);
        if (!ended && s->kind) {
                if (!FAKE_RUN_UNTIL(rig.event, all_known(), CONVERGE_USEC))
                        rig_die(&rig, "%s: the machines are not known", s->name);
                id = rig_start_job(&rig, s->kind, 0, SIZE_BYTES, WAIT_USEC);
                FAKE_RUN_UNTIL(rig.event, (ended = hvd_ended()) || (id && job_is_over(id)), CONVERGE_USEC);
        }
        /* What follows a job, or makes whole, has points too. */
        if (!ended)
                ended = FAKE_RUN_UNTIL(rig.event, hvd_ended(), (at ? 3000 : 1000) * USEC_PER_MSEC);
        rig_points(&rig, where, sizeof(where));
        if (ended) {
                rig_start_hvd(&rig, 0, NULL, false);
                /* It may not have come to be defined. */
                if (!s->kind)
                        (void)rig_define(&rig);
        }
        converge(s->name, where);
        if (s->kind && !FAKE_RUN_UNTIL(rig.event, job_is_over(id ? id : 1), CONVERGE_USEC))
                rig_die(&rig, "%s, %s: the job does not end", s->name, where);
        judge(s, 0, id ? id : 1, s->name, where, true);
        if (at % 32 == 0)
                rig_stop_hvd(&rig);
        else
                rig_kill_hvd(&rig);
        return ended;
}

static unsigned long count_points(const struct scenario *s)
{
        char last[160];

        run_point(s, 0);
        unsigned long n = rig_points(&rig, last, sizeof(last));
        if (n < 4)
                rig_die(&rig, "%s: only %lu points; was this built with OPENDLPAR_FAULTS?", s->name, n);
        return n;
}

/* The points of a scenario in an order that chance gives. */
static unsigned long *shuffled(unsigned long n)
{
        unsigned long *order = calloc(n, sizeof(*order));

        if (!order)
                abort();
        for (unsigned long i = 0; i < n; i++) {
                unsigned long k = (unsigned long)random() % (i + 1);

                order[i] = order[k];
                order[k] = i + 1;
        }
        return order;
}

static void crash(const struct scenario *s, uint64_t until_usec)
{
        unsigned long n = count_points(s), n_run = 0, n_ended = 0;
        _cleanup_free_ unsigned long *order = shuffled(n);

        for (unsigned long i = 0; i < n; i++) {
                if (arg.point ? order[i] != arg.point
                              : !arg.all && n_run > 0 && now_monotonic_usec() > until_usec)
                        continue;
                n_ended += run_point(s, order[i]);
                n_run++;
        }
        printf("%-8s hvd killed at %lu of %lu points, whole again after each (%lu were not met)\n", s->name,
                n_run, n, n_run - n_ended);
        fflush(stdout);
        tally.n_points += n;
        tally.n_run += n_run;
}

/* --- answers that go wrong --- */

static unsigned long count_answers(const struct scenario *s)
{
        set_up(s, 1);
        rig_start_hvd(&rig, 0, NULL, true);
        rig_define(&rig);
        if (!FAKE_RUN_UNTIL(rig.event, all_known(), CONVERGE_USEC))
                rig_die(&rig, "%s: the machines are not known", s->name);
        rig.plans[0].armed = true;
        uint32_t id = rig_start_job(&rig, s->kind, 0, SIZE_BYTES, WAIT_USEC);
        if (!id || !FAKE_RUN_UNTIL(rig.event, job_is_over(id), CONVERGE_USEC))
                rig_die(&rig, "%s: no job, or no end of it", s->name);
        unsigned long n = rig.plans[0].n;
        if (n < 4)
                rig_die(&rig, "%s: only %lu answers", s->name, n);
        rig_kill_hvd(&rig);
        return n;
}

/* One fault at each of the answers first, first + step and so on, on a machine each. */
static void faults_at(const struct scenario *s, enum machine_fault fault, unsigned long n,
        unsigned long first, unsigned long step)
{
        size_t n_runs = (n - first) / step + 1;
        _cleanup_free_ uint32_t *ids = calloc(n_runs, sizeof(*ids));
        char what[64], where[96];

        snprintf(what, sizeof(what), "%s, %s", s->name, machine_fault_to_string(fault));
        set_up(s, n_runs);
        rig_start_hvd(&rig, 0, NULL, true);
        rig_define(&rig);
        if (!ids || !FAKE_RUN_UNTIL(rig.event, all_known(), CONVERGE_USEC))
                rig_die(&rig, "%s: the machines are not known", what);
        for (size_t i = 0; i < n_runs; i++) {
                struct machine_plan *p = &rig.plans[i * s->n_machines];

                *p = (struct machine_plan) { fault, LATE_USEC, first + i * step, 0, true, "" };
                ids[i] = rig_start_job(&rig, s->kind, i * s->n_machines, SIZE_BYTES, WAIT_USEC);
                if (!ids[i])
                        rig_die(&rig, "%s: the job was not taken", what);
        }
        for (size_t i = 0; i < n_runs; i++)
                if (!FAKE_RUN_UNTIL(rig.event, job_is_over(ids[i]), CONVERGE_USEC))
                        rig_die(&rig, "%s at %s: the job hangs", what, rig.plans[i * s->n_machines].where);
        /* Late words come when all is over. */
        if (fault == MACHINE_LATE)
                FAKE_RUN_UNTIL(rig.event, false, LATE_USEC);
        converge(what, "all");
        for (size_t i = 0; i < n_runs; i++) {
                const struct machine_plan *p = &rig.plans[i * s->n_machines];

                snprintf(where, sizeof(where), "answer %lu, %s", p->at, p->where[0] ? p->where : "not met");
                judge(s, i * s->n_machines, ids[i], what, where, fault == MACHINE_ERROR);
        }
        rig_stop_hvd(&rig);
        tally.n_faults += n_runs;
        printf("%-8s %-6s at %zu of %lu answers, whole again after each\n", s->name,
                machine_fault_to_string(fault), n_runs, n);
        fflush(stdout);
}

static void faults(const struct scenario *s)
{
        unsigned long n = count_answers(s), step = arg.all ? 1 : 8;

        /* Of a sample two in five, and not the one that takes as long as all limits together. */
        for (enum machine_fault f = 0; f < MACHINE_FAULT_MAX; f++)
                if (arg.all || (f != MACHINE_LATE && random() % 5 < 2))
                        faults_at(s, f, n, arg.all ? 1 : 1 + (unsigned long)random() % MIN(step, n), step);
}

static int parse(int argc, char **argv)
{
        enum { ARG_ALL = 256, ARG_SEED, ARG_SECONDS, ARG_ONLY };
        static const struct option options[] = {
                { "all", no_argument, NULL, ARG_ALL },
                { "seed", required_argument, NULL, ARG_SEED },
                { "seconds", required_argument, NULL, ARG_SECONDS },
                { "only", required_argument, NULL, ARG_ONLY },
                { 0 },
        };
        int c;

        arg.seed = (unsigned)time(NULL);
        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                if (c == ARG_ALL)
                        arg.all = true;
                else if (c == ARG_SEED)
                        arg.seed = (unsigned)strtoul(optarg, NULL, 10);
                else if (c == ARG_SECONDS)
                        arg.seconds = (unsigned)strtoul(optarg, NULL, 10);
                else if (c == ARG_ONLY)
                        arg.only = optarg;
                else
                        return -1;
        if (optind + 1 < argc)
                arg.point = strtoul(argv[optind + 1], NULL, 10);
        return optind < argc ? 0 : -1;
}

int main(int argc, char **argv)
{
        if (parse(argc, argv) < 0) {
                fprintf(stderr,
                        "usage: crash [--all] [--seed N] [--seconds N] [--only SCENARIO] BUILD [POINT]\n");
                return 2;
        }
        printf("seed %u\n", arg.seed);
        srandom(arg.seed);
        rig_init(&rig, argv[optind]);
        uint64_t share = arg.seconds * USEC_PER_SEC / ARRAY_SIZE(scenarios);
        for (size_t i = 0; i < ARRAY_SIZE(scenarios); i++) {
                const struct scenario *s = &scenarios[i];

                if (arg.only && strcmp(arg.only, s->name) != 0)
                        continue;
                crash(s, now_monotonic_usec() + share);
                if (s->kind && !arg.point)
                        faults(s);
        }
        rig_done(&rig);
        printf("%lu points, %lu of them tried; %lu answers gone wrong; all whole again; %lu times the job's "
               "record "
               "says less than was moved\n",
                tally.n_points, tally.n_run, tally.n_faults, tally.n_understated);
        return 0;
}
