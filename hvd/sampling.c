/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Tells a partition's guest when to send samples, and takes them. The guest forgets what it was told with the
 * session, so each session begins by telling it again, if anything is wanted. At most one request is under
 * way: what is wanted meanwhile is told behind it. */

#include "hvd/sampling.h"

#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "hvd/manager.h"
#include "hvd/partition.h"

#define SAMPLE_CALL_USEC (5 * USEC_PER_SEC)
/* A trigger has to have a window, also one that is never to fire. */
#define WINDOW_MSEC 1000U

static int tell(struct partition *p);

static bool is_told(const struct partition_samples *s)
{
        return memcmp(&s->told, &s->wanted, sizeof(s->told)) == 0;
}

static void on_reply(const struct message_reply *reply, const struct error *error, void *userdata)
{
        struct partition *p = userdata;
        struct partition_samples *s = &p->samples;
        bool again = s->asked_again;

        s->call = NULL;
        s->asked_again = false;
        if (error) {
                log_debug("Partition '%s': no sample: %s", p->definition.name, error->message);
                s->told = (struct sampling) { 0 };
                return;
        }
        if (again || !is_told(s))
                (void)tell(p);
        sampling_take(p, &reply->sample);
}

static int tell(struct partition *p)
{
        struct partition_samples *s = &p->samples;
        struct message_request request = { .op = OP_SAMPLE, .sampling = s->wanted };

        if (request.sampling.window_msec == 0)
                request.sampling.window_msec = WINDOW_MSEC;
        int r = agent_call(p->agent, &request, SAMPLE_CALL_USEC, on_reply, NULL, p, &s->call, NULL);
        if (r < 0)
                log_debug("Partition '%s': its guest cannot be asked for samples: %s", p->definition.name,
                        strerror(-r));
        else
                s->told = s->wanted;
        return r;
}

const struct policy_sample *partition_sample(const struct partition *p)
{
        return &p->samples.last;
}

void partition_set_sampling(struct partition *p, const struct sampling *wanted)
{
        struct partition_samples *s = &p->samples;

        s->wanted = *wanted;
        if (!s->call && !is_told(s) && agent_state(p->agent) == AGENT_READY &&
                partition_guest_can(p, PROTO_CAPABILITY_SAMPLES))
                (void)tell(p);
}

int partition_ask_sample(struct partition *p)
{
        if (agent_state(p->agent) != AGENT_READY)
                return -ENOTCONN;
        if (!partition_guest_can(p, PROTO_CAPABILITY_SAMPLES))
                return -EOPNOTSUPP;
        if (!p->samples.call)
                return tell(p);
        p->samples.asked_again = true;
        return 0;
}

void sampling_on_session(struct partition *p)
{
        struct partition_samples *s = &p->samples;
        struct sampling wanted = s->wanted;

        s->told = (struct sampling) { 0 };
        s->track = (struct sample_track) { 0 };
        s->is_watched = false;
        partition_set_sampling(p, &wanted);
}

void sampling_take(struct partition *p, const struct guest_sample *sample)
{
        struct partition_samples *s = &p->samples;
        struct sample_host host = { .sampling = s->told, .has_dimms_only = true };

        /* Without QEMU's account there is nothing to hold it against. */
        if (!p->has_snapshot)
                return;
        host.current_bytes = partition_current_bytes(p);
        host.dimm_bytes = partition_dimm_bytes(p);
        host.has_dimms_only = !p->snapshot.balloon.present;
        for (size_t i = 0; i < p->snapshot.n_devices; i++)
                host.has_dimms_only &= p->snapshot.devices[i].is_dimm;

        sample_take(&s->track, sample, &host, now_monotonic_usec(), &s->last);
        s->cause = sample->cause;
        s->is_watched = sample->has_pressure && sample->is_watched;
        if (p->has_memory) {
                p->memory.total_bytes = sample->total_bytes;
                p->memory.free_bytes = sample->free_bytes;
                p->memory.available_bytes = sample->available_bytes;
                p->memory.has_pressure = sample->has_pressure;
                p->memory.some_avg10_centi = sample->some_avg10_centi;
                p->memory.full_avg10_centi = sample->full_avg10_centi;
        }
        manager_partition_sampled(p->manager, p, s->cause);
}
