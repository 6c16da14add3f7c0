/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Reading a domain's XML.
 *
 * What libvirt (9.0) means by its figures: <memory> is all memory, that of DIMMs and the whole of every
 * virtio-mem device included; <currentMemory> is what the balloon leaves of it, with virtio-mem counted by
 * what it has plugged. So what the machine had at boot is what is left of <memory> without devices. */

#include "hvd/platform/libvirt-xml.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "common/size.h"
#include "common/text.h"
#include "hvd/platform/libvirt-xml-internal.h"
#include "proto/message.h"

/* --- the tree --- */

int xml_parse(const char *text, xmlDoc **ret, struct error *ret_error)
{
        size_t length = strlen(text);
        xmlDoc *doc = length <= XML_BYTES_MAX ? xmlReadMemory(text, (int)length, NULL, NULL,
                                                        XML_PARSE_NONET | XML_PARSE_NOERROR |
                                                                XML_PARSE_NOWARNING | XML_PARSE_NOBLANKS)
                                              : NULL;

        if (!doc)
                return error_set(ret_error, ERROR_HYPERVISOR_MISBEHAVED, "The domain's XML cannot be read");
        xmlNode *root = xmlDocGetRootElement(doc);
        /* A document type could define entities: libvirt's documents have none. */
        if (doc->intSubset || !root || strcmp((const char *)root->name, "domain") != 0) {
                xmlFreeDoc(doc);
                return error_set(ret_error, ERROR_HYPERVISOR_MISBEHAVED, "The XML is not that of a domain");
        }
        *ret = doc;
        return 0;
}

xmlNode *xml_child(xmlNode *parent, const char *name)
{
        for (xmlNode *n = parent ? parent->children : NULL; n; n = n->next)
                if (n->type == XML_ELEMENT_NODE && strcmp((const char *)n->name, name) == 0)
                        return n;
        return NULL;
}

xmlNode *xml_next(xmlNode *n)
{
        const xmlChar *name = n->name;

        while ((n = n->next))
                if (n->type == XML_ELEMENT_NODE && xmlStrEqual(n->name, name))
                        return n;
        return NULL;
}

bool xml_attribute(xmlNode *n, const char *name, size_t size, char *ret)
{
        xmlChar *value = n ? xmlGetNoNsProp(n, (const xmlChar *)name) : NULL;
        bool fits = value && strlen((const char *)value) < size;

        if (fits)
                memcpy(ret, value, strlen((const char *)value) + 1);
        else
                ret[0] = '\0';
        xmlFree(value);
        return fits;
}

bool xml_attribute_is(xmlNode *n, const char *name, const char *value)
{
        char have[64];

        return xml_attribute(n, name, sizeof(have), have) && strcmp(have, value) == 0;
}

bool xml_text(xmlNode *n, size_t size, char *ret)
{
        xmlChar *value = n ? xmlNodeGetContent(n) : NULL;

        /* A domain's name may be longer than ours: the beginning is enough to speak of it. */
        snprintf(ret, size, "%s", value ? (const char *)value : "");
        xmlFree(value);
        return ret[0] != '\0';
}

static bool parse_u64(const char *text, uint64_t *ret)
{
        char *end;
        size_t skip = strspn(text, " \t\r\n");

        if (text[skip] < '0' || text[skip] > '9')
                return false;
        errno = 0;
        unsigned long long v = strtoull(text + skip, &end, 0);
        if (errno || end[strspn(end, " \t\r\n")] != '\0')
                return false;
        *ret = v;
        return true;
}

bool xml_attribute_u64(xmlNode *n, const char *name, uint64_t max, uint64_t *ret)
{
        char text[40];
        uint64_t v;

        if (!xml_attribute(n, name, sizeof(text), text) || !parse_u64(text, &v) || v > max)
                return false;
        *ret = v;
        return true;
}

static bool scale(const char *unit, uint64_t *bytes)
{
        static const struct {
                const char *name;
                uint64_t bytes;
        } units[] = {
                { "", KIB },
                { "b", 1 },
                { "bytes", 1 },
                { "k", KIB },
                { "KiB", KIB },
                { "KB", 1000 },
                { "M", MIB },
                { "MiB", MIB },
                { "MB", 1000 * 1000 },
                { "G", GIB },
                { "GiB", GIB },
                { "GB", 1000ULL * 1000 * 1000 },
                { "T", TIB },
                { "TiB", TIB },
        };

        for (size_t i = 0; i < ARRAY_SIZE(units); i++)
                if (strcmp(units[i].name, unit) == 0)
                        return !__builtin_mul_overflow(*bytes, units[i].bytes, bytes) &&
                               *bytes <= PROTO_ADDRESS_MAX;
        return false;
}

bool xml_bytes(xmlNode *n, uint64_t *ret)
{
        char text[40], unit[16];
        uint64_t v;

        if (!n || !xml_text(n, sizeof(text), text) || !parse_u64(text, &v))
                return false;
        xml_attribute(n, "unit", sizeof(unit), unit);
        if (!scale(unit, &v))
                return false;
        *ret = v;
        return true;
}

static bool xml_attribute_bytes(xmlNode *n, const char *name, uint64_t *ret)
{
        char unit[16];
        uint64_t v;

        xml_attribute(n, "unit", sizeof(unit), unit);
        if (!xml_attribute_u64(n, name, UINT64_MAX, &v) || !scale(unit, &v))
                return false;
        *ret = v;
        return true;
}

/* --- devices --- */

void domain_alias_to_id(const char *alias, char ret[static PLATFORM_ID_MAX])
{
        static const char prefix[] = DOMAIN_ALIAS_PREFIX PLATFORM_DEVICE_PREFIX;
        bool ours = strncmp(alias, prefix, strlen(prefix)) == 0;

        snprintf(ret, PLATFORM_ID_MAX, "%s", alias + (ours ? strlen(DOMAIN_ALIAS_PREFIX) : 0));
        if (ours)
                ret[strcspn(ret, "_")] = '\0'; /* a name's second life, see domain_id_to_alias() */
}

void domain_id_to_alias(const char *id, unsigned life, char ret[static PLATFORM_ID_MAX + 3])
{
        bool ours = strncmp(id, PLATFORM_DEVICE_PREFIX, strlen(PLATFORM_DEVICE_PREFIX)) == 0;
        char suffix[16] = "";

        if (ours && life > 0)
                snprintf(suffix, sizeof(suffix), "_%u", life);
        snprintf(ret, PLATFORM_ID_MAX + 3, "%s%.50s%s", ours ? DOMAIN_ALIAS_PREFIX : "", id, suffix);
}

static int take_memory_device(xmlNode *n, struct platform_device *d)
{
        xmlNode *target = xml_child(n, "target"), *address = xml_child(n, "address");
        char model[32], alias[PLATFORM_ID_MAX];
        uint64_t v = 0;

        xml_attribute(n, "model", sizeof(model), model);
        d->is_dimm = strcmp(model, "dimm") == 0;
        if (!d->is_dimm && strcmp(model, "virtio-mem") != 0)
                return 0; /* an NVDIMM or the like is no memory of the kernel's */
        if (!xml_bytes(xml_child(target, "size"), &d->region_bytes))
                return -EBADMSG;
        if (xml_attribute(xml_child(n, "alias"), "name", sizeof(alias), alias)) {
                domain_alias_to_id(alias, d->id);
                strcpy(d->memdev, alias);
                d->hotpluggable = d->is_dimm;
        }
        char node[16];
        uint64_t number;
        if (xml_text(xml_child(target, "node"), sizeof(node), node) && parse_u64(node, &number) &&
                number < PLATFORM_NODES_MAX)
                d->node = (unsigned)number;
        if (d->is_dimm) {
                d->size_bytes = d->requested_bytes = d->region_bytes;
                if (xml_attribute_u64(address, "slot", PLATFORM_DEVICES_MAX, &v))
                        d->slot = (unsigned)v;
                xml_attribute_u64(address, "base", PROTO_ADDRESS_MAX, &d->address);
        } else {
                xml_bytes(xml_child(target, "block"), &d->unit_bytes);
                xml_bytes(xml_child(target, "requested"), &d->requested_bytes);
                xml_bytes(xml_child(target, "current"), &d->size_bytes);
                /* libvirt tells it from 9.4 on. */
                xml_attribute_u64(xml_child(target, "address"), "base", PROTO_ADDRESS_MAX, &d->address);
        }
        return 1;
}

static int compare_devices(const void *a, const void *b)
{
        const struct platform_device *x = a, *y = b;

        return x->address < y->address ? -1 : x->address > y->address;
}

/* *ret_all_bytes: what libvirt's <memory> has of devices, of whatever kind. */
static int take_devices(xmlNode *devices, struct platform_snapshot *s, uint64_t *ret_all_bytes)
{
        struct platform_device *found = calloc(PLATFORM_DEVICES_MAX, sizeof(*found));
        size_t n_found = 0;
        uint64_t size, unknown = PLATFORM_ADDRESS_UNKNOWN;

        if (!found)
                return -ENOMEM;
        s->devices = found;
        *ret_all_bytes = 0;
        for (xmlNode *n = xml_child(devices, "memory"); n; n = xml_next(n)) {
                if (n_found == PLATFORM_DEVICES_MAX)
                        return -EBADMSG;
                found[n_found] = (struct platform_device) { 0 };
                int r = take_memory_device(n, &found[n_found]);
                if (r < 0)
                        return r;
                if (xml_bytes(xml_child(xml_child(n, "target"), "size"), &size))
                        *ret_all_bytes += size;
                if (r == 0)
                        continue;
                if (found[n_found].address == 0) {
                        found[n_found].address = unknown;
                        unknown += found[n_found].region_bytes;
                }
                s->plugged_bytes += found[n_found].size_bytes;
                n_found++;
        }
        qsort(found, n_found, sizeof(*found), compare_devices);
        s->n_devices = n_found;
        return 0;
}

static void take_balloon(
        xmlNode *devices, uint64_t current_bytes, struct platform_snapshot *s, uint64_t *ret_stats_sec)
{
        xmlNode *n = xml_child(devices, "memballoon");
        uint64_t dimms = 0, virtio_mem = 0;

        for (size_t i = 0; i < s->n_devices; i++)
                *(s->devices[i].is_dimm ? &dimms : &virtio_mem) += s->devices[i].size_bytes;
        if (!n || xml_attribute_is(n, "model", "none"))
                return;
        uint64_t whole = s->base_bytes + dimms;
        s->balloon.present = true;
        s->balloon.deflate_on_oom = xml_attribute_is(n, "autodeflate", "on");
        s->balloon.free_page_reporting = xml_attribute_is(n, "freePageReporting", "on");
        uint64_t without = current_bytes - MIN(virtio_mem, current_bytes);
        s->balloon.actual_bytes = MIN(without, whole);
        s->balloon.stats = (struct platform_balloon_stats) { UINT64_MAX, UINT64_MAX, UINT64_MAX, 0 };
        xml_attribute_u64(xml_child(n, "stats"), "period", INT_MAX, ret_stats_sec);
        s->balloon_bytes = whole - s->balloon.actual_bytes;
}

static void take_channel(xmlNode *devices, struct domain_account *a)
{
        for (xmlNode *n = xml_child(devices, "channel"); n; n = xml_next(n)) {
                xmlNode *target = xml_child(n, "target");

                if (!xml_attribute_is(n, "type", "unix") || !xml_attribute_is(target, "name", DOMAIN_CHANNEL))
                        continue;
                a->has_channel = true;
                xml_attribute(xml_child(n, "source"), "path", sizeof(a->channel_path), a->channel_path);
                xml_attribute(xml_child(n, "alias"), "name", sizeof(a->channel_alias), a->channel_alias);
                a->channel_open = xml_attribute_is(target, "state", "connected");
                return;
        }
}

/* --- the profile --- */

static bool take_size(xmlNode *n, const char *name, uint64_t *field, struct error *ret_error)
{
        char text[64];
        struct error why;

        if (!xmlHasProp(n, (const xmlChar *)name))
                return true;
        xml_attribute(n, name, sizeof(text), text);
        if (size_parse(text, field, &why) >= 0)
                return true;
        error_set(ret_error, ERROR_INVALID_ARGUMENT, "%s: %.300s", name, why.message);
        return false;
}

static void take_profile(xmlNode *root, struct domain_account *a)
{
        struct partition_profile p = { .weight = PARTITION_WEIGHT_DEFAULT };
        xmlNode *metadata = xml_child(root, "metadata"), *n = xml_child(metadata, "profile");
        uint64_t weight;

        a->profile = p;
        while (n && (!n->ns || strcmp((const char *)n->ns->href, DOMAIN_METADATA_URI) != 0))
                n = xml_next(n);
        if (!n)
                return;
        if (!take_size(n, "min", &p.min_bytes, &a->profile_error) ||
                !take_size(n, "desired", &p.desired_bytes, &a->profile_error) ||
                !take_size(n, "max", &p.max_bytes, &a->profile_error))
                return;
        if (xmlHasProp(n, (const xmlChar *)"weight")) {
                if (!xml_attribute_u64(n, "weight", PARTITION_WEIGHT_MAX, &weight) || weight < 1) {
                        error_set(&a->profile_error, ERROR_INVALID_ARGUMENT,
                                "weight: not a whole number from 1 to %u", PARTITION_WEIGHT_MAX);
                        return;
                }
                p.weight = (unsigned)weight;
        }
        if (partition_profile_check(&p, &a->profile_error) >= 0)
                a->profile = p;
}

/* --- the domain --- */

/* The guest's NUMA cells; a guest without any has node 0. */
static void take_cells(xmlNode *root, struct platform_snapshot *s)
{
        xmlNode *numa = xml_child(xml_child(root, "cpu"), "numa");
        uint64_t id, bytes;

        for (xmlNode *n = xml_child(numa, "cell"); n; n = xml_next(n)) {
                if (!xml_attribute_u64(n, "id", PLATFORM_NODES_MAX - 1, &id))
                        id = s->n_nodes;
                if (id >= PLATFORM_NODES_MAX)
                        continue;
                s->n_nodes = MAX(s->n_nodes, (unsigned)id + 1);
                if (xml_attribute_bytes(n, "memory", &bytes))
                        s->node_base_bytes[id] = bytes;
        }
}

static int take_domain(xmlNode *root, struct domain_account *a)
{
        struct platform_snapshot *s = &a->snapshot;
        xmlNode *devices = xml_child(root, "devices"), *max = xml_child(root, "maxMemory");
        uint64_t total, current, of_devices, slots, id;

        a->id = xml_attribute_u64(root, "id", INT_MAX, &id) ? (int)id : -1;
        if (!xml_text(xml_child(root, "name"), sizeof(a->name), a->name) ||
                !xml_bytes(xml_child(root, "memory"), &total))
                return -EBADMSG;
        xml_text(xml_child(root, "uuid"), sizeof(s->uuid), s->uuid);
        xml_attribute(xml_child(xml_child(root, "os"), "type"), "arch", sizeof(s->arch), s->arch);
        if (strcmp(s->arch, "ppc64le") == 0)
                strcpy(s->arch, "ppc64"); /* as QEMU calls its target */
        if (!xml_bytes(xml_child(root, "currentMemory"), &current))
                current = total;

        int r = take_devices(devices, s, &of_devices);
        if (r < 0)
                return r;
        s->base_bytes = total - MIN(of_devices, total);
        s->max_bytes = s->base_bytes;
        if (xml_bytes(max, &s->max_bytes) && xml_attribute_u64(max, "slots", PLATFORM_DEVICES_MAX, &slots))
                s->slots = (unsigned)slots;
        take_balloon(devices, current, s, &a->stats_sec);
        take_cells(root, s);
        a->needs_cell = s->n_nodes == 0 && !platform_arch_is_pseries(s->arch);
        a->has_hotplug = max && !a->needs_cell;
        if (s->n_nodes == 0) {
                s->n_nodes = 1;
                s->node_base_bytes[0] = s->base_bytes;
        }
        take_channel(devices, a);
        take_profile(root, a);
        return 0;
}

int domain_account_parse(const char *xml, struct domain_account *ret, struct error *ret_error)
{
        struct domain_account a = { 0 };
        xmlDoc *doc;
        int r = xml_parse(xml, &doc, ret_error);

        if (r < 0)
                return r;
        r = take_domain(xmlDocGetRootElement(doc), &a);
        xmlFreeDoc(doc);
        if (r < 0) {
                domain_account_done(&a);
                return error_set(ret_error, ERROR_HYPERVISOR_MISBEHAVED,
                        "The domain's XML lacks its name, its memory or a memory device's size");
        }
        *ret = a;
        return 0;
}

void domain_account_done(struct domain_account *a)
{
        platform_snapshot_done(&a->snapshot);
}

bool domain_account_lacks(const struct domain_account *a, size_t size, char *ret)
{
        size_t used = 0;

        ret[0] = '\0';
        if (a->has_channel && a->has_hotplug)
                return false;
        if (!a->has_channel)
                used += (size_t)snprintf(ret, size,
                        "the channel (<channel type='unix'><target type='virtio' name='" DOMAIN_CHANNEL
                        "'/></channel> in <devices>)");
        if (!a->has_hotplug && used < size)
                used += (size_t)snprintf(ret + used, size - used,
                        "%sroom to grow (<maxMemory slots='16' unit='KiB'>%" PRIu64 "</maxMemory>",
                        used ? ", and " : "", a->snapshot.base_bytes / KIB * 4);
        if (!a->has_hotplug && used < size)
                snprintf(ret + used, size - used, "%s)",
                        a->needs_cell ? ", and in <cpu> a <numa> with one <cell> at least" : "");
        return true;
}
