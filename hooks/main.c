/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* opendlpar-hooks: runs hooks for guestd and for hvd, which are confined and (guestd) locked in memory, and
 * must not wait. Requests come on standard input, a socket or a FIFO; see hooks.h. Where it is a service of
 * its own, hooks have all that a service has; where guestd or hvd start it, they have what these have. */

#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "hooks/runner.h"

/* A service waits so long for another request before it ends, and is started again by the next. */
#define LINGER_MSEC 1000
#define FD_MAX      1024

static const char *arg_folder = HOOKS_GUEST_FOLDER, *arg_state, *arg_answer;
static bool arg_host, arg_service;

static void usage(void)
{
        printf("opendlpar-hooks [OPTION...]\n\n"
               "Runs the hooks of a folder as guestd or hvd ask for it on standard input.\n\n"
               "  --folder PATH   where they are (default: " HOOKS_GUEST_FOLDER ")\n"
               "  --state PATH    keeps what phase `pre` has begun\n"
               "  --answer PATH   answers go to this FIFO, not to standard input; ends when nothing is "
               "asked\n"
               "  --service       ends when nothing is asked\n"
               "  --host          hooks of hvd: nothing is answered, nothing said of this machine's memory\n"
               "  --version, --help\n\n"
               "See opendlpar-hooks(7).\n");
}

/* 1: go on; 0: done; -EINVAL: said what is wrong. */
static int parse_argv(int argc, char *argv[])
{
        enum { ARG_FOLDER = 256, ARG_STATE, ARG_ANSWER, ARG_SERVICE, ARG_HOST, ARG_VERSION, ARG_HELP };
        static const struct option options[] = {
                { "folder", required_argument, NULL, ARG_FOLDER },
                { "state", required_argument, NULL, ARG_STATE },
                { "answer", required_argument, NULL, ARG_ANSWER },
                { "service", no_argument, NULL, ARG_SERVICE },
                { "host", no_argument, NULL, ARG_HOST },
                { "version", no_argument, NULL, ARG_VERSION },
                { "help", no_argument, NULL, ARG_HELP },
                { 0 },
        };
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case ARG_FOLDER:
                        arg_folder = optarg;
                        break;
                case ARG_STATE:
                        arg_state = optarg;
                        break;
                case ARG_ANSWER:
                        arg_answer = optarg;
                        arg_service = true;
                        break;
                case ARG_SERVICE:
                        arg_service = true;
                        break;
                case ARG_HOST:
                        arg_host = true;
                        break;
                case ARG_VERSION:
                        printf("opendlpar-hooks %s\n", PROJECT_VERSION);
                        return 0;
                case ARG_HELP:
                        usage();
                        return 0;
                default:
                        return -EINVAL;
                }
        if (optind == argc)
                return 1;
        fprintf(stderr, "opendlpar-hooks: '%s' is one argument too many\n", argv[optind]);
        return -EINVAL;
}

/* Whoever starts us is spared by the OOM killer and ignores signals; hooks are ordinary processes. */
static int become_ordinary(int *ret_child_fd)
{
        _cleanup_close_ int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        sigset_t set;

        if (score >= 0 && write(score, "0", 1) < 0)
                log_debug("oom_score_adj cannot be set: %s", strerror(errno));
        if (close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
                for (int fd = STDERR_FILENO + 1; fd < FD_MAX; fd++)
                        fcntl(fd, F_SETFD, FD_CLOEXEC);
        signal(SIGPIPE, SIG_IGN);
        signal(SIGCHLD, SIG_DFL);
        sigemptyset(&set);
        sigaddset(&set, SIGCHLD);
        if (sigprocmask(SIG_SETMASK, &set, NULL) < 0)
                return -errno;
        *ret_child_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return *ret_child_fd < 0 ? -errno : 0;
}

static int open_answer(void)
{
        if (arg_host)
                return -1;
        return arg_answer ? open(arg_answer, O_WRONLY | O_NONBLOCK | O_CLOEXEC) : STDIN_FILENO;
}

static bool is_answerable(struct runner_config *config, uint64_t id)
{
        struct pollfd p = { .fd = config->answer_fd };
        struct hooks_answer begun = { .magic = HOOKS_MAGIC, .size = sizeof(begun), .id = id, .begun = true };

        if (arg_host)
                return true;
        /* A guestd that came after the one that we last worked for has a FIFO of its own. */
        if (arg_answer && poll(&p, 1, 0) > 0) {
                close_fd(config->answer_fd);
                config->answer_fd = open_answer();
        }
        return config->answer_fd >= 0 &&
               write(config->answer_fd, &begun, sizeof(begun)) == (ssize_t)sizeof(begun);
}

static void serve(struct runner_config *config)
{
        struct pollfd p = { .fd = config->request_fd, .events = POLLIN };
        struct hooks_request request;
        struct hooks_answer answer;

        for (;;) {
                int r = poll(&p, 1, arg_service ? LINGER_MSEC : -1);
                if (r < 0 && errno == EINTR)
                        continue;
                if (r <= 0)
                        return;
                r = runner_receive(config->request_fd, &request);
                if (r == -EAGAIN)
                        continue;
                if (r <= 0)
                        return;
                if (request.kind != HOOKS_RUN) /* a cancel that came too late */
                        continue;
                if (!is_answerable(config, request.id) || !runner_run(config, &request, &answer))
                        return;
                if (config->answer_fd >= 0 &&
                        write(config->answer_fd, &answer, sizeof(answer)) != (ssize_t)sizeof(answer))
                        return;
        }
}

int main(int argc, char *argv[])
{
        struct runner_config config = { .request_fd = STDIN_FILENO };

        int r = parse_argv(argc, argv);
        if (r <= 0)
                return r < 0 ? 2 : 0;
        umask(077);
        r = become_ordinary(&config.child_fd);
        if (r < 0) {
                log_error("Hooks cannot be run: %s", strerror(-r));
                return 1;
        }
        config.folder = arg_folder;
        config.state = arg_state;
        config.tells_memory = !arg_host;
        config.answer_fd = open_answer();
        if (config.answer_fd < 0 && !arg_host) {
                /* Nobody reads: guestd is gone, and has left its words behind. Or they would start us again.
                 */
                struct hooks_request stale;
                fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
                while (runner_receive(STDIN_FILENO, &stale) > 0)
                        ;
                return 0;
        }
        serve(&config);
        return 0;
}
