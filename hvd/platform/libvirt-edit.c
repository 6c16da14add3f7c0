/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Making libvirt's XML: devices to plug, and what a definition lacks. */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/size.h"
#include "hvd/platform/libvirt-xml-internal.h"
#include "hvd/platform/libvirt-xml.h"

#define ENROLL_FACTOR 4U
#define ENROLL_SLOTS  16U
/* What Linux, and on pseries QEMU, plugs whole. */
#define ENROLL_GRANULE (256 * MIB)

char *domain_dimm_xml(const char *alias, uint64_t size_bytes, int node)
{
        char node_xml[32] = "";
        char *xml = NULL;

        if (node >= 0)
                snprintf(node_xml, sizeof(node_xml), "<node>%d</node>", node);
        if (asprintf(&xml,
                    "<memory model='dimm'><target><size unit='KiB'>%" PRIu64
                    "</size>%s</target><alias name='%s'/></memory>",
                    size_bytes / KIB, node_xml, alias) < 0)
                return NULL;
        return xml;
}

char *domain_profile_xml(const struct partition_profile *profile)
{
        const struct {
                const char *name;
                uint64_t bytes;
        } sizes[] = {
                { "min", profile->min_bytes },
                { "desired", profile->desired_bytes },
                { "max", profile->max_bytes },
        };
        char text[192] = "<profile";
        size_t used = strlen(text);

        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
                if (sizes[i].bytes > 0)
                        used += (size_t)snprintf(text + used, sizeof(text) - used, " %s='%s'", sizes[i].name,
                                SIZE_EXACT(sizes[i].bytes));
        snprintf(text + used, sizeof(text) - used, " weight='%u'/>", profile->weight);
        return strdup(text);
}

static char *dump(xmlDoc *doc, xmlNode *n)
{
        xmlBuffer *buffer = xmlBufferCreate();
        char *text = NULL;

        if (buffer && xmlNodeDump(buffer, doc, n, 0, 1) >= 0)
                text = strdup((const char *)xmlBufferContent(buffer));
        xmlBufferFree(buffer);
        return text;
}

char *domain_resize_xml(const char *xml, const char *alias, uint64_t requested_bytes, struct error *ret_error)
{
        char kib[32];
        xmlDoc *doc;

        if (xml_parse(xml, &doc, ret_error) < 0)
                return NULL;
        xmlNode *devices = xml_child(xmlDocGetRootElement(doc), "devices"), *n = xml_child(devices, "memory");
        while (n && !(xml_attribute_is(n, "model", "virtio-mem") &&
                            xml_attribute_is(xml_child(n, "alias"), "name", alias)))
                n = xml_next(n);
        xmlNode *requested = xml_child(xml_child(n, "target"), "requested");
        char *text = NULL;
        if (requested) {
                snprintf(kib, sizeof(kib), "%" PRIu64, requested_bytes / KIB);
                xmlNodeSetContent(requested, (const xmlChar *)kib);
                xmlSetProp(requested, (const xmlChar *)"unit", (const xmlChar *)"KiB");
                text = dump(doc, n);
                if (!text)
                        error_set(ret_error, ERROR_INTERNAL, "Out of memory");
        } else
                error_set(ret_error, ERROR_UNKNOWN_DEVICE, "The domain has no virtio-mem device '%.60s'",
                        alias);
        xmlFreeDoc(doc);
        return text;
}

/* --- enrolling --- */

static xmlNode *element(xmlNode *parent, const char *name, const char *text)
{
        return xmlNewTextChild(parent, NULL, (const xmlChar *)name, (const xmlChar *)text);
}

static void attribute(xmlNode *n, const char *name, const char *value)
{
        xmlSetProp(n, (const xmlChar *)name, (const xmlChar *)value);
}

static void note(struct error *what, const char *text)
{
        size_t used = strlen(what->message);

        snprintf(what->message + used, sizeof(what->message) - used, "%s%s", used ? ", " : "", text);
}

static void add_channel(xmlNode *root)
{
        xmlNode *devices = xml_child(root, "devices") ?: element(root, "devices", NULL);
        xmlNode *channel = element(devices, "channel", NULL);

        attribute(channel, "type", "unix");
        xmlNode *target = element(channel, "target", NULL);
        attribute(target, "type", "virtio");
        attribute(target, "name", DOMAIN_CHANNEL);
}

/* Before <memory>, where libvirt writes it itself. */
static void set_max(xmlNode *root, uint64_t max_bytes, unsigned slots)
{
        xmlNode *max = xml_child(root, "maxMemory");
        char text[32];

        if (!max) {
                max = xmlNewNode(NULL, (const xmlChar *)"maxMemory");
                xmlAddPrevSibling(xml_child(root, "memory"), max);
        }
        snprintf(text, sizeof(text), "%u", slots);
        attribute(max, "slots", text);
        attribute(max, "unit", "KiB");
        snprintf(text, sizeof(text), "%" PRIu64, max_bytes / KIB);
        xmlNodeSetContent(max, (const xmlChar *)text);
}

static void add_cell(xmlNode *root, uint64_t base_bytes)
{
        xmlNode *cpu = xml_child(root, "cpu") ?: element(root, "cpu", NULL);
        xmlNode *numa = xml_child(cpu, "numa") ?: element(cpu, "numa", NULL);
        xmlNode *cell = element(numa, "cell", NULL);
        char vcpus[16], text[40];

        unsigned n = xml_text(xml_child(root, "vcpu"), sizeof(vcpus), vcpus)
                             ? (unsigned)strtoul(vcpus, NULL, 10)
                             : 1;
        attribute(cell, "id", "0");
        snprintf(text, sizeof(text), n > 1 ? "0-%u" : "0", n - 1);
        attribute(cell, "cpus", text);
        snprintf(text, sizeof(text), "%" PRIu64, base_bytes / KIB);
        attribute(cell, "memory", text);
        attribute(cell, "unit", "KiB");
}

static int enroll(xmlNode *root, const struct domain_account *a, uint64_t max_bytes, unsigned slots,
        struct error *what, struct error *ret_error)
{
        const struct platform_snapshot *s = &a->snapshot;
        bool has_max = s->max_bytes > s->base_bytes && s->slots > 0;
        char text[160];

        if (!a->has_channel) {
                add_channel(root);
                note(what, "the channel " DOMAIN_CHANNEL);
        }
        if (!has_max || max_bytes > 0 || slots > 0) {
                uint64_t max = max_bytes ?: has_max ? s->max_bytes : s->base_bytes * ENROLL_FACTOR;
                unsigned n = slots ?: s->slots ?: ENROLL_SLOTS;

                max = (max + ENROLL_GRANULE - 1) / ENROLL_GRANULE * ENROLL_GRANULE;
                if (max <= s->base_bytes)
                        return error_set(ret_error, ERROR_INVALID_SIZE,
                                "Domain '%s' has %s, and its max has to be above that, not %s", a->name,
                                SIZE(s->base_bytes), SIZE(max));
                if (max > PROTO_ADDRESS_MAX)
                        return error_set(ret_error, ERROR_INVALID_SIZE,
                                "Domain '%s' would have a max of %s, and %s is the most that there can be; "
                                "name a "
                                "smaller one",
                                a->name, SIZE(max), SIZE(PROTO_ADDRESS_MAX));
                set_max(root, max, n);
                snprintf(text, sizeof(text), "maxMemory of %s with %u slots", SIZE(max), n);
                note(what, text);
        }
        if (a->needs_cell) {
                add_cell(root, s->base_bytes);
                note(what, "a NUMA cell with all processors and memory");
        }
        return 0;
}

int domain_enroll_xml(const char *xml, uint64_t max_bytes, unsigned slots, char **ret, struct error *ret_what,
        struct error *ret_error)
{
        struct domain_account a;
        struct error what = { 0 };
        char *text = NULL;
        xmlDoc *doc;
        int r = domain_account_parse(xml, &a, ret_error);

        if (r < 0)
                return r;
        r = xml_parse(xml, &doc, ret_error);
        if (r >= 0) {
                xmlNode *root = xmlDocGetRootElement(doc);

                r = enroll(root, &a, max_bytes, slots, &what, ret_error);
                if (r >= 0 && what.message[0] && !(text = dump(doc, root)))
                        r = error_set(ret_error, ERROR_INTERNAL, "Out of memory");
                xmlFreeDoc(doc);
        }
        domain_account_done(&a);
        if (r < 0)
                return r;
        *ret_what = what;
        *ret = text;
        return 0;
}
