/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The stopwatch of scripts/bench: what bare QMP takes, and what a command takes from fork to exit.
 *
 * It keeps one connection to a QEMU monitor and reads steps from standard input, a line each, words parted by
 * tabs; each is answered by a line, "ok" with what was measured in microseconds, or "error" with a sentence.
 * So nothing that a script does lies in what is timed, and steps that belong together can be sent at once,
 * between "start" and "stop".
 *
 *     plug SIZE N          N DIMMs: the backends first, then the clock from device_add until the guest has
 *                          taken each, by ACPI_DEVICE_OST source 1 status 0, or until the watcher says so
 *     add SIZE N           N DIMMs, without waiting for the guest
 *     unplug N             the same: the clock from device_del to DEVICE_DELETED of each, then the backends
 *     eject MSEC ID BACKEND
 *                          any device, with its blocks as they are: device_del, then the clock until it is
 *                          gone, the guest refuses, or nothing was heard for so long; "ok USEC
 *                          gone|refused|silent"
 *     plugged              "ok BYTES DEVICES"
 *     watch COMMAND...     starts a watcher, for the plug that follows: it says a line when it is ready, and
 *                          one when the guest has taken the memory. For guests that do not tell QEMU
 *     run FILE COMMAND...  the clock from fork to exit; "ok USEC CODE"; FILE takes what it prints
 *     start, stop          a clock around the steps between them
 *
 *     resize ID BYTES      a virtio-mem device's requested size: the clock until the guest has followed
 *     balloon BYTES        the same for the balloon's target
 *
 * Several devices are asked for at once. An error leaves the guest as it is: whoever measures gives up then.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../lab/tools/client.h"

enum { STEP_MSEC = 60000, FOLLOW_MSEC = 170000, WORDS_MAX = 64, DEVICES_MAX = 64 };

static struct {
        int fd;
        char buffer[1024 * 1024];
        size_t n_buffer;
        int64_t deadline_msec;   /* of the step under way */
        bool waits[DEVICES_MAX]; /* for the guest's or QEMU's word on this device */
        unsigned n_waits;
        uint64_t started_usec;
} monitor;

static struct {
        pid_t pid; /* 0: none */
        int fd;
} watcher;

static uint64_t now_usec(void)
{
        struct timespec now;

        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Prints the answer to a step that failed. */
__attribute__((format(printf, 1, 2))) static int fail(const char *format, ...)
{
        va_list args;

        fputs("error ", stdout);
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        putchar('\n');
        return -1;
}

/* --- QMP --- */

/* Returns the next message, which the caller puts; NULL after having said what failed. */
static json_object *monitor_read(void)
{
        for (;;) {
                char *end = memchr(monitor.buffer, '\n', monitor.n_buffer);
                if (end) {
                        *end = '\0';
                        json_object *message = json_tokener_parse(monitor.buffer);
                        monitor.n_buffer -= (size_t)(end + 1 - monitor.buffer);
                        memmove(monitor.buffer, end + 1, monitor.n_buffer);
                        if (!message)
                                fail("QEMU said something that is not JSON");
                        return message;
                }

                struct pollfd p = { .fd = monitor.fd, .events = POLLIN };
                int r = poll(&p, 1, client_left_msec(monitor.deadline_msec));
                if (r == 0) {
                        fail("QEMU or the guest did not answer within %d s", STEP_MSEC / 1000);
                        return NULL;
                }
                ssize_t n = read(monitor.fd, monitor.buffer + monitor.n_buffer,
                        sizeof(monitor.buffer) - monitor.n_buffer);
                if (n > 0)
                        monitor.n_buffer += (size_t)n;
                else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
                        fail("QEMU closed the monitor");
                        return NULL;
                }
        }
}

static const char *string_at(json_object *o, const char *key)
{
        json_object *value;

        return json_object_object_get_ex(o, key, &value) ? json_object_get_string(value) : "";
}

static int64_t number_at(json_object *o, const char *key)
{
        json_object *value;

        return json_object_object_get_ex(o, key, &value) ? json_object_get_int64(value) : -1;
}

/* The number of one of our devices, or -1. */
static int device_number(const char *id)
{
        int number = -1;

        if (!id || sscanf(id, "floor%d", &number) != 1 || number < 0 || number >= DEVICES_MAX)
                return -1;
        return number;
}

static void settle(const char *id)
{
        int number = device_number(id);

        if (number >= 0 && monitor.waits[number]) {
                monitor.waits[number] = false;
                monitor.n_waits--;
        }
}

/* Takes note of an event. Returns -1 after having said that it is a refusal. */
static int take_event(const char *name, json_object *message, const char *awaited)
{
        json_object *data = NULL, *info = NULL;

        if (strcmp(name, "DEVICE_UNPLUG_GUEST_ERROR") == 0 || strcmp(name, "MEM_UNPLUG_ERROR") == 0)
                return fail("the guest keeps a DIMM: %s", name);
        json_object_object_get_ex(message, "data", &data);
        json_object_object_get_ex(data, "info", &info);
        if (strcmp(name, "DEVICE_DELETED") == 0 && strcmp(awaited, "device_del") == 0)
                settle(string_at(data, "device"));
        if (strcmp(name, "ACPI_DEVICE_OST") != 0 || device_number(string_at(info, "device")) < 0)
                return 0;

        int64_t source = number_at(info, "source"), status = number_at(info, "status");
        if (source == 1 && status != 0)
                return fail("the guest refuses a DIMM, ACPI status %" PRId64, status);
        if (source == 3 && status != 0 && status != 132)
                return fail("the guest keeps a DIMM, ACPI status %" PRId64, status);
        if (source == 1 && strcmp(awaited, "device_add") == 0)
                settle(string_at(info, "device"));
        return 0;
}

static int monitor_write(const char *text, size_t n)
{
        while (n > 0) {
                ssize_t r = write(monitor.fd, text, n);
                if (r < 0 && errno != EAGAIN && errno != EINTR)
                        return fail("QEMU closed the monitor");
                if (r > 0) {
                        text += r;
                        n -= (size_t)r;
                }
        }
        return 0;
}

/* Sends n commands in one write, and returns when each has its reply and no device is waited for any more.
 * The reply of the last is handed over if it is wanted. `awaited` is the command whose effect is to be seen.
 */
static int monitor_call(const char *text, unsigned n, const char *awaited, json_object **ret)
{
        json_object *message, *value;
        int r = monitor_write(text, strlen(text));

        while (r == 0 && (n > 0 || monitor.n_waits > 0)) {
                message = monitor_read();
                if (!message)
                        return -1;
                if (json_object_object_get_ex(message, "event", &value))
                        r = take_event(json_object_get_string(value), message, awaited);
                else if (json_object_object_get_ex(message, "error", &value)) {
                        const char *why = string_at(value, "desc");

                        /* hvd, if it looks on, may be the faster one to tidy up. */
                        if (strcmp(awaited, "object-del") == 0 && strstr(why, "not found"))
                                n--;
                        else
                                r = fail("QEMU: %s", why);
                } else if (json_object_object_get_ex(message, "return", &value)) {
                        n--;
                        if (ret && n == 0)
                                *ret = json_object_get(value);
                }
                json_object_put(message);
        }
        return r;
}

/* --- steps --- */

/* Writes a command for each of n devices. */
static void write_commands(char *text, size_t size, const char *command, unsigned n, uint64_t bytes)
{
        size_t used = 0;

        for (unsigned i = 0; i < n; i++)
                if (strcmp(command, "object-add") == 0)
                        used += (size_t)snprintf(text + used, size - used,
                                "{\"execute\":\"object-add\",\"arguments\":{\"qom-type\":\"memory-backend-"
                                "ram\","
                                "\"id\":\"mem-floor%u\",\"size\":%" PRIu64 "}}\n",
                                i, bytes);
                else if (strcmp(command, "device_add") == 0)
                        used += (size_t)snprintf(text + used, size - used,
                                "{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"pc-dimm\",\"id\":"
                                "\"floor%u\","
                                "\"memdev\":\"mem-floor%u\"}}\n",
                                i, i);
                else
                        used += (size_t)snprintf(text + used, size - used,
                                "{\"execute\":\"%s\",\"arguments\":{\"id\":\"%sfloor%u\"}}\n", command,
                                strcmp(command, "object-del") == 0 ? "mem-" : "", i);
}

/* One command for each of n devices; with `awaits`, until it has had its effect. */
static int devices_call(const char *command, unsigned n, uint64_t bytes, bool awaits, uint64_t *ret_usec)
{
        static char text[DEVICES_MAX * 256];

        write_commands(text, sizeof(text), command, n, bytes);
        for (unsigned i = 0; awaits && i < n; i++)
                monitor.waits[i] = true;
        monitor.n_waits = awaits ? n : 0;
        uint64_t began = now_usec();
        int r = monitor_call(text, n, command, NULL);
        *ret_usec = now_usec() - began;
        return r;
}

static unsigned parse_devices(const char *text)
{
        unsigned long n = strtoul(text, NULL, 10);

        return n >= 1 && n <= DEVICES_MAX ? (unsigned)n : 0;
}

/* Its words are read byte by byte, as no more than one line is due at a time. */
static int watcher_line(void)
{
        char c = '\0';

        while (c != '\n') {
                struct pollfd p = { .fd = watcher.fd, .events = POLLIN };

                if (poll(&p, 1, client_left_msec(monitor.deadline_msec)) <= 0)
                        return fail("the watcher in the guest says nothing within %d s", STEP_MSEC / 1000);
                if (read(watcher.fd, &c, 1) <= 0)
                        return fail("the watcher in the guest has ended");
        }
        return 0;
}

static int watcher_end(void)
{
        int status;

        while (waitpid(watcher.pid, &status, 0) < 0 && errno == EINTR)
                ;
        close(watcher.fd);
        watcher.pid = 0;
        return status == 0 ? 0 : fail("the watcher in the guest did not end well");
}

static int step_watch(char **words)
{
        extern char **environ;
        posix_spawn_file_actions_t actions;
        int ends[2];

        if (watcher.pid > 0 || pipe2(ends, O_CLOEXEC) < 0)
                return fail("watch: one at a time");
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
        int r = posix_spawn(&watcher.pid, words[1], &actions, NULL, words + 1, environ);
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        watcher.fd = ends[0];
        if (r != 0)
                return fail("%s: %s", words[1], strerror(r));
        if (watcher_line() < 0)
                return -1;
        puts("ok");
        return 0;
}

/* Plugs, and waits for the guest's word if there is a way to have it. */
static int do_plug(char **words, bool awaits)
{
        uint64_t bytes = strtoull(words[1], NULL, 10), usec;
        unsigned n = parse_devices(words[2]);

        if (n == 0 || bytes == 0)
                return fail("plug: no such size or number");
        if (devices_call("object-add", n, bytes, false, &usec) < 0)
                return -1;
        uint64_t began = now_usec();
        if (devices_call("device_add", n, 0, awaits && watcher.pid == 0, &usec) < 0)
                return -1;
        if (awaits && watcher.pid > 0) {
                if (watcher_line() < 0)
                        return -1;
                usec = now_usec() - began;
                if (watcher_end() < 0)
                        return -1;
        }
        printf("ok %" PRIu64 "\n", usec);
        return 0;
}

static int step_plug(char **words)
{
        return do_plug(words, true);
}

static int step_add(char **words)
{
        return do_plug(words, false);
}

static int step_unplug(char **words)
{
        unsigned n = parse_devices(words[1]);
        uint64_t usec, ignored;

        if (n == 0)
                return fail("unplug: no such number");
        if (devices_call("device_del", n, 0, true, &usec) < 0 ||
                devices_call("object-del", n, 0, false, &ignored) < 0)
                return -1;
        printf("ok %" PRIu64 "\n", usec);
        return 0;
}

/* False: nothing came. */
static bool monitor_await(int64_t deadline_msec)
{
        struct pollfd p = { .fd = monitor.fd, .events = POLLIN };

        return memchr(monitor.buffer, '\n', monitor.n_buffer) ||
               poll(&p, 1, client_left_msec(deadline_msec)) != 0;
}

/* What a message says of a device that is to leave: NULL if nothing. */
static const char *fate_of(const char *id, json_object *message)
{
        json_object *value, *data = NULL, *info = NULL;

        if (json_object_object_get_ex(message, "error", NULL))
                return "refused";
        if (!json_object_object_get_ex(message, "event", &value))
                return NULL;
        const char *name = json_object_get_string(value);
        json_object_object_get_ex(message, "data", &data);
        json_object_object_get_ex(data, "info", &info);
        if (strcmp(name, "ACPI_DEVICE_OST") == 0)
                /* Status 132: it has begun. */
                return strcmp(string_at(info, "device"), id) == 0 && number_at(info, "source") == 3 &&
                                       number_at(info, "status") != 0 && number_at(info, "status") != 132
                               ? "refused"
                               : NULL;
        if (strcmp(string_at(data, "device"), id) != 0)
                return NULL;
        return strcmp(name, "DEVICE_DELETED") == 0              ? "gone"
               : strcmp(name, "DEVICE_UNPLUG_GUEST_ERROR") == 0 ? "refused"
                                                                : NULL;
}

static int step_eject(char **words)
{
        int64_t deadline_msec = client_now_msec() + atoll(words[1]);
        const char *fate = NULL;
        char text[256];

        snprintf(
                text, sizeof(text), "{\"execute\":\"device_del\",\"arguments\":{\"id\":\"%s\"}}\n", words[2]);
        uint64_t began = now_usec();
        if (monitor_write(text, strlen(text)) < 0)
                return -1;
        while (!fate && monitor_await(deadline_msec)) {
                json_object *message = monitor_read();
                if (!message)
                        return -1;
                fate = fate_of(words[2], message);
                json_object_put(message);
        }
        uint64_t usec = now_usec() - began;
        snprintf(
                text, sizeof(text), "{\"execute\":\"object-del\",\"arguments\":{\"id\":\"%s\"}}\n", words[3]);
        if (fate && strcmp(fate, "gone") == 0 && monitor_call(text, 1, "object-del", NULL) < 0)
                return -1;
        printf("ok %" PRIu64 " %s\n", usec, fate ? fate : "silent");
        return 0;
}

/* A wish, and a look every so often until the guest has followed: there is no event of its end that is not up
 * to a second late. */
static int follow(const char *wish, const char *question, const char *key, int64_t target, unsigned look_msec)
{
        struct timespec pause = { .tv_nsec = look_msec * 1000000L };
        uint64_t began = now_usec();
        int64_t seen = -1;

        monitor.deadline_msec = client_now_msec() + FOLLOW_MSEC;
        if (monitor_call(wish, 1, "", NULL) < 0)
                return -1;
        while (seen != target) {
                json_object *answer = NULL;

                if (client_now_msec() > monitor.deadline_msec)
                        return fail("%" PRId64 " bytes, and not %" PRId64, seen, target);
                nanosleep(&pause, NULL);
                if (monitor_call(question, 1, "", &answer) < 0)
                        return -1;
                seen = key ? number_at(answer, key) : json_object_get_int64(answer);
                json_object_put(answer);
        }
        printf("ok %" PRIu64 "\n", now_usec() - began);
        return 0;
}

static int step_resize(char **words)
{
        char wish[256], question[256];

        snprintf(wish, sizeof(wish),
                "{\"execute\":\"qom-set\",\"arguments\":{\"path\":\"/machine/peripheral/%.60s\",\"property\":"
                "\"requested-size\",\"value\":%s}}\n",
                words[1], words[2]);
        snprintf(question, sizeof(question),
                "{\"execute\":\"qom-get\",\"arguments\":{\"path\":\"/machine/peripheral/%.60s\",\"property\":"
                "\"size\"}}\n",
                words[1]);
        return follow(wish, question, NULL, atoll(words[2]), 5);
}

static int step_balloon(char **words)
{
        char wish[128];

        snprintf(wish, sizeof(wish), "{\"execute\":\"balloon\",\"arguments\":{\"value\":%s}}\n", words[1]);
        return follow(wish, "{\"execute\":\"query-balloon\"}\n", "actual", atoll(words[1]), 20);
}

static int step_plugged(char **words)
{
        json_object *summary = NULL, *devices = NULL;

        if (monitor_call("{\"execute\":\"query-memory-size-summary\"}\n", 1, "", &summary) < 0)
                return -1;
        int r = monitor_call("{\"execute\":\"query-memory-devices\"}\n", 1, "", &devices);
        if (r == 0)
                printf("ok %" PRId64 " %zu\n", number_at(summary, "plugged-memory"),
                        json_object_array_length(devices));
        json_object_put(summary);
        json_object_put(devices);
        return r;
}

static int step_run(char **words)
{
        extern char **environ;
        posix_spawn_file_actions_t actions;
        int status;
        pid_t pid;

        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        posix_spawn_file_actions_addopen(&actions, 1, words[1], O_WRONLY | O_CREAT | O_TRUNC, 0600);
        posix_spawn_file_actions_adddup2(&actions, 1, 2);
        uint64_t began = now_usec();
        int r = posix_spawn(&pid, words[2], &actions, NULL, words + 2, environ);
        if (r == 0)
                while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                        ;
        uint64_t usec = now_usec() - began;
        posix_spawn_file_actions_destroy(&actions);
        if (r != 0)
                return fail("%s: %s", words[2], strerror(r));
        printf("ok %" PRIu64 " %d\n", usec, WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        return 0;
}

static int step_start(char **words)
{
        monitor.started_usec = now_usec();
        puts("ok");
        return 0;
}

static int step_stop(char **words)
{
        printf("ok %" PRIu64 "\n", now_usec() - monitor.started_usec);
        return 0;
}

static const struct {
        const char *name;
        unsigned n_words_min;
        int (*run)(char **words);
} steps[] = {
        { "plug", 3, step_plug },
        { "add", 3, step_add },
        { "unplug", 2, step_unplug },
        { "eject", 4, step_eject },
        { "resize", 3, step_resize },
        { "balloon", 2, step_balloon },
        { "plugged", 1, step_plugged },
        { "watch", 2, step_watch },
        { "run", 3, step_run },
        { "start", 1, step_start },
        { "stop", 1, step_stop },
};

static int do_step(char *line)
{
        char *words[WORDS_MAX + 1] = { NULL };
        unsigned n = 0;

        for (char *word; n < WORDS_MAX && (word = strsep(&line, "\t\n"));)
                if (*word)
                        words[n++] = word;
        for (size_t i = 0; n > 0 && i < sizeof(steps) / sizeof(steps[0]); i++)
                if (strcmp(words[0], steps[i].name) == 0 && n >= steps[i].n_words_min) {
                        monitor.deadline_msec = client_now_msec() + STEP_MSEC;
                        return steps[i].run(words);
                }
        return fail("not a step: %s", n > 0 ? words[0] : "");
}

int main(int argc, char **argv)
{
        char *line = NULL;
        size_t size = 0;

        if (argc != 2) {
                fprintf(stderr, "usage: bench-floor MONITOR-SOCKET\n");
                return 2;
        }
        signal(SIGPIPE, SIG_IGN);
        setvbuf(stdout, NULL, _IOLBF, 0);
        monitor.deadline_msec = client_now_msec() + STEP_MSEC;
        monitor.fd = client_connect(argv[1]);
        if (monitor.fd < 0) {
                fprintf(stderr, "bench-floor: %s: %s\n", argv[1], strerror(-monitor.fd));
                return 1;
        }
        json_object *greeting = monitor_read();
        if (!greeting || monitor_call("{\"execute\":\"qmp_capabilities\"}\n", 1, "", NULL) < 0)
                return 1;
        json_object_put(greeting);

        /* After an error the steps that were sent along with it have lost their ground. */
        int r = 0;
        while (r == 0 && getline(&line, &size, stdin) > 0)
                r = do_step(line);
        free(line);
        return r == 0 ? 0 : 1;
}
