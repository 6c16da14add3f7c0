/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the workers do: libvirt's synchronous calls. Nothing in here touches what is the loop's; a call's
 * fields are a worker's from its beginning to its end, and it has a reference of the connection's handle. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hvd/platform/libvirt-internal.h"

/* libvirtd that is there and does not answer is given up after 3 * 5 s. */
#define KEEPALIVE_SEC   5
#define KEEPALIVE_TRIES 3U

#define METADATA_KEY "opendlpar"

/* What libvirt (9.0) or QEMU refuses for a reason that the operator can act on gets a code and a sentence of
 * its own. */
static void translate(struct lv_call *call, const virError *e)
{
        static const char nodes[] = "as the guest has only '";
        const char *message = e && e->message ? e->message : "no reason was given";
        const char *count = strstr(message, nodes);
        unsigned n;

        if (count && sscanf(count + strlen(nodes), "%u", &n) == 1 && n > 0)
                error_set(&call->error, ERROR_UNKNOWN_NODE,
                        "The guest has no such NUMA node: it has %u, from node 0 to node %u", n, n - 1);
        else if (e && e->code == VIR_ERR_OPERATION_INVALID && strstr(message, "not running"))
                error_set(&call->error, ERROR_HYPERVISOR_ABSENT, "The domain does not run");
        else if (strstr(message, "unplug already in progress") || strstr(message, "in the process of unplug"))
                error_set(&call->error, ERROR_UNPLUG_PENDING,
                        "an earlier unplug is pending in QEMU, and the guest does not see to it; a reset of "
                        "the guest ends that (the device leaves then)");
        else if (strstr(message, "uplicate"))
                error_set(&call->error, ERROR_ACCOUNTS_DIFFER,
                        "libvirtd ended in the middle of plugging it: QEMU and the guest have it, and "
                        "libvirt "
                        "does not; it goes with the next start of the domain");
        else
                error_set(&call->error, ERROR_HYPERVISOR_REFUSED, "libvirt: %.400s", message);
}

/* The handle, with a reference: virConnectClose(). NULL: there is none. */
static virConnectPtr take_handle(struct libvirt_connection *c)
{
        pthread_mutex_lock(&c->lock);
        virConnectPtr handle = c->handle;
        if (handle)
                virConnectRef(handle);
        pthread_mutex_unlock(&c->lock);
        return handle;
}

static void give_handle(struct libvirt_connection *c, virConnectPtr handle)
{
        pthread_mutex_lock(&c->lock);
        virConnectPtr before = c->handle;
        c->handle = handle;
        pthread_mutex_unlock(&c->lock);
        if (before) {
                if (!handle) /* what there is registered is of the one before */
                        lv_events_deregister(before, c);
                virConnectClose(before);
        }
}

static void fail(struct lv_call *call, virConnectPtr handle)
{
        virErrorPtr e = virSaveLastError();

        call->is_lost = !handle || virConnectIsAlive(handle) != 1;
        if (call->is_lost)
                error_set(&call->error, ERROR_HYPERVISOR_ABSENT, "libvirt is out of reach: %.300s",
                        e && e->message ? e->message : "the connection ended");
        else
                translate(call, e);
        virFreeError(e);
}

/* --- the connection --- */

static int list_domains(struct lv_call *call, virConnectPtr handle)
{
        virDomainPtr *domains = NULL;
        int n = virConnectListAllDomains(handle, &domains, 0);

        if (n < 0)
                return -1;
        call->uuids = calloc((size_t)n + 1, sizeof(*call->uuids));
        for (int i = 0; i < n; i++) {
                if (call->uuids && virDomainGetUUIDString(domains[i], call->uuids[call->n_uuids]) >= 0)
                        call->n_uuids++;
                virDomainFree(domains[i]);
        }
        free(domains);
        return 0;
}

static void run_open(struct lv_call *call)
{
        struct libvirt_connection *c = call->connection;

        give_handle(c, NULL);
        virConnectPtr handle = virConnectOpen(*c->uri ? c->uri : NULL);
        if (handle) /* not every driver can */
                virConnectSetKeepAlive(handle, KEEPALIVE_SEC, KEEPALIVE_TRIES);
        if (handle && lv_events_register(handle, c, call->generation) >= 0 &&
                list_domains(call, handle) >= 0) {
                give_handle(c, handle);
                return;
        }
        const char *why = virGetLastErrorMessage();
        error_set(&call->error, ERROR_HYPERVISOR_ABSENT, "libvirt is out of reach: %.300s",
                why ?: "no reason was given");
        if (handle) {
                lv_events_deregister(handle, c);
                virConnectClose(handle);
        }
}

/* --- a domain --- */

/* Its own job, if it has one that stands in the way: a migration, a save, a dump. */
static int find_job(virDomainPtr domain)
{
        virTypedParameterPtr params = NULL;
        int type = VIR_DOMAIN_JOB_NONE, n_params = 0, operation = VIR_DOMAIN_JOB_OPERATION_UNKNOWN;

        if (virDomainGetJobStats(domain, &type, &params, &n_params, 0) < 0) {
                virResetLastError();
                return VIR_DOMAIN_JOB_OPERATION_UNKNOWN;
        }
        if (type != VIR_DOMAIN_JOB_NONE && type != VIR_DOMAIN_JOB_COMPLETED)
                virTypedParamsGetInt(params, n_params, VIR_DOMAIN_JOB_OPERATION, &operation);
        virTypedParamsFree(params, n_params);
        return operation;
}

static enum run_state find_state(virDomainPtr domain, int *state)
{
        int reason = 0;

        if (virDomainGetState(domain, state, &reason, 0) < 0)
                return RUN_STATE_MAX;
        if (*state == VIR_DOMAIN_SHUTOFF) /* libvirtd logs it as an error to be asked for a job then */
                return RUN_STOPPED;
        switch (find_job(domain)) {
        case VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN:
        case VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT:
                return RUN_MIGRATING;
        case VIR_DOMAIN_JOB_OPERATION_SAVE:
        case VIR_DOMAIN_JOB_OPERATION_DUMP:
        case VIR_DOMAIN_JOB_OPERATION_SNAPSHOT:
                return RUN_SAVING;
        }
        switch (*state) {
        case VIR_DOMAIN_RUNNING:
        case VIR_DOMAIN_BLOCKED:
                return RUN_RUNNING;
        case VIR_DOMAIN_PAUSED:
                return reason == VIR_DOMAIN_PAUSED_MIGRATION || reason == VIR_DOMAIN_PAUSED_POSTCOPY
                               ? RUN_MIGRATING
                               : RUN_PAUSED;
        case VIR_DOMAIN_PMSUSPENDED:
                return RUN_PAUSED;
        default:
                return RUN_STOPPED;
        }
}

/* libvirt's XML has the balloon's size by an event that comes once a second, and no statistics. Without the
 * guest's driver, or while a migration has the domain, the XML's word stands. */
static void ask_balloon(virDomainPtr domain, struct domain_account *a)
{
        virDomainMemoryStatStruct stats[VIR_DOMAIN_MEMORY_STAT_NR];
        struct platform_snapshot *s = &a->snapshot;
        struct platform_balloon *b = &s->balloon;

        if (a->stats_sec == 0)
                virDomainSetMemoryStatsPeriod(domain, PLATFORM_STATS_SEC, VIR_DOMAIN_AFFECT_LIVE);
        int n = virDomainMemoryStats(domain, stats, ARRAY_SIZE(stats), 0);
        for (int i = 0; i < n; i++) {
                uint64_t bytes = stats[i].val > UINT64_MAX / KIB ? UINT64_MAX : stats[i].val * KIB;

                switch (stats[i].tag) {
                case VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON:
                        b->actual_bytes = MIN(bytes, platform_balloon_total(s));
                        s->balloon_bytes = platform_balloon_total(s) - b->actual_bytes;
                        break;
                case VIR_DOMAIN_MEMORY_STAT_AVAILABLE: /* what the guest has in all */
                        b->stats.total_bytes = bytes;
                        break;
                case VIR_DOMAIN_MEMORY_STAT_UNUSED:
                        b->stats.free_bytes = bytes;
                        break;
                case VIR_DOMAIN_MEMORY_STAT_USABLE: /* what MemAvailable is */
                        b->stats.available_bytes = bytes;
                        break;
                case VIR_DOMAIN_MEMORY_STAT_LAST_UPDATE:
                        b->stats.updated_sec = stats[i].val;
                        break;
                }
        }
        virResetLastError();
}

static void run_look(struct lv_call *call, virDomainPtr domain)
{
        struct lv_look *look = &call->look;
        int state = VIR_DOMAIN_NOSTATE;
        enum run_state run_state = find_state(domain, &state);
        char *xml = run_state == RUN_STATE_MAX ? NULL : virDomainGetXMLDesc(domain, 0);

        if (!xml) {
                const virError *e = virGetLastError();
                if (e && e->code == VIR_ERR_NO_DOMAIN) /* in between */
                        look->is_absent = true;
                else
                        fail(call, virDomainGetConnect(domain));
                return;
        }
        if (domain_account_parse(xml, &look->account, &call->error) >= 0) {
                /* By the XML itself: the domain may have ended since it was looked up, and this is what is
                 * left. */
                look->is_active = look->account.id >= 0;
                look->domain_id = look->account.id;
                look->account.snapshot.state = look->is_active ? run_state : RUN_ABSENT;
                if (call->wants_balloon && look->is_active && run_state == RUN_RUNNING &&
                        look->account.snapshot.balloon.present)
                        ask_balloon(domain, &look->account);
        }
        free(xml);
}

static unsigned change_flags(const struct lv_call *call)
{
        return (call->live ? (unsigned)VIR_DOMAIN_AFFECT_LIVE : 0) |
               (call->persistent ? (unsigned)VIR_DOMAIN_AFFECT_CONFIG : 0);
}

/* libvirt would wait for the migration's end, and all other calls with it. */
static bool may_change(struct lv_call *call, virDomainPtr domain)
{
        /* A domain that does not run has no job, and libvirtd logs it as an error to be asked for one. */
        bool is_running = call->kind == LV_PROFILE ? virDomainIsActive(domain) == 1 : call->live;
        int operation = is_running ? find_job(domain) : VIR_DOMAIN_JOB_OPERATION_UNKNOWN;

        if (operation == VIR_DOMAIN_JOB_OPERATION_UNKNOWN || operation == VIR_DOMAIN_JOB_OPERATION_BACKUP)
                return true;
        error_set(&call->error, ERROR_NOT_RUNNING,
                "The guest is being %s, and its %s cannot change now; ask again when that has ended",
                operation == VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT ||
                                operation == VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN
                        ? "migrated"
                        : "saved",
                call->kind == LV_PROFILE ? "profile" : "memory");
        return false;
}

static int resize(struct lv_call *call, virDomainPtr domain)
{
        char *xml = virDomainGetXMLDesc(domain, 0);
        if (!xml)
                return -1;
        char *device = domain_resize_xml(xml, call->alias, call->bytes, &call->error);
        free(xml);
        if (!device)
                return 0;
        int r = virDomainUpdateDeviceFlags(domain, device, change_flags(call));
        free(device);
        return r;
}

/* What the balloon's size counts from, of the running domain or of its definition. */
static int ask_balloon_total(struct lv_call *call, virDomainPtr domain, unsigned flags, uint64_t *ret_bytes)
{
        struct domain_account a;
        char *xml = virDomainGetXMLDesc(domain, flags);
        if (!xml)
                return -1;
        int r = domain_account_parse(xml, &a, &call->error);
        free(xml);
        if (r < 0)
                return 0;
        *ret_bytes = platform_balloon_total(&a.snapshot);
        domain_account_done(&a);
        return 1;
}

/* The definition may have other DIMMs than the running domain: what the balloon has taken is the same in
 * both. */
static int set_balloon(struct lv_call *call, virDomainPtr domain)
{
        unsigned long live_kib = (unsigned long)(call->bytes / KIB);
        uint64_t running = 0, defined = 0;

        if (!call->persistent)
                return virDomainSetMemoryFlags(domain, live_kib, VIR_DOMAIN_AFFECT_LIVE);
        /* All that can be refused comes before the guest is moved. */
        if (virDomainIsPersistent(domain) == 0) {
                error_set(&call->error, ERROR_INVALID_ARGUMENT,
                        "The domain has no persistent definition; leave out --config");
                return 0;
        }
        int r = ask_balloon_total(call, domain, 0, &running);
        if (r > 0)
                r = ask_balloon_total(call, domain, VIR_DOMAIN_XML_INACTIVE, &defined);
        if (r <= 0)
                return r;
        uint64_t taken = running - MIN(call->bytes, running);
        if (taken >= defined) {
                error_set(&call->error, ERROR_INVALID_SIZE,
                        "The definition has %s, of which the balloon cannot take %s", SIZE(defined),
                        SIZE(taken));
                return 0;
        }
        r = virDomainSetMemoryFlags(domain, live_kib, VIR_DOMAIN_AFFECT_LIVE);
        if (r < 0)
                return r;
        return virDomainSetMemoryFlags(
                domain, (unsigned long)((defined - taken) / KIB), VIR_DOMAIN_AFFECT_CONFIG);
}

static int enroll(struct lv_call *call, virDomainPtr domain)
{
        struct error what;
        char *changed = NULL, *xml;

        if (!partition_name_valid(call->name)) {
                error_set(&call->error, ERROR_INVALID_ARGUMENT,
                        "'%s' is no name for a partition, which has at most %u of A-Z a-z 0-9 . _ - and "
                        "begins with "
                        "neither . nor -; 'virsh domrename' changes it",
                        call->name, PARTITION_NAME_MAX);
                return 0;
        }
        if (virDomainIsPersistent(domain) == 0) {
                error_set(&call->error, ERROR_INVALID_ARGUMENT,
                        "Domain '%s' has no persistent definition, and goes when it ends", call->name);
                return 0;
        }
        xml = virDomainGetXMLDesc(domain, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE);
        if (!xml)
                return -1;
        int r = domain_enroll_xml(xml, call->bytes, call->slots, &changed, &what, &call->error);
        free(xml);
        if (r < 0)
                return 0;
        if (!changed)
                return asprintf(&call->text, "%s: nothing is missing", call->name) < 0 ? -1 : 0;
        virDomainPtr defined = virDomainDefineXML(virDomainGetConnect(domain), changed);
        free(changed);
        if (!defined)
                return -1;
        virDomainFree(defined);
        if (asprintf(&call->text, "%s: added %s%s", call->name, what.message,
                    virDomainIsActive(domain) == 1 ? "; it takes effect when the domain is started next"
                                                   : "") < 0)
                call->text = NULL;
        return 0;
}

static int change(struct lv_call *call, virDomainPtr domain)
{
        switch (call->kind) {
        case LV_ATTACH:
                return virDomainAttachDeviceFlags(domain, call->xml, change_flags(call));
        case LV_DETACH:
                return virDomainDetachDeviceAlias(domain, call->alias, change_flags(call));
        case LV_RESIZE:
                return resize(call, domain);
        case LV_BALLOON:
                return set_balloon(call, domain);
        case LV_ENROLL:
                return enroll(call, domain);
        case LV_PROFILE: {
                unsigned flags = 0;
                if (virDomainIsActive(domain) == 1)
                        flags |= VIR_DOMAIN_AFFECT_LIVE;
                if (virDomainIsPersistent(domain) == 1)
                        flags |= VIR_DOMAIN_AFFECT_CONFIG;
                return virDomainSetMetadata(domain, VIR_DOMAIN_METADATA_ELEMENT, call->xml, METADATA_KEY,
                        DOMAIN_METADATA_URI, flags);
        }
        default:
                return 0;
        }
}

static void run_with_handle(struct lv_call *call, virConnectPtr handle)
{
        virDomainPtr domain = NULL;

        if (handle)
                domain = call->uuid[0] ? virDomainLookupByUUIDString(handle, call->uuid)
                                       : virDomainLookupByName(handle, call->name);
        if (!domain) {
                const virError *e = virGetLastError();

                if (!e || e->code != VIR_ERR_NO_DOMAIN)
                        fail(call, handle);
                else if (call->kind == LV_LOOK)
                        call->look.is_absent = true;
                else if (call->name[0])
                        error_set(&call->error, ERROR_UNKNOWN_PARTITION,
                                "libvirt has no domain '%s'; 'virsh list --all' shows them", call->name);
                else
                        error_set(&call->error, ERROR_HYPERVISOR_ABSENT, "The domain is gone");
                return;
        }
        if (call->kind == LV_LOOK)
                run_look(call, domain);
        else if (may_change(call, domain) && change(call, domain) < 0)
                fail(call, handle);
        virDomainFree(domain);
}

void lv_call_run(struct worker_task *t)
{
        struct lv_call *call = (struct lv_call *)t;

        virResetLastError();
        if (call->kind == LV_OPEN)
                run_open(call);
        else if (call->kind == LV_CLOSE)
                give_handle(call->connection, NULL);
        else {
                virConnectPtr handle = take_handle(call->connection);

                run_with_handle(call, handle);
                if (handle)
                        virConnectClose(handle);
        }
}
