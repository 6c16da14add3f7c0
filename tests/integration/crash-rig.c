/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/integration/crash-rig.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"

#define NAME      "org.opendlpar.hvd1"
#define ROOT      "/org/opendlpar/hvd1"
#define CALL_USEC (10 * USEC_PER_SEC)
#define PATIENCE  (60 * USEC_PER_SEC)

static void kill_child(pid_t *pid)
{
        if (*pid <= 0)
                return;
        kill(*pid, SIGKILL);
        waitpid(*pid, NULL, 0);
        *pid = 0;
}

static void remove_folder(struct rig *r)
{
        char command[128];

        snprintf(command, sizeof(command), "rm -rf -- '%s'", r->folder);
        if (r->folder[0] && system(command) != 0)
                fprintf(stderr, "%s cannot be removed\n", r->folder);
}

void rig_die(struct rig *r, const char *format, ...)
{
        char command[128];
        va_list ap;

        snprintf(command, sizeof(command), "tail -n 60 '%s/hvd.log' >&2", r->folder);
        fprintf(stderr, "--- hvd's log, the end:\n");
        if (system(command) != 0)
                fprintf(stderr, "(none)\n");
        va_start(ap, format);
        fprintf(stderr, "--- FAILED: ");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        vfprintf(stderr, format, ap);
#pragma GCC diagnostic pop
        fprintf(stderr, "\n");
        va_end(ap);
        kill_child(&r->hvd_pid);
        kill_child(&r->bus_pid);
        remove_folder(r);
        exit(1);
}

static const char *path_in(struct rig *r, const char *name)
{
        static char path[4][128];
        static unsigned n;

        n = (n + 1) % 4;
        snprintf(path[n], sizeof(path[n]), "%s/%s", r->folder, name);
        return path[n];
}

static void write_file(struct rig *r, const char *name, const char *text)
{
        FILE *f = fopen(path_in(r, name), "we");

        if (!f || fputs(text, f) < 0 || fclose(f) != 0)
                rig_die(r, "%s cannot be written", name);
}

/* environment: "NAME=VALUE", up to a NULL. It ends with us. */
static pid_t spawn(struct rig *r, const char *log, char *const argv[], char *const environment[])
{
        pid_t parent = getpid(), pid = fork();

        if (pid < 0)
                rig_die(r, "fork: %s", strerrordesc_np(errno));
        if (pid > 0)
                return pid;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(path_in(r, log), O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (getppid() != parent || fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
                _exit(127);
        for (; environment && *environment; environment++)
                putenv(*environment);
        execvp(argv[0], argv);
        _exit(127);
}

static void start_bus(struct rig *r)
{
        char text[1024], config[160], address[160];

        snprintf(text, sizeof(text),
                "<busconfig><type>session</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth>"
                "<policy context=\"default\"><allow user=\"*\"/><allow send_destination=\"*\" "
                "eavesdrop=\"true\"/><allow receive_sender=\"*\"/><allow own=\"*\"/></policy></busconfig>\n",
                r->folder);
        write_file(r, "bus.conf", text);
        snprintf(config, sizeof(config), "--config-file=%s/bus.conf", r->folder);
        snprintf(address, sizeof(address), "unix:path=%s/bus", r->folder);
        char *argv[] = { (char[]) { "dbus-daemon" }, (char[]) { "--nofork" }, (char[]) { "--nopidfile" },
                (char[]) { "--nosyslog" }, config, NULL };
        r->bus_pid = spawn(r, "bus.log", argv, NULL);
        if (!FAKE_RUN_UNTIL(r->event, access(path_in(r, "bus"), F_OK) == 0, PATIENCE) ||
                sd_bus_new(&r->bus) < 0 || sd_bus_set_address(r->bus, address) < 0 ||
                sd_bus_set_bus_client(r->bus, true) < 0 || sd_bus_start(r->bus) < 0 ||
                sd_bus_set_method_call_timeout(r->bus, CALL_USEC) < 0)
                rig_die(r, "there is no bus");
}

void rig_init(struct rig *r, const char *build)
{
        *r = (struct rig) { .build = build, .folder = "/tmp/odc-XXXXXX" };
        if (!mkdtemp(r->folder) || sd_event_new(&r->event) < 0)
                rig_die(r, "no folder, or no event loop");
        write_file(r, "hvd.conf",
                "[libvirt]\nenabled = no\n[hvd]\nlog_level = debug\npool_total = 64T\njobs_kept = 4096\n");
        start_bus(r);
}

void rig_done(struct rig *r)
{
        rig_drop_machines(r);
        kill_child(&r->hvd_pid);
        sd_bus_flush_close_unref(r->bus);
        kill_child(&r->bus_pid);
        sd_event_unref(r->event);
        remove_folder(r);
}

void rig_make_machines(struct rig *r, size_t n, size_t plans_for)
{
        char qmp[32], channel[32];

        rig_drop_machines(r);
        r->machines = calloc(n, sizeof(*r->machines));
        r->plans = calloc(n, sizeof(*r->plans));
        if (!r->machines || !r->plans)
                abort();
        for (r->n_machines = 0; r->n_machines < n; r->n_machines++) {
                size_t i = r->n_machines;

                snprintf(qmp, sizeof(qmp), "qmp%zu", i);
                snprintf(channel, sizeof(channel), "channel%zu", i);
                r->machines[i] = machine_new(
                        r->event, path_in(r, qmp), path_in(r, channel), &r->plans[i - i % plans_for]);
        }
}

void rig_drop_machines(struct rig *r)
{
        while (r->n_machines > 0)
                machine_free(r->machines[--r->n_machines]);
        free(steal_pointer(r->machines));
        free(steal_pointer(r->plans));
}

static bool answers(struct rig *r)
{
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        char *version = NULL;

        int k = sd_bus_get_property_string(r->bus, NAME, ROOT, NAME ".Manager", "Version", &error, &version);
        free(version);
        return k >= 0;
}

bool rig_start_hvd(struct rig *r, unsigned long at, const char *from, bool fresh)
{
        char program[512], address[160], config[128], state[128], command[160];
        char fault_at[64], fault_from[96], fault_log[160];
        int signal_number;

        snprintf(command, sizeof(command), "rm -rf -- '%s/state' '%s/points' '%s/hvd.log'",
                fresh ? r->folder : "/nonexistent", r->folder, r->folder);
        if (system(command) != 0)
                rig_die(r, "the state cannot be removed");
        snprintf(program, sizeof(program), "%s/hvd/hvd", r->build);
        snprintf(address, sizeof(address), "unix:path=%s/bus", r->folder);
        snprintf(config, sizeof(config), "%s/hvd.conf", r->folder);
        snprintf(state, sizeof(state), "%s/state", r->folder);
        snprintf(fault_at, sizeof(fault_at), "OPENDLPAR_FAULT_AT=%lu", at);
        snprintf(fault_log, sizeof(fault_log), "OPENDLPAR_FAULT_LOG=%s/points", r->folder);
        snprintf(fault_from, sizeof(fault_from), "OPENDLPAR_FAULT_FROM=%s", from ? from : "");
        char *argv[] = { program, (char[]) { "--bus" }, address, (char[]) { "--config" }, config,
                (char[]) { "--state-dir" }, state, NULL };
        char *environment[] = { fault_at, fault_log, from ? fault_from : NULL, NULL };
        r->hvd_pid = spawn(r, "hvd.log", argv, environment);
        uint64_t end = now_monotonic_usec() + PATIENCE;
        while (!answers(r)) {
                if (rig_hvd_ended(r, &signal_number)) {
                        if (at == 0)
                                rig_die(r, "hvd does not start");
                        return false;
                }
                if (now_monotonic_usec() > end)
                        rig_die(r, "hvd does not answer");
                if (sd_event_run(r->event, 10 * USEC_PER_MSEC) < 0)
                        abort();
        }
        return true;
}

bool rig_hvd_ended(struct rig *r, int *ret_signal)
{
        int status;

        if (r->hvd_pid > 0 && waitpid(r->hvd_pid, &status, WNOHANG) == 0)
                return false;
        if (r->hvd_pid > 0)
                r->hvd_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
        r->hvd_pid = 0;
        *ret_signal = r->hvd_signal;
        return true;
}

void rig_stop_hvd(struct rig *r)
{
        int status = -1;

        kill(r->hvd_pid, SIGTERM);
        if (!FAKE_RUN_UNTIL(r->event, waitpid(r->hvd_pid, &status, WNOHANG) != 0, PATIENCE))
                rig_die(r, "hvd does not end");
        r->hvd_pid = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                rig_die(r, "hvd ends with status 0x%x", status);
}

void rig_kill_hvd(struct rig *r)
{
        kill_child(&r->hvd_pid);
}

unsigned long rig_points(struct rig *r, char *ret_last, size_t size)
{
        FILE *f = fopen(path_in(r, "points"), "re");
        char line[256];
        unsigned long n = 0;

        snprintf(ret_last, size, "none");
        while (f && fgets(line, sizeof(line), f)) {
                char *words = strchr(line, ' ');

                n++;
                line[strcspn(line, "\n")] = '\0';
                snprintf(ret_last, size, "%s", words ? words + 1 : "");
        }
        if (f)
                fclose(f);
        return n;
}

bool rig_define(struct rig *r)
{
        for (size_t i = 0; i < r->n_machines; i++) {
                _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
                char name[16], qmp[32], channel[32];
                int signal_number;

                snprintf(name, sizeof(name), "p%zu", i);
                snprintf(qmp, sizeof(qmp), "qmp%zu", i);
                snprintf(channel, sizeof(channel), "channel%zu", i);
                if (sd_bus_call_method(r->bus, NAME, ROOT, NAME ".Manager", "AddPartition", &error, NULL,
                            "sa{sv}", name, 2, "qmp", "s", path_in(r, qmp), "channel", "s",
                            path_in(r, channel)) < 0 &&
                        !strstr(error.message ? error.message : "", "already defined")) {
                        if (!FAKE_RUN_UNTIL(r->event, rig_hvd_ended(r, &signal_number), USEC_PER_SEC))
                                rig_die(r, "AddPartition: %s", error.message);
                        return false;
                }
        }
        return true;
}

static uint64_t get(struct rig *r, const char *path, const char *name, char type, bool *ok)
{
        uint64_t v = 0;

        *ok &= sd_bus_get_property_trivial(r->bus, NAME, path, NAME ".Partition", name, NULL, type, &v) >= 0;
        return type == 'u' ? (uint32_t)v : v;
}

static bool is(struct rig *r, const char *path, const char *name, const char *wanted)
{
        _cleanup_free_ char *v = NULL;

        return sd_bus_get_property_string(r->bus, NAME, path, NAME ".Partition", name, NULL, &v) >= 0 &&
               strcmp(v, wanted) == 0;
}

bool rig_look(struct rig *r, size_t machine, struct rig_view *ret)
{
        char path[64];
        bool ok = true;

        snprintf(path, sizeof(path), ROOT "/partition/p%zu", machine);
        ret->running = is(r, path, "State", "running");
        ret->ready = is(r, path, "AgentState", "ready");
        ret->plugged_bytes = get(r, path, "PluggedBytes", 't', &ok);
        ret->current_bytes = get(r, path, "CurrentBytes", 't', &ok);
        ret->requested_bytes = get(r, path, "RequestedBytes", 't', &ok);
        ret->pending_bytes = (int64_t)get(r, path, "PendingBytes", 'x', &ok);
        ret->block_bytes = get(r, path, "BlockBytes", 't', &ok);
        return ok;
}

const char *rig_differs(struct rig *r, size_t machine)
{
        static char why[512];
        struct machine *m = r->machines[machine];
        uint64_t plugged = machine_plugged_bytes(m);
        struct rig_view v;

        if (machine_complaint(m))
                rig_die(r, "p%zu: %s", machine, machine_complaint(m));
        if (machine_flaw(m))
                snprintf(why, sizeof(why), "%s", machine_flaw(m));
        else if (!rig_look(r, machine, &v))
                snprintf(why, sizeof(why), "hvd says nothing of p%zu", machine);
        else if (!v.running || !v.ready || v.block_bytes == 0)
                snprintf(why, sizeof(why), "hvd has no %s", v.running ? "session with the guest" : "QEMU");
        else if (v.plugged_bytes != plugged || v.current_bytes != MACHINE_BASE + plugged ||
                 v.requested_bytes != v.current_bytes || v.pending_bytes != 0)
                snprintf(why, sizeof(why),
                        "QEMU has %llu MiB plugged; by hvd it is %llu, current %llu, requested %llu, pending "
                        "%lld",
                        plugged / 1048576ULL, v.plugged_bytes / 1048576ULL, v.current_bytes / 1048576ULL,
                        v.requested_bytes / 1048576ULL, (long long)v.pending_bytes / 1048576LL);
        else
                return NULL;
        return why;
}

uint32_t rig_start_job(struct rig *r, const char *kind, size_t machine, uint64_t bytes, uint64_t wait_usec)
{
        _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
        _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
        char path[64], from[16], to[16];
        const char *job;
        int k;

        snprintf(path, sizeof(path), ROOT "/partition/p%zu", machine);
        snprintf(from, sizeof(from), "p%zu", machine);
        snprintf(to, sizeof(to), "p%zu", machine + 1);
        if (strcmp(kind, "MoveMemory") == 0)
                k = sd_bus_call_method(r->bus, NAME, ROOT, NAME ".Manager", kind, &error, &reply, "ssta{sv}",
                        from, to, bytes, 1, "wait-usec", "t", wait_usec);
        else
                k = sd_bus_call_method(r->bus, NAME, path, NAME ".Partition", kind, &error, &reply, "ta{sv}",
                        bytes, 1, "wait-usec", "t", wait_usec);
        if (k < 0 || sd_bus_message_read(reply, "o", &job) < 0)
                return 0;
        return (uint32_t)strtoul(strrchr(job, '/') + 1, NULL, 10);
}

bool rig_stored_job(struct rig *r, uint32_t id, struct rig_job *ret)
{
        sqlite3 *db = NULL;
        sqlite3_stmt *st = NULL;
        bool found = false;

        if (sqlite3_open_v2(path_in(r, "state/hvd.sqlite"), &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK ||
                sqlite3_busy_timeout(db, 5000) != SQLITE_OK ||
                sqlite3_prepare_v2(db,
                        "SELECT state, reasons, requested_bytes, done_bytes, ended_usec FROM jobs "
                        "WHERE id = ?1",
                        -1, &st, NULL) != SQLITE_OK)
                rig_die(r, "the store cannot be read: %s", sqlite3_errmsg(db));
        sqlite3_bind_int64(st, 1, id);
        if (sqlite3_step(st) == SQLITE_ROW) {
                snprintf(ret->state, sizeof(ret->state), "%s", (const char *)sqlite3_column_text(st, 0));
                snprintf(ret->reasons, sizeof(ret->reasons), "%s", (const char *)sqlite3_column_text(st, 1));
                ret->requested_bytes = (uint64_t)sqlite3_column_int64(st, 2);
                ret->done_bytes = (uint64_t)sqlite3_column_int64(st, 3);
                ret->over = sqlite3_column_int64(st, 4) != 0;
                found = true;
        }
        sqlite3_finalize(st);
        sqlite3_close(db);
        return found;
}
