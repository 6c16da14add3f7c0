/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the child that waits for work, and the pids of those that were killed and are not reaped yet: a child
 * in the midst of an offline dies only when the kernel looks at its signals, and nobody waits for that.
 *
 * Invariants: a pid is in one place, and is reaped exactly once and by its number; none is signalled after it
 * was reaped. */

#include "guestd/children.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/size.h"

/* What one that waits can be given: 32 GiB on x86. Longer walks have a child of their own, whose fork does
 * not matter beside them. */
#define SPARE_ITEMS_MAX 256U
/* More than can be stuck at a time: each needs a session that ended in the midst of an offline. */
#define ABANDONED_MAX 16U
/* For those that were just killed, in the end. */
#define FREE_WAIT_MSEC 100U
/* Where there is no close_range() (before Linux 5.9): guestd has far fewer. */
#define FD_MAX 1024U

struct children {
        struct loop *loop;
        struct worker_config config;
        struct child *spare;
        struct loop_io spare_io; /* its end, while it waits */
        pid_t abandoned[ABANDONED_MAX];
        size_t n_abandoned;
};

/* --- in the child --- */

static void close_span(unsigned first, unsigned last)
{
        if (first > last || close_range(first, last, 0) >= 0)
                return;
        for (unsigned fd = first; fd <= MIN(last, FD_MAX); fd++)
                close((int)fd);
}

static int compare_fds(const void *a, const void *b)
{
        return *(const int *)a - *(const int *)b;
}

/* The guest's port must not stay open in a child: it can be opened only once. */
static void close_others(int *fds, size_t n)
{
        int from = STDERR_FILENO + 1;

        qsort(fds, n, sizeof(*fds), compare_fds);
        for (size_t i = 0; i < n; i++) {
                if (fds[i] > from)
                        close_span((unsigned)from, (unsigned)fds[i] - 1);
                from = MAX(from, fds[i] + 1);
        }
        close_span((unsigned)from, ~0U);
}

static void carry_out(const struct worker_config *config, struct child_shared *shared)
{
        struct worker_shared *w = &shared->worker;

        switch ((enum work)shared->work) {
        case WORK_SURVEY:
                worker_survey(w, config, shared->items, shared->n_items, shared->limits.survey_until_usec,
                        shared->counts);
                break;
        case WORK_ASSIST:
                assist_carry_out(config, &shared->limits.order, &w->assist);
                break;
        default:
                worker_walk(w, config, (enum work)shared->work, shared->items, shared->n_items,
                        shared->limits.migrates);
        }
}

/* Of a child that is killed, or ends by _exit(), else nobody would know which lines it reached. */
static void count_lines(void)
{
#ifdef OPENDLPAR_COVERAGE
        int __llvm_profile_write_file(void);

        (void)__llvm_profile_write_file();
#endif
}

static _Noreturn void run(
        const struct worker_config *config, struct child_shared *shared, pid_t parent, int fd)
{
        sigset_t none;
        char byte;

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
                _exit(1);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        close_others((int[]) { config->memory_fd, config->proc_fd, config->sys_fd, fd }, 4);
        while (read(fd, &byte, 1) == 1) {
                carry_out(config, shared);
                count_lines();
                if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1)
                        break;
        }
        _exit(0);
}

/* --- in guestd --- */

static size_t shared_bytes(size_t n_items)
{
        return sizeof(struct child_shared) + n_items * sizeof(struct work_item);
}

static struct child *child_free(struct child *child)
{
        if (!child)
                return NULL;
        if (child->shared)
                munmap(child->shared, shared_bytes(child->n_items_max));
        close_fd(child->fd);
        free(child);
        return NULL;
}

static void child_freep(struct child **child)
{
        child_free(*child);
}

static int child_new(const struct worker_config *config, size_t n_items_max, struct child **ret)
{
        _cleanup_(child_freep) struct child *child = calloc(1, sizeof(*child));
        int fds[2];
        pid_t parent = getpid();

        if (!child)
                return -ENOMEM;
        child->fd = -1;
        child->n_items_max = n_items_max;
        void *p = mmap(
                NULL, shared_bytes(n_items_max), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
                return -errno;
        child->shared = p;
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
                return -errno;
        child->fd = fds[0];

        child->pid = fork();
        if (child->pid == 0)
                run(config, p, parent, fds[1]);
        int r = child->pid < 0 ? -errno : 0;
        close_fd(fds[1]);
        if (r >= 0)
                *ret = steal_pointer(child);
        return r;
}

static void reap(struct children *c)
{
        for (size_t i = c->n_abandoned; i-- > 0;)
                if (waitpid(c->abandoned[i], NULL, WNOHANG) != 0)
                        c->abandoned[i] = c->abandoned[--c->n_abandoned];
}

struct child *children_end(struct children *c, struct child *child, bool wait)
{
        if (!child)
                return NULL;
        kill(child->pid, SIGKILL);
        reap(c);
        if (wait || c->n_abandoned == ABANDONED_MAX)
                while (waitpid(child->pid, NULL, 0) < 0 && errno == EINTR)
                        ;
        else
                c->abandoned[c->n_abandoned++] = child->pid;
        return child_free(child);
}

static struct child *take_spare(struct children *c)
{
        if (c->spare)
                loop_remove(c->loop, &c->spare_io);
        return steal_pointer(c->spare);
}

/* Nothing is sent by one that waits: somebody killed it. */
static void on_spare_gone(struct loop_io *io, uint32_t events)
{
        struct children *c = io->userdata;

        children_end(c, take_spare(c), true);
}

static void keep(struct children *c, struct child *child)
{
        c->spare_io.fd = child->fd;
        c->spare = child;
        if (loop_add(c->loop, &c->spare_io, EPOLLIN) < 0)
                children_end(c, steal_pointer(c->spare), true);
}

void children_keep_spare(struct children *c)
{
        struct child *child;

        reap(c);
        if (!c->spare && !c->config.write && child_new(&c->config, SPARE_ITEMS_MAX, &child) >= 0)
                keep(c, child);
}

static bool set_to_work(struct child *child, enum work work, const struct work_item *items, size_t n_items,
        const struct worker_limits *limits)
{
        char byte = 0;

        child->shared->worker = (struct worker_shared) { 0 };
        child->shared->work = work;
        child->shared->limits = *limits;
        child->shared->n_items = (uint32_t)n_items;
        memcpy(child->shared->items, items, n_items * sizeof(*items));
        return send(child->fd, &byte, 1, MSG_NOSIGNAL) == 1;
}

int children_start(struct children *c, enum work work, const struct work_item *items, size_t n_items,
        const struct worker_limits *limits, struct child **ret)
{
        struct child *child;

        reap(c);
        if (c->spare && n_items <= c->spare->n_items_max) {
                child = take_spare(c);
                if (set_to_work(child, work, items, n_items, limits)) {
                        *ret = child;
                        return 0;
                }
                children_end(c, child, true);
        }
        int r = child_new(&c->config, MAX(n_items, SPARE_ITEMS_MAX), &child);
        if (r < 0)
                return r;
        if (!set_to_work(child, work, items, n_items, limits)) {
                r = -errno;
                children_end(c, child, true);
                return r;
        }
        *ret = child;
        return 0;
}

struct child *children_give_back(struct children *c, struct child *child)
{
        if (c->spare || c->config.write || child->n_items_max > SPARE_ITEMS_MAX)
                return children_end(c, child, true);
        keep(c, child);
        return NULL;
}

pid_t children_spare(const struct children *c)
{
        return c->spare ? c->spare->pid : 0;
}

const struct worker_config *children_config(const struct children *c)
{
        return &c->config;
}

int children_new(struct loop *loop, const struct worker_config *config, struct children **ret)
{
        struct children *c = calloc(1, sizeof(*c));

        if (!c)
                return -ENOMEM;
        *c = (struct children) {
                .loop = loop,
                .config = *config,
                .spare_io = { .fd = -1, .on_ready = on_spare_gone, .userdata = c },
        };
        *ret = c;
        return 0;
}

struct children *children_free(struct children *c)
{
        if (!c)
                return NULL;
        children_end(c, take_spare(c), true);
        reap(c);
        for (unsigned i = 0; c->n_abandoned > 0 && i < FREE_WAIT_MSEC; i++) {
                struct timespec pause = { .tv_nsec = 1000000L };

                nanosleep(&pause, NULL);
                reap(c);
        }
        free(c);
        return NULL;
}
