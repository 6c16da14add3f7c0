/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* guestd: the guest's end. Reads the command line, makes itself small and lasting (locked in memory, spared
 * by the OOM killer: it is needed most when memory is short), and connects the channel, the monitor and the
 * ops, which do not know one another. */

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <inttypes.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "guestd/blocks.h"
#include "guestd/channel.h"
#include "guestd/hooks.h"
#include "guestd/loop.h"
#include "guestd/memory.h"
#include "guestd/monitor.h"
#include "guestd/ops.h"
#include "guestd/sampler.h"

/* On the way out: for putting back what an operation had taken offline, and after the grace what was reported
 * offline, which the host may still remove, and auto_online_blocks, by which the kernel may still go. Below
 * the unit's TimeoutStopSec=. */
#define EXIT_USEC (OPS_GRACE_USEC + 5 * USEC_PER_SEC)
/* What a new process has of its stack at once. */
#define STACK_BYTES (128U * 1024)

#define STATE_FILE "/run/guestd.settings"

static const char *arg_port = NULL;
static const char *arg_sys_root = "/sys";
static const char *arg_proc_root = "/proc";
static const char *arg_state_file = NULL;
static uint64_t arg_margin_bytes = 0;
static const char *arg_hooks = HOOKS_GUEST_FOLDER;
static const char *arg_hooks_program = NULL;
static const char *arg_hooks_fifo = NULL;
static uint64_t arg_hooks_limit_usec = HOOKS_LIMIT_USEC;

struct guestd {
        struct loop loop;
        struct loop_io signals;
        struct blocks blocks;
        struct monitor *monitor;
        struct channel *channel;
        struct hooks *hooks;
        struct sampler *sampler;
        struct ops *ops;
        int sys_fd, proc_fd;
};

static void usage(void)
{
        printf("guestd [OPTION...]\n\n"
               "Takes memory into and out of use in this guest as hvd on its host asks for it.\n\n"
               "  --port PATH        The port to the host (default: the virtio port " PROTO_PORT_NAME ")\n"
               "  --margin SIZE      What must stay available after a block has gone (default: %s, or\n"
               "                     %u %% of the memory if that is more)\n"
               "  --state-file PATH  Where the guest's own settings are kept while ours are in their place\n"
               "                     (default: $RUNTIME_DIRECTORY/settings, or " STATE_FILE ")\n"
               "  --hooks PATH       The folder of the guest's hooks (default: " HOOKS_GUEST_FOLDER ")\n"
               "  --hooks-limit N    The seconds that one hook may take, 1 to 3600 (default: %llu)\n"
               "  --hooks-fifo PATH  Where a service waits that runs them (default: guestd starts one)\n"
               "  --hooks-program PATH  What guestd starts for that\n"
               "  --sys-root PATH    Instead of /sys\n"
               "  --proc-root PATH   Instead of /proc\n"
               "  --log-level LEVEL  error, warning, notice, info or debug\n"
               "  --version          The version\n"
               "  --help             This text\n",
                SIZE_EXACT(MARGIN_BYTES), MARGIN_PERCENT, HOOKS_LIMIT_USEC / USEC_PER_SEC);
}

static int parse_limit(const char *text, uint64_t *ret_usec)
{
        char *end;
        unsigned long n = strtoul(text, &end, 10);

        if (text[0] < '0' || text[0] > '9' || *end || n < 1 || n > 3600) {
                fprintf(stderr, "guestd: --hooks-limit: '%s' is no number of seconds, 1 to 3600\n", text);
                return -EINVAL;
        }
        *ret_usec = n * USEC_PER_SEC;
        return 0;
}

/* 1: go on; 0: done; -EINVAL: usage error, said. */
static int parse_argv(int argc, char *argv[])
{
        enum {
                ARG_PORT = 256,
                ARG_MARGIN,
                ARG_STATE,
                ARG_HOOKS,
                ARG_LIMIT,
                ARG_FIFO,
                ARG_PROGRAM,
                ARG_SYS,
                ARG_PROC,
                ARG_LOG,
                ARG_VERSION,
                ARG_HELP
        };
        static const struct option options[] = {
                { "port", required_argument, NULL, ARG_PORT },
                { "margin", required_argument, NULL, ARG_MARGIN },
                { "state-file", required_argument, NULL, ARG_STATE },
                { "hooks", required_argument, NULL, ARG_HOOKS },
                { "hooks-limit", required_argument, NULL, ARG_LIMIT },
                { "hooks-fifo", required_argument, NULL, ARG_FIFO },
                { "hooks-program", required_argument, NULL, ARG_PROGRAM },
                { "sys-root", required_argument, NULL, ARG_SYS },
                { "proc-root", required_argument, NULL, ARG_PROC },
                { "log-level", required_argument, NULL, ARG_LOG },
                { "version", no_argument, NULL, ARG_VERSION },
                { "help", no_argument, NULL, ARG_HELP },
                { 0 },
        };
        struct error error;
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case ARG_PORT:
                        arg_port = optarg;
                        break;
                case ARG_MARGIN:
                        if (size_parse(optarg, &arg_margin_bytes, &error) < 0) {
                                fprintf(stderr, "guestd: --margin: %s\n", error.message);
                                return -EINVAL;
                        }
                        break;
                case ARG_STATE:
                        arg_state_file = optarg;
                        break;
                case ARG_HOOKS:
                        arg_hooks = optarg;
                        break;
                case ARG_LIMIT:
                        if (parse_limit(optarg, &arg_hooks_limit_usec) < 0)
                                return -EINVAL;
                        break;
                case ARG_FIFO:
                        arg_hooks_fifo = optarg;
                        break;
                case ARG_PROGRAM:
                        arg_hooks_program = optarg;
                        break;
                case ARG_SYS:
                        arg_sys_root = optarg;
                        break;
                case ARG_PROC:
                        arg_proc_root = optarg;
                        break;
                case ARG_LOG: {
                        int level = log_level_from_string(optarg);
                        if (level < 0) {
                                fprintf(stderr, "guestd: --log-level: '%s' is not a level\n", optarg);
                                return -EINVAL;
                        }
                        log_set_max_level(level);
                        break;
                }
                case ARG_VERSION:
                        printf("guestd %s\n", PROJECT_VERSION);
                        return 0;
                case ARG_HELP:
                        usage();
                        return 0;
                default:
                        return -EINVAL;
                }
        if (optind < argc) {
                fprintf(stderr, "guestd: '%s' is one argument too many\n", argv[optind]);
                return -EINVAL;
        }
        return 1;
}

/* Reads an object in as a whole, and locks it; of libc and its linker only what is guestd's own. */
static int lock_object(struct dl_phdr_info *info, size_t size, void *userdata)
{
        const char *slash = strrchr(info->dlpi_name, '/'), *name = slash ? slash + 1 : info->dlpi_name;
        bool is_libc = strncmp(name, "libc.so", 7) == 0 || strncmp(name, "ld", 2) == 0;
        int *error = userdata;

        if (strncmp(name, "linux-vdso", 10) == 0)
                return 0;
        for (size_t i = 0; i < info->dlpi_phnum; i++) {
                const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

                if (segment->p_type == PT_LOAD && (!is_libc || (segment->p_flags & PF_W)) &&
                        mlock((const void *)(info->dlpi_addr + segment->p_vaddr), segment->p_memsz) < 0)
                        *error = errno;
        }
        return 0;
}

/* All of it is locked, and all but libc's text is there from the beginning. Of that a page is locked when it
 * has been used: guestd needs a third of it, which the guest's other programs use too, and with pages of
 * 64 KiB the rest would be as large as all else. 0 or -errno. */
static int lock_in_memory(void)
{
        int error = 0;

        if (mlockall(MCL_CURRENT | MCL_ONFAULT) < 0 || mlockall(MCL_FUTURE) < 0)
                return -errno;
        dl_iterate_phdr(lock_object, &error);

        /* The stack is among what is locked when it is used: as much as it begins with. */
        volatile char stack[STACK_BYTES];
        for (size_t i = 0; i < sizeof(stack); i += 4096)
                stack[i] = 0;
        return -error;
}

static void make_lasting(void)
{
        _cleanup_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

        if (fd < 0 || write(fd, "-1000", 5) < 0)
                log_debug("oom_score_adj cannot be set: %s", strerror(errno));

        /* All of the heap is resident once it is locked: keep it tight, and give back what a long reply took.
         */
        mallopt(M_ARENA_MAX, 1);
        mallopt(M_TOP_PAD, 16 * 1024);
        mallopt(M_TRIM_THRESHOLD, 64 * 1024);
        mallopt(M_MMAP_THRESHOLD, 64 * 1024);
        int r = lock_in_memory();
        if (r < 0)
                log_warning("guestd is not locked in memory: %s", strerror(-r));
}

static int link_reply(uint64_t id, const struct message_reply *reply, void *userdata)
{
        struct guestd *g = userdata;
        struct message m = { .type = MESSAGE_REPLY, .id = id, .reply = *reply };

        return channel_send(g->channel, &m, false);
}

static void link_failure(uint64_t id, const struct error *error, void *userdata)
{
        struct guestd *g = userdata;
        struct message m = { .type = MESSAGE_FAILURE, .id = id, .failure = *error };

        (void)channel_send(g->channel, &m, false);
}

static void link_progress(uint64_t id, uint64_t done_bytes, uint64_t total_bytes, void *userdata)
{
        struct guestd *g = userdata;
        struct message m = { .type = MESSAGE_PROGRESS, .id = id, .progress = { done_bytes, total_bytes } };

        (void)channel_send(g->channel, &m, true);
}

static void link_event(enum event_type event, void *userdata)
{
        struct guestd *g = userdata;

        channel_send_event(g->channel, event);
}

static bool send_sample(const struct guest_sample *s, void *userdata)
{
        struct guestd *g = userdata;

        return channel_send_sample(g->channel, s);
}

static void on_session(bool up, void *userdata)
{
        struct guestd *g = userdata;

        ops_set_session(g->ops, up);
}

static void on_request(const struct message *m, void *userdata)
{
        struct guestd *g = userdata;

        ops_request(g->ops, m);
}

static void on_block(uint32_t number, enum block_state state, void *userdata)
{
        struct guestd *g = userdata;

        /* Events may come before everything is set up: the inventory is then taken after them. */
        if (g->ops)
                ops_on_block(g->ops, number, state);
}

static void on_overflow(void *userdata)
{
        struct guestd *g = userdata;

        log_debug("Events were lost; the blocks are listed anew");
        if (g->ops)
                ops_on_overflow(g->ops);
}

static void on_port(void *userdata)
{
        struct guestd *g = userdata;

        if (g->channel)
                channel_look(g->channel);
}

static void on_hooks_changed(bool any, void *userdata)
{
        struct guestd *g = userdata;

        if (g->channel)
                channel_set_hooks(g->channel, any);
}

static void on_signal(struct loop_io *io, uint32_t events)
{
        struct guestd *g = io->userdata;

        log_info("guestd ends");
        loop_quit(&g->loop);
}

static int watch_signals(struct guestd *g)
{
        sigset_t set;

        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigaddset(&set, SIGINT);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        signal(SIGPIPE, SIG_IGN);
        g->signals = (struct loop_io) { .on_ready = on_signal, .userdata = g };
        g->signals.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (g->signals.fd < 0)
                return -errno;
        return loop_add(&g->loop, &g->signals, EPOLLIN);
}

static int make_hello(struct guestd *g, struct message_hello *ret)
{
        static char survey[] = PROTO_CAPABILITY_SURVEY, assist[] = PROTO_CAPABILITY_ASSIST,
                    gentle[] = PROTO_CAPABILITY_GENTLE, sets[] = PROTO_CAPABILITY_SETS,
                    hooks[] = PROTO_CAPABILITY_HOOKS, samples[] = PROTO_CAPABILITY_SAMPLES;
        static char *capabilities[] = { survey, assist, gentle, sets, hooks, samples, NULL };
        struct utsname u;

        *ret = (struct message_hello) {
                .version = PROTO_VERSION,
                .version_min = PROTO_VERSION_MIN,
                .agent = "guestd " PROJECT_VERSION,
                .block_bytes = g->blocks.block_bytes,
                .capabilities = capabilities,
                .hooks = hooks_any(g->hooks),
        };
        if (uname(&u) < 0)
                return -errno;
        snprintf(ret->arch, sizeof(ret->arch), "%.31s", u.machine);
        return memory_read_boot_id(g->proc_fd, ret->boot_id, sizeof(ret->boot_id));
}

static int open_root(const char *path)
{
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

static int failed(int r, const char *what)
{
        if (r < 0)
                log_error("%s: %s", what, strerror(-r));
        return r;
}

/* systemd's folder for it goes only with the service, and may be the only one that it can write to. */
static const char *state_file(void)
{
        static char path[PATH_MAX];
        const char *folder = getenv("RUNTIME_DIRECTORY");

        if (arg_state_file)
                return arg_state_file;
        if (!folder)
                return STATE_FILE;
        snprintf(path, sizeof(path), "%s/settings", folder);
        return path;
}

/* What it keeps while hooks are told of something lies beside the settings. */
static int make_hooks(struct guestd *g)
{
        static char state[PATH_MAX], answers[PATH_MAX];
        struct hooks_config config = {
                .client = { .folder = arg_hooks,
                        .state = state,
                        .program = arg_hooks_program,
                        .fifo = arg_hooks_fifo,
                        .answer = arg_hooks_fifo ? answers : NULL },
                .limit_usec = arg_hooks_limit_usec,
        };

        if (snprintf(state, sizeof(state), "%s.hooks", state_file()) >= (int)sizeof(state) ||
                snprintf(answers, sizeof(answers), "%s.answers", state_file()) >= (int)sizeof(answers))
                return -ENAMETOOLONG;
        return hooks_new(&g->loop, &config, on_hooks_changed, g, &g->hooks);
}

/* In an order that loses nothing: the monitor listens before the blocks are listed. */
static int set_up(struct guestd *g)
{
        static const struct monitor_handlers monitor_handlers = { on_block, on_port, on_overflow };
        static const struct channel_handlers channel_handlers = { on_session, on_request };
        static const struct ops_link link = { link_reply, link_failure, link_progress, link_event };
        struct ops_config config = { .margin_bytes = arg_margin_bytes,
                .state_path = state_file(),
                .may_mount = strcmp(arg_sys_root, "/sys") == 0 };
        struct message_hello hello;

        if (failed(config.sys_fd = g->sys_fd = open_root(arg_sys_root), arg_sys_root) < 0 ||
                failed(config.proc_fd = g->proc_fd = open_root(arg_proc_root), arg_proc_root) < 0 ||
                failed(loop_init(&g->loop), "epoll") < 0 || failed(watch_signals(g), "signals") < 0 ||
                failed(monitor_new(&g->loop, &monitor_handlers, g, &g->monitor), "uevents") < 0 ||
                failed(blocks_open(&g->blocks, g->sys_fd), "The kernel shows no memory blocks") < 0 ||
                failed(make_hooks(g), "hooks") < 0 || failed(make_hello(g, &hello), "boot_id") < 0)
                return -1;
        struct sampler_config samples = { .proc_fd = g->proc_fd, .margin_bytes = arg_margin_bytes };
        if (failed(sampler_new(&g->loop, &samples, send_sample, g, &g->sampler), "samples") < 0)
                return -1;
        config.hooks = g->hooks;
        config.sampler = g->sampler;
        if (failed(ops_new(&g->loop, &g->blocks, g->monitor, &config, &link, g, &g->ops), "ops") < 0 ||
                failed(channel_new(&g->loop, g->sys_fd, arg_port, &hello, NULL, &channel_handlers, g,
                               &g->channel),
                        "channel") < 0)
                return -1;
        channel_look(g->channel);
        return 0;
}

/* An operation in the middle is undone before we go. */
static void wind_up(struct guestd *g)
{
        uint64_t until = now_monotonic_usec() + EXIT_USEC;

        ops_set_session(g->ops, false);
        g->channel = channel_free(g->channel);
        loop_remove(&g->loop, &g->signals); /* it stays readable, and would end the loop at once */
        g->loop.quit = false;
        while (ops_owes(g->ops) && now_monotonic_usec() < until)
                if (loop_run_once(&g->loop, 100) < 0)
                        break;
}

static void tear_down(struct guestd *g)
{
        channel_free(g->channel);
        ops_free(g->ops);
        sampler_free(g->sampler);
        hooks_free(g->hooks);
        monitor_free(g->monitor);
        blocks_close(&g->blocks);
        loop_done(&g->loop);
        close_fd(g->signals.fd);
        close_fd(g->proc_fd);
        close_fd(g->sys_fd);
}

int main(int argc, char *argv[])
{
        struct guestd g = {
                .loop.epoll_fd = -1,
                .signals.fd = -1,
                .blocks.memory_fd = -1,
                .sys_fd = -1,
                .proc_fd = -1,
        };

        int r = parse_argv(argc, argv);
        if (r <= 0)
                return r < 0 ? 2 : 0;
        make_lasting();
        r = set_up(&g);
        if (r >= 0) {
                r = failed(loop_run(&g.loop), "The event loop");
                wind_up(&g);
        }
        tear_down(&g);
        return r < 0 ? 1 : 0;
}
