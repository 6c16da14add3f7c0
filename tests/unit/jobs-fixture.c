/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "jobs-fixture.h"

#include <ctype.h>

#include "common/log.h"
#include "hvd/agent/internal.h"

/* --- scripts --- */

/* "4G" at the text's beginning, or 0. */
static int take_size(const char *text, char before, uint64_t *ret_bytes)
{
        unsigned long long n;
        int length = 0;
        char unit = '\0';

        if (isalnum((unsigned char)before) || !isdigit((unsigned char)*text) ||
                sscanf(text, "%llu%c%n", &n, &unit, &length) != 2 || (unit != 'G' && unit != 'M') ||
                isalnum((unsigned char)text[length]))
                return 0;
        *ret_bytes = n * (unit == 'G' ? GIB : MIB);
        return length;
}

static int take_device(const char *text, FILE *out)
{
        unsigned number, node = 0;
        unsigned long long address, size;
        char units[2];
        int length = 0;

        if ((sscanf(text, "<%u %llu%c %llu%c>%n", &number, &address, &units[0], &size, &units[1], &length) !=
                            5 ||
                    length == 0) &&
                (sscanf(text, "<%u %llu%c %llu%c %u>%n", &number, &address, &units[0], &size, &units[1],
                         &node, &length) != 6 ||
                        length == 0))
                return 0;
        fprintf(out,
                "{\"type\":\"dimm\",\"data\":{\"memdev\":\"/objects/opendlpar-mem-%u\",\"hotplugged\":true,"
                "\"addr\":%llu,\"hotpluggable\":true,\"size\":%llu,\"slot\":%u,\"node\":%u,"
                "\"id\":\"opendlpar-dimm-%u\"}}",
                number, (unsigned long long)(address * (units[0] == 'G' ? GIB : MIB)),
                (unsigned long long)(size * (units[1] == 'G' ? GIB : MIB)), number, node, number);
        return length;
}

void script(struct fake *f, const char *text)
{
        _cleanup_free_ char *expanded = NULL;
        size_t size;
        uint64_t bytes;
        char before = '\n';
        FILE *out = open_memstream(&expanded, &size);

        assert_non_null(out);
        while (*text) {
                int n = take_size(text, before, &bytes);
                if (n > 0)
                        fprintf(out, "%llu", (unsigned long long)bytes);
                else if ((n = take_device(text, out)) == 0) {
                        n = 1;
                        fputc(*text == '\'' ? '"' : *text, out);
                }
                before = text[n - 1];
                text += n;
        }
        fclose(out);
        fake_append(f, expanded);
}

static const char qemu[] =
        "on query-chardev reply []\n"
        "on query-status reply {'status':'running','singlestep':false,'running':true}\n"
        "on query-migrate reply {}\n"
        "on query-memory-size-summary reply {'base-memory':1G,'plugged-memory':0}\n"
        "on qom-get {'path':'/machine','property':'memory'} reply {'size':1G,'slots':16,'max-size':16G}\n"
        "on query-memory-devices reply []\n"
        "on qom-list {'path':'/objects'} reply []\n"
        "on query-uuid reply {'UUID':'00000000-0000-0000-0000-000000000000'}\n"
        "on query-target reply {'arch':'x86_64'}\n"
        "on human-monitor-command {'command-line':'info numa'} reply 0\n"
        "on query-balloon error DeviceNotActive No balloon device has been activated\n";

static const char guest[] = "on get-state reply\n"
                            "on get-blocks reply\n"
                            "on release reply\n";

/* --- the observer --- */

static void note(struct fixture *fx, const struct job *j, bool first)
{
        char *trace = fx->traces[j->id % TRACES_MAX];
        const char *state = job_state_to_string(j->state);
        size_t length;

        if (first)
                trace[0] = '\0';
        length = strlen(trace);
        if (length < strlen(state) || strcmp(trace + length - strlen(state), state) != 0)
                snprintf(trace + length, sizeof(fx->traces[0]) - length, "%s%s", first ? "" : " ", state);
}

static void on_partition(struct partition *p, void *userdata)
{
}

static void on_job_added(struct job *j, void *userdata)
{
        struct fixture *fx = userdata;

        fx->n_added++;
        note(fx, j, true);
}

static void on_job_changed(struct job *j, void *userdata)
{
        struct fixture *fx = userdata;

        assert_false(job_state_is_end(j->state));
        fx->progress = job_progress(j);
        note(fx, j, false);
}

static void on_job_ended(struct job *j, void *userdata)
{
        struct fixture *fx = userdata;

        assert_true(job_state_is_end(j->state));
        fx->n_ended++;
        note(fx, j, false);
}

static void on_job_forgotten(struct job *j, void *userdata)
{
        struct fixture *fx = userdata;
        fx->n_forgotten++;
}

static void on_pool_changed(void *userdata)
{
        struct fixture *fx = userdata;
        fx->n_pool_changes++;
}

static void on_policy_decided(const struct policy_news *news, void *userdata)
{
        struct fixture *fx = userdata;
        fx->n_decided_grow += news->decision->action == POLICY_GROW;
}

/* --- the fixture --- */

int fixture_setup(void **state)
{
        struct fixture *fx = calloc(1, sizeof(*fx));

        /* The jobs' ends are said at info: not in every test's output. */
        log_set_max_level(getenv("TEST_LOG") ? LOG_DEBUG : LOG_ERR);
        strcpy(fx->dir, "/tmp/test-jobs-XXXXXX");
        assert_non_null(mkdtemp(fx->dir));
        snprintf(fx->qmp_path, sizeof(fx->qmp_path), "%s/qmp", fx->dir);
        snprintf(fx->channel_path, sizeof(fx->channel_path), "%s/channel", fx->dir);
        assert_int_equal(sd_event_new(&fx->event), 0);
        *state = fx;
        return 0;
}

int fixture_teardown(void **state)
{
        struct fixture *fx = *state;

        manager_free(fx->manager);
        fake_free(fx->qmp);
        fake_free(fx->guest);
        sd_event_unref(fx->event);
        rmdir(fx->dir);
        free(fx);
        return 0;
}

static void start_fakes_with(struct fixture *fx, const char *machine, const char *qemu_orders,
        const char *guest_orders, const char *hello)
{
        assert_int_equal(fake_qmp_new(fx->event, fx->qmp_path, "", &fx->qmp), 0);
        script(fx->qmp, qemu);
        script(fx->qmp, machine);
        script(fx->qmp, qemu_orders);
        script(fx->qmp, "negotiate\n");
        assert_int_equal(fake_guest_new(fx->event, fx->channel_path, "", &fx->guest), 0);
        script(fx->guest, guest);
        script(fx->guest, guest_orders);
        script(fx->guest, "accept\n");
        script(fx->guest, hello);
}

void start_fakes(struct fixture *fx, const char *qemu_orders, const char *guest_orders)
{
        start_fakes_with(fx, "", qemu_orders, guest_orders, "hello\nexpect welcome\n");
}

void start_manager(struct fixture *fx)
{
        static const struct manager_observer observer = {
                .partition_added = on_partition,
                .partition_removed = on_partition,
                .partition_changed = on_partition,
                .job_added = on_job_added,
                .job_changed = on_job_changed,
                .job_ended = on_job_ended,
                .job_forgotten = on_job_forgotten,
                .pool_changed = on_pool_changed,
                .policy_decided = on_policy_decided,
        };
        struct partition_definition definition = { .name = "web1",
                .profile.weight = PARTITION_WEIGHT_DEFAULT };
        char config_path[64];
        struct config *config;
        struct store *store;
        struct error error;

        snprintf(config_path, sizeof(config_path), "%s/hvd.conf", fx->dir);
        FILE *f = fopen(config_path, "we");
        assert_non_null(f);
        fputs("[hvd]\nretry_after = 10ms\npool_total = 1024G\n", f);
        fclose(f);
        assert_int_equal(config_load(config_path, false, &config, &error), 0);
        assert_int_equal(store_open(":memory:", &store, &error), 0);
        if (fx->fill_store)
                fx->fill_store(store);
        assert_int_equal(manager_new(fx->event, config, store, &fx->manager, &error), 0);
        manager_set_observer(fx->manager, &observer, fx);

        strcpy(definition.qmp_path, fx->qmp_path);
        strcpy(definition.channel_path, fx->channel_path);
        assert_int_equal(manager_define(fx->manager, &definition, &fx->p, &error), 0);
}

void run_until_known(struct fixture *fx)
{
        RUN_UNTIL(fx, fx->p->has_snapshot && fx->p->has_blocks && fx->p->has_memory && !fx->p->settling);
}

void start(struct fixture *fx, const char *qemu_orders, const char *guest_orders)
{
        start_fakes(fx, qemu_orders, guest_orders);
        start_manager(fx);
        run_until_known(fx);
        assert_int_equal(fx->n_added, 0);
}

void start_with_survey(struct fixture *fx, const char *qemu_orders, const char *guest_orders)
{
        start_fakes_with(
                fx, "", qemu_orders, guest_orders, "hello {'capabilities':['survey']}\nexpect welcome\n");
        start_manager(fx);
        run_until_known(fx);
        assert_int_equal(fx->n_added, 0);
}

void start_with_assist(struct fixture *fx, const char *qemu_orders, const char *guest_orders)
{
        start_fakes_with(fx, "", qemu_orders, guest_orders,
                "hello {'capabilities':['survey','assist']}\nexpect welcome\n");
        start_manager(fx);
        run_until_known(fx);
        assert_int_equal(fx->n_added, 0);
}

void start_with_sets(struct fixture *fx, const char *qemu_orders, const char *guest_orders)
{
        start_fakes_with(
                fx, "", qemu_orders, guest_orders, "hello {'capabilities':['sets']}\nexpect welcome\n");
        start_manager(fx);
        run_until_known(fx);
        assert_int_equal(fx->n_added, 0);
}

void start_with_samples(struct fixture *fx, const char *qemu_orders, const char *guest_orders)
{
        start_fakes_with(fx, "", qemu_orders, guest_orders, HELLO_OF_SAMPLES);
        start_manager(fx);
        run_until_known(fx);
        assert_int_equal(fx->n_added, 0);
}

void start_fakes_with_hooks(struct fixture *fx, const char *qemu_orders, const char *guest_orders)
{
        start_fakes_with(fx, "", qemu_orders, guest_orders,
                "hello {'capabilities':['hooks'],'hooks':true}\nexpect welcome\n");
}

void start_with_hooks(struct fixture *fx, const char *qemu_orders, const char *guest_orders)
{
        start_fakes_with_hooks(fx, qemu_orders, guest_orders);
        script(fx->guest, SETTLE);
        start_manager(fx);
        run_until_known(fx);
        RUN_UNTIL(fx, fake_finished(fx->guest));
        assert_int_equal(fx->n_added, 0);
}

void start_pseries(struct fixture *fx, const char *qemu_orders, const char *guest_orders)
{
        start_fakes_with(fx,
                "on query-target reply {'arch':'ppc64'}\n"
                "on qom-get {'path':'/machine','property':'memory'} reply "
                "{'size':1G,'slots':32,'max-size':9G}\n",
                qemu_orders, guest_orders, HELLO_OF_PSERIES);
        start_manager(fx);
        run_until_known(fx);
        assert_int_equal(fx->n_added, 0);
}

void finish(struct fixture *fx)
{
        RUN_UNTIL(fx, fake_finished(fx->qmp));
        RUN_UNTIL(fx, fake_finished(fx->guest));
        if (fx->p)
                RUN_UNTIL(fx, !fx->p->active && !fx->p->settling);
        RUN_UNTIL(fx, fake_finished(fx->qmp) && fake_finished(fx->guest));
}

struct fixture *start_second(
        struct fixture *fx, const char *name, const char *qemu_orders, const char *guest_orders)
{
        struct partition_definition d = { .profile.weight = PARTITION_WEIGHT_DEFAULT };
        struct fixture *second;
        struct error error;
        void *again;

        fixture_setup(&again);
        second = again;
        sd_event_unref(second->event);
        second->event = sd_event_ref(fx->event);
        start_fakes(second, qemu_orders, guest_orders);
        snprintf(d.name, sizeof(d.name), "%s", name);
        strcpy(d.qmp_path, second->qmp_path);
        strcpy(d.channel_path, second->channel_path);
        assert_int_equal(manager_define(fx->manager, &d, &second->p, &error), 0);
        run_until_known(second);
        return second;
}

void finish_second(struct fixture *fx, struct fixture *second)
{
        struct error error;
        void *state = second;

        if (second->p) {
                finish(second);
                assert_int_equal(manager_undefine(fx->manager, second->p->definition.name, &error), 0);
        }
        fixture_teardown(&state);
}

const char *complaints(struct fixture *fx)
{
        static char text[4096];
        size_t n = 0;

        for (unsigned i = 0; i < TRACES_MAX; i++)
                if (fx->traces[i][0])
                        n += (size_t)snprintf(text + n, sizeof(text) - n, "job %u: %s; ", i, fx->traces[i]);
        n += (size_t)snprintf(text + n, sizeof(text) - n, "QEMU: %s; ",
                fx->qmp ? fake_complaint(fx->qmp) ?: "finished" : "none");
        snprintf(text + n, sizeof(text) - n, "guest: %s",
                fx->guest ? fake_complaint(fx->guest) ?: "finished" : "none");
        return text;
}

/* --- jobs --- */

struct job *submit(struct fixture *fx, const struct job_request *request)
{
        struct job *j = NULL;
        struct error error = { 0 };

        if (manager_submit(fx->manager, fx->p, NULL, request, &j, &error) < 0)
                fail_msg("refused: %s", error.message);
        return j;
}

enum error_code try_submit(struct fixture *fx, const struct job_request *request)
{
        struct job *j = NULL;
        struct error error = { 0 };

        if (manager_submit(fx->manager, fx->p, NULL, request, &j, &error) >= 0)
                return ERROR_NONE;
        assert_null(j);
        assert_true(error.message[0]);
        return error.code;
}

void unsettle(struct fixture *fx)
{
        RUN_UNTIL(fx, partition_is_settled(fx->p));
        script(fx->guest, "event blocks-changed\n");
        RUN_UNTIL(fx, !partition_is_settled(fx->p));
}

static const char *reasons(const struct job *j)
{
        static char text[4096];
        size_t n = 0;

        text[0] = '\0';
        for (size_t i = 0; i < j->n_reasons && n < sizeof(text); i++)
                n += (size_t)snprintf(text + n, sizeof(text) - n, "; %s %s %s: %s", j->reasons[i].device,
                        j->reasons[i].block, error_code_name(j->reasons[i].error.code),
                        j->reasons[i].error.message);
        return text;
}

void assert_job(
        struct fixture *fx, const struct job *j, enum job_state state, uint64_t done_bytes, size_t n_reasons)
{
        if (j->state != state || j->done_bytes != done_bytes || j->n_reasons != n_reasons)
                fail_msg("%s with %s and %zu reasons, not %s with %s and %zu%s (%s)",
                        job_state_to_string(j->state), SIZE(j->done_bytes), j->n_reasons,
                        job_state_to_string(state), SIZE(done_bytes), n_reasons, reasons(j), complaints(fx));
}

void assert_reason(
        const struct job *j, size_t index, const char *device, enum error_code code, const char *part)
{
        assert_true(index < j->n_reasons);
        const struct job_reason *r = &j->reasons[index];
        if (strcmp(r->device, device) != 0 || r->error.code != code || !strstr(r->error.message, part))
                fail_msg("reason %zu is not '%s' %s '%s'%s", index, device, error_code_name(code), part,
                        reasons(j));
}

static void add_state(char *trace, const char *state)
{
        size_t used = strlen(trace);

        snprintf(trace + used, TRACE_MAX - used, "%s%s", used > 0 ? " " : "", state);
}

static int on_stored_transition(const struct store_transition *t, void *userdata)
{
        add_state(userdata, t->state);
        return 0;
}

/* It was told so, and the job and the store have it so. */
void assert_trace(struct fixture *fx, const struct job *j, const char *trace)
{
        char of_job[TRACE_MAX] = "", stored[TRACE_MAX] = "";

        assert_string_equal(fx->traces[j->id % TRACES_MAX], trace);
        for (size_t i = 0; i < j->n_transitions; i++) {
                add_state(of_job, job_state_to_string(j->transitions[i].state));
                assert_true(i == 0 || j->transitions[i].time_usec >= j->transitions[i - 1].time_usec);
        }
        assert_string_equal(of_job, trace);
        assert_int_equal(store_transition_foreach(
                                 manager_store(fx->manager), j->id, on_stored_transition, stored, NULL),
                0);
        bool is_stored = j->request.kind != JOB_RESTORE_MEMORY && !j->request.dry_run;
        assert_string_equal(stored, is_stored ? trace : "");
}

void expect_cancel(struct fixture *fx)
{
        char text[128];

        snprintf(text, sizeof(text), "expect cancel @cancel {'target_id':%llu}\nreply @cancel\n",
                (unsigned long long)fx->p->agent->last_id);
        script(fx->guest, text);
}
