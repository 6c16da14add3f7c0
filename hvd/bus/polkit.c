/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who may call what changes anything.
 *
 * A filter sees each call before sd-bus hands it to its method. One that is marked unprivileged passes. Any
 * other is put aside as a check; when it may go on it is queued as if it had just come, so that its method
 * begins anew and looks at everything as it is then, not as it was when polkit was asked. What was allowed is
 * that one message, by its pointer, which the check keeps alive.
 *
 *   CALLER     the bus is asked who the sender is: root and hvd's own user need nobody's leave
 *   AUTHORITY  polkit is asked; a sender that leaves the bus takes its check along
 *   ANSWERER   the bus is asked who it was that said yes: on a bus where anyone may own polkit's name
 *              nobody shall be able to allow himself everything
 *   ALLOWED    queued again; the filter lets it pass once
 *
 * Each state has one pending call, and freeing its slot cancels it. Without polkit there is nobody who could
 * say yes, and so everybody else is refused. */

#include "hvd/bus/polkit.h"

#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "common/size.h"
#include "hvd/bus/bus.h"

#define AUTHORITY_NAME      "org.freedesktop.PolicyKit1"
#define AUTHORITY_PATH      "/org/freedesktop/PolicyKit1/Authority"
#define AUTHORITY_INTERFACE "org.freedesktop.PolicyKit1.Authority"
#define ALLOW_INTERACTION   1U

/* A polkit that has to be started, with rules to be read, takes a second or two. A person who looks for the
 * password takes longer; whoever called gives up by leaving the bus. */
#define AUTHORITY_USEC (10 * USEC_PER_SEC)
#define PERSON_USEC    (120 * USEC_PER_SEC)

/* Calls of one connection of which it is not known whose it is: each waits for one answer of the bus. */
#define UNKNOWN_MAX 256U
/* Calls of one user that wait for polkit, and of all. */
#define ASKED_MAX     16U
#define ASKED_MAX_ALL 256U

#define VTABLES_MAX 8U

struct guarded {
        const char *interface;
        const sd_bus_vtable *vtable; /* as its file has it: the flags say what is open to all */
        sd_bus_vtable *opened;       /* as sd-bus has it */
};

enum check_state {
        CHECK_CALLER,
        CHECK_AUTHORITY,
        CHECK_ANSWERER,
        CHECK_ALLOWED,
};

struct action {
        const char *member; /* a method, or a property that is set */
        const char *id;
        const char *what;
};

struct check {
        TAILQ_ENTRY(check) entry;
        struct polkit *polkit;
        sd_bus_message *message;
        const struct action *action;
        enum check_state state;
        uid_t uid; /* from AUTHORITY on */
        uint64_t cancel_id;
        sd_bus_slot *pending;
        sd_bus_slot *departure; /* the match for the sender's end */
};

struct polkit {
        sd_bus *bus;
        sd_bus_slot *filter;
        struct guarded guarded[VTABLES_MAX];
        size_t n_guarded;
        TAILQ_HEAD(, check) checks;
        uint64_t last_cancel_id;
        uid_t polkitd_uid; /* root's if there is no such user */
};

#define ACTION "org.opendlpar.hvd1."

static const struct action actions[] = {
        { "AddMemory", ACTION "change-memory", "Changing a partition's memory" },
        { "RemoveMemory", ACTION "change-memory", "Changing a partition's memory" },
        { "SetMemory", ACTION "change-memory", "Changing a partition's memory" },
        { "Cancel", ACTION "change-memory", "Cancelling a job" },
        { "MoveMemory", ACTION "move-memory", "Moving memory between partitions" },
        { "Reserve", ACTION "move-memory", "Reserving memory" },
        { "ReleaseReservation", ACTION "move-memory", "Releasing reserved memory" },
        { "PolicyMode", ACTION "set-policy", "Setting the policy's mode" },
        { "SetPolicyMode", ACTION "set-policy", "Setting the policy's mode" },
        { "MemoryMap", ACTION "survey-pages", "Looking at all pages of a guest" },
        { "AddPartition", ACTION "manage-partitions", "Defining a partition" },
        { "RemovePartition", ACTION "manage-partitions", "Undefining a partition" },
        { "SetProfile", ACTION "manage-partitions", "Changing a partition's profile" },
        { "EnrollDomain", ACTION "manage-partitions", "Enrolling a domain" },
        /* What is not named above is not open to more people for that. */
        { NULL, ACTION "manage-partitions", "This change" },
};

static const struct action *find_action(const char *member)
{
        const struct action *a = actions;

        while (a->member && strcmp(a->member, member) != 0)
                a++;
        return a;
}

/* --- a check's end --- */

static void check_free(struct check *c)
{
        TAILQ_REMOVE(&c->polkit->checks, c, entry);
        sd_bus_slot_unref(c->pending);
        sd_bus_slot_unref(c->departure);
        sd_bus_message_unref(c->message);
        free(c);
}

static void drop_pending(struct check *c)
{
        c->pending = sd_bus_slot_unref(c->pending);
}

/* The dialog in front of a person goes away. */
static void withdraw(struct check *c)
{
        char id[32];

        snprintf(id, sizeof(id), "hvd-%" PRIu64, c->cancel_id);
        int r = sd_bus_call_method_async(c->polkit->bus, NULL, AUTHORITY_NAME, AUTHORITY_PATH,
                AUTHORITY_INTERFACE, "CancelCheckAuthorization", NULL, NULL, "s", id);
        if (r < 0)
                log_debug("A question to polkit could not be withdrawn: %s", strerrordesc_np(-r));
}

static void refuse(struct check *c, const char *why)
{
        log_debug("%s by %s is not allowed: %s", c->action->what, sd_bus_message_get_sender(c->message), why);
        int r = sd_bus_reply_method_errorf(
                c->message, SD_BUS_ERROR_ACCESS_DENIED, "%s is not allowed: %s", c->action->what, why);
        if (r < 0)
                log_debug("A refusal could not be sent: %s", strerrordesc_np(-r));
        check_free(c);
}

static void fail(struct check *c, int r)
{
        sd_bus_reply_method_errnof(
                c->message, -r, "The caller's rights could not be checked: %s", strerrordesc_np(-r));
        check_free(c);
}

static void allow(struct check *c)
{
        drop_pending(c);
        c->state = CHECK_ALLOWED;
        int r = sd_bus_enqueue_for_read(c->polkit->bus, c->message);
        if (r < 0)
                fail(c, r);
}

static int ask_bus(struct check *c, const char *name, sd_bus_message_handler_t handler)
{
        return sd_bus_call_method_async(c->polkit->bus, &c->pending, "org.freedesktop.DBus",
                "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetConnectionUnixUser", handler, c, "s",
                name);
}

/* --- ANSWERER --- */

static int on_answerer(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct check *c = userdata;
        uint32_t uid;

        if (sd_bus_message_is_method_error(m, NULL) || sd_bus_message_read_basic(m, 'u', &uid) < 0)
                refuse(c, "polkit went away");
        else if (uid != 0 && uid != getuid() && uid != c->polkit->polkitd_uid)
                refuse(c, "who answers for polkit on this bus is neither root nor the user polkitd");
        else {
                log_info("%s is allowed to user %u by polkit's action %s", c->action->what, c->uid,
                        c->action->id);
                allow(c);
        }
        return 0;
}

/* --- AUTHORITY --- */

static int read_details(sd_bus_message *m, bool *ret_dismissed)
{
        const char *key, *value;
        int r = sd_bus_message_enter_container(m, 'a', "{ss}");

        *ret_dismissed = false;
        while (r >= 0 && (r = sd_bus_message_read(m, "{ss}", &key, &value)) > 0)
                *ret_dismissed |= strcmp(key, "polkit.dismissed") == 0;
        return r < 0 ? r : sd_bus_message_exit_container(m);
}

static void on_error(struct check *c, const sd_bus_error *error)
{
        static const char *const absent[] = {
                SD_BUS_ERROR_SERVICE_UNKNOWN, SD_BUS_ERROR_NAME_HAS_NO_OWNER,
                SD_BUS_ERROR_ACCESS_DENIED, /* the bus lets no one call it */
        };
        char why[512];

        for (size_t i = 0; i < ARRAY_SIZE(absent); i++)
                if (sd_bus_error_has_name(error, absent[i])) {
                        refuse(c, "there is no polkit on this bus, so that it takes root");
                        return;
                }
        if (sd_bus_error_has_name(error, SD_BUS_ERROR_NO_REPLY) ||
                sd_bus_error_has_name(error, SD_BUS_ERROR_TIMEOUT) ||
                sd_bus_error_has_name(error, "System.Error.ETIMEDOUT")) {
                withdraw(c);
                refuse(c, "polkit gave no answer; as root it is not asked");
                return;
        }
        snprintf(why, sizeof(why), "polkit could not decide about the action %s: %.200s", c->action->id,
                error->message ?: error->name);
        refuse(c, why);
}

static int on_answer(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct check *c = userdata;
        int authorized = 0, challenge = 0;
        bool dismissed;
        char why[256];

        if (sd_bus_message_is_method_error(m, NULL)) {
                on_error(c, sd_bus_message_get_error(m));
                return 0;
        }
        int r = sd_bus_message_enter_container(m, 'r', "bba{ss}");
        if (r >= 0)
                r = sd_bus_message_read(m, "bb", &authorized, &challenge);
        if (r >= 0)
                r = read_details(m, &dismissed);
        if (r < 0) {
                refuse(c, "polkit's answer cannot be read");
                return 0;
        }
        if (!authorized) {
                snprintf(why, sizeof(why), "%s (polkit's action %s)",
                        dismissed   ? "the administrator's password was not given"
                        : challenge ? "it takes root, or an administrator's password, which nothing here can "
                                      "ask for"
                                    : "it takes root, or leave by a rule of polkit",
                        c->action->id);
                refuse(c, why);
                return 0;
        }
        drop_pending(c);
        c->state = CHECK_ANSWERER;
        r = ask_bus(c, sd_bus_message_get_sender(m), on_answerer);
        if (r < 0)
                fail(c, r);
        return 0;
}

static int append_question(sd_bus_message *call, const struct check *c, bool interactive)
{
        char id[32];

        snprintf(id, sizeof(id), "hvd-%" PRIu64, c->cancel_id);
        return sd_bus_message_append(call, "(sa{sv})sa{ss}us", "system-bus-name", 1, "name", "s",
                sd_bus_message_get_sender(c->message), c->action->id, 2, "method",
                sd_bus_message_get_member(c->message), "object", sd_bus_message_get_path(c->message),
                interactive ? ALLOW_INTERACTION : 0, id);
}

static int on_departure(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct check *c = userdata;
        const char *name, *before, *after;

        if (sd_bus_message_read(m, "sss", &name, &before, &after) < 0 || *after)
                return 0;
        log_debug("%s left while its rights were being checked", name);
        if (c->state == CHECK_AUTHORITY)
                withdraw(c);
        check_free(c);
        return 0;
}

static int watch_departure(struct check *c)
{
        char match[256];

        snprintf(match, sizeof(match),
                "type='signal',sender='org.freedesktop.DBus',interface='org.freedesktop.DBus',"
                "member='NameOwnerChanged',arg0='%s'",
                sd_bus_message_get_sender(c->message));
        return sd_bus_add_match_async(c->polkit->bus, &c->departure, match, on_departure, NULL, c);
}

static int ask_authority(struct check *c)
{
        sd_bus_message *call = NULL;
        bool interactive = sd_bus_message_get_allow_interactive_authorization(c->message) > 0;

        c->state = CHECK_AUTHORITY;
        c->cancel_id = ++c->polkit->last_cancel_id;
        int r = watch_departure(c);
        if (r >= 0)
                r = sd_bus_message_new_method_call(c->polkit->bus, &call, AUTHORITY_NAME, AUTHORITY_PATH,
                        AUTHORITY_INTERFACE, "CheckAuthorization");
        if (r >= 0)
                r = append_question(call, c, interactive);
        if (r >= 0)
                r = sd_bus_call_async(c->polkit->bus, &c->pending, call, on_answer, c,
                        interactive ? PERSON_USEC : AUTHORITY_USEC);
        sd_bus_message_unref(call);
        return r;
}

/* --- CALLER --- */

static bool may_be_asked(const struct polkit *p, uid_t uid)
{
        const struct check *c;
        size_t n = 0, n_own = 0;

        TAILQ_FOREACH (c, &p->checks, entry)
                if (c->state == CHECK_AUTHORITY || c->state == CHECK_ANSWERER) {
                        n++;
                        n_own += c->uid == uid;
                }
        return n < ASKED_MAX_ALL && n_own < ASKED_MAX;
}

static int on_caller(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct check *c = userdata;
        uint32_t uid;

        if (sd_bus_message_is_method_error(m, NULL) || sd_bus_message_read_basic(m, 'u', &uid) < 0) {
                log_debug("%s left before its rights were checked", sd_bus_message_get_sender(c->message));
                check_free(c);
                return 0;
        }
        if (uid == 0 || uid == getuid()) {
                allow(c);
                return 0;
        }
        if (!may_be_asked(c->polkit, uid)) {
                sd_bus_reply_method_errorf(c->message, SD_BUS_ERROR_LIMITS_EXCEEDED,
                        "Too many calls wait for polkit's answer; there may be %u of a user, and %u of all",
                        ASKED_MAX, ASKED_MAX_ALL);
                check_free(c);
                return 0;
        }
        drop_pending(c);
        c->uid = uid;
        int r = ask_authority(c);
        if (r < 0)
                fail(c, r);
        return 0;
}

/* --- the filter --- */

static bool is_guarded(const struct polkit *p, const char *interface, const char *member, char type)
{
        for (size_t i = 0; i < p->n_guarded; i++) {
                if (strcmp(p->guarded[i].interface, interface) != 0)
                        continue;
                for (const sd_bus_vtable *v = p->guarded[i].vtable; v->type != _SD_BUS_VTABLE_END; v++) {
                        const char *name = v->type == _SD_BUS_VTABLE_METHOD ? v->x.method.member
                                           : v->type == _SD_BUS_VTABLE_WRITABLE_PROPERTY
                                                   ? v->x.property.member
                                                   : NULL;

                        if (v->type == type && name && strcmp(name, member) == 0)
                                return !(v->flags & SD_BUS_VTABLE_UNPRIVILEGED);
                }
        }
        return false;
}

/* NULL: not to be checked here. What is malformed or unknown is refused by sd-bus. */
static const char *find_guarded(const struct polkit *p, sd_bus_message *m)
{
        const char *interface = sd_bus_message_get_interface(m), *member = sd_bus_message_get_member(m);

        if (!interface || !member)
                return NULL;
        if (strcmp(interface, "org.freedesktop.DBus.Properties") == 0) {
                bool is_set = strcmp(member, "Set") == 0 &&
                              sd_bus_message_read(m, "ss", &interface, &member) >= 0 &&
                              is_guarded(p, interface, member, _SD_BUS_VTABLE_WRITABLE_PROPERTY);

                sd_bus_message_rewind(m, true);
                return is_set ? member : NULL;
        }
        return is_guarded(p, interface, member, _SD_BUS_VTABLE_METHOD) ? member : NULL;
}

static bool is_allowed(struct polkit *p, const sd_bus_message *m)
{
        struct check *c;

        TAILQ_FOREACH (c, &p->checks, entry)
                if (c->message == m && c->state == CHECK_ALLOWED) {
                        check_free(c);
                        return true;
                }
        return false;
}

static size_t count_unknown(const struct polkit *p, const char *sender)
{
        const struct check *c;
        size_t n = 0;

        TAILQ_FOREACH (c, &p->checks, entry)
                n += c->state == CHECK_CALLER && strcmp(sd_bus_message_get_sender(c->message), sender) == 0;
        return n;
}

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *e)
{
        struct polkit *p = userdata;
        uint8_t type;

        if (sd_bus_message_get_type(m, &type) < 0 || type != SD_BUS_MESSAGE_METHOD_CALL)
                return 0;
        const char *member = find_guarded(p, m);
        if (!member || is_allowed(p, m))
                return 0;
        const char *sender = sd_bus_message_get_sender(m);
        if (!sender)
                return sd_bus_error_set(
                        e, SD_BUS_ERROR_ACCESS_DENIED, "A caller without a name may change nothing");
        if (count_unknown(p, sender) >= UNKNOWN_MAX)
                return sd_bus_error_setf(e, SD_BUS_ERROR_LIMITS_EXCEEDED,
                        "More than %u calls of one connection await an answer", UNKNOWN_MAX);

        struct check *c = calloc(1, sizeof(*c));
        if (!c)
                return -ENOMEM;
        *c = (struct check) { .polkit = p, .message = sd_bus_message_ref(m), .action = find_action(member) };
        TAILQ_INSERT_TAIL(&p->checks, c, entry);
        int r = ask_bus(c, sender, on_caller);
        if (r < 0) {
                check_free(c);
                return r;
        }
        return 1;
}

/* --- life --- */

const sd_bus_vtable *polkit_guard(struct polkit *p, const char *interface, const sd_bus_vtable *vtable)
{
        size_t n = 1;

        if (p->n_guarded == ARRAY_SIZE(p->guarded))
                return NULL;
        while (vtable[n - 1].type != _SD_BUS_VTABLE_END)
                n++;
        sd_bus_vtable *opened = calloc(n, sizeof(*opened));
        if (!opened)
                return NULL;
        memcpy(opened, vtable, n * sizeof(*opened));
        for (size_t i = 0; i < n; i++)
                if (opened[i].type == _SD_BUS_VTABLE_METHOD ||
                        opened[i].type == _SD_BUS_VTABLE_WRITABLE_PROPERTY)
                        opened[i].flags |= SD_BUS_VTABLE_UNPRIVILEGED;
        p->guarded[p->n_guarded++] =
                (struct guarded) { .interface = interface, .vtable = vtable, .opened = opened };
        return opened;
}

struct polkit *polkit_free(struct polkit *p)
{
        if (!p)
                return NULL;
        while (!TAILQ_EMPTY(&p->checks))
                check_free(TAILQ_FIRST(&p->checks));
        sd_bus_slot_unref(p->filter);
        for (size_t i = 0; i < p->n_guarded; i++)
                free(p->guarded[i].opened);
        free(p);
        return NULL;
}

int polkit_new(sd_bus *bus, struct polkit **ret)
{
        struct polkit *p = calloc(1, sizeof(*p));
        if (!p)
                return -ENOMEM;
        p->bus = bus;
        TAILQ_INIT(&p->checks);
        /* Once: later a directory service could keep the loop waiting. */
        const struct passwd *user = getpwnam("polkitd");
        p->polkitd_uid = user ? user->pw_uid : 0;

        int r = sd_bus_add_filter(bus, &p->filter, on_message, p);
        if (r < 0) {
                polkit_free(p);
                return r;
        }
        *ret = p;
        return 0;
}
