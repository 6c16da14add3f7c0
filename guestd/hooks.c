/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the watch over the folder of hooks and the connection to the program that runs them.
 *
 * The folder is watched; where it does not exist, the nearest folder above it that does. The program is there
 * only while hooks run. Invariants: done is set while a request is under way; `any` is what was last told. */

#include "guestd/hooks.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"

#define FOLDER_EVENTS                                                                                        \
        (IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
#define ABOVE_EVENTS (IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
#define WATCH_TRIES  8U
/* Until the program says that it is at work, where it has to be started. */
#define BEGIN_USEC (10 * USEC_PER_SEC)
/* Beyond the limit that the program has been given. */
#define ANSWER_USEC (5 * USEC_PER_SEC)

struct hooks {
        struct loop *loop;
        struct hooks_config config;
        hooks_changed_t on_changed;
        void *userdata;

        struct loop_io watch;
        int watched; /* inotify's number, -1: none */
        bool any_file, pending, any;

        struct hooks_client client;
        struct loop_io answer;
        struct loop_timer timer;
        uint64_t id, total_usec;
        hooks_done_t done;
        void *done_userdata;
};

/* Sets the watch to the folder or the nearest one above, and says whether there is a nearer one by now. */
static bool set_watch(struct hooks *h)
{
        char path[PATH_MAX], nearer[PATH_MAX] = "";
        uint32_t events = FOLDER_EVENTS;
        int wd;

        snprintf(path, sizeof(path), "%s", h->config.client.folder);
        while ((wd = inotify_add_watch(h->watch.fd, path, events)) < 0 && errno == ENOENT) {
                char *slash = strrchr(path, '/');

                if (!slash || strcmp(path, "/") == 0)
                        break;
                memcpy(nearer, path, sizeof(path));
                slash[slash == path ? 1 : 0] = '\0';
                events = ABOVE_EVENTS;
        }
        if (wd < 0)
                log_warning("%s cannot be watched: %s", path, strerror(errno));
        if (h->watched >= 0 && h->watched != wd)
                (void)inotify_rm_watch(h->watch.fd, h->watched);
        h->watched = wd;
        return wd >= 0 && nearer[0] && access(nearer, F_OK) >= 0;
}

/* Looks at what there is, and tells if that is news. */
static void look(struct hooks *h)
{
        h->pending = h->config.client.state && access(h->config.client.state, F_OK) >= 0;

        bool any = h->any_file || h->pending;
        if (any == h->any)
                return;
        h->any = any;
        log_info("There are %s hooks in %s", any ? "now" : "no", h->config.client.folder);
        h->on_changed(any, h->userdata);
}

static void scan(struct hooks *h)
{
        for (unsigned i = 0; i < WATCH_TRIES && set_watch(h); i++)
                ;
        h->any_file = hooks_has_files(h->config.client.folder);
        look(h);
}

static void on_folder(struct loop_io *io, uint32_t events)
{
        struct hooks *h = io->userdata;
        char buffer[sizeof(struct inotify_event) + NAME_MAX + 1]
                __attribute__((aligned(_Alignof(struct inotify_event))));

        while (read(h->watch.fd, buffer, sizeof(buffer)) > 0)
                ;
        scan(h);
}

static void hang_up(struct hooks *h)
{
        loop_timer_disarm(h->loop, &h->timer);
        loop_remove(h->loop, &h->answer);
        hooks_client_close(&h->client);
        h->answer.fd = -1;
}

static void finish(struct hooks *h, const struct hooks_answer *answer)
{
        hooks_done_t done = h->done;

        hang_up(h);
        h->done = NULL;
        look(h);
        done(answer, h->done_userdata);
}

static void on_answer(struct loop_io *io, uint32_t events)
{
        struct hooks *h = io->userdata;
        struct hooks_answer answer;

        int r = hooks_client_receive(&h->client, &answer);
        if (r == -EAGAIN || (r > 0 && answer.id != h->id))
                return;
        if (r > 0 && answer.begun) {
                loop_timer_arm(h->loop, &h->timer, now_monotonic_usec() + h->total_usec + ANSWER_USEC);
                return;
        }
        finish(h, r > 0 ? &answer : NULL);
}

bool hooks_any(const struct hooks *h)
{
        return h->any;
}

bool hooks_are_pending(const struct hooks *h)
{
        return h->pending;
}

int hooks_run(struct hooks *h, struct hooks_request *q, hooks_done_t done, void *userdata)
{
        if (h->done)
                return -EBUSY;
        q->kind = HOOKS_RUN;
        q->id = ++h->id;
        q->limit_usec = h->config.limit_usec;
        int r = hooks_client_open(&h->client);
        if (r >= 0) {
                h->answer.fd = h->client.answer_fd;
                r = loop_add(h->loop, &h->answer, EPOLLIN);
        }
        if (r >= 0)
                r = hooks_client_send(&h->client, q);
        if (r < 0) {
                hang_up(h);
                return r;
        }
        h->done = done;
        h->done_userdata = userdata;
        h->total_usec = q->total_usec;
        loop_timer_arm(h->loop, &h->timer, now_monotonic_usec() + BEGIN_USEC);
        return 0;
}

void hooks_cancel(struct hooks *h)
{
        struct hooks_request q = { .kind = HOOKS_CANCEL, .id = h->id };

        if (h->done)
                (void)hooks_client_send(&h->client, &q);
}

/* The program may begin with it yet, and would pass over what comes next. */
static void on_timer(struct loop_timer *timer)
{
        struct hooks *h = timer->userdata;

        hooks_cancel(h);
        finish(h, NULL);
}

struct hooks *hooks_free(struct hooks *h)
{
        if (!h)
                return NULL;
        hang_up(h);
        hooks_client_done(&h->client);
        loop_remove(h->loop, &h->watch);
        close_fd(h->watch.fd);
        free(h);
        return NULL;
}

int hooks_new(struct loop *loop, const struct hooks_config *config, hooks_changed_t on_changed,
        void *userdata, struct hooks **ret)
{
        struct hooks *h = calloc(1, sizeof(*h));

        if (!h)
                return -ENOMEM;
        *h = (struct hooks) {
                .loop = loop,
                .config = *config,
                .on_changed = on_changed,
                .userdata = userdata,
                .watch = { .fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK),
                        .on_ready = on_folder,
                        .userdata = h },
                .watched = -1,
                .answer = { .fd = -1, .on_ready = on_answer, .userdata = h },
                .timer = { .on_expired = on_timer, .userdata = h },
                .id = now_monotonic_usec(), /* no answer to a guestd before this one fits */
        };
        if (h->config.limit_usec == 0)
                h->config.limit_usec = HOOKS_LIMIT_USEC;
        hooks_client_init(&h->client, &config->client);
        int r = h->watch.fd < 0 ? -errno : loop_add(loop, &h->watch, EPOLLIN);
        if (r < 0) {
                hooks_free(h);
                return r;
        }
        scan(h);
        *ret = h;
        return 0;
}
