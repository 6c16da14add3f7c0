/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The configuration on folders of the test's own. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>

#include "common/cleanup.h"
#include "common/size.h"
#include "hvd/config.h"

static char root[64];

static const char *const folders[] = { "hvd.conf.d", "partitions.d" };

static void at(const char *name, char ret[static 512])
{
        snprintf(ret, 512, "%s%s%s", root, name[0] ? "/" : "", name);
}

static void write_bytes(const char *name, const void *data, size_t length)
{
        char path[512];

        at(name, path);
        FILE *f = fopen(path, "we");
        assert_non_null(f);
        assert_int_equal(fwrite(data, 1, length, f), length);
        assert_int_equal(fclose(f), 0);
}

static void write_text(const char *name, const char *text)
{
        write_bytes(name, text, strlen(text));
}

static void empty_folder(const char *name)
{
        char path[512], file[1024];

        at(name, path);
        DIR *dir = opendir(path);
        if (!dir)
                return;
        for (struct dirent *e; (e = readdir(dir));)
                if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
                        snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
                        remove(file);
                }
        closedir(dir);
}

static int setup(void **state)
{
        char path[512];

        snprintf(root, sizeof(root), "/tmp/test-config.XXXXXX");
        if (!mkdtemp(root))
                return -1;
        for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
                at(folders[i], path);
                if (mkdir(path, 0700) < 0)
                        return -1;
        }
        return 0;
}

static int teardown(void **state)
{
        for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
                empty_folder(folders[i]);
        empty_folder("");
        return rmdir(root);
}

static int load(bool must_exist, struct config **ret, struct error *ret_error)
{
        char path[512];

        at("hvd.conf", path);
        return config_load(path, must_exist, ret, ret_error);
}

static void test_defaults(void **state)
{
        struct error error = { 0 };
        struct config *c = NULL;
        char path[512];

        assert_int_equal(load(false, &c, &error), 0);
        assert_int_equal(error.code, ERROR_NONE);
        assert_int_equal(c->log_level, LOG_INFO);
        assert_int_equal(c->job_wait_usec, 300 * USEC_PER_SEC);
        assert_int_equal(c->block_attempt_usec, 10 * USEC_PER_SEC);
        assert_int_equal(c->retry_after_usec, USEC_PER_SEC);
        assert_int_equal(c->pool_total_bytes, 0);
        assert_int_equal(c->pool_reserve_bytes, GIB);
        assert_int_equal(c->jobs_kept, 1000);
        assert_int_equal(c->jobs_queued, 16);
        assert_string_equal(c->hooks_folder, "/etc/opendlpar/host-hooks.d");
        assert_int_equal(c->hook_limit_usec, 10 * USEC_PER_SEC);
        assert_int_equal(c->n_partitions, 0);
        c = config_free(c);

        assert_int_equal(load(true, &c, &error), -EINVAL);
        assert_int_equal(error.code, ERROR_CONFIG);
        assert_non_null(strstr(error.message, "hvd.conf: Cannot be read: No such file"));
        assert_null(c);

        for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
                at(folders[i], path);
                assert_int_equal(rmdir(path), 0);
        }
        write_text("hvd.conf", "");
        assert_int_equal(load(true, &c, &error), 0);
        config_free(c);
}

static void test_whole_set(void **state)
{
        struct error error = { 0 };
        struct config *c = NULL;

        write_text("hvd.conf", "# comment\n\n[hvd] ; more\r\nlog_level = debug\njob_wait=90\n  block_attempt "
                               "= 500ms ; quick\nretry_after = 3s\n"
                               "pool_total = 48G\npool_reserve = 0\n[hvd]\njobs_kept: 5\njobs_queued = 1");
        write_text("hvd.conf.d/20-late.conf", "[hvd]\njobs_kept = 7\npool_total = auto\n");
        write_text("hvd.conf.d/10-early.conf", "[hvd]\njobs_kept = 6\njob_wait = 1h\n");
        write_text("hvd.conf.d/ignored.conf.bak", "rubbish\n");
        write_text("hvd.conf.d/.#20-late.conf", "rubbish\n");
        write_text("partitions.d/web1.conf", "\xef\xbb\xbf[partition]\nqmp = /run/vm/web1.qmp\nchannel = "
                                             "/run/vm/web1.guestd\nmin = 1G\ndesired = 4G\n"
                                             "max = 16G\nweight = 255\n");
        write_text("partitions.d/db-2.x_y.conf", "[partition]\nchannel=/c\nqmp=/q\n");

        if (load(true, &c, &error) < 0)
                fail_msg("%s", error.message);
        assert_int_equal(c->log_level, LOG_DEBUG);
        assert_int_equal(c->job_wait_usec, 3600 * USEC_PER_SEC);
        assert_int_equal(c->block_attempt_usec, 500 * USEC_PER_MSEC);
        assert_int_equal(c->retry_after_usec, 3 * USEC_PER_SEC);
        assert_int_equal(c->pool_total_bytes, 0);
        assert_int_equal(c->pool_reserve_bytes, 0);
        assert_int_equal(c->jobs_kept, 7);
        assert_int_equal(c->jobs_queued, 1);
        assert_int_equal(c->n_partitions, 2);
        assert_string_equal(c->partitions[0].name, "db-2.x_y");
        assert_int_equal(c->partitions[0].profile.weight, PARTITION_WEIGHT_DEFAULT);
        assert_int_equal(c->partitions[0].profile.max_bytes, 0);
        assert_string_equal(c->partitions[1].name, "web1");
        assert_string_equal(c->partitions[1].qmp_path, "/run/vm/web1.qmp");
        assert_string_equal(c->partitions[1].channel_path, "/run/vm/web1.guestd");
        assert_int_equal(c->partitions[1].profile.min_bytes, GIB);
        assert_int_equal(c->partitions[1].profile.desired_bytes, 4 * GIB);
        assert_int_equal(c->partitions[1].profile.max_bytes, 16 * GIB);
        assert_int_equal(c->partitions[1].profile.weight, 255);
        config_free(c);
}

#define X10  "xxxxxxxxxx"
#define X100 X10 X10 X10 X10 X10 X10 X10 X10 X10 X10
#define GOOD "[partition]\nqmp=/q\nchannel=/c\n"

/* Every mistake refuses the set, says where it is and what would be right, and leaves the last good one
 * alone. */
static void test_mistakes(void **state)
{
        static const struct {
                const char *file, *text;
                const char *where, *says;
        } rows[] = {
                { "hvd.conf", "[hvd]\ncolour = red\n", "hvd.conf:2: ", "known are log_level, job_wait" },
                { "hvd.conf", "\n[hdv]\n", "hvd.conf:2: ",
                        "Unknown section 'hdv'; the only ones here are [hvd], [libvirt] and [policy]" },
                { "hvd.conf", "[partition]\nqmp=/q\n", "hvd.conf:1: ", "Unknown section" },
                { "hvd.conf", "[hvd\n", "hvd.conf:1: ", "write [hvd]" },
                { "hvd.conf", "[hvd] jobs_kept = 1\n", "hvd.conf:1: ", "Text behind [hvd]" },
                { "hvd.conf", "jobs_kept = 1\n[hvd]\n", "hvd.conf:1: ", "before any section; write [hvd]" },
                { "hvd.conf", "[hvd]\njobs_kept\n", "hvd.conf:2: ", "'key = value'" },
                /* the first of two mistakes, though inih goes on behind it */
                { "hvd.conf", "[hvd]\nrubbish\ncolour = red\n", "hvd.conf:2: ", "'key = value'" },
                { "hvd.conf", "[hvd]\ncolour = red\nrubbish\n", "hvd.conf:2: ", "Unknown key 'colour'" },
                { "hvd.conf", "[hvd]\njobs_kept = 1\n\n[hvd]\njobs_kept = 1\n",
                        "hvd.conf:5: ", "twice, first in line 2" },
                /* an indented line is no continuation */
                { "hvd.conf", "[hvd]\njobs_kept = 1\n   2\n", "hvd.conf:3: ", "'key = value'" },
                { "hvd.conf", "[hvd]\njobs_kept = 0\n", "hvd.conf:2: ", "whole number from 1 to 1000000" },
                { "hvd.conf", "[hvd]\njobs_kept = 1000001\n", "hvd.conf:2: ", "from 1 to 1000000" },
                { "hvd.conf", "[hvd]\njobs_kept = 99999999999999999999\n",
                        "hvd.conf:2: ", "from 1 to 1000000" },
                { "hvd.conf", "[hvd]\njobs_kept = -1\n", "hvd.conf:2: ", "from 1 to 1000000" },
                { "hvd.conf", "[hvd]\njobs_kept =\n", "hvd.conf:2: ", "from 1 to 1000000" },
                { "hvd.conf", "[hvd]\njobs_kept = 1 # one\n", "hvd.conf:2: ", "'1 # one' is not" },
                { "hvd.conf", "[hvd]\nlog_level = loud\n",
                        "hvd.conf:2: ", "error, warning, notice, info or debug" },
                { "hvd.conf", "[hvd]\nhooks = here\n", "hvd.conf:2: ", "'here' is no absolute path" },
                { "hvd.conf", "[hvd]\nhook_limit = 0\n", "hvd.conf:2: ", "hook_limit" },
                { "hvd.conf", "[policy]\nmode = sometimes\n", "hvd.conf:2: ", "write off, observe or auto" },
                { "hvd.conf", "[policy]\nquiet = 100ms\n", "hvd.conf:2: ", "write 1s to 86400s" },
                { "hvd.conf", "[policy]\n\nheadroom = 5\n", "hvd.conf:3: ", "write 20 to 1000" },
                { "hvd.conf", "[policy]\nheadroom = 10%\n", "hvd.conf:2: ", "whole number of thousandths" },
                { "hvd.conf", "[policy]\nheadroom_min = 1M\n", "hvd.conf:2: ", "write 16M to 64G" },
                { "hvd.conf", "[policy]\nperiod = 10ms\n", "hvd.conf:2: ", "write 100ms to 60s" },
                { "hvd.conf", "[policy]\nsample = 2m\n", "hvd.conf:2: ", "write 100ms to 60s" },
                { "hvd.conf", "[policy]\nsample = 20s\n", "hvd.conf: ", "make fresh at least twice sample" },
                { "hvd.conf.d/50.conf", "[policy]\nrefusal = 2m\nrefusal_max = 1m\n",
                        "hvd.conf: ", "make refusal_max at least refusal" },
                { "hvd.conf", "[policy]\nbogus = 1\n", "hvd.conf:2: ",
                        "known are mode, period, sample, headroom, headroom_min, horizon, pressure, "
                        "idle_tax, quiet, "
                        "step, fresh, refusal, refusal_max, cushion, host_pressure, host_relief" },
                { "hvd.conf", "[libvirt]\nenabled = perhaps\n", "hvd.conf:2: ", "auto, yes or no" },
                { "hvd.conf", "[libvirt]\nuri = here\n", "hvd.conf:2: ", "'here' is no URI" },
                { "hvd.conf", "[libvirt]\njobs_kept = 1\n", "hvd.conf:2: ", "known are enabled, uri" },
                { "hvd.conf", "[libvirt]\nuri = a://b\n[hvd]\n[libvirt]\nuri = a://c\n",
                        "hvd.conf:5: ", "given twice, first in line 2" },
                { "hvd.conf", "[hvd]\njob_wait = 8d\n", "hvd.conf:2: ", "at most 7 days" },
                { "hvd.conf", "[hvd]\npool_total = 48\n", "hvd.conf:2: ", "has no unit" },
                { "hvd.conf", "[hvd]\npool_total = 0\n", "hvd.conf:2: ", "pool_total: Size '0'" },
                { "hvd.conf", "[hvd]\n# " X100 X100 "\n", "hvd.conf:2: ", "Line of 202 bytes is too long" },
                { "hvd.conf.d/50.conf", "[hvd]\n\njobs_kept = x\n", "hvd.conf.d/50.conf:3: ", "'x' is not" },
                { "partitions.d/web1.conf", "", "web1.conf:1: ", "[partition] has no qmp; add 'qmp = ...'" },
                { "partitions.d/web1.conf", "\n[partition]\nqmp=/q\n", "web1.conf:2: ", "has no channel" },
                { "partitions.d/web1.conf", "[partition]\nqmp=run/q\nchannel=/c\n",
                        "web1.conf:2: ", "is not absolute" },
                { "partitions.d/web1.conf", "[partition]\nqmp=/" X100 X10 "\nchannel=/c\n",
                        "web1.conf:2: ", "at most 107" },
                { "partitions.d/web1.conf", "[partition]\nqmp=/q\001\nchannel=/c\n",
                        "web1.conf:2: ", "control character" },
                { "partitions.d/web1.conf", "[partition]\nqmp=/q\nchannel=/q\n",
                        "web1.conf:1: ", "the same socket, /q" },
                { "partitions.d/web1.conf", GOOD "min=2G\nmax=1G\n",
                        "web1.conf:1: ", "min (2G) is above max (1G)" },
                { "partitions.d/web1.conf", GOOD "desired=2G\nmax=1G\n",
                        "web1.conf:1: ", "make desired at most 1G" },
                { "partitions.d/web1.conf", GOOD "weight=256\n", "web1.conf:4: ", "from 1 to 255" },
                { "partitions.d/web1.conf", GOOD "base=1G\n",
                        "web1.conf:4: ", "known are qmp, channel, min" },
                { "partitions.d/web2.conf", "[partition]\nqmp=/q2\nchannel=/good.q\n",
                        "web2.conf:1: ", "belongs to partition good already" },
                { "partitions.d/a b.conf", GOOD, "a b.conf:1: ", "no partition name" },
                { "partitions.d/-a.conf", GOOD, "-a.conf:1: ", "no partition name" },
                { "partitions.d/" X10 X10 X10 X10 X10 X10 "xxxx.conf", GOOD, "xxxx.conf:1: ", "use 1 to 63" },
        };
        struct config *last = NULL;
        struct error error;

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct config *c = last;
                char path[512];

                write_text("hvd.conf", "[hvd]\njobs_kept = 1\n");
                write_text("partitions.d/good.conf", "[partition]\nqmp=/good.q\nchannel=/good.c\n");
                if (!last) {
                        assert_int_equal(load(true, &last, &error), 0);
                        c = last;
                }
                write_text(rows[i].file, rows[i].text);
                assert_int_equal(load(true, &c, &error), -EINVAL);
                if (error.code != ERROR_CONFIG || !strstr(error.message, rows[i].where) ||
                        !strstr(error.message, rows[i].says))
                        fail_msg("row %zu: %s", i, error.message);
                assert_ptr_equal(c, last);
                at(rows[i].file, path);
                assert_int_equal(remove(path), 0);
        }
        assert_int_equal(last->jobs_kept, 1);
        config_free(last);
}

static void test_strange_files(void **state)
{
        static const char nul[] = "[hvd]\njobs_kept = 1\0 2\n";
        struct config *c = NULL;
        struct error error;
        char path[512];

        write_bytes("hvd.conf", nul, sizeof(nul) - 1);
        assert_int_equal(load(true, &c, &error), -EINVAL);
        assert_non_null(strstr(error.message, "hvd.conf:2: A NUL byte"));
        write_text("hvd.conf", "");

        at("hvd.conf.d/dir.conf", path);
        assert_int_equal(mkdir(path, 0700), 0);
        assert_int_equal(load(true, &c, &error), -EINVAL);
        assert_non_null(strstr(error.message, "dir.conf: Not a regular file"));
        assert_int_equal(rmdir(path), 0);

        assert_int_equal(mkfifo(path, 0600), 0);
        assert_int_equal(load(true, &c, &error), -EINVAL);
        assert_non_null(strstr(error.message, "dir.conf: Not a regular file"));
        assert_int_equal(unlink(path), 0);

        /* a link that leads nowhere is not a missing file */
        assert_int_equal(symlink("nowhere", path), 0);
        assert_int_equal(load(false, &c, &error), -EINVAL);
        assert_non_null(strstr(error.message, "dir.conf: Cannot be read"));
        assert_int_equal(unlink(path), 0);

        at("partitions.d", path);
        assert_int_equal(rmdir(path), 0);
        write_text("partitions.d", "");
        assert_int_equal(load(true, &c, &error), -EINVAL);
        assert_non_null(strstr(error.message, "partitions.d: Cannot be listed"));
        assert_null(c);
}

static void test_names(void **state)
{
        static const struct {
                const char *name;
                bool valid;
        } rows[] = {
                { "web1", true },
                { "A.b_c-9", true },
                { "_", true },
                { X10 X10 X10 X10 X10 X10 "xxx", true },
                { X10 X10 X10 X10 X10 X10 "xxxx", false },
                { "", false },
                { NULL, false },
                { ".a", false },
                { "-a", false },
                { "a/b", false },
                { "a b", false },
                { "\xc3\xa9", false },
                { "a\n", false },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                if (partition_name_valid(rows[i].name) != rows[i].valid)
                        fail_msg("'%s'", rows[i].name ?: "NULL");
}

/* The shipped example is all comments, and stays valid when its keys are taken out of them. */
static void test_example(void **state)
{
        struct error error = { 0 };
        struct config *c = NULL;
        char line[256], text[8192] = "", path[] = TEST_DATA_DIR "/../systemd/hvd.conf";
        size_t n_keys = 0;
        FILE *f = fopen(path, "re");

        assert_non_null(f);
        while (fgets(line, sizeof(line), f)) {
                bool key = line[0] == '#' && line[1] >= 'a' && line[1] <= 'z';
                strncat(text, line + key, sizeof(text) - strlen(text) - 1);
                n_keys += key;
        }
        fclose(f);
        assert_int_equal(n_keys, 13);
        write_text("hvd.conf", text);
        if (load(true, &c, &error) < 0)
                fail_msg("%s", error.message);
        assert_int_equal(c->job_wait_usec, 300 * USEC_PER_SEC);
        assert_int_equal(c->jobs_queued, 16);
        config_free(c);
}

static void test_policy(void **state)
{
        struct config *c;
        struct error error;

        write_text("hvd.conf", "[hvd]\n");
        assert_int_equal(load(true, &c, &error), 0);
        assert_int_equal(c->policy_mode, POLICY_MODE_OBSERVE);
        assert_null(policy_config_check(&c->policy));
        assert_int_equal(c->policy.quiet_usec, 300 * USEC_PER_SEC);
        config_free(c);

        write_text("hvd.conf",
                "[policy]\nmode = auto\nperiod = 500ms\nsample = 5s\nheadroom = 200\nheadroom_min = 1G\n"
                "horizon = 0\nquiet = 2m\ncushion = 0\nrefusal_max = 2h\n[hvd]\njobs_kept = 7\n");
        if (load(true, &c, &error) < 0)
                fail_msg("%s", error.message);
        assert_int_equal(c->policy_mode, POLICY_MODE_AUTO);
        assert_int_equal(c->policy_period_usec, 500 * USEC_PER_MSEC);
        assert_int_equal(c->policy_sample_usec, 5 * USEC_PER_SEC);
        assert_int_equal(c->policy.headroom_permille, 200);
        assert_int_equal(c->policy.headroom_min_bytes, GIB);
        assert_int_equal(c->policy.horizon_usec, 0);
        assert_int_equal(c->policy.quiet_usec, 120 * USEC_PER_SEC);
        assert_int_equal(c->policy.cushion_permille, 0);
        assert_int_equal(c->policy.refusal_max_usec, 7200 * USEC_PER_SEC);
        assert_int_equal(c->policy.step_usec, 10 * USEC_PER_SEC);
        assert_int_equal(c->jobs_kept, 7);
        config_free(c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_defaults, setup, teardown),
                cmocka_unit_test_setup_teardown(test_whole_set, setup, teardown),
                cmocka_unit_test_setup_teardown(test_mistakes, setup, teardown),
                cmocka_unit_test_setup_teardown(test_strange_files, setup, teardown),
                cmocka_unit_test_setup_teardown(test_policy, setup, teardown),
                cmocka_unit_test_setup_teardown(test_example, setup, teardown),
                cmocka_unit_test(test_names),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
