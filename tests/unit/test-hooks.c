/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* opendlpar-hooks, the program that ships, with real executables in a folder of the test's: asked as guestd
 * asks it, over client.c. */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hooks/client.h"

#define WAIT_MSEC  20000
#define LIMIT_USEC (10 * USEC_PER_SEC)

struct env {
        char dir[40], folder[64], state[64], trace[64];
        struct hooks_client_config config;
        struct hooks_client client;
        struct hooks_answer answer;
        uint64_t last_id;
};

static void put_at(const char *path, mode_t mode, const char *text)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        assert_int_equal(fchmod(fd, mode), 0);
        close(fd);
}

/* A hook. "TRACE" in its text is a file that it may write to. */
static void put(struct env *e, const char *name, mode_t mode, const char *text)
{
        char path[160], body[1024];

        snprintf(path, sizeof(path), "%s/%s", e->folder, name);
        snprintf(body, sizeof(body), "#!/bin/sh\nTRACE=%s\n%s\n", e->trace, text);
        put_at(path, mode, body);
}

static void remove_file(struct env *e, const char *name)
{
        char path[160];

        snprintf(path, sizeof(path), "%s/%s", e->folder, name);
        assert_int_equal(unlink(path), 0);
}

static char *read_trace(struct env *e)
{
        static char text[4096];
        int fd = open(e->trace, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

        text[n < 0 ? 0 : n] = '\0';
        close_fd(fd);
        return text;
}

static struct hooks_request request(enum hook_phase phase)
{
        return (struct hooks_request) {
                .kind = HOOKS_RUN,
                .call = { .phase = phase, .operation = HOOK_REMOVE, .job = 12, .reason = "operator" },
                .bytes = 2 * GIB,
                .limit_usec = LIMIT_USEC,
        };
}

static void send_request(struct env *e, struct hooks_request q)
{
        assert_int_equal(hooks_client_open(&e->client), 0);
        q.id = ++e->last_id;
        assert_int_equal(hooks_client_send(&e->client, &q), 0);
}

/* Returns how long it took. */
static uint64_t receive(struct env *e)
{
        struct pollfd p = { .fd = e->client.answer_fd, .events = POLLIN };
        uint64_t begin = now_monotonic_usec();

        for (unsigned i = 0; i < 2; i++) {
                if (poll(&p, 1, WAIT_MSEC) != 1)
                        fail_msg("no answer");
                assert_int_equal(hooks_client_receive(&e->client, &e->answer), 1);
                assert_int_equal(e->answer.id, e->last_id);
                assert_int_equal(e->answer.begun, i == 0);
        }
        return now_monotonic_usec() - begin;
}

static uint64_t run(struct env *e, enum hook_phase phase)
{
        send_request(e, request(phase));
        return receive(e);
}

static void assert_result(struct env *e, size_t i, const char *name, enum error_code code, const char *part)
{
        if (i >= e->answer.n_results)
                fail_msg("%u results, not %zu", e->answer.n_results, i + 1);
        struct hooks_result *r = &e->answer.results[i];
        if (strcmp(r->name, name) != 0 || r->code != code || !strstr(r->message, part))
                fail_msg("'%s' %s '%s'", r->name, error_code_name(r->code), r->message);
}

static void assert_answer(struct env *e, bool complete, size_t n_results)
{
        if (e->answer.complete != complete || e->answer.n_results != n_results)
                fail_msg("complete %d, %u results: %s", e->answer.complete, e->answer.n_results,
                        e->answer.n_results ? e->answer.results[0].message : "");
}

static int setup(void **state)
{
        struct env *e = calloc(1, sizeof(*e));

        strcpy(e->dir, "/tmp/test-hooks-XXXXXX");
        assert_non_null(mkdtemp(e->dir));
        snprintf(e->folder, sizeof(e->folder), "%s/hooks.d", e->dir);
        snprintf(e->state, sizeof(e->state), "%s/state", e->dir);
        snprintf(e->trace, sizeof(e->trace), "%s/trace", e->dir);
        assert_int_equal(mkdir(e->folder, 0755), 0);
        e->config = (struct hooks_client_config) {
                .folder = e->folder, .state = e->state, .program = HOOKS_BUILT
        };
        hooks_client_init(&e->client, &e->config);
        *state = e;
        return 0;
}

static int teardown(void **state)
{
        struct env *e = *state;
        char command[80];

        hooks_client_done(&e->client);
        snprintf(command, sizeof(command), "rm -rf -- %s", e->dir);
        assert_int_equal(system(command), 0);
        free(e);
        return 0;
}

/* As if PRE had been called. */
static void put_begun(struct env *e)
{
        put_at(e->state, 0600, "remove 2147483648 12 -1 1\n");
}

static void test_none(void **state)
{
        struct env *e = *state;

        run(e, HOOK_CHECK);
        assert_answer(e, true, 0);
        assert_int_equal(rmdir(e->folder), 0);
        run(e, HOOK_CHECK);
        assert_answer(e, true, 0);
}

static void test_order(void **state)
{
        struct env *e = *state;

        put(e, "90-last", 0755, "echo last-$OPENDLPAR_PHASE >>$TRACE");
        put(e, "10-first", 0700, "echo first-$OPENDLPAR_PHASE >>$TRACE");
        put(e, "B-capital", 0755, "echo capital-$OPENDLPAR_PHASE >>$TRACE");
        put(e, ".hidden", 0755, "echo hidden >>$TRACE");
        put(e, "20-old~", 0755, "echo backup >>$TRACE");
        put(e, "20-x.dpkg-old", 0755, "echo backup >>$TRACE");
        run(e, HOOK_CHECK);
        assert_answer(e, true, 0);
        assert_string_equal(read_trace(e), "first-check\nlast-check\ncapital-check\n");
}

/* Everything that a hook is told, and nothing else. */
static void test_environment(void **state)
{
        struct env *e = *state;
        struct hooks_request q = request(HOOK_POST);

        put(e, "env", 0755,
                "env -u PWD -u SHLVL -u _ -u OLDPWD | sort >$TRACE; unset x; echo in:$(readlink "
                "/proc/self/fd/0) "
                "cwd:$(pwd) umask:$(umask) "
                "oom:$(cat /proc/$$/oom_score_adj) sig:$(grep -c 'Sig\\(Blk\\|Ign\\):.0*$' "
                "/proc/self/status) "
                ">>$TRACE");
        q.call = (struct hook_call) { HOOK_POST, HOOK_ADD, HOOK_OUTCOME_PARTIAL, true, 3, 77, GIB,
                "it was full" };
        assert_int_equal(setenv("EVIL", "yes", 1), 0);
        put_begun(e);
        signal(SIGPIPE, SIG_IGN);
        send_request(e, q);
        receive(e);
        assert_answer(e, true, 0);
        char *text = read_trace(e);
        static const char *const wanted[] = { "OPENDLPAR_PHASE=post\n", "OPENDLPAR_OPERATION=add\n",
                "OPENDLPAR_OUTCOME=partial\n", "OPENDLPAR_NODE=3\n", "OPENDLPAR_JOB=77\n",
                "OPENDLPAR_BYTES=2147483648\n", "OPENDLPAR_DONE_BYTES=1073741824\n",
                "OPENDLPAR_REASON=it was full\n", "OPENDLPAR_LIMIT_SECONDS=10\n",
                "OPENDLPAR_MEMORY_BYTES=", "OPENDLPAR_AVAILABLE_BYTES=", "PATH=/usr/local/sbin:", "HOME=/\n",
                "LANG=C.UTF-8\n", "in:/dev/null cwd:/ umask:0022", "oom:0", "sig:2" };
        for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
                if (!strstr(text, wanted[i]))
                        fail_msg("no '%s' in: %s", wanted[i], text);
        assert_null(strstr(text, "EVIL"));
        assert_null(strstr(text, "PARTITION"));

        /* Before it is over there is nothing to say of its end. */
        q = request(HOOK_CHECK);
        send_request(e, q);
        receive(e);
        text = read_trace(e);
        assert_non_null(strstr(text, "OPENDLPAR_OPERATION=remove\n"));
        assert_null(strstr(text, "OUTCOME"));
        assert_null(strstr(text, "DONE_BYTES"));
        assert_null(strstr(text, "NODE"));
}

/* fds 3 and above: the shell itself keeps its script open there, and no more. */
static void test_no_descriptors(void **state)
{
        struct env *e = *state;

        put(e, "fds", 0755,
                "for f in /proc/$$/fd/*; do readlink $f; done | grep -v -e '^/dev/null' -e pipe -e fds "
                ">$TRACE; :");
        int fd = open("/etc/passwd", O_RDONLY); /* inherited on purpose */
        assert_true(fd >= 0);
        run(e, HOOK_CHECK);
        close(fd);
        assert_string_equal(read_trace(e), "");
}

static void test_veto(void **state)
{
        struct env *e = *state;

        put(e, "10-yes", 0755, "echo fine; exit 0");
        put(e, "20-no", 0755, "echo; echo 'A backup is running until 10:00'; echo more; exit 1");
        put(e, "30-never", 0755, "echo ran >$TRACE");
        for (enum hook_phase phase = HOOK_CHECK; phase <= HOOK_PRE; phase++) {
                run(e, phase);
                assert_answer(e, false, 1);
                assert_result(e, 0, "20-no", ERROR_HOOK_REFUSED, "A backup is running until 10:00");
                assert_string_equal(e->answer.results[0].message, "A backup is running until 10:00");
                assert_string_equal(read_trace(e), "");
        }
        put(e, "20-no", 0755, "exit 3");
        run(e, HOOK_CHECK);
        assert_result(e, 0, "20-no", ERROR_HOOK_REFUSED, "exited with 3");
        put(e, "20-no", 0755, "printf 'a\\033[2Jb\\377\\n' >&2; exit 1");
        run(e, HOOK_CHECK);
        assert_result(e, 0, "20-no", ERROR_HOOK_REFUSED, "a [2Jb?");
}

/* In the other phases a hook that fails stops nobody. */
static void test_failure_after(void **state)
{
        struct env *e = *state;

        put(e, "10-no", 0755, "echo broken; exit 1");
        put(e, "20-yes", 0755, "echo ran >>$TRACE");
        put_begun(e);
        run(e, HOOK_POST);
        assert_answer(e, false, 1);
        assert_result(e, 0, "10-no", ERROR_HOOK_FAILED, "broken");
        assert_string_equal(read_trace(e), "ran\n");
}

static bool is_alive(const char *pid)
{
        return kill((pid_t)atoi(pid), 0) == 0;
}

static void test_hang(void **state)
{
        struct env *e = *state;
        struct hooks_request q = request(HOOK_CHECK);

        put(e, "hang", 0755, "trap '' TERM INT HUP; sleep 1000 & echo $! >$TRACE; wait; sleep 1000");
        q.limit_usec = 300 * USEC_PER_MSEC;
        send_request(e, q);
        uint64_t took = receive(e);
        assert_answer(e, false, 1);
        assert_result(e, 0, "hang", ERROR_HOOK_FAILED, "did not end within 0.3 s");
        assert_true(took < 3 * USEC_PER_SEC);
        assert_true(atoi(read_trace(e)) > 0);
        for (unsigned i = 0; i < 1000 && is_alive(read_trace(e)); i++)
                poll(NULL, 0, 2);
        assert_false(is_alive(read_trace(e))); /* its child too */

        /* One that is done, with a child that holds its output. */
        put(e, "hang", 0755, "sleep 1000 & echo $! >$TRACE; exit 0");
        took = run(e, HOOK_CHECK);
        assert_answer(e, true, 0);
        assert_true(took < 3 * USEC_PER_SEC);
        for (unsigned i = 0; i < 1000 && is_alive(read_trace(e)); i++)
                poll(NULL, 0, 2);
        assert_false(is_alive(read_trace(e)));
}

static void test_total(void **state)
{
        struct env *e = *state;
        struct hooks_request q = request(HOOK_POST);

        put(e, "10-hang", 0755, "sleep 1000");
        put(e, "20-next", 0755, "echo ran >$TRACE");
        q.total_usec = 200 * USEC_PER_MSEC;
        put_begun(e);
        send_request(e, q);
        assert_true(receive(e) < 3 * USEC_PER_SEC);
        assert_int_equal(e->answer.stopped, ERROR_DEADLINE);
        assert_result(e, 0, "10-hang", ERROR_HOOK_FAILED, "time was up");
        assert_string_equal(read_trace(e), "");
}

static void test_crash(void **state)
{
        struct env *e = *state;

        put(e, "crash", 0755, "kill -SEGV $$");
        run(e, HOOK_PRE);
        assert_answer(e, false, 1);
        assert_result(e, 0, "crash", ERROR_HOOK_FAILED, "signal 11 (SIGSEGV)");
        run(e, HOOK_UNDO);
        assert_result(e, 0, "crash", ERROR_HOOK_FAILED, "SIGSEGV");
}

static void test_not_run(void **state)
{
        struct env *e = *state;
        char path[160], target[160];

        put(e, "10-not-executable", 0644, "echo ran >>$TRACE");
        put(e, "20-others", 0757, "echo ran >>$TRACE");
        put(e, "30-group", 0775, "echo ran >>$TRACE");
        snprintf(path, sizeof(path), "%s/40-folder", e->folder);
        assert_int_equal(mkdir(path, 0755), 0);
        snprintf(path, sizeof(path), "%s/50-nowhere", e->folder);
        assert_int_equal(symlink("/nowhere/at/all", path), 0);
        /* A good file in a folder that others can write to. */
        snprintf(target, sizeof(target), "%s/open", e->dir);
        assert_int_equal(mkdir(target, 0777), 0);
        assert_int_equal(chmod(target, 0777), 0);
        strcat(target, "/hook");
        put_at(target, 0755, "#!/bin/sh\nexit 1\n");
        snprintf(path, sizeof(path), "%s/60-symlink", e->folder);
        assert_int_equal(symlink(target, path), 0);
        put(e, "90-good", 0755, "echo good >>$TRACE");
        run(e, HOOK_CHECK);
        assert_answer(e, true, 6);
        assert_result(e, 0, "10-not-executable", ERROR_HOOK_SKIPPED, "not executable (mode 0644)");
        assert_result(e, 1, "20-others", ERROR_HOOK_SKIPPED, "can be written to by others (mode 0757)");
        assert_result(e, 2, "30-group", ERROR_HOOK_SKIPPED, "can be written to by others (mode 0775)");
        assert_result(e, 3, "40-folder", ERROR_HOOK_SKIPPED, "not a file");
        assert_result(e, 4, "50-nowhere", ERROR_HOOK_SKIPPED, "not there");
        assert_result(e, 5, "60-symlink", ERROR_HOOK_SKIPPED, "open can be written to by others");
        assert_string_equal(read_trace(e), "good\n");
}

static void test_owner(void **state)
{
        struct env *e = *state;
        char path[160];

        if (geteuid() != 0)
                skip();
        put(e, "10-foreign", 0755, "echo ran >>$TRACE");
        snprintf(path, sizeof(path), "%s/10-foreign", e->folder);
        assert_int_equal(chown(path, 12345, 0), 0);
        run(e, HOOK_CHECK);
        assert_answer(e, true, 1);
        assert_result(e, 0, "10-foreign", ERROR_HOOK_SKIPPED, "belongs to user 12345");
        assert_int_equal(chown(path, 0, 0), 0);
        assert_int_equal(chown(e->folder, 12345, 0), 0);
        run(e, HOOK_CHECK);
        assert_result(e, 0, "", ERROR_HOOK_SKIPPED, "belongs to user 12345");
        assert_int_equal(chown(e->folder, 0, 0), 0);
        assert_string_equal(read_trace(e), "");
}

static void test_folder(void **state)
{
        struct env *e = *state;
        char real[80];

        put(e, "hook", 0755, "echo ran >>$TRACE");
        assert_int_equal(chmod(e->folder, 0777), 0);
        run(e, HOOK_CHECK);
        assert_answer(e, true, 1);
        assert_result(e, 0, "", ERROR_HOOK_SKIPPED, "can be written to by others");
        assert_int_equal(chmod(e->folder, 0755), 0);

        /* Here the sticky bit does not help: others could add hooks, as links to what is root's. */
        assert_int_equal(chmod(e->folder, 01777), 0);
        run(e, HOOK_CHECK);
        assert_answer(e, true, 1);
        assert_result(e, 0, "", ERROR_HOOK_SKIPPED, "can be written to by others (mode 1777)");
        assert_int_equal(chmod(e->folder, 0755), 0);

        assert_int_equal(chmod(e->dir, 0777), 0);
        run(e, HOOK_CHECK);
        assert_result(e, 0, "hook", ERROR_HOOK_SKIPPED, "can be written to by others");
        assert_int_equal(chmod(e->dir, 0755), 0);

        snprintf(real, sizeof(real), "%s/real", e->dir);
        assert_int_equal(rename(e->folder, real), 0);
        assert_int_equal(symlink(real, e->folder), 0);
        run(e, HOOK_CHECK);
        assert_answer(e, true, 1);
        assert_result(e, 0, "", ERROR_HOOK_SKIPPED, "is not a folder");
        assert_string_equal(read_trace(e), "");
}

/* A symlink to what is root's alone is as good as a file, and is called by its own name. */
static void test_symlink(void **state)
{
        struct env *e = *state;
        char path[160], target[160];

        snprintf(target, sizeof(target), "%s/kept-elsewhere", e->dir);
        put_at(target, 0755, "#!/bin/sh\necho called ${0##*/}\nexit 1\n");
        snprintf(path, sizeof(path), "%s/60-symlink", e->folder);
        assert_int_equal(symlink(target, path), 0);
        run(e, HOOK_CHECK);
        assert_result(e, 0, "60-symlink", ERROR_HOOK_REFUSED, "called 60-symlink");
}

/* Links that lead to a good file, by way of a folder in which others could put other links. */
static void test_symlink_chain(void **state)
{
        struct env *e = *state;
        char path[160], open_folder[80], target[160];

        snprintf(target, sizeof(target), "%s/good", e->dir);
        put_at(target, 0755, "#!/bin/sh\nexit 1\n");
        snprintf(open_folder, sizeof(open_folder), "%s/open", e->dir);
        assert_int_equal(mkdir(open_folder, 0755), 0);
        snprintf(path, sizeof(path), "%s/link", open_folder);
        assert_int_equal(symlink("../good", path), 0);
        snprintf(path, sizeof(path), "%s/10-chain", e->folder);
        assert_int_equal(symlink("../open/./link", path), 0);
        run(e, HOOK_CHECK);
        assert_result(e, 0, "10-chain", ERROR_HOOK_REFUSED, "exited with 1");

        assert_int_equal(chmod(open_folder, 0777), 0);
        run(e, HOOK_CHECK);
        assert_answer(e, true, 1);
        assert_result(e, 0, "10-chain", ERROR_HOOK_SKIPPED, "open can be written to by others");

        /* With the sticky bit others cannot replace it, unless it is theirs. */
        assert_int_equal(chmod(open_folder, 01777), 0);
        run(e, HOOK_CHECK);
        assert_result(e, 0, "10-chain", ERROR_HOOK_REFUSED, "exited with 1");
        if (geteuid() == 0) {
                snprintf(path, sizeof(path), "%s/link", open_folder);
                assert_int_equal(lchown(path, 12345, 0), 0);
                run(e, HOOK_CHECK);
                assert_answer(e, true, 1);
                assert_result(e, 0, "10-chain", ERROR_HOOK_SKIPPED, "belongs to user 12345");
        }

        snprintf(path, sizeof(path), "%s/10-chain", e->folder);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink("10-chain", path), 0);
        run(e, HOOK_CHECK);
        assert_result(e, 0, "10-chain", ERROR_HOOK_FAILED, "symbolic links");
}

/* A folder that is itself reached by a link, out of one that others can write to. */
static void test_folder_by_symlink(void **state)
{
        struct env *e = *state;
        char open_folder[64], path[80];

        put(e, "hook", 0755, "echo ran >>$TRACE");
        snprintf(open_folder, sizeof(open_folder), "%s/open", e->dir);
        assert_int_equal(mkdir(open_folder, 0755), 0);
        assert_int_equal(chmod(open_folder, 0777), 0);
        snprintf(path, sizeof(path), "%s/link", open_folder);
        assert_int_equal(symlink(e->dir, path), 0);
        struct hooks_request q = request(HOOK_CHECK);
        snprintf(q.folder, sizeof(q.folder), "%s/hooks.d", path);
        send_request(e, q);
        receive(e);
        assert_result(e, 0, "hook", ERROR_HOOK_SKIPPED, "open can be written to by others");
        assert_string_equal(read_trace(e), "");
        assert_int_equal(chmod(open_folder, 0755), 0);
        send_request(e, q);
        receive(e);
        assert_answer(e, true, 0);
        assert_string_equal(read_trace(e), "ran\n");
}

static void test_output(void **state)
{
        struct env *e = *state;

        put(e, "loud", 0755, "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end >$TRACE; exit 1");
        assert_true(run(e, HOOK_CHECK) < 8 * USEC_PER_SEC);
        assert_answer(e, false, 1);
        assert_int_equal(strlen(e->answer.results[0].message), PROTO_REASON_MAX);
        assert_int_equal(strspn(e->answer.results[0].message, "x"), PROTO_REASON_MAX);
        assert_string_equal(read_trace(e), "end\n");
        put(e, "loud", 0755, "echo first; yes | head -c 1000000; exit 1");
        run(e, HOOK_CHECK);
        assert_string_equal(e->answer.results[0].message, "first");
}

static void test_cannot_start(void **state)
{
        struct env *e = *state;
        char path[160];

        snprintf(path, sizeof(path), "%s/10-interpreter", e->folder);
        put_at(path, 0755, "#!/no/such/interpreter\n");
        run(e, HOOK_CHECK);
        assert_answer(e, false, 1);
        assert_result(e, 0, "10-interpreter", ERROR_HOOK_FAILED, "interpreter?");
        put_at(path, 0755, "\177ELF what?");
        run(e, HOOK_CHECK);
        assert_result(e, 0, "10-interpreter", ERROR_HOOK_FAILED, "cannot be started");
}

/* The second one is removed by the first, after the folder was read. */
static void test_vanishes(void **state)
{
        struct env *e = *state;

        put(e, "10-rm", 0755, "rm -f ${0%/*}/20-gone");
        put(e, "20-gone", 0755, "echo ran >>$TRACE");
        run(e, HOOK_CHECK);
        assert_answer(e, true, 1);
        assert_result(e, 0, "20-gone", ERROR_HOOK_SKIPPED, "not there");
        assert_string_equal(read_trace(e), "");
}

static void test_undo(void **state)
{
        struct env *e = *state;

        put(e, "10-a", 0755, "echo a-$OPENDLPAR_PHASE >>$TRACE");
        put(e, "20-b", 0755, "echo b-$OPENDLPAR_PHASE >>$TRACE; [ $OPENDLPAR_PHASE != pre ]");
        put(e, "30-c", 0755, "echo c-$OPENDLPAR_PHASE >>$TRACE");
        run(e, HOOK_PRE);
        assert_answer(e, false, 1);
        assert_int_equal(access(e->state, F_OK), 0);
        run(e, HOOK_UNDO);
        assert_answer(e, true, 0);
        assert_string_equal(read_trace(e), "a-pre\nb-pre\nb-undo\na-undo\n");
        assert_int_not_equal(access(e->state, F_OK), 0);
        /* It was undone. */
        run(e, HOOK_UNDO);
        assert_string_equal(read_trace(e), "a-pre\nb-pre\nb-undo\na-undo\n");

        put(e, "20-b", 0755, "exit 0");
        run(e, HOOK_PRE);
        remove_file(e, "10-a");
        assert_int_equal(unlink(e->trace), 0);
        run(e, HOOK_UNDO);
        assert_answer(e, true, 1);
        assert_result(e, 0, "10-a", ERROR_HOOK_SKIPPED, "not there");
        assert_string_equal(read_trace(e), "c-undo\n");

        run(e, HOOK_PRE);
        assert_int_equal(unlink(e->trace), 0);
        run(e, HOOK_POST);
        assert_int_not_equal(access(e->state, F_OK), 0);
        assert_string_equal(read_trace(e), "c-post\n");
        run(e, HOOK_POST); /* sent again */
        assert_answer(e, true, 0);
        assert_string_equal(read_trace(e), "c-post\n");
}

/* What could not be undone is not begun. */
static void test_no_state(void **state)
{
        struct env *e = *state;

        strcpy(e->state, "/no/such/folder/state");
        put(e, "10-a", 0755, "echo ran >>$TRACE");
        run(e, HOOK_PRE);
        assert_answer(e, false, 1);
        assert_result(e, 0, "", ERROR_HOOK_FAILED, "could not be undone");
        assert_string_equal(read_trace(e), "");
        run(e, HOOK_CHECK);
        assert_answer(e, true, 0);
}

/* The host is gone: by what the memory is, in comparison. */
static void test_settle(void **state)
{
        struct env *e = *state;
        char text[200];

        put(e, "10-a", 0755,
                "echo $OPENDLPAR_PHASE $OPENDLPAR_OPERATION $OPENDLPAR_BYTES $OPENDLPAR_OUTCOME "
                "$OPENDLPAR_JOB $OPENDLPAR_REASON >>$TRACE");
        run(e, HOOK_SETTLE);
        assert_answer(e, true, 0);
        assert_string_equal(read_trace(e), "");
        run(e, HOOK_PRE);
        assert_int_equal(unlink(e->trace), 0);
        run(e, HOOK_SETTLE);
        assert_string_equal(read_trace(e), "undo remove 2147483648 none 12 the host went away\n");
        assert_int_not_equal(access(e->state, F_OK), 0);

        /* A guest that had 1 PiB more then has lost it. */
        snprintf(text, sizeof(text), "remove %llu 9 2 1125899906842624\n10-a\n", (unsigned long long)GIB);
        put_at(e->state, 0600, text);
        assert_int_equal(unlink(e->trace), 0);
        run(e, HOOK_SETTLE);
        assert_string_equal(read_trace(e), "post remove 1073741824 none 9 the host went away\n");
        assert_int_not_equal(access(e->state, F_OK), 0);
        /* A file that is torn. */
        put_at(e->state, 0600, "remo");
        run(e, HOOK_SETTLE);
        assert_answer(e, true, 0);
}

/* Nobody has ended what another job began: that is settled before the next begins. */
static void test_settle_first(void **state)
{
        struct env *e = *state;
        struct hooks_request q = request(HOOK_PRE);

        put(e, "10-a", 0755, "echo $OPENDLPAR_PHASE $OPENDLPAR_JOB >>$TRACE; [ $OPENDLPAR_PHASE = pre ]");
        run(e, HOOK_PRE);
        run(e, HOOK_PRE); /* the same, sent again */
        q.call.job = 13;
        send_request(e, q);
        receive(e);
        assert_answer(e, true, 0);
        assert_string_equal(read_trace(e), "pre 12\npre 12\nundo 12\npre 13\n");
        assert_int_equal(access(e->state, F_OK), 0);
}

static void test_cancel(void **state)
{
        struct env *e = *state;
        struct hooks_request cancel = { .kind = HOOKS_CANCEL };

        put(e, "10-hang", 0755,
                "[ $OPENDLPAR_PHASE = undo ] && echo undone >>$TRACE && exit 0; echo begun >$TRACE; sleep "
                "1000");
        put(e, "20-never", 0755, "echo never >>$TRACE");
        send_request(e, request(HOOK_PRE));
        for (unsigned i = 0; i < 2000 && read_trace(e)[0] == '\0'; i++)
                poll(NULL, 0, 2);
        cancel.id = e->last_id - 1; /* another one's */
        assert_int_equal(hooks_client_send(&e->client, &cancel), 0);
        cancel.id = e->last_id;
        assert_int_equal(hooks_client_send(&e->client, &cancel), 0);
        assert_true(receive(e) < 2 * USEC_PER_SEC);
        assert_false(e->answer.complete);
        assert_int_equal(e->answer.stopped, ERROR_CANCELLED);
        assert_result(e, 0, "10-hang", ERROR_HOOK_FAILED, "is to end");
        run(e, HOOK_UNDO);
        assert_string_equal(read_trace(e), "begun\nundone\n");
        /* One that comes too late is nobody's. */
        assert_int_equal(hooks_client_send(&e->client, &cancel), 0);
        put(e, "10-hang", 0755, "exit 0");
        run(e, HOOK_CHECK);
        assert_answer(e, true, 0);
}

/* Who asked ends: so do the hook and the program. */
static void test_asker_goes(void **state)
{
        struct env *e = *state;

        put(e, "hang", 0755, "echo $$ >$TRACE; sleep 1000");
        send_request(e, request(HOOK_PRE));
        for (unsigned i = 0; i < 2000 && read_trace(e)[0] == '\0'; i++)
                poll(NULL, 0, 2);
        assert_true(is_alive(read_trace(e)));
        pid_t pid = e->client.pid;
        hooks_client_close(&e->client);
        for (unsigned i = 0; i < 1000 && is_alive(read_trace(e)); i++)
                poll(NULL, 0, 2);
        assert_false(is_alive(read_trace(e)));
        assert_true(kill(pid, 0) < 0);
        assert_int_equal(access(e->state, F_OK), 0); /* it is to be undone yet */
}

static void test_many(void **state)
{
        struct env *e = *state;
        char name[32];

        for (unsigned i = 0; i < 20; i++) {
                snprintf(name, sizeof(name), "%02u-bad", i);
                put(e, name, 0644, "");
        }
        put(e, "90-no", 0755, "echo no; exit 1");
        run(e, HOOK_CHECK);
        assert_answer(e, false, HOOKS_RESULTS_MAX);
        assert_result(e, HOOKS_RESULTS_MAX - 1, "90-no", ERROR_HOOK_REFUSED, "no");
        for (unsigned i = 20; i <= HOOKS_FILES_MAX; i++) {
                snprintf(name, sizeof(name), "%02u-bad", i);
                put(e, name, 0644, "");
        }
        run(e, HOOK_CHECK);
        assert_answer(e, false, 1); /* one that was not read could have refused */
        assert_result(e, 0, "", ERROR_HOOK_FAILED, "not run");
}

/* As a service: started by what is written to a FIFO, answers by another. */
static void test_fifo(void **state)
{
        struct env *e = *state;
        char fifo[80], answer[80];
        struct hooks_client_config config = { .folder = e->folder, .fifo = fifo, .answer = answer };

        put(e, "10-no", 0755, "echo no; exit 1");
        snprintf(fifo, sizeof(fifo), "%s/fifo", e->dir);
        snprintf(answer, sizeof(answer), "%s/answer", e->dir);
        hooks_client_init(&e->client, &config);
        assert_int_equal(hooks_client_open(&e->client), -ENOENT);
        assert_int_equal(mkfifo(fifo, 0600), 0);
        assert_int_equal(hooks_client_open(&e->client), -ENXIO); /* nobody listens */
        int in = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        assert_true(in >= 0);
        send_request(e, request(HOOK_CHECK));

        pid_t pid = fork();
        if (pid == 0) {
                dup2(in, STDIN_FILENO);
                execl(HOOKS_BUILT, HOOKS_BUILT, "--folder", e->folder, "--answer", answer, NULL);
                _exit(127);
        }
        receive(e);
        assert_result(e, 0, "10-no", ERROR_HOOK_REFUSED, "no");
        /* As guestd does it: the one FIFO is opened anew for each request. */
        hooks_client_close(&e->client);
        send_request(e, request(HOOK_CHECK));
        receive(e);
        /* A guestd that comes after this one, while the program waits for more. */
        hooks_client_done(&e->client);
        send_request(e, request(HOOK_CHECK));
        receive(e);
        assert_result(e, 0, "10-no", ERROR_HOOK_REFUSED, "no");
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid); /* by itself, as nothing more is asked */
        assert_int_equal(status, 0);
        close(in);
}

/* The host's: told of the partition, not of memory; nothing is answered. */
static void test_host(void **state)
{
        struct env *e = *state;
        struct hooks_request q = request(HOOK_END);
        struct hooks_client_config config = { .program = HOOKS_BUILT, .host = true };

        put(e, "10-note", 0755,
                "echo $OPENDLPAR_PHASE $OPENDLPAR_OPERATION $OPENDLPAR_PARTITION "
                "$OPENDLPAR_OUTCOME $OPENDLPAR_DONE_BYTES ${OPENDLPAR_MEMORY_BYTES-none} >>$TRACE; exit 1");
        hooks_client_init(&e->client, &config);
        strcpy(q.partition, "web1");
        strcpy(q.folder, e->folder);
        q.call.outcome = HOOK_OUTCOME_DONE;
        q.call.done_bytes = MIB;
        assert_int_equal(hooks_client_open(&e->client), 0);
        assert_int_equal(hooks_client_send(&e->client, &q), 0);
        assert_int_equal(hooks_client_send(&e->client, &q), 0);
        for (unsigned i = 0; i < 5000 && strlen(read_trace(e)) < 66; i++)
                poll(NULL, 0, 2);
        assert_string_equal(read_trace(e), "end remove web1 done 1048576 none\n"
                                           "end remove web1 done 1048576 none\n");
}

/* The same as a service. */
static void test_host_fifo(void **state)
{
        struct env *e = *state;
        char fifo[80];
        struct hooks_request q = request(HOOK_BEGIN);
        struct hooks_client_config config = { .fifo = fifo, .host = true };
        int status;

        put(e, "10-note", 0755, "echo $OPENDLPAR_PHASE $OPENDLPAR_PARTITION >>$TRACE");
        snprintf(fifo, sizeof(fifo), "%s/fifo", e->dir);
        assert_int_equal(mkfifo(fifo, 0600), 0);
        int in = open(fifo, O_RDWR | O_NONBLOCK | O_CLOEXEC);
        assert_true(in >= 0);
        hooks_client_init(&e->client, &config);
        strcpy(q.partition, "web1");
        strcpy(q.folder, e->folder);
        assert_int_equal(hooks_client_open(&e->client), 0);
        unsigned n = 0;
        int r;
        while ((r = hooks_client_send(&e->client, &q)) >= 0) /* until no more fit */
                assert_true(++n < 1000);
        assert_int_equal(r, -EAGAIN);
        pid_t pid = fork();
        if (pid == 0) {
                dup2(in, STDIN_FILENO);
                execl(HOOKS_BUILT, HOOKS_BUILT, "--host", "--service", NULL);
                _exit(127);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(strlen(read_trace(e)), n * strlen("begin web1\n"));
        close(in);
}

static void test_garbage(void **state)
{
        struct env *e = *state;

        assert_int_equal(hooks_client_open(&e->client), 0);
        assert_int_equal(write(e->client.request_fd, "garbage", 7), 7);
        struct pollfd p = { .fd = e->client.answer_fd, .events = POLLIN };
        assert_int_equal(poll(&p, 1, WAIT_MSEC), 1);
        assert_int_equal(hooks_client_receive(&e->client, &e->answer), 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        const struct CMUnitTest tests[] = {
                TEST(test_none),
                TEST(test_order),
                TEST(test_environment),
                TEST(test_no_descriptors),
                TEST(test_veto),
                TEST(test_failure_after),
                TEST(test_hang),
                TEST(test_total),
                TEST(test_crash),
                TEST(test_not_run),
                TEST(test_owner),
                TEST(test_folder),
                TEST(test_symlink),
                TEST(test_symlink_chain),
                TEST(test_folder_by_symlink),
                TEST(test_output),
                TEST(test_cannot_start),
                TEST(test_vanishes),
                TEST(test_undo),
                TEST(test_no_state),
                TEST(test_settle),
                TEST(test_settle_first),
                TEST(test_cancel),
                TEST(test_asker_goes),
                TEST(test_many),
                TEST(test_fifo),
                TEST(test_host),
                TEST(test_host_fifo),
                TEST(test_garbage),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
