/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* hvd-sim: policies over traces, and what hvd decided once more. */

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/json.h"
#include "common/size.h"
#include "hvd/sim/floor.h"
#include "hvd/sim/replay.h"
#include "hvd/sim/sim.h"
#include "hvd/store/store.h"

static const struct sim_policy *const policies[] = {
        &sim_policy_optimum,
        &sim_policy_ours,
        &sim_policy_mom,
        &sim_policy_proxmox,
        &sim_policy_squeezed,
        &sim_policy_static,
};

static bool arg_policies[ARRAY_SIZE(policies)];
static bool arg_any_policy, arg_json, arg_explain, arg_has_floor;
static double arg_floor;
static uint64_t arg_seed = 1, arg_last = STORE_DECISIONS_MAX;
static const char *arg_replay;
static struct sim_mechanism arg_mechanism;
static struct policy_config arg_config;

static void help(void)
{
        printf("hvd-sim [OPTIONS...] TRACE...\n"
               "hvd-sim [--last N] --replay STORE\n\n"
               "Runs hvd's policy, and others, over traces of what guests wanted.\n\n"
               "  --policy NAME            only this one; may be repeated\n"
               "  --set KEY=VALUE          a key of [policy], see hvd.conf(5); may be repeated\n"
               "  --granule SIZE           what a guest's memory moves in (128M)\n"
               "  --grow TIME,SIZE         until the first memory comes, and how much a second (100ms,8G)\n"
               "  --shrink TIME,SIZE       until the first leaves, and how much a second (150ms,2G)\n"
               "  --explain                tell of each change of hvd's policy in sentences\n"
               "  --floor GIB-SECONDS      how much anyone must move to leave no more than that short\n"
               "  --replay STORE           decide again what hvd decided, from the inputs in its store\n"
               "  --last N                 of these the latest so many (all)\n"
               "  --seed N                 of what guests say at random (1)\n"
               "  -o, --output text|json   one JSON object a line (text)\n"
               "  --version, --help\n\n"
               "Policies:\n");
        for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
                printf("  %-24s %s\n", policies[i]->name, policies[i]->what);
        printf("\nSee hvd-sim(1).\n");
}

static int parse_policy(const char *name)
{
        for (size_t i = 0; i < ARRAY_SIZE(policies); i++)
                if (strcmp(policies[i]->name, name) == 0) {
                        arg_policies[i] = arg_any_policy = true;
                        return 0;
                }
        fprintf(stderr, "hvd-sim: '%s' is no policy; see --help\n", name);
        return -EINVAL;
}

static int parse_setting(char *setting)
{
        char *value = strchr(setting, '=');
        struct error error;

        if (!value) {
                fprintf(stderr, "hvd-sim: '%s' has no value; write --set KEY=VALUE\n", setting);
                return -EINVAL;
        }
        *value++ = '\0';
        if (policy_setting_parse(setting, value, &arg_config, &error) >= 0)
                return 0;
        fprintf(stderr, "hvd-sim: %s: %s\n", setting, error.message);
        return -EINVAL;
}

static int parse_speed(const char *option, char *value, uint64_t *ret_usec, uint64_t *ret_rate)
{
        char *rate = strchr(value, ',');
        struct error error;

        if (!rate) {
                fprintf(stderr, "hvd-sim: %s: write TIME,SIZE as in 100ms,8G\n", option);
                return -EINVAL;
        }
        *rate++ = '\0';
        if (timespan_parse(value, ret_usec, &error) < 0 || size_parse(rate, ret_rate, &error) < 0) {
                fprintf(stderr, "hvd-sim: %s: %s\n", option, error.message);
                return -EINVAL;
        }
        return 0;
}

static int parse_number(const char *value, uint64_t *ret)
{
        char *end;

        *ret = strtoull(value, &end, 10);
        if (value[0] >= '0' && value[0] <= '9' && *end == '\0')
                return 0;
        fprintf(stderr, "hvd-sim: '%s' is no number\n", value);
        return -EINVAL;
}

static int parse_floor(const char *value)
{
        char *end;

        arg_floor = strtod(value, &end);
        arg_has_floor = true;
        if (value[0] >= '0' && value[0] <= '9' && *end == '\0' && arg_floor < 1e15)
                return 0;
        fprintf(stderr, "hvd-sim: '%s' is no number of GiB-seconds\n", value);
        return -EINVAL;
}

/* 1: go on; 0: done; -EINVAL: said what is wrong. */
static int parse_argv(int argc, char **argv)
{
        enum {
                ARG_POLICY = 0x100,
                ARG_SET,
                ARG_GRANULE,
                ARG_GROW,
                ARG_SHRINK,
                ARG_SEED,
                ARG_EXPLAIN,
                ARG_FLOOR,
                ARG_REPLAY,
                ARG_LAST,
                ARG_VERSION
        };
        static const struct option options[] = {
                { "policy", required_argument, NULL, ARG_POLICY },
                { "set", required_argument, NULL, ARG_SET },
                { "granule", required_argument, NULL, ARG_GRANULE },
                { "grow", required_argument, NULL, ARG_GROW },
                { "shrink", required_argument, NULL, ARG_SHRINK },
                { "explain", no_argument, NULL, ARG_EXPLAIN },
                { "floor", required_argument, NULL, ARG_FLOOR },
                { "seed", required_argument, NULL, ARG_SEED },
                { "replay", required_argument, NULL, ARG_REPLAY },
                { "last", required_argument, NULL, ARG_LAST },
                { "output", required_argument, NULL, 'o' },
                { "version", no_argument, NULL, ARG_VERSION },
                { "help", no_argument, NULL, 'h' },
                {},
        };
        struct error error;
        int c, r = 0;

        while (r >= 0 && (c = getopt_long(argc, argv, "ho:", options, NULL)) >= 0)
                switch (c) {
                case ARG_POLICY:
                        r = parse_policy(optarg);
                        break;
                case ARG_SET:
                        r = parse_setting(optarg);
                        break;
                case ARG_GRANULE:
                        r = size_parse(optarg, &arg_mechanism.granule_bytes, &error);
                        if (r < 0)
                                fprintf(stderr, "hvd-sim: %s\n", error.message);
                        break;
                case ARG_GROW:
                        r = parse_speed("--grow", optarg, &arg_mechanism.grow_usec,
                                &arg_mechanism.grow_bytes_per_sec);
                        break;
                case ARG_SHRINK:
                        r = parse_speed("--shrink", optarg, &arg_mechanism.shrink_usec,
                                &arg_mechanism.shrink_bytes_per_sec);
                        break;
                case ARG_EXPLAIN:
                        arg_explain = true;
                        break;
                case ARG_FLOOR:
                        r = parse_floor(optarg);
                        break;
                case ARG_SEED:
                        r = parse_number(optarg, &arg_seed);
                        break;
                case ARG_REPLAY:
                        arg_replay = optarg;
                        break;
                case ARG_LAST:
                        r = parse_number(optarg, &arg_last);
                        break;
                case 'o':
                        arg_json = strcmp(optarg, "json") == 0;
                        if (!arg_json && strcmp(optarg, "text") != 0) {
                                fprintf(stderr, "hvd-sim: '%s' is no output; there are text and json\n",
                                        optarg);
                                r = -EINVAL;
                        }
                        break;
                case ARG_VERSION:
                        puts("hvd-sim " PROJECT_VERSION);
                        return 0;
                case 'h':
                        help();
                        return 0;
                default:
                        return -EINVAL;
                }
        if (r < 0)
                return r;
        if (arg_replay && optind < argc) {
                fprintf(stderr, "hvd-sim: --replay takes no trace\n");
                return -EINVAL;
        }
        if (!arg_replay && optind == argc) {
                fprintf(stderr,
                        "hvd-sim: no trace; write hvd-sim TRACE..., and see hvd-sim(1) for the format\n");
                return -EINVAL;
        }
        return 1;
}

static int print_json(const char *trace, const struct sim_result *r, double seconds)
{
        _cleanup_json_ struct json_object *o = json_object_new_object();
        const struct {
                const char *key;
                double value;
        } figures[] = {
                { "shortfall_gib_seconds", r->short_gib_sec },
                { "unavoidable_gib_seconds", r->bound_gib_sec },
                { "moved_gib", r->moved_gib },
                { "fairness", r->fairness },
                { "partition_seconds", (double)r->partition_usec / USEC_PER_SEC },
                { "seconds", seconds },
        };

        if (!o || json_add_string(o, "trace", trace) < 0 || json_add_string(o, "policy", r->policy) < 0)
                return -ENOMEM;
        for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
                if (json_add(o, figures[i].key, json_object_new_double(figures[i].value)) < 0)
                        return -ENOMEM;
        if (json_add_u64(o, "changes", r->n_changes) < 0 ||
                json_add_u64(o, "oscillations", r->n_oscillations) < 0 ||
                json_add_u64(o, "refusals", r->n_refusals) < 0)
                return -ENOMEM;
        puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
        return 0;
}

static void print_row(const struct sim_result *r, double seconds)
{
        printf("  %-12s %12.1f %10.1f %8u %6u %9.3f %9u %12.0f\n", r->policy, r->short_gib_sec, r->moved_gib,
                r->n_changes, r->n_oscillations, r->fairness, r->n_refusals,
                (double)r->partition_usec / USEC_PER_SEC / MAX(seconds, 1e-6));
}

static const char *base_name(const char *path)
{
        return strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
}

static int run_floor(const char *path, const struct trace *trace)
{
        _cleanup_json_ struct json_object *o = json_object_new_object();
        double moved;

        if (!o || sim_least_moved(trace, arg_floor, &moved) < 0)
                return -ENOMEM;
        if (!arg_json) {
                printf("%s: who leaves at most %g GiB-seconds short moves at least %.1f GiB\n",
                        base_name(path), arg_floor, moved);
                return 0;
        }
        if (json_add_string(o, "trace", base_name(path)) < 0 ||
                json_add(o, "shortfall_gib_seconds", json_object_new_double(arg_floor)) < 0 ||
                json_add(o, "least_moved_gib", json_object_new_double(moved)) < 0)
                return -ENOMEM;
        puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
        return 0;
}

static int run_trace(const char *path, const struct trace *trace)
{
        const char *name = base_name(path);
        bool is_first = true;

        for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
                struct sim_result result = { 0 };
                uint64_t begin = now_monotonic_usec();
                double seconds;

                if (arg_any_policy && !arg_policies[i])
                        continue;
                if (sim_run(trace, policies[i], &arg_mechanism, &arg_config, arg_seed,
                            arg_explain ? stdout : NULL, &result) < 0)
                        return -ENOMEM;
                seconds = (double)(now_monotonic_usec() - begin) / USEC_PER_SEC;
                if (arg_json) {
                        if (print_json(name, &result, seconds) < 0)
                                return -ENOMEM;
                        continue;
                }
                if (is_first)
                        printf("%s: %zu partitions, pool %s, %g s; unavoidable %.1f GiB-seconds\n  %-12s "
                               "%12s "
                               "%10s %8s %6s %9s %9s %12s\n",
                                name, trace->n_partitions, SIZE(trace->pool_bytes),
                                (double)trace->length_usec / USEC_PER_SEC, result.bound_gib_sec, "policy",
                                "short GiB-s", "moved GiB", "changes", "oscil.", "fairness", "refusals",
                                "part.-s / s");
                is_first = false;
                print_row(&result, seconds);
        }
        return 0;
}

static int run_replay(const char *path)
{
        _cleanup_json_ struct json_object *o = json_object_new_object();
        struct replay_result result = { 0 };
        struct store *store;
        struct error error;
        int r = store_open_readonly(path, &store, &error);

        if (r >= 0) {
                r = replay_store(store, (unsigned)MIN(arg_last, (uint64_t)STORE_DECISIONS_MAX), stderr,
                        &result, &error);
                store_free(store);
        }
        if (r < 0) {
                fprintf(stderr, "hvd-sim: %s\n", error.message);
                return EXIT_FAILURE;
        }
        if (!arg_json)
                printf("%u decisions, of which %u come out as they were\n", result.n, result.n_same);
        else if (json_add_u64(o, "decisions", result.n) < 0 || json_add_u64(o, "same", result.n_same) < 0) {
                fprintf(stderr, "hvd-sim: Out of memory\n");
                return EXIT_FAILURE;
        } else
                puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
        return result.n == result.n_same ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
        struct error error;

        sim_mechanism_init(&arg_mechanism);
        policy_config_init(&arg_config);
        int r = parse_argv(argc, argv);
        if (r <= 0)
                return r < 0 ? 2 : EXIT_SUCCESS;
        if (arg_replay)
                return run_replay(arg_replay);
        for (; optind < argc; optind++) {
                FILE *file = fopen(argv[optind], "re");
                struct trace trace;

                if (!file) {
                        fprintf(stderr, "hvd-sim: %s cannot be opened: %s\n", argv[optind], strerror(errno));
                        return EXIT_FAILURE;
                }
                r = trace_read(file, argv[optind], &trace, &error);
                fclose(file);
                if (r < 0) {
                        fprintf(stderr, "hvd-sim: %s\n", error.message);
                        return EXIT_FAILURE;
                }
                r = arg_has_floor ? run_floor(argv[optind], &trace) : run_trace(argv[optind], &trace);
                trace_done(&trace);
                if (r < 0) {
                        fprintf(stderr, "hvd-sim: Out of memory\n");
                        return EXIT_FAILURE;
                }
        }
        return EXIT_SUCCESS;
}
