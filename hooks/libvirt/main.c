/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libvirt's hook for QEMU's domains: before one starts its memory is reserved with hvd, which makes room if
 * the pool is short of it; when it has ended what is left of the reservation is given back.
 *
 * libvirt waits for it, and a hook that calls libvirt waits for ever: so it speaks to hvd alone, under a
 * limit. The start is refused only if hvd says that there is no room and the configuration says that this
 * matters. Whatever else goes wrong (no hvd, no bus, an XML that cannot be read, a bad configuration) is no
 * reason to keep a guest from starting; and a reconnecting libvirtd would kill a running guest if its hook
 * failed, so that all operations but `prepare` succeed always. Standard output stays empty: for some
 * operations libvirt would take it for the domain's new XML. */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <ini.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/size.h"
#include "hvd/config.h"
#include "hvd/platform/libvirt-xml.h"

#define HVD_NAME      "org.opendlpar.hvd1"
#define HVD_PATH      "/org/opendlpar/hvd1"
#define HVD_INTERFACE HVD_NAME ".Manager"

#define CONFIG_PATH "/etc/opendlpar/hook.conf"
#define STATE_DIR   "/run/opendlpar-libvirt-hook"
#define XML_MAX     (4U * 1024U * 1024U)
/* From the start to hvd's seeing the domain run. */
#define KEEP_USEC (5 * 60 * USEC_PER_SEC)
/* Of one that is no partition, as it has no channel or no name for one: hvd's limit. */
#define KEEP_FOREIGN_USEC (24 * 3600 * USEC_PER_SEC)
#define WAIT_MAX_USEC     (10 * 60 * USEC_PER_SEC)
/* What the bus may take beyond hvd's own limit. */
#define SPARE_USEC (2 * USEC_PER_SEC)

static const char *arg_bus;
static const char *arg_config = CONFIG_PATH;
static const char *arg_state_dir = STATE_DIR;

struct hook_config {
        uint64_t wait_usec;
        bool refuse;
};

/* --- the configuration --- */

/* inih's handler: 1 to go on. */
static int on_key(void *userdata, const char *section, const char *name, const char *value)
{
        struct hook_config *c = userdata;
        struct error error = { 0 };

        if (strcmp(section, "hook") != 0)
                error_set(&error, ERROR_CONFIG, "section '%.40s' is not known; there is [hook]", section);
        else if (strcmp(name, "wait") == 0) {
                if (timespan_parse(value, &c->wait_usec, &error) >= 0 && c->wait_usec > WAIT_MAX_USEC)
                        error_set(&error, ERROR_CONFIG, "wait: '%.40s' is more than 10 minutes", value);
        } else if (strcmp(name, "refuse") == 0 && (strcmp(value, "yes") == 0 || strcmp(value, "no") == 0))
                c->refuse = strcmp(value, "yes") == 0;
        else if (strcmp(name, "refuse") == 0)
                error_set(&error, ERROR_CONFIG, "refuse: '%.40s' is not known; write yes or no", value);
        else
                error_set(&error, ERROR_CONFIG, "key '%.40s' is not known; there are wait and refuse", name);
        if (error.code)
                fprintf(stderr, "opendlpar: %s: %s\n", arg_config, error.message);
        return error.code == ERROR_NONE;
}

/* A bad file is refused whole. */
static struct hook_config load_config(void)
{
        static const struct hook_config defaults = { .wait_usec = 30 * USEC_PER_SEC, .refuse = false };
        struct hook_config c = defaults;
        int r = ini_parse(arg_config, on_key, &c);

        if (r == 0 || (r < 0 && errno == ENOENT))
                return c;
        fprintf(stderr, "opendlpar: %s: it cannot be used%s; the defaults are\n", arg_config,
                r > 0 ? " for one of its lines" : "");
        return defaults;
}

/* --- the reservation that was made, kept from one call of the hook to another --- */

static bool uuid_is_plain(const char *uuid)
{
        return strlen(uuid) == 36 && strspn(uuid, "0123456789abcdefABCDEF-") == 36;
}

static char *state_path(const char *uuid)
{
        char *path = NULL;

        return uuid_is_plain(uuid) && asprintf(&path, "%s/%s", arg_state_dir, uuid) >= 0 ? path : NULL;
}

/* Which reservation. An hvd that is started meanwhile knows it still, and does not use its number anew. */
static void remember(const char *uuid, uint32_t id)
{
        _cleanup_free_ char *path = state_path(uuid);

        if (!path || (mkdir(arg_state_dir, 0700) < 0 && errno != EEXIST))
                return;
        FILE *f = fopen(path, "we");
        if (!f)
                return;
        fprintf(f, "%" PRIu32 "\n", id);
        fclose(f);
}

static bool take_remembered(const char *uuid, uint32_t *ret_id)
{
        _cleanup_free_ char *path = state_path(uuid);
        FILE *f = path ? fopen(path, "re") : NULL;

        if (!f)
                return false;
        char rest[2]; /* an hvd's name, where a hook before this one wrote it: that one may have ended */
        bool found = fscanf(f, "%" SCNu32 " %1s", ret_id, rest) == 1;
        fclose(f);
        unlink(path);
        return found;
}

/* --- hvd --- */

static int connect_bus(sd_bus **ret)
{
        sd_bus *bus = NULL;

        if (!arg_bus)
                return sd_bus_open_system(ret);
        int r = sd_bus_new(&bus);
        if (r >= 0)
                r = sd_bus_set_address(bus, arg_bus);
        if (r >= 0)
                r = sd_bus_set_bus_client(bus, true);
        if (r >= 0)
                r = sd_bus_start(bus);
        if (r < 0)
                sd_bus_unref(bus);
        else
                *ret = bus;
        return r;
}

/* Not one that would be started for it: nobody had it make room before. */
static int new_call(sd_bus *bus, const char *member, sd_bus_message **ret)
{
        int r = sd_bus_message_new_method_call(bus, ret, HVD_NAME, HVD_PATH, HVD_INTERFACE, member);

        return r < 0 ? r : sd_bus_message_set_auto_start(*ret, false);
}

static int reserve(const struct hook_config *c, const struct domain_account *a, uint64_t bytes)
{
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *call = NULL, *reply = NULL;
        sd_bus *bus = NULL;
        uint32_t id;
        int code = EXIT_SUCCESS;
        /* A domain's name may be one that no partition has, nor an owner. */
        bool is_name = partition_name_valid(a->name), will_be_seen = a->has_channel && is_name;
        const char *owner = is_name ? a->name : a->snapshot.uuid;

        int r = connect_bus(&bus);
        if (r >= 0)
                r = new_call(bus, "Reserve", &call);
        if (r >= 0)
                r = sd_bus_message_append(call, "sta{sv}", owner, bytes, 3, "wait-usec", "t", c->wait_usec,
                        "keep", "b", 1, "timeout-usec", "t", will_be_seen ? KEEP_USEC : KEEP_FOREIGN_USEC);
        if (r >= 0)
                r = sd_bus_call(bus, call, c->wait_usec + SPARE_USEC, &error, &reply);
        if (r >= 0)
                r = sd_bus_message_read(reply, "u", &id);
        if (r >= 0)
                remember(a->snapshot.uuid, id);
        else if (error_code_from_dbus_name(error.name ?: "") == ERROR_POOL_EXHAUSTED ||
                 error_code_from_dbus_name(error.name ?: "") == ERROR_DEADLINE) {
                fprintf(stderr, "opendlpar: no room for the %s of %s: %s%s\n", SIZE(bytes), a->name,
                        error.message, c->refuse ? "" : "; it is started all the same");
                code = c->refuse ? EXIT_FAILURE : EXIT_SUCCESS;
        } else
                fprintf(stderr,
                        "opendlpar: nothing was reserved for %s, and it is started all the same: %s\n",
                        a->name, error.message ?: strerrordesc_np(-r));
        sd_bus_error_free(&error);
        sd_bus_message_unref(call);
        sd_bus_message_unref(reply);
        sd_bus_close_unref(bus);
        return code;
}

static void release(const char *uuid)
{
        sd_bus_message *call = NULL;
        sd_bus *bus = NULL;
        uint32_t id;

        if (!take_remembered(uuid, &id))
                return;
        int r = connect_bus(&bus);
        /* Most are used up by then, and hvd says so. */
        if (r >= 0)
                r = new_call(bus, "ReleaseReservation", &call);
        if (r >= 0)
                r = sd_bus_message_append(call, "u", id);
        if (r >= 0)
                sd_bus_call(bus, call, SPARE_USEC, NULL, NULL);
        sd_bus_message_unref(call);
        sd_bus_close_unref(bus);
}

/* --- the hook --- */

static char *read_input(void)
{
        size_t used = 0;
        char *text = malloc(XML_MAX + 1);

        while (text && used < XML_MAX) {
                ssize_t n = read(STDIN_FILENO, text + used, XML_MAX - used);
                if (n <= 0)
                        break;
                used += (size_t)n;
        }
        if (text)
                text[used] = '\0';
        return text;
}

/* What the host will have to give when the domain starts. */
static uint64_t start_bytes(const struct platform_snapshot *s)
{
        uint64_t bytes = s->base_bytes;

        for (size_t i = 0; i < s->n_devices; i++)
                bytes += s->devices[i].is_dimm ? s->devices[i].size_bytes : s->devices[i].requested_bytes;
        return bytes;
}

static void on_alarm(int signal)
{
        _exit(EXIT_SUCCESS);
}

static int run(const char *operation)
{
        bool begins = strcmp(operation, "prepare") == 0, ends = strcmp(operation, "release") == 0;
        _cleanup_free_ char *xml = NULL;
        struct hook_config c = { 0 };
        struct domain_account a;
        struct error error;

        if (!begins && !ends)
                return EXIT_SUCCESS;
        if (begins)
                c = load_config();
        /* For what the limits of single steps do not see. */
        signal(SIGALRM, on_alarm);
        alarm((unsigned)((c.wait_usec + 3 * SPARE_USEC) / USEC_PER_SEC));
        xml = read_input();
        if (!xml || domain_account_parse(xml, &a, &error) < 0) {
                fprintf(stderr, "opendlpar: %s\n", xml ? error.message : "Out of memory");
                return EXIT_SUCCESS;
        }
        int code = EXIT_SUCCESS;
        /* Also what an earlier start left behind that nobody ended, as libvirtd was killed in the middle. */
        release(a.snapshot.uuid);
        if (begins)
                code = reserve(&c, &a, start_bytes(&a.snapshot));
        domain_account_done(&a);
        return code;
}

static void help(void)
{
        printf("opendlpar-libvirt-hook [OPTIONS...] DOMAIN OPERATION [SUB-OPERATION [EXTRA]] <XML\n\n"
               "libvirt's hook for QEMU: reserves a domain's memory with hvd before it starts.\n\n"
               "  --bus ADDRESS      hvd's bus (the system's)\n"
               "  --config FILE      (" CONFIG_PATH ")\n"
               "  --state-dir DIR    (" STATE_DIR ")\n");
}

int main(int argc, char **argv)
{
        static const struct option options[] = {
                { "bus", required_argument, NULL, 'b' },
                { "config", required_argument, NULL, 'c' },
                { "state-dir", required_argument, NULL, 's' },
                { "help", no_argument, NULL, 'h' },
                {},
        };
        int c;

        /* "+": libvirt's own words, of which one is "-", are none of these. */
        while ((c = getopt_long(argc, argv, "+h", options, NULL)) >= 0)
                switch (c) {
                case 'b':
                        arg_bus = optarg;
                        break;
                case 'c':
                        arg_config = optarg;
                        break;
                case 's':
                        arg_state_dir = optarg;
                        break;
                case 'h':
                        help();
                        return EXIT_SUCCESS;
                default:
                        return EXIT_SUCCESS; /* said; and no reason to keep a guest from starting */
                }
        signal(SIGPIPE, SIG_IGN);
        return argc - optind < 2 ? EXIT_SUCCESS : run(argv[optind + 1]);
}
