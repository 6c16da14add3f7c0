/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the connection to opendlpar-hooks, which runs what it is told of one after another. As much as the
 * connection holds may wait; beyond that notifications are dropped, and that is logged once. */

#include "hvd/notify.h"

#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "common/text.h"
#include "hvd/job.h"
#include "hvd/manager.h"

struct notify {
        sd_event *event;
        struct hooks_client client;
        sd_event_source *io; /* the program's end, where it is our child */
        bool dropping;
};

static void hang_up(struct notify *n)
{
        n->io = sd_event_source_disable_unref(n->io);
        hooks_client_close(&n->client);
}

/* It says nothing: this is its end. */
static int on_gone(sd_event_source *s, int fd, uint32_t events, void *userdata)
{
        log_warning("The program that runs the host's hooks ended; the next job starts it again");
        hang_up(userdata);
        return 0;
}

static int open_client(struct notify *n)
{
        if (n->client.request_fd >= 0)
                return 0;
        int r = hooks_client_open(&n->client);
        if (r >= 0 && n->client.answer_fd >= 0)
                r = sd_event_add_io(n->event, &n->io, n->client.answer_fd, EPOLLIN, on_gone, n);
        if (r < 0)
                hang_up(n);
        return r;
}

static int deliver(struct notify *n, struct hooks_request *q)
{
        int r = open_client(n);

        if (r >= 0)
                r = hooks_client_send(&n->client, q);
        if (r != -EPIPE)
                return r;
        hang_up(n); /* it ended just now */
        r = open_client(n);
        return r < 0 ? r : hooks_client_send(&n->client, q);
}

static enum hook_outcome outcome_of(const struct job *j)
{
        switch (j->state) {
        case JOB_DONE:
                return HOOK_OUTCOME_DONE;
        case JOB_PARTIAL:
                return HOOK_OUTCOME_PARTIAL;
        case JOB_CANCELLED:
                return HOOK_OUTCOME_CANCELLED;
        case JOB_FAILED:
                return j->stop == JOB_STOP_DEADLINE ? HOOK_OUTCOME_DEADLINE : HOOK_OUTCOME_FAILED;
        default:
                return HOOK_OUTCOME_NONE;
        }
}

/* One partition's part in a job. */
struct part {
        const char *partition;
        enum hook_operation operation;
        uint64_t bytes, done_bytes;
};

static void tell(struct notify *n, const struct job *j, enum hook_phase phase, const struct part *part)
{
        const struct config *config = manager_config(j->manager);
        struct hooks_request q = {
                .kind = HOOKS_RUN,
                .bytes = part->bytes,
                .limit_usec = config->hook_limit_usec,
                .call = {
                        .phase = phase,
                        .operation = part->operation,
                        .outcome = outcome_of(j),
                        .has_node = j->request.node >= 0,
                        .node = j->request.node >= 0 ? (unsigned)j->request.node : 0,
                        .job = j->id,
                        .done_bytes = part->done_bytes,
                },
        };

        snprintf(q.folder, sizeof(q.folder), "%s", config->hooks_folder);
        snprintf(q.partition, sizeof(q.partition), "%s", part->partition);
        if (j->n_reasons > 0)
                text_clean(q.call.reason, sizeof(q.call.reason), j->reasons[0].error.message);
        int r = deliver(n, &q);
        if (r < 0 && !n->dropping)
                log_warning("The host's hooks are not told of job %u: %s", j->id,
                        r == -EAGAIN ? "too many of them wait" : strerrordesc_np(-r));
        n->dropping = r < 0;
}

/* Which way a total leads is known to the job only when it has looked: until then, by what is known now. */
static void take_way(const struct job *j, struct part *part)
{
        uint64_t target = j->request.target_bytes, current = 0;

        if (j->is_measured)
                return;
        if (j->partition)
                current = partition_current_bytes(j->partition);
        part->operation = target < current ? HOOK_REMOVE : HOOK_ADD;
        part->bytes = target < current ? current - target : target - current;
}

void notify_job(struct notify *n, const struct job *j, enum hook_phase phase)
{
        /* A guest can cause restores at will. */
        if (!n || j->request.dry_run || j->request.kind == JOB_RESTORE_MEMORY ||
                !hooks_has_files(manager_config(j->manager)->hooks_folder))
                return;

        struct part part = {
                .partition = j->partition_name,
                .operation = j->direction == JOB_REMOVE_MEMORY ? HOOK_REMOVE : HOOK_ADD,
                .bytes = j->request.bytes,
                .done_bytes = j->done_bytes,
        };
        if (j->request.kind == JOB_SET_MEMORY)
                take_way(j, &part);
        if (j->request.kind == JOB_MOVE_MEMORY) {
                struct part giver = part;

                giver.operation = HOOK_REMOVE;
                giver.done_bytes = j->freed_bytes;
                tell(n, j, phase, &giver);
                part.partition = j->peer_name;
        }
        tell(n, j, phase, &part);
}

struct notify *notify_free(struct notify *n)
{
        if (!n)
                return NULL;
        hang_up(n);
        hooks_client_done(&n->client);
        sd_event_unref(n->event);
        free(n);
        return NULL;
}

int notify_new(sd_event *event, const struct hooks_client_config *config, struct notify **ret)
{
        struct notify *n = calloc(1, sizeof(*n));

        if (!n)
                return -ENOMEM;
        n->event = sd_event_ref(event);
        hooks_client_init(&n->client, config);
        n->client.config.host = true;
        *ret = n;
        return 0;
}
