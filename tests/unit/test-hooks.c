/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* opendlpar-hooks, the program that ships, with real executables in a folder of the test's: asked as guestd
 * asks it, over client.c. */

#include "hooks-fixture.h"

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

int main(void)
{
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
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
