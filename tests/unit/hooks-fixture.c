/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "hooks-fixture.h"

void put_at(const char *path, mode_t mode, const char *text)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
        assert_int_equal(fchmod(fd, mode), 0);
        close(fd);
}

void put(struct env *e, const char *name, mode_t mode, const char *text)
{
        char path[160], body[1024];

        snprintf(path, sizeof(path), "%s/%s", e->folder, name);
        snprintf(body, sizeof(body), "#!/bin/sh\nTRACE=%s\n%s\n", e->trace, text);
        put_at(path, mode, body);
}

void remove_file(struct env *e, const char *name)
{
        char path[160];

        snprintf(path, sizeof(path), "%s/%s", e->folder, name);
        assert_int_equal(unlink(path), 0);
}

char *read_trace(struct env *e)
{
        static char text[4096];
        int fd = open(e->trace, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

        text[n < 0 ? 0 : n] = '\0';
        close_fd(fd);
        return text;
}

struct hooks_request request(enum hook_phase phase)
{
        return (struct hooks_request) {
                .kind = HOOKS_RUN,
                .call = { .phase = phase, .operation = HOOK_REMOVE, .job = 12, .reason = "operator" },
                .bytes = 2 * GIB,
                .limit_usec = LIMIT_USEC,
        };
}

void send_request(struct env *e, struct hooks_request q)
{
        assert_int_equal(hooks_client_open(&e->client), 0);
        q.id = ++e->last_id;
        assert_int_equal(hooks_client_send(&e->client, &q), 0);
}

uint64_t receive(struct env *e)
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

uint64_t run(struct env *e, enum hook_phase phase)
{
        send_request(e, request(phase));
        return receive(e);
}

void assert_result(struct env *e, size_t i, const char *name, enum error_code code, const char *part)
{
        if (i >= e->answer.n_results)
                fail_msg("%u results, not %zu", e->answer.n_results, i + 1);
        struct hooks_result *r = &e->answer.results[i];
        if (strcmp(r->name, name) != 0 || r->code != code || !strstr(r->message, part))
                fail_msg("'%s' %s '%s'", r->name, error_code_name(r->code), r->message);
}

void assert_answer(struct env *e, bool complete, size_t n_results)
{
        if (e->answer.complete != complete || e->answer.n_results != n_results)
                fail_msg("complete %d, %u results: %s", e->answer.complete, e->answer.n_results,
                        e->answer.n_results ? e->answer.results[0].message : "");
}

int setup(void **state)
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

int teardown(void **state)
{
        struct env *e = *state;
        char command[80];

        hooks_client_done(&e->client);
        snprintf(command, sizeof(command), "rm -rf -- %s", e->dir);
        assert_int_equal(system(command), 0);
        free(e);
        return 0;
}

void put_begun(struct env *e)
{
        put_at(e->state, 0600, "remove 2147483648 12 -1 1\n");
}

bool is_alive(const char *pid)
{
        return kill((pid_t)atoi(pid), 0) == 0;
}
