/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns what the host asked for, the kernel's trigger and one timer.
 *
 * Each time the timer fires meminfo's first lines are looked at, and a sample is sent if that, or the
 * trigger, or the time since the last one gives a cause to. A guest that has been idle for long is the one
 * whose burst comes by surprise: so where there is a headroom to be told of only samples back off, and
 * meminfo is looked at each interval_msec, and more often while memory dwindles, so that half of the headroom
 * is not missed by much. What happens faster than that is the trigger's to tell of.
 *
 * Invariants: without an interval there is neither a trigger nor an armed timer; between two samples pass
 * push_usec at least, and what falls due in them is sent behind them. */

#include "guestd/sampler.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "guestd/memory.h"

/* A change of so much of the memory is one: 1/64, and at least so much. */
#define CHANGE_PART  64U
#define CHANGE_BYTES (16 * MIB)

struct sampler {
        struct loop *loop;
        struct sampler_config config;
        sampler_send_t send;
        void *userdata;

        struct sampling sampling; /* interval_msec 0: none are sent */
        struct loop_io trigger;   /* fd -1: there is none */
        bool has_stalled;         /* the trigger fired since the last sample */
        struct loop_timer timer;
        int meminfo_fd; /* open as long as samples are asked for: opening takes memory */

        struct guest_sample last; /* that was sent */
        uint64_t last_usec;
        uint64_t pause_usec; /* until the next one if nothing changes */

        struct memory_now look; /* the last one */
        uint64_t look_usec;
};

/* The kernel keeps the trigger until it is closed. Below a window of 2 s it takes CAP_SYS_RESOURCE. */
static int watch_stalls(int proc_fd, uint64_t stall_usec, uint64_t window_usec)
{
        _cleanup_close_ int fd = openat(proc_fd, "pressure/memory", O_RDWR | O_CLOEXEC | O_NONBLOCK);
        char text[64];

        if (fd < 0)
                return -errno;
        int n = snprintf(text, sizeof(text), "some %" PRIu64 " %" PRIu64, stall_usec, window_usec);
        /* With its NUL, as the kernel's own documentation has it: it ends the text at the last byte. */
        if (write(fd, text, (size_t)n + 1) < 0)
                return -errno;
        return steal_fd(&fd);
}

static void drop_trigger(struct sampler *s)
{
        loop_remove(s->loop, &s->trigger);
        s->trigger.fd = close_fd(s->trigger.fd);
        s->has_stalled = false;
}

/* Without a trigger samples are still sent for all other causes. */
static void set_trigger(struct sampler *s, const struct sampling *sampling)
{
        drop_trigger(s);
        if (sampling->interval_msec == 0 || sampling->stall_msec == 0)
                return;
        int r = s->config.watch(s->config.proc_fd, sampling->stall_msec * USEC_PER_MSEC,
                sampling->window_msec * USEC_PER_MSEC);
        if (r >= 0) {
                s->trigger.fd = r;
                r = loop_add(s->loop, &s->trigger, EPOLLPRI | EPOLLET);
                if (r < 0)
                        drop_trigger(s);
        }
        if (r < 0)
                log_notice("The kernel does not tell when memory is short: %s", strerror(-r));
}

static bool is_short(const struct sampler *s, const struct memory_now *now)
{
        return now->available_bytes < s->sampling.headroom_bytes / 2;
}

static uint64_t difference(uint64_t a, uint64_t b)
{
        return a > b ? a - b : b - a;
}

/* SAMPLE_ASKED: there is none. */
static enum sample_cause find_cause(const struct sampler *s, const struct memory_now *now, uint64_t usec)
{
        uint64_t available = s->last.available_bytes, age = usec - s->last_usec;
        uint64_t step = MAX(CHANGE_BYTES, now->total_bytes / CHANGE_PART);

        if (s->has_stalled)
                return SAMPLE_PRESSURE;
        if (is_short(s, now) && (available >= s->sampling.headroom_bytes / 2 ||
                                        now->available_bytes + s->sampling.headroom_bytes / 16 < available))
                return SAMPLE_HEADROOM;
        if (age >= s->sampling.interval_msec * USEC_PER_MSEC &&
                (now->total_bytes != s->last.total_bytes ||
                        difference(now->available_bytes, available) >= step))
                return SAMPLE_CHANGE;
        return age >= s->pause_usec ? SAMPLE_PERIODIC : SAMPLE_ASKED;
}

/* When to look again, from now. */
static uint64_t next_look(
        const struct sampler *s, const struct memory_now *before, uint64_t usec, const struct memory_now *now)
{
        uint64_t look = s->sampling.interval_msec * USEC_PER_MSEC, low = s->sampling.headroom_bytes / 2;

        if (low == 0)
                return s->pause_usec;
        if (now->available_bytes >= before->available_bytes || usec == 0)
                return look;
        uint64_t fallen = before->available_bytes - now->available_bytes;
        uint64_t left = now->available_bytes > low ? now->available_bytes - low : 0;
        /* Half of the time that is left, as things go. */
        unsigned __int128 at_pace = (unsigned __int128)left * usec / fallen / 2;
        if (at_pace < look)
                look = (uint64_t)at_pace;
        return MAX(look, s->config.look_usec);
}

static void note_look(struct sampler *s, const struct memory_now *now, uint64_t usec)
{
        uint64_t look = next_look(s, &s->look, usec - s->look_usec, now);
        uint64_t at = MIN(usec + look, s->last_usec + s->pause_usec);

        s->look = *now;
        s->look_usec = usec;
        loop_timer_arm(s->loop, &s->timer, MAX(at, usec + s->config.look_usec));
}

static int read_sample(struct sampler *s, enum sample_cause cause, struct guest_sample *ret)
{
        int r = memory_read_sample(s->config.proc_fd, ret);
        if (r < 0)
                return r;
        ret->cause = cause;
        ret->margin_bytes = memory_margin(s->config.margin_bytes, ret->total_bytes);
        ret->is_watched = s->trigger.fd >= 0;
        return 0;
}

/* It is with the host, as far as we know. */
static void note_sent(struct sampler *s, const struct guest_sample *sample, uint64_t usec)
{
        uint64_t interval = s->sampling.interval_msec * USEC_PER_MSEC;
        uint64_t slowest = s->sampling.interval_max_msec * USEC_PER_MSEC;

        s->pause_usec = sample->cause == SAMPLE_PERIODIC ? MIN(s->pause_usec * 2, slowest) : interval;
        s->has_stalled = false;
        s->last = *sample;
        s->last_usec = usec;
}

/* Whether there was nothing to tell, or it is told. */
static bool tell(struct sampler *s, const struct memory_now *now, uint64_t usec)
{
        enum sample_cause cause = find_cause(s, now, usec);
        struct guest_sample sample;

        if (cause == SAMPLE_ASKED)
                return true;
        if (read_sample(s, cause, &sample) < 0 || !s->send(&sample, s->userdata))
                return false;
        note_sent(s, &sample, usec);
        return true;
}

static void look(struct sampler *s)
{
        uint64_t usec = now_monotonic_usec(), due = s->last_usec + s->config.push_usec;
        struct memory_now now;

        if (usec < due)
                loop_timer_arm(s->loop, &s->timer, due);
        else if (memory_read_headroom(s->meminfo_fd, &now) >= 0 && tell(s, &now, usec))
                note_look(s, &now, usec);
        else
                loop_timer_arm(s->loop, &s->timer, usec + s->sampling.interval_msec * USEC_PER_MSEC);
}

static void on_timer(struct loop_timer *timer)
{
        look(timer->userdata);
}

static void on_stall(struct loop_io *io, uint32_t events)
{
        struct sampler *s = io->userdata;

        if (!(events & EPOLLPRI))
                return;
        s->has_stalled = true;
        uint64_t usec = now_monotonic_usec();
        log_debug("Tasks stall for memory, says the kernel's trigger at %" PRIu64 ".%06" PRIu64 " s",
                usec / USEC_PER_SEC, usec % USEC_PER_SEC);
        look(s);
}

static void begin_looks(struct sampler *s, const struct guest_sample *sample)
{
        uint64_t usec = now_monotonic_usec();
        bool has_stalled = s->has_stalled;

        note_sent(s, sample, usec);
        s->look = (struct memory_now) { .total_bytes = sample->total_bytes,
                .free_bytes = sample->free_bytes,
                .available_bytes = sample->available_bytes };
        s->look_usec = usec;
        note_look(s, &s->look, usec);
        /* What fell due just before is still to be told: an answer does not say why it was time for it. */
        s->has_stalled = has_stalled;
        if (has_stalled)
                loop_timer_arm(s->loop, &s->timer, usec + s->config.push_usec);
}

int sampler_begin(struct sampler *s, const struct sampling *sampling, struct guest_sample *ret)
{
        bool same_trigger = s->trigger.fd >= 0 && sampling->interval_msec > 0 &&
                            s->sampling.stall_msec == sampling->stall_msec &&
                            s->sampling.window_msec == sampling->window_msec;
        struct guest_sample sample;

        int r = read_sample(s, SAMPLE_ASKED, &sample);
        if (r >= 0 && s->meminfo_fd < 0) {
                s->meminfo_fd = openat(s->config.proc_fd, "meminfo", O_RDONLY | O_CLOEXEC);
                r = s->meminfo_fd < 0 ? -errno : 0;
        }
        if (r < 0)
                return r;
        if (sampling->interval_msec == 0) {
                sampler_end(s);
                sample.is_watched = false;
                *ret = sample;
                return 0;
        }
        if (!same_trigger)
                set_trigger(s, sampling);
        sample.is_watched = s->trigger.fd >= 0;
        s->sampling = *sampling;
        begin_looks(s, &sample);
        *ret = sample;
        return 0;
}

void sampler_end(struct sampler *s)
{
        drop_trigger(s);
        loop_timer_disarm(s->loop, &s->timer);
        s->meminfo_fd = close_fd(s->meminfo_fd);
        s->sampling = (struct sampling) { 0 };
}

int sampler_new(struct loop *loop, const struct sampler_config *config, sampler_send_t send, void *userdata,
        struct sampler **ret)
{
        struct sampler *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        *s = (struct sampler) {
                .loop = loop,
                .config = *config,
                .send = send,
                .userdata = userdata,
                .meminfo_fd = -1,
                .trigger = { .fd = -1, .on_ready = on_stall, .userdata = s },
                .timer = { .on_expired = on_timer, .userdata = s },
        };
        s->config.push_usec = config->push_usec ?: SAMPLER_PUSH_USEC;
        s->config.look_usec = config->look_usec ?: SAMPLER_LOOK_USEC;
        s->config.watch = config->watch ?: watch_stalls;
        *ret = s;
        return 0;
}

struct sampler *sampler_free(struct sampler *s)
{
        if (!s)
                return NULL;
        sampler_end(s);
        free(s);
        return NULL;
}
