/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* hvd: command line, configuration, wiring. */

#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>

#include "common/log.h"
#include "common/size.h"
#include "hvd/bus/bus.h"
#include "hvd/config.h"
#include "hvd/domains.h"
#include "hvd/manager.h"
#include "hvd/notify.h"
#include "hvd/policy-runner.h"
#include "hvd/recording.h"
#include "hvd/store/store.h"

#define FILES_MAX (2U * MANAGER_PARTITIONS_MAX + 512U)

static const char *arg_bus = "system";
static const char *arg_config;
static const char *arg_state_dir;
static int arg_log_level = -1;
static const char *arg_hooks_fifo;
static const char *arg_hooks_program;
static uint64_t arg_record_usec; /* 0: serve */

struct hvd {
        sd_event *event;
        struct notify *notify;
        struct manager *manager;
        struct domains *domains;
        struct policy_runner *policy;
        struct bus *bus;
};

static void help(void)
{
        printf("hvd [OPTIONS...]\n\n"
               "Moves memory in and out of running QEMU guests.\n\n"
               "  --bus system|session|ADDRESS   the bus to serve (system)\n"
               "  --config FILE                  configuration (" CONFIG_PATH_DEFAULT ")\n"
               "  --state-dir DIR                where state is kept ($STATE_DIRECTORY, or "
               "/var/lib/opendlpar)\n"
               "  --hooks-fifo PATH              where a service waits that runs the host's hooks (hvd "
               "starts "
               "one)\n"
               "  --hooks-program PATH           what hvd starts for that\n"
               "  --record TIME                  write a trace of what guests used in the last TIME, and "
               "leave\n"
               "  --log-level LEVEL              error, warning, notice, info or debug\n"
               "  --version, --help\n\n"
               "See hvd(8).\n");
}

/* 1: go on; 0: done; -EINVAL: said what is wrong. */
static int parse_argv(int argc, char **argv)
{
        enum {
                ARG_BUS = 0x100,
                ARG_CONFIG,
                ARG_STATE_DIR,
                ARG_FIFO,
                ARG_PROGRAM,
                ARG_RECORD,
                ARG_LOG_LEVEL,
                ARG_VERSION
        };
        static const struct option options[] = {
                { "bus", required_argument, NULL, ARG_BUS },
                { "config", required_argument, NULL, ARG_CONFIG },
                { "state-dir", required_argument, NULL, ARG_STATE_DIR },
                { "hooks-fifo", required_argument, NULL, ARG_FIFO },
                { "hooks-program", required_argument, NULL, ARG_PROGRAM },
                { "record", required_argument, NULL, ARG_RECORD },
                { "log-level", required_argument, NULL, ARG_LOG_LEVEL },
                { "version", no_argument, NULL, ARG_VERSION },
                { "help", no_argument, NULL, 'h' },
                {},
        };
        struct error error;
        int c;

        while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0)
                switch (c) {
                case ARG_BUS:
                        arg_bus = optarg;
                        break;
                case ARG_CONFIG:
                        arg_config = optarg;
                        break;
                case ARG_STATE_DIR:
                        arg_state_dir = optarg;
                        break;
                case ARG_FIFO:
                        arg_hooks_fifo = optarg;
                        break;
                case ARG_PROGRAM:
                        arg_hooks_program = optarg;
                        break;
                case ARG_RECORD:
                        if (timespan_parse(optarg, &arg_record_usec, &error) < 0) {
                                fprintf(stderr, "hvd: --record: %s\n", error.message);
                                return -EINVAL;
                        }
                        break;
                case ARG_LOG_LEVEL:
                        arg_log_level = log_level_from_string(optarg);
                        if (arg_log_level < 0) {
                                fprintf(stderr,
                                        "hvd: '%s' is no log level; there are error, warning, notice, info "
                                        "and debug\n",
                                        optarg);
                                return -EINVAL;
                        }
                        break;
                case ARG_VERSION:
                        puts("hvd " PROJECT_VERSION);
                        return 0;
                case 'h':
                        help();
                        return 0;
                default:
                        return -EINVAL;
                }
        if (optind < argc) {
                fprintf(stderr, "hvd: '%s' is not expected; hvd takes only options, see --help\n",
                        argv[optind]);
                return -EINVAL;
        }
        return 1;
}

static int load_config(struct config **ret, struct error *ret_error)
{
        return config_load(arg_config ?: CONFIG_PATH_DEFAULT, arg_config != NULL, ret, ret_error);
}

static void apply_log_level(const struct config *c)
{
        log_set_max_level(arg_log_level >= 0 ? arg_log_level : c->log_level);
}

/* A damaged store is kept for whoever can read it, and hvd goes on with an empty one: devices and blocks are
 * known from QEMU and the guests. Its journal is a part of it. */
static bool move_aside(const char *path, const char *why)
{
        static const char *const parts[] = { "", "-wal", "-shm" };
        char from[PATH_MAX], to[PATH_MAX];

        for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
                if (snprintf(from, sizeof(from), "%s%s", path, parts[i]) >= (int)sizeof(from) ||
                        snprintf(to, sizeof(to), "%s.damaged%s", path, parts[i]) >= (int)sizeof(to) ||
                        (rename(from, to) < 0 && errno != ENOENT))
                        return false;
        log_error("%s. It was moved to %s.damaged, and hvd begins with an empty one: partitions that were "
                  "defined with hmc-cli have to be defined anew",
                why, path);
        return true;
}

static const char *state_dir(void)
{
        return arg_state_dir ?: getenv("STATE_DIRECTORY") ?: "/var/lib/opendlpar";
}

static int store_path(char **ret, struct error *ret_error)
{
        if (asprintf(ret, "%s/hvd.sqlite", state_dir()) >= 0)
                return 0;
        *ret = NULL;
        return error_set(ret_error, ERROR_INTERNAL, "Out of memory");
}

static int open_store(struct store **ret, struct error *ret_error)
{
        _cleanup_free_ char *path = NULL;

        if (mkdir(state_dir(), 0700) < 0 && errno != EEXIST)
                return error_set_errno(
                        ret_error, ERROR_INTERNAL, errno, "The state folder %s cannot be made", state_dir());
        int r = store_path(&path, ret_error);
        if (r < 0)
                return r;
        r = store_open(path, ret, ret_error);
        if (r == -EBADMSG && move_aside(path, ret_error->message))
                r = store_open(path, ret, ret_error);
        /* Full, or failing: what QEMUs and guests have can be seen without it. */
        if (r == -ENOSPC || r == -EIO) {
                log_error("%s. Until hvd is started again, what is defined and done is not kept",
                        ret_error->message);
                r = store_open(":memory:", ret, ret_error);
        }
        return r;
}

static int on_hangup(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
        struct hvd *h = userdata;
        struct config *config;
        struct error error;

        sd_notifyf(false, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)now_monotonic_usec());
        if (load_config(&config, &error) < 0)
                log_error("%s. The configuration stays as it was", error.message);
        else {
                apply_log_level(config);
                manager_reconfigure(h->manager, config);
                log_notice("The configuration was read again");
        }
        sd_notify(false, "READY=1");
        return 0;
}

static void hvd_done(struct hvd *h)
{
        bus_free(h->bus);
        policy_runner_free(h->policy);
        manager_free(h->manager);
        domains_free(h->domains);
        notify_free(h->notify);
        sd_event_unref(h->event);
}

/* Two sockets for each partition; the usual limit of 1024 is for programs that use select(). */
static void raise_file_limit(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= FILES_MAX)
                return;
        limit.rlim_cur = MIN(limit.rlim_max, (rlim_t)FILES_MAX);
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < FILES_MAX)
                log_warning("hvd may open %llu files only, which is not enough for %u partitions",
                        (unsigned long long)limit.rlim_cur, MANAGER_PARTITIONS_MAX);
}

static int set_up(struct hvd *h, struct error *ret_error)
{
        struct config *config = NULL;
        struct store *store = NULL;
        sigset_t mask;

        int r = load_config(&config, ret_error);
        if (r < 0)
                return r;
        apply_log_level(config);
        r = open_store(&store, ret_error);
        if (r < 0) {
                config_free(config);
                return r;
        }

        sigemptyset(&mask);
        sigaddset(&mask, SIGTERM);
        sigaddset(&mask, SIGINT);
        sigaddset(&mask, SIGHUP);
        sigprocmask(SIG_BLOCK, &mask, NULL);
        signal(SIGPIPE, SIG_IGN);
        r = sd_event_default(&h->event);
        if (r >= 0)
                r = sd_event_add_signal(h->event, NULL, SIGTERM, NULL, NULL);
        if (r >= 0)
                r = sd_event_add_signal(h->event, NULL, SIGINT, NULL, NULL);
        if (r >= 0)
                r = sd_event_add_signal(h->event, NULL, SIGHUP, on_hangup, h);
        if (r >= 0)
                r = sd_event_set_watchdog(h->event, true);
        if (r < 0) {
                config_free(config);
                store_free(store);
                return error_set_errno(ret_error, ERROR_INTERNAL, r, "The event loop could not be set up");
        }

        r = manager_new(h->event, config, store, &h->manager, ret_error);
        if (r < 0)
                return r;
        struct hooks_client_config hooks = { .fifo = arg_hooks_fifo, .program = arg_hooks_program };
        r = notify_new(h->event, &hooks, &h->notify);
        if (r < 0)
                return error_set_errno(ret_error, ERROR_INTERNAL, r, "Hooks cannot be set up");
        manager_set_notify(h->manager, h->notify);
        r = domains_new(h->event, h->manager, &h->domains);
        if (r < 0)
                return error_set_errno(ret_error, ERROR_INTERNAL, r, "libvirt's domains cannot be served");
        r = policy_runner_new(h->manager, "/proc", &h->policy, ret_error);
        if (r < 0)
                return r;
        return bus_new(h->event, arg_bus, h->manager, &h->bus, ret_error);
}

/* Of a store that an hvd may be at work on, which is no matter to either. */
static int record(struct error *ret_error)
{
        _cleanup_free_ char *path = NULL;
        struct store *store;
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        int r = store_path(&path, ret_error);
        if (r >= 0)
                r = store_open_readonly(path, &store, ret_error);
        if (r < 0)
                return r;
        r = recording_write(store, (uint64_t)now.tv_sec * USEC_PER_SEC + (uint64_t)now.tv_nsec / 1000,
                arg_record_usec, stdout, ret_error);
        store_free(store);
        return r;
}

int main(int argc, char **argv)
{
        _cleanup_(hvd_done) struct hvd h = { 0 };
        struct error error;

        int r = parse_argv(argc, argv);
        if (r <= 0)
                return r < 0 ? 2 : EXIT_SUCCESS;
        if (arg_record_usec > 0) {
                if (record(&error) >= 0)
                        return EXIT_SUCCESS;
                fprintf(stderr, "hvd: %s\n", error.message);
                return EXIT_FAILURE;
        }
        raise_file_limit();
        if (set_up(&h, &error) < 0) {
                log_error("%s", error.message);
                return EXIT_FAILURE;
        }
        log_info("hvd " PROJECT_VERSION " serves " BUS_NAME " on the bus '%s'", arg_bus);
        sd_notify(false, "READY=1");
        r = sd_event_loop(h.event);
        sd_notify(false, "STOPPING=1");
        return r < 0 ? EXIT_FAILURE : r;
}
