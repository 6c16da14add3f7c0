/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Owns the port and the session on it.
 *
 *     NO_PORT --opened--> NO_HOST --host connects--> HELLO --welcome--> SESSION
 *        ^                   ^                       |  ^                 |
 *        |                   `--host disconnects-----|--|-----------------|   (from anywhere)
 *        `--port is gone-----------------------------|--|-----------------'
 *                                      refused -> PAUSED <- garbage
 *
 * A virtio port without a host is always "readable" (read gives 0) and polls as hung up for as long as that
 * lasts, so the port is watched for edges only: an edge says that something changed, and then poll() says
 * what is. With a host, the driver sends an edge for each arrival of data, for each buffer of ours that the
 * host took, and when the host connects or disconnects.
 *
 * The last two may fall together: a host that reconnects at once is seen as one edge with a host before and
 * after. Such a host waits for a hello, so that an edge that brings nothing, long after the last traffic,
 * ends the session and says hello. The host should stay away a moment between two connections.
 *
 * Invariants: bytes are read only while nothing waits to be written (backpressure); a message of another
 * session than the open one never gets out of here; on_session(false) follows each on_session(true). */

#include "guestd/channel.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/lines.h"
#include "common/log.h"
#include "common/queue.h"
#include "common/size.h"
#include "guestd/port.h"

#define READ_CHUNK 4096U /* keeps the reader's buffer small */
#define WRITE_CHUNK                                                                                          \
        4096U /* the driver allocates as much in one piece, and this guest may be short of memory */
#define WRITE_RETRY_USEC 50000ULL
#define DISCARD_MAX      (1024U * 1024U)
#define QUIET_USEC       USEC_PER_SEC /* an edge that belongs to traffic comes sooner */
#define PORT_BUSY_USEC   USEC_PER_SEC
#define PORT_BUSY_TRIES  5U

enum channel_state {
        CHANNEL_NO_PORT,
        CHANNEL_NO_HOST,
        CHANNEL_HELLO,
        CHANNEL_SESSION,
        CHANNEL_PAUSED,
};

struct channel {
        struct loop *loop;
        struct loop_io io;
        int sys_fd;
        const char *path;
        struct channel_times times;
        struct channel_handlers handlers;
        void *userdata;

        enum channel_state state;
        struct message hello;
        unsigned n_hellos; /* to this host, since it connected */
        bool told_hooks;   /* what the last hello said */
        char session[PROTO_TOKEN_LENGTH + 1];
        uint64_t last_id;   /* in this session; ids grow */
        unsigned n_garbage; /* in this session */
        unsigned n_port_busy;
        bool port_missed; /* said already */

        struct line_reader reader;
        struct write_queue queue;
        bool event_waits;
        enum event_type event;
        uint64_t last_io_usec;

        struct loop_timer timer;  /* the state's: look again, hello again, end of a pause */
        struct loop_timer resume; /* go on reading or writing without an edge */
        struct channel_counters counters;
};

const struct channel_times channel_default_times = {
        .pause_usec = 10 * USEC_PER_SEC,
        .refused_usec = 60 * USEC_PER_SEC,
        .port_usec = 30 * USEC_PER_SEC,
        .hello_usec = { 3 * USEC_PER_SEC, 10 * USEC_PER_SEC, 30 * USEC_PER_SEC },
};

static void arm(struct channel *c, struct loop_timer *timer, uint64_t in_usec)
{
        loop_timer_arm(c->loop, timer, now_monotonic_usec() + in_usec);
}

static bool queue_waits(const struct channel *c)
{
        return write_queue_waiting(&c->queue) > 0;
}

/* Forgets all that belongs to the host that was there. */
static void set_state(struct channel *c, enum channel_state state)
{
        bool had_session = c->state == CHANNEL_SESSION;

        c->state = state;
        loop_timer_disarm(c->loop, &c->timer);
        if (state == CHANNEL_SESSION)
                return;
        loop_timer_disarm(c->loop, &c->resume);
        write_queue_clear(&c->queue);
        line_reader_reset(&c->reader);
        c->event_waits = false;
        if (had_session) {
                log_info("The session ended");
                c->handlers.on_session(false, c->userdata);
        }
}

static void lose_port(struct channel *c)
{
        loop_remove(c->loop, &c->io);
        c->io.fd = close_fd(c->io.fd);
        set_state(c, CHANNEL_NO_PORT);
        log_notice("The port is gone");
        if (c->state == CHANNEL_NO_PORT) /* what waited for the session's end may have told of a new port */
                arm(c, &c->timer, c->times.port_usec);
}

/* Writes what the port takes. Failures that say more than "later" show up again in the next poll() or read().
 */
static void flush(struct channel *c)
{
        size_t waiting = write_queue_waiting(&c->queue);

        if (write_queue_flush(&c->queue, c->io.fd, WRITE_CHUNK) < 0)
                arm(c, &c->resume, WRITE_RETRY_USEC);
        if (write_queue_waiting(&c->queue) < waiting)
                c->last_io_usec = now_monotonic_usec();
        /* Idle, it holds no memory. */
        if (!queue_waits(c))
                write_queue_clear(&c->queue);
}

static int send_message(struct channel *c, const struct message *m)
{
        _cleanup_free_ char *line = NULL;
        size_t length;

        int r = message_encode(m, &line, &length);
        if (r < 0)
                return r;
        if (write_queue_push(&c->queue, line, length, CHANNEL_QUEUE_MAX) < 0) {
                c->counters.n_dropped++;
                /* An answer was lost, and the host would wait for it: it is better told so by a new session.
                 */
                log_warning("The host does not read; the session is given up");
                arm(c, &c->resume, 0);
                c->n_garbage = CHANNEL_GARBAGE_MAX;
                return 0;
        }
        flush(c);
        return 0;
}

/* For people who look for a fault. */
static inline const char *name_of(const struct message *m)
{
        return m->type == MESSAGE_REPLY      ? op_to_string(m->reply.op)
               : m->type == MESSAGE_FAILURE  ? "failure"
               : m->type == MESSAGE_PROGRESS ? "progress"
                                             : "event";
}

int channel_send(struct channel *c, struct message *m, bool droppable)
{
        if (c->state != CHANNEL_SESSION)
                return 0;
        if (droppable && queue_waits(c)) {
                c->counters.n_dropped++;
                return 0;
        }
        memcpy(m->session, c->session, sizeof(m->session));
        fault_point("send", name_of(m));
        int r = send_message(c, m);
        fault_point("sent", name_of(m));
        return r;
}

void channel_send_event(struct channel *c, enum event_type event)
{
        struct message m = { .type = MESSAGE_EVENT,
                .event = { .type = event, .has_hooks = true, .hooks = c->hello.hello.hooks } };

        c->event = event;
        c->event_waits = c->state == CHANNEL_SESSION && queue_waits(c);
        if (!c->event_waits)
                (void)channel_send(c, &m, true);
}

bool channel_send_sample(struct channel *c, const struct guest_sample *s)
{
        struct message m = { .type = MESSAGE_EVENT, .event = { .type = EVENT_SAMPLE, .sample = *s } };

        if (c->state != CHANNEL_SESSION || queue_waits(c))
                return false;
        return channel_send(c, &m, true) >= 0;
}

static void make_nonce(char nonce[static PROTO_TOKEN_LENGTH + 1])
{
        static uint64_t count;
        uint64_t v;

        /* Unique is enough: it tells an old welcome from a new one. Early in a boot there may be no entropy
         * yet. */
        if (getrandom(&v, sizeof(v), GRND_NONBLOCK) != sizeof(v))
                v = now_monotonic_usec() << 20 ^ (uint64_t)getpid() << 4 ^ ++count;
        snprintf(nonce, PROTO_TOKEN_LENGTH + 1, "%016" PRIx64, v);
}

static void say_hello(struct channel *c)
{
        static const char resync = (char)PROTO_RESYNC;

        if (c->state != CHANNEL_HELLO)
                set_state(c, CHANNEL_HELLO);
        write_queue_clear(&c->queue);
        make_nonce(c->hello.hello.nonce);
        c->n_garbage = 0;
        c->counters.n_hellos++;
        c->told_hooks = c->hello.hello.hooks;
        if (write_queue_push(&c->queue, &resync, 1, CHANNEL_QUEUE_MAX) < 0 || send_message(c, &c->hello) < 0)
                log_error("A hello cannot be made");
        if (c->n_hellos < ARRAY_SIZE(c->times.hello_usec))
                arm(c, &c->timer, c->times.hello_usec[c->n_hellos++]);
}

/* What an earlier host left in the port is nobody's. */
static void discard_input(struct channel *c)
{
        char buffer[READ_CHUNK];
        ssize_t n;

        for (size_t sum = 0; sum < DISCARD_MAX; sum += (size_t)n) {
                n = read(c->io.fd, buffer, sizeof(buffer));
                if (n <= 0)
                        break;
        }
        line_reader_reset(&c->reader);
}

static void pause_channel(struct channel *c, uint64_t usec)
{
        set_state(c, CHANNEL_PAUSED);
        arm(c, &c->timer, usec);
}

static void on_garbage(struct channel *c, const char *why)
{
        c->counters.n_garbage++;
        if (c->n_garbage++ == 0)
                log_debug("A line from the host is dropped: %s", why);
}

static void on_welcome(struct channel *c, const struct message *m)
{
        if (c->state != CHANNEL_HELLO || strcmp(m->welcome.nonce, c->hello.hello.nonce) != 0) {
                c->counters.n_stale++;
                return;
        }
        if (m->welcome.version < PROTO_VERSION_MIN || m->welcome.version > PROTO_VERSION) {
                on_garbage(c, "a welcome of another version");
                return;
        }
        memcpy(c->session, m->session, sizeof(c->session));
        c->counters.n_sessions++;
        c->n_hellos = 0;
        c->last_id = 0;
        set_state(c, CHANNEL_SESSION);
        log_info("A session with the host began");
        c->handlers.on_session(true, c->userdata);
        if (c->told_hooks != c->hello.hello.hooks)
                channel_send_event(c, EVENT_BLOCKS_CHANGED);
}

static void on_refuse(struct channel *c, const struct message *m)
{
        if (c->state != CHANNEL_HELLO || strcmp(m->refuse.nonce, c->hello.hello.nonce) != 0) {
                c->counters.n_stale++;
                return;
        }
        log_warning("The host refuses a session: %s", m->refuse.error.message);
        pause_channel(c, c->times.refused_usec);
}

static void on_line(struct channel *c, const char *line, size_t length)
{
        _cleanup_(message_done) struct message m = { 0 };
        struct error error;

        if (message_decode(line, length, &m, &error) < 0) {
                on_garbage(c, error.message);
                return;
        }
        switch (m.type) {
        case MESSAGE_WELCOME:
                on_welcome(c, &m);
                break;
        case MESSAGE_REFUSE:
                on_refuse(c, &m);
                break;
        case MESSAGE_REQUEST:
                if (c->state == CHANNEL_SESSION && strcmp(m.session, c->session) == 0 && m.id > c->last_id) {
                        c->last_id = m.id;
                        fault_point("request", op_to_string(m.request.op));
                        c->handlers.on_request(&m, c->userdata);
                        fault_point("begun", op_to_string(m.request.op));
                } else
                        c->counters.n_stale++;
                break;
        default:
                on_garbage(c, "a message that only a guest sends");
        }
}

/* Handles lines until nothing more is there, the wake-up's share is used up, or an answer has to wait.
 * Returns the bytes read, or -errno: -ENODEV if the port is gone, -EPIPE if the host is. */
static ssize_t read_lines(struct channel *c)
{
        size_t sum = 0, length;
        char *line;

        while ((c->state == CHANNEL_HELLO || c->state == CHANNEL_SESSION) && !queue_waits(c)) {
                if (c->n_garbage >= CHANNEL_GARBAGE_MAX) {
                        log_warning("The host sends garbage, or does not read; pausing");
                        pause_channel(c, c->times.pause_usec);
                        break;
                }
                int r = line_reader_next(&c->reader, &line, &length);
                if (r < 0)
                        on_garbage(c, "it is too long");
                else if (r > 0)
                        on_line(c, line, length);
                if (r != 0)
                        continue;

                if (sum >= CHANNEL_READ_MAX) {
                        arm(c, &c->resume, 0);
                        break;
                }
                ssize_t n = line_reader_read(&c->reader, c->io.fd, READ_CHUNK);
                if (n == -EAGAIN)
                        break;
                if (n == -ENOMEM) { /* no edge will tell of what waits already */
                        arm(c, &c->resume, WRITE_RETRY_USEC);
                        break;
                }
                if (n <= 0)
                        return n == 0 ? -EPIPE : n;
                sum += (size_t)n;
                c->last_io_usec = now_monotonic_usec();
        }
        return (ssize_t)sum;
}

static void on_read_error(struct channel *c, ssize_t error)
{
        if (error == -EPIPE || error == -ECONNRESET)
                set_state(c, CHANNEL_NO_HOST);
        else
                lose_port(c);
}

/* The level behind an edge. */
static void step(struct channel *c, bool edge)
{
        struct pollfd p = { .fd = c->io.fd, .events = POLLIN | POLLOUT };

        if (poll(&p, 1, 0) < 0)
                return;
        if (p.revents & (POLLHUP | POLLERR | POLLNVAL)) {
                char byte;

                if (c->state != CHANNEL_NO_HOST)
                        set_state(c, CHANNEL_NO_HOST);
                discard_input(c);
                /* Hung up for good, as the device was unplugged: that ends in an error, not in "nothing". */
                if (read(c->io.fd, &byte, 1) < 0 && errno != EAGAIN && errno != EINTR)
                        lose_port(c);
                return;
        }
        if (c->state == CHANNEL_NO_HOST) {
                c->n_hellos = 0;
                discard_input(c);
                say_hello(c);
        }
        if (c->state == CHANNEL_PAUSED)
                return;

        bool waited = queue_waits(c);
        uint64_t quiet_usec = now_monotonic_usec() - c->last_io_usec;
        flush(c);
        ssize_t n = read_lines(c);
        if (n < 0)
                on_read_error(c, n);
        else if (n == 0 && edge && !waited && c->state == CHANNEL_SESSION && quiet_usec > QUIET_USEC) {
                c->n_hellos = 0;
                say_hello(c);
        } else if (c->event_waits && !queue_waits(c))
                channel_send_event(c, c->event);
}

static void on_ready(struct loop_io *io, uint32_t events)
{
        step(io->userdata, true);
}

static void on_resume(struct loop_timer *timer)
{
        step(timer->userdata, false);
}

static void on_timer(struct loop_timer *timer)
{
        struct channel *c = timer->userdata;

        switch (c->state) {
        case CHANNEL_NO_PORT:
                channel_look(c);
                break;
        case CHANNEL_HELLO:
                say_hello(c);
                break;
        case CHANNEL_PAUSED:
                c->n_hellos = 0;
                discard_input(c);
                say_hello(c);
                /* There may be more than was discarded, and no edge would tell. */
                arm(c, &c->resume, 0);
                break;
        default:
                break;
        }
}

int channel_attach(struct channel *c, int fd)
{
        c->io.fd = fd;
        set_state(c, CHANNEL_NO_HOST);
        /* The first edge comes by itself: epoll reports what is so already. */
        int r = loop_add(c->loop, &c->io, EPOLLIN | EPOLLOUT | EPOLLET);
        if (r < 0)
                lose_port(c);
        return r;
}

void channel_look(struct channel *c)
{
        if (c->state != CHANNEL_NO_PORT)
                return;

        int fd = port_open(c->sys_fd, c->path);
        if (fd >= 0) {
                c->port_missed = false;
                c->n_port_busy = 0;
                (void)channel_attach(c, fd);
                return;
        }
        if (!c->port_missed)
                log_notice("Waiting for port %s: %s", c->path ? c->path : PROTO_PORT_NAME, strerror(-fd));
        c->port_missed = true;
        /* Another guestd may be on its way out; it would not announce that. */
        bool soon = fd == -EBUSY && c->n_port_busy++ < PORT_BUSY_TRIES;
        arm(c, &c->timer, soon ? PORT_BUSY_USEC : c->times.port_usec);
}

void channel_set_hooks(struct channel *c, bool hooks)
{
        if (c->hello.hello.hooks == hooks)
                return;
        c->hello.hello.hooks = hooks;
        channel_send_event(c, EVENT_BLOCKS_CHANGED);
}

bool channel_has_session(struct channel *c)
{
        return c->state == CHANNEL_SESSION;
}

const struct channel_counters *channel_counters(struct channel *c)
{
        return &c->counters;
}

int channel_new(struct loop *loop, int sys_fd, const char *path, const struct message_hello *hello,
        const struct channel_times *times, const struct channel_handlers *handlers, void *userdata,
        struct channel **ret)
{
        struct channel *c = calloc(1, sizeof(*c));

        if (!c)
                return -ENOMEM;
        *c = (struct channel) {
                .loop = loop,
                .io = { .fd = -1, .on_ready = on_ready, .userdata = c },
                .sys_fd = sys_fd,
                .path = path,
                .times = times ? *times : channel_default_times,
                .handlers = *handlers,
                .userdata = userdata,
                .hello = { .type = MESSAGE_HELLO, .hello = *hello },
                .timer = { .on_expired = on_timer, .userdata = c },
                .resume = { .on_expired = on_resume, .userdata = c },
        };
        line_reader_init(&c->reader, PROTO_LINE_MAX, true);
        *ret = c;
        return 0;
}

struct channel *channel_free(struct channel *c)
{
        if (!c)
                return NULL;
        loop_timer_disarm(c->loop, &c->timer);
        loop_timer_disarm(c->loop, &c->resume);
        loop_remove(c->loop, &c->io);
        close_fd(c->io.fd);
        write_queue_clear(&c->queue);
        line_reader_done(&c->reader);
        free(c);
        return NULL;
}
