/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Runs hooks: one at a time, in the order of their names (UNDO: the other way round), each in a process group
 * of its own that does not outlive it, with a limit of time, and with an environment that is made here.
 *
 * CHECK and PRE end at the first hook that does not say yes: one that refuses, hangs or crashes. All other
 * phases run every hook, whatever the others do. A file that may not be run is passed over and told of;
 * where that cannot be found out, it has failed.
 *
 * The state file remembers what PRE has begun: "OPERATION BYTES JOB NODE TOTAL", TOTAL being the guest's
 * memory then, and a line for each hook whose PRE was started. POST and UNDO end that. UNDO is for these
 * hooks alone; SETTLE, for one whose host is gone, becomes POST if the memory has changed and else UNDO. */

#include "hooks/runner.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "common/text.h"
#include "hooks/folder.h"
#include "hooks/output.h"

/* For a killed hook to end: longer than that only the kernel takes. */
#define KILL_USEC  USEC_PER_SEC
#define STATE_MAX  8192U
#define ENV_MAX    20U
#define ENV_LENGTH 320U
/* A smaller change of MemTotal is no block. */
#define BLOCK_MIN_BYTES (64 * MIB)

struct remembered {
        bool any;
        char operation[16];
        uint64_t bytes, job, total_bytes;
        int64_t node;
        char text[STATE_MAX]; /* the names point into it */
        char *names[HOOKS_FILES_MAX];
        size_t n;
};

struct run {
        const struct runner_config *config;
        struct hooks_request request;
        const char *folder;
        struct hooks_answer *answer;
        struct remembered before;
        uint64_t until_usec; /* for all of them */
        bool abandoned;
};

/* --- memory --- */

/* Of /proc/meminfo, in bytes; 0 if it is not there. */
static uint64_t meminfo(const char *key)
{
        FILE *f = fopen("/proc/meminfo", "re");
        char line[128];
        unsigned long long kib = 0;
        size_t length = strlen(key);

        while (f && kib == 0 && fgets(line, sizeof(line), f))
                if (strncmp(line, key, length) == 0 && line[length] == ':')
                        kib = strtoull(line + length + 1, NULL, 10);
        if (f)
                fclose(f);
        return kib * 1024;
}

/* --- the state file --- */

static int write_file(const char *path, int flags, const char *text)
{
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | flags, 0600);
        size_t length = strlen(text);

        if (fd < 0)
                return -errno;
        ssize_t n = write(fd, text, length);
        return n < 0 ? -errno : (size_t)n == length ? 0 : -ENOSPC;
}

static bool remember_text(struct run *run, int flags, const char *text)
{
        if (!run->config->state)
                return true;
        int r = write_file(run->config->state, flags, text);
        if (r < 0)
                log_error("%s cannot be written: %s", run->config->state, strerror(-r));
        return r >= 0;
}

static bool remember_begin(struct run *run)
{
        const struct hooks_request *q = &run->request;
        char line[160];

        snprintf(line, sizeof(line), "%s %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRIu64 "\n",
                hook_operation_to_string(q->call.operation), q->bytes, q->call.job,
                q->call.has_node ? (int64_t)q->call.node : -1, meminfo("MemTotal"));
        return remember_text(run, O_TRUNC, line);
}

static bool remember(struct run *run, const char *name)
{
        char line[PROTO_HOOK_NAME_MAX + 2];

        snprintf(line, sizeof(line), "%s\n", name);
        return remember_text(run, O_APPEND, line);
}

static void forget(struct run *run)
{
        if (run->config->state)
                (void)unlink(run->config->state);
}

static void recall(struct run *run)
{
        struct remembered *b = &run->before;
        char *rest, *line;

        if (!run->config->state)
                return;
        _cleanup_close_ int fd = open(run->config->state, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, b->text, sizeof(b->text) - 1);
        if (n <= 0)
                return;
        line = strtok_r(b->text, "\n", &rest);
        if (!line || sscanf(line, "%15s %" SCNu64 " %" SCNu64 " %" SCNd64 " %" SCNu64, b->operation,
                             &b->bytes, &b->job, &b->node, &b->total_bytes) != 5)
                return;
        b->any = true;
        while (b->n < HOOKS_FILES_MAX && (line = strtok_r(NULL, "\n", &rest)))
                b->names[b->n++] = line;
}

/* --- what there is to say --- */

static void add_result(struct run *run, const char *name, enum error_code code, const char *message)
{
        struct hooks_answer *a = run->answer;
        struct hooks_result *r = &a->results[MIN(a->n_results, HOOKS_RESULTS_MAX - 1)];
        bool decides = code != ERROR_HOOK_SKIPPED;
        char text[PROTO_REASON_MAX + 1];

        text_clean(text, sizeof(text), message);
        log_notice(
                "Hook %s/%s, %s: %s", run->folder, name, hook_phase_to_string(run->request.call.phase), text);
        if (a->n_results == HOOKS_RESULTS_MAX && !decides)
                return;
        if (a->n_results < HOOKS_RESULTS_MAX)
                a->n_results++;
        snprintf(r->name, sizeof(r->name), "%s", name);
        r->code = code;
        memcpy(r->message, text, sizeof(text));
        a->complete &= !decides;
}

/* --- one hook --- */

struct environment {
        char text[ENV_MAX][ENV_LENGTH];
        char *pointers[ENV_MAX + 1];
        size_t n;
};

static void _printf_(2, 3) set_variable(struct environment *e, const char *format, ...)
{
        va_list ap;

        if (e->n == ENV_MAX)
                return;
        va_start(ap, format);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        vsnprintf(e->text[e->n], ENV_LENGTH, format, ap);
#pragma GCC diagnostic pop
        va_end(ap);
        e->pointers[e->n] = e->text[e->n];
        e->n++;
}

static void make_environment(const struct run *run, struct environment *e)
{
        const struct hooks_request *q = &run->request;
        const struct hook_call *call = &q->call;
        bool ends = call->phase == HOOK_POST || call->phase == HOOK_UNDO || call->phase == HOOK_END;

        set_variable(e, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        set_variable(e, "HOME=/");
        set_variable(e, "LANG=C.UTF-8");
        set_variable(e, "OPENDLPAR_PHASE=%s", hook_phase_to_string(call->phase));
        set_variable(e, "OPENDLPAR_OPERATION=%s", hook_operation_to_string(call->operation));
        set_variable(e, "OPENDLPAR_BYTES=%" PRIu64, q->bytes);
        set_variable(e, "OPENDLPAR_JOB=%" PRIu64, call->job);
        set_variable(e, "OPENDLPAR_REASON=%s", call->reason);
        set_variable(e, "OPENDLPAR_LIMIT_SECONDS=%" PRIu64, q->limit_usec / USEC_PER_SEC);
        if (call->has_node)
                set_variable(e, "OPENDLPAR_NODE=%u", call->node);
        if (ends) {
                set_variable(e, "OPENDLPAR_DONE_BYTES=%" PRIu64, call->done_bytes);
                set_variable(e, "OPENDLPAR_OUTCOME=%s", hook_outcome_to_string(call->outcome));
        }
        if (q->partition[0])
                set_variable(e, "OPENDLPAR_PARTITION=%s", q->partition);
        if (run->config->tells_memory) {
                set_variable(e, "OPENDLPAR_MEMORY_BYTES=%" PRIu64, meminfo("MemTotal"));
                set_variable(e, "OPENDLPAR_AVAILABLE_BYTES=%" PRIu64, meminfo("MemAvailable"));
        }
}

/* By the system call: posix_spawn() leaves two signals ignored that are the C library's own, and signal()
 * will not touch them (glibc 2.36). All zero is SIG_DFL on every architecture. */
static void reset_signals(void)
{
        const char action[64] = { 0 };

        for (int s = 1; s < NSIG; s++)
                (void)syscall(SYS_rt_sigaction, s, action, NULL, (size_t)8);
}

static _Noreturn void become(const char *path, struct environment *e, int output, int report)
{
        char *argv[] = { (char *)path, NULL };
        sigset_t none;
        int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

        setsid();
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        reset_signals();
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        umask(022);
        if (null >= 0 && chdir("/") >= 0 && dup2(null, STDIN_FILENO) >= 0 &&
                dup2(output, STDOUT_FILENO) >= 0 && dup2(output, STDERR_FILENO) >= 0)
                execve(path, argv, e->pointers); /* all other descriptors are closed by that, see main() */
        int error = errno;
        if (write(report, &error, sizeof(error)) < 0)
                _exit(126);
        _exit(127);
}

static void kill_group(pid_t pid)
{
        kill(-pid, SIGKILL);
        kill(pid, SIGKILL); /* before its setsid() */
}

/* Why the hooks are to stop: NONE, CANCELLED, or INTERRUPTED as nobody is there any more. */
static enum error_code look_at_asker(struct run *run, short request_events, short answer_events)
{
        struct hooks_request message;

        if (answer_events & (POLLERR | POLLHUP))
                return ERROR_INTERRUPTED;
        if (request_events & POLLIN) {
                int r = runner_receive(run->config->request_fd, &message);
                if (r == 0)
                        return ERROR_INTERRUPTED;
                if (r > 0 && message.kind == HOOKS_CANCEL && message.id == run->request.id)
                        return ERROR_CANCELLED;
        } else if (request_events & (POLLERR | POLLHUP))
                return ERROR_INTERRUPTED;
        return ERROR_NONE;
}

/* Waits for the hook's end: ERROR_NONE and its status; or DEADLINE, BUSY (its own limit), CANCELLED or
 * INTERRUPTED, and it is to be killed. A cancel's own message is all that is read meanwhile: the host of
 * notifications writes the next one before this one is through. */
static enum error_code await(struct run *run, pid_t pid, int output, struct first_line *line, siginfo_t *ret)
{
        uint64_t limit = now_monotonic_usec() + run->request.limit_usec, until = MIN(limit, run->until_usec);
        bool listens = run->request.id != 0, writes = true;

        for (;;) {
                struct pollfd p[] = {
                        { .fd = run->config->child_fd, .events = POLLIN },
                        { .fd = writes ? output : -1, .events = POLLIN },
                        { .fd = listens ? run->config->request_fd : -1, .events = POLLIN },
                        { .fd = run->config->answer_fd, .events = 0 },
                };
                uint64_t now = now_monotonic_usec();
                struct signalfd_siginfo signal_info;

                ret->si_pid = 0;
                if (waitid(P_PID, (id_t)pid, ret, WEXITED | WNOHANG | WNOWAIT) >= 0 && ret->si_pid == pid)
                        return ERROR_NONE;
                if (now >= until)
                        return now >= limit ? ERROR_BUSY : ERROR_DEADLINE;
                uint64_t left = (until - now) / USEC_PER_MSEC + 1;
                if (poll(p, ARRAY_SIZE(p), (int)MIN(left, 60000ULL)) < 0 && errno != EINTR)
                        return ERROR_INTERRUPTED;
                while (read(run->config->child_fd, &signal_info, sizeof(signal_info)) > 0)
                        ;
                if (p[1].revents)
                        writes = output_drain(output, line);
                enum error_code why = look_at_asker(run, p[2].revents, p[3].revents);
                if (why != ERROR_NONE)
                        return why;
        }
}

/* The whole group goes before its leader is reaped, whose number is the group's. */
static void end_group(pid_t pid)
{
        uint64_t until = now_monotonic_usec() + KILL_USEC;

        kill_group(pid);
        while (waitpid(pid, NULL, WNOHANG) == 0 && now_monotonic_usec() < until)
                poll(NULL, 0, 1);
}

static void explain_end(
        struct run *run, const char *name, const siginfo_t *info, const struct first_line *line)
{
        enum hook_phase phase = run->request.call.phase;
        bool decides = phase == HOOK_CHECK || phase == HOOK_PRE;
        char text[PROTO_REASON_MAX + 1];

        if (info->si_code == CLD_EXITED && info->si_status == 0)
                return;
        if (info->si_code == CLD_EXITED && line->length > 0)
                add_result(run, name, decides ? ERROR_HOOK_REFUSED : ERROR_HOOK_FAILED, line->text);
        else if (info->si_code == CLD_EXITED) {
                snprintf(text, sizeof(text), "it exited with %d and did not say why", info->si_status);
                add_result(run, name, decides ? ERROR_HOOK_REFUSED : ERROR_HOOK_FAILED, text);
        } else {
                snprintf(text, sizeof(text), "it crashed: signal %d (SIG%s)", info->si_status,
                        sigabbrev_np(info->si_status) ?: "?");
                add_result(run, name, ERROR_HOOK_FAILED, text);
        }
}

static void explain_stop(struct run *run, const char *name, enum error_code why)
{
        char text[PROTO_REASON_MAX + 1];

        if (why == ERROR_INTERRUPTED) {
                run->abandoned = true;
                return;
        }
        if (why == ERROR_BUSY)
                snprintf(text, sizeof(text), "it did not end within %.1f s and was killed",
                        (double)run->request.limit_usec / (double)USEC_PER_SEC);
        else {
                run->answer->stopped = why;
                snprintf(text, sizeof(text), "it was killed: %s",
                        why == ERROR_CANCELLED ? "the operation is to end" : "time was up");
        }
        add_result(run, name, ERROR_HOOK_FAILED, text);
}

/* One that vanished is no hook any more; an interpreter that is missing is a mistake. */
static void explain_exec(struct run *run, const char *name, const char *path, int error)
{
        char text[PROTO_REASON_MAX + 1];

        if (access(path, F_OK) < 0 && errno == ENOENT) {
                add_result(run, name, ERROR_HOOK_SKIPPED, "not run: it vanished");
                return;
        }
        snprintf(text, sizeof(text), "it cannot be started: %s%s", strerrordesc_np(error),
                error == ENOENT ? " (its interpreter?)" : "");
        add_result(run, name, ERROR_HOOK_FAILED, text);
}

static void run_hook(struct run *run, const char *name, const char *path)
{
        struct environment environment = { 0 };
        struct first_line line = { 0 };
        int output[2] = { -1, -1 }, report[2] = { -1, -1 }, error = 0;
        siginfo_t info = { 0 };

        make_environment(run, &environment);
        if (pipe2(output, O_CLOEXEC) < 0 || pipe2(report, O_CLOEXEC) < 0 ||
                fcntl(output[0], F_SETFL, O_NONBLOCK) < 0 || fcntl(report[0], F_SETFL, O_NONBLOCK) < 0) {
                error = errno;
                goto done;
        }
        pid_t pid = fork();
        if (pid == 0)
                become(path, &environment, output[1], report[1]);
        error = pid < 0 ? errno : 0;
        output[1] = close_fd(output[1]);
        report[1] = close_fd(report[1]);
        if (error == 0) {
                enum error_code why = await(run, pid, output[0], &line, &info);
                end_group(pid);
                /* There is something if execve() failed. */
                if (read(report[0], &error, sizeof(error)) != sizeof(error))
                        error = 0;
                (void)output_drain(output[0], &line);
                if (error == 0 && why == ERROR_NONE)
                        explain_end(run, name, &info, &line);
                else if (error == 0)
                        explain_stop(run, name, why);
        }
done:
        if (error > 0)
                explain_exec(run, name, path, error);
        close_fd(output[0]);
        close_fd(output[1]);
        close_fd(report[0]);
        close_fd(report[1]);
}

/* --- all of them --- */

static bool goes_on(const struct run *run)
{
        enum hook_phase phase = run->request.call.phase;
        bool decides = phase == HOOK_CHECK || phase == HOOK_PRE;

        return !run->abandoned && run->answer->stopped == ERROR_NONE && (run->answer->complete || !decides);
}

static void try_hook(struct run *run, const char *name)
{
        _cleanup_free_ char *path = NULL;
        struct error error;

        if (now_monotonic_usec() >= run->until_usec) {
                run->answer->stopped = ERROR_DEADLINE;
                add_result(run, name, ERROR_HOOK_FAILED, "time was up before it could be run");
                return;
        }
        if (folder_check(run->folder, name, &path, &error) < 0) {
                add_result(run, name, error.code, error.message);
                return;
        }
        if (run->request.call.phase == HOOK_PRE && !remember(run, name)) {
                add_result(
                        run, name, ERROR_HOOK_FAILED, "not begun, as it could not be undone: no state file");
                return;
        }
        run_hook(run, name, path);
}

static void run_folder(struct run *run)
{
        char **names = NULL;
        size_t n = 0;
        struct error error;

        int r = folder_list(run->folder, &names, &n);
        if (r < 0 || n == 0) {
                if (r < 0) {
                        error_set_errno(&error, ERROR_HOOK_FAILED, r, "not run: %s", run->folder);
                        add_result(run, "", ERROR_HOOK_FAILED, error.message);
                }
                folder_names_free(names, n);
                return;
        }
        if (folder_check_itself(run->folder, &error) < 0)
                add_result(run, "", error.code, error.message);
        else
                for (size_t i = 0; i < n && goes_on(run); i++)
                        try_hook(run, names[i]);
        folder_names_free(names, n);
}

static void run_undo(struct run *run)
{
        struct error error;

        if (run->before.n > 0 && folder_check_itself(run->folder, &error) < 0) {
                add_result(run, "", error.code, error.message);
                return;
        }
        for (size_t i = run->before.n; i-- > 0 && goes_on(run);)
                try_hook(run, run->before.names[i]);
}

/* The request that the host would have made, had it stayed. */
static void settle(struct run *run)
{
        struct hooks_request *q = &run->request;
        const struct remembered *b = &run->before;
        uint64_t now = meminfo("MemTotal");
        uint64_t changed = now > b->total_bytes ? now - b->total_bytes : b->total_bytes - now;

        q->bytes = b->bytes;
        q->call = (struct hook_call) {
                .phase = changed >= BLOCK_MIN_BYTES ? HOOK_POST : HOOK_UNDO,
                .operation = hook_operation_from_string(b->operation),
                .has_node = b->node >= 0,
                .node = b->node >= 0 ? (unsigned)b->node : 0,
                .job = b->job,
                .done_bytes = changed >= BLOCK_MIN_BYTES ? changed : 0,
        };
        snprintf(q->call.reason, sizeof(q->call.reason), "the host went away");
}

/* It was sent again, and has been heard: the state file went with it. */
static bool is_over(const struct run *run)
{
        return run->request.call.phase == HOOK_POST && run->config->state && !run->before.any;
}

/* What another job began and nobody ended. */
static bool owes_before(const struct run *run)
{
        return run->request.call.phase == HOOK_PRE && run->before.any &&
               run->before.job != run->request.call.job;
}

bool runner_run(
        const struct runner_config *config, const struct hooks_request *request, struct hooks_answer *ret)
{
        struct run run = {
                .config = config, .request = *request, .answer = ret, .until_usec = USEC_INFINITY
        };

        run.folder = run.request.folder[0] ? run.request.folder : config->folder;
        *ret = (struct hooks_answer) {
                .magic = HOOKS_MAGIC, .size = sizeof(*ret), .id = request->id, .complete = true
        };
        if (request->total_usec > 0)
                run.until_usec = now_monotonic_usec() + request->total_usec;
        recall(&run);
        if (request->call.phase == HOOK_SETTLE) {
                if (!run.before.any || hook_operation_from_string(run.before.operation) < 0)
                        return true;
                settle(&run);
        }
        if (is_over(&run))
                return true;
        if (owes_before(&run)) {
                struct hooks_request debt = *request;

                debt.call.phase = HOOK_SETTLE;
                if (!runner_run(config, &debt, ret))
                        return false;
                if (ret->stopped != ERROR_NONE)
                        return true;
                ret->complete = true; /* as for that job it does not matter */
                ret->n_results = 0;
        }
        if (run.request.call.phase == HOOK_PRE && !remember_begin(&run)) {
                add_result(
                        &run, "", ERROR_HOOK_FAILED, "not begun, as it could not be undone: no state file");
                return true;
        }
        if (run.request.call.phase == HOOK_UNDO)
                run_undo(&run);
        else
                run_folder(&run);
        if (!run.abandoned && (run.request.call.phase == HOOK_POST || run.request.call.phase == HOOK_UNDO))
                forget(&run);
        return !run.abandoned;
}

int runner_receive(int fd, struct hooks_request *ret)
{
        ssize_t n = read(fd, ret, sizeof(*ret));

        if (n < 0)
                return errno == EAGAIN || errno == EINTR ? -EAGAIN : 0;
        if (n != sizeof(*ret) || ret->magic != HOOKS_MAGIC || ret->size != sizeof(*ret))
                return 0;
        /* They are printed. */
        ret->partition[sizeof(ret->partition) - 1] = '\0';
        ret->folder[sizeof(ret->folder) - 1] = '\0';
        ret->call.reason[sizeof(ret->call.reason) - 1] = '\0';
        return hook_phase_to_string(ret->call.phase) && hook_operation_to_string(ret->call.operation) &&
               hook_outcome_to_string(ret->call.outcome);
}
