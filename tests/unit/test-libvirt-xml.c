/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libvirt's XML: what is read of a domain, what is made for devices, and what a definition is given. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/size.h"
#include "hvd/platform/libvirt-xml.h"

#define UUID "c7a5fdbd-edaf-9455-926a-d65c16db1809"
#define CHANNEL                                                                                              \
        "<channel type='unix'><source mode='bind' path='/run/q/target/org.opendlpar.guestd.0'/>"             \
        "<target type='virtio' name='org.opendlpar.guestd.0' state='connected'/>"                            \
        "<alias name='channel0'/></channel>"

/* As libvirt 9.0 writes a running one: 1 GiB at boot, a DIMM of 2 GiB of ours, one of 512 MiB of others', and
 * a virtio-mem device of 4 GiB with 1 GiB in it; 256 MiB in the balloon. */
static const char running[] =
        "<domain type='qemu' id='3'><name>web1</name><uuid>" UUID "</uuid>"
        "<metadata><p:profile xmlns:p='http://opendlpar.org/xmlns/domain/1' min='1G' desired='2G' max='8G' "
        "weight='200'/></metadata>"
        "<maxMemory slots='16' unit='KiB'>16777216</maxMemory><memory unit='KiB'>7864320</memory>"
        "<currentMemory unit='KiB'>4456448</currentMemory><vcpu placement='static'>2</vcpu>"
        "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os>"
        "<cpu mode='maximum'><numa><cell id='0' cpus='0-1' memory='1048576' unit='KiB'/></numa></cpu>"
        "<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>"
        "<channel type='unix'><source mode='bind' path='/run/ga'/><target type='virtio' "
        "name='org.qemu.guest_agent.0'/><alias name='channel1'/></channel>" CHANNEL
        "<memballoon model='virtio' autodeflate='on' freePageReporting='on'><alias name='balloon0'/>"
        "</memballoon>"
        "<memory model='dimm'><target><size unit='KiB'>524288</size><node>0</node></target>"
        "<alias name='dimm1'/><address type='dimm' slot='1' base='0x1c0000000'/></memory>"
        "<memory model='dimm'><target><size unit='KiB'>2097152</size><node>0</node></target>"
        "<alias name='ua-opendlpar-dimm-0'/><address type='dimm' slot='0' base='0x140000000'/></memory>"
        "<memory model='virtio-mem'><target><size unit='KiB'>4194304</size><node>0</node>"
        "<block unit='KiB'>2048</block><requested unit='KiB'>1572864</requested>"
        "<current unit='KiB'>1048576</current></target><alias name='ua-vm0'/>"
        "<address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/></memory>"
        "</devices></domain>";

static void test_running(void **state)
{
        struct domain_account a;
        struct error error;

        assert_int_equal(domain_account_parse(running, &a, &error), 0);
        assert_int_equal(a.id, 3);
        assert_string_equal(a.name, "web1");
        assert_string_equal(a.snapshot.uuid, UUID);
        assert_string_equal(a.snapshot.arch, "x86_64");
        assert_true(a.has_channel && a.channel_open && a.has_hotplug);
        assert_string_equal(a.channel_path, "/run/q/target/org.opendlpar.guestd.0");
        assert_string_equal(a.channel_alias, "channel0");
        assert_int_equal(a.snapshot.base_bytes, GIB);
        assert_int_equal(a.snapshot.max_bytes, 16 * GIB);
        assert_int_equal(a.snapshot.slots, 16);
        assert_int_equal(a.snapshot.n_nodes, 1);
        assert_int_equal(a.snapshot.node_base_bytes[0], GIB);
        assert_int_equal(a.snapshot.plugged_bytes, 2 * GIB + 512 * MIB + GIB);

        /* libvirt 9.0 does not say where virtio-mem lies: behind all that it says */
        assert_int_equal(a.snapshot.n_devices, 3);
        const struct platform_device *v = platform_snapshot_find(&a.snapshot, "ua-vm0");
        assert_non_null(v);
        assert_false(v->is_dimm);
        assert_int_equal(v->region_bytes, 4 * GIB);
        assert_int_equal(v->size_bytes, GIB);
        assert_int_equal(v->requested_bytes, 1536 * MIB);
        assert_int_equal(v->unit_bytes, 2 * MIB);
        assert_int_equal(v->address, PLATFORM_ADDRESS_UNKNOWN);
        assert_ptr_equal(v, &a.snapshot.devices[2]);
        assert_int_equal(a.stats_sec, 0);
        const struct platform_device *d = platform_snapshot_find(&a.snapshot, "opendlpar-dimm-0");
        assert_non_null(d);
        assert_true(d->is_dimm && d->hotpluggable);
        assert_int_equal(d->size_bytes, 2 * GIB);
        assert_int_equal(d->address, 0x140000000);
        d = platform_snapshot_find(&a.snapshot, "dimm1");
        assert_non_null(d);
        assert_int_equal(d->slot, 1);

        assert_true(a.snapshot.balloon.present && a.snapshot.balloon.deflate_on_oom &&
                    a.snapshot.balloon.free_page_reporting);
        /* 4352 MiB current, without the 1 GiB of virtio-mem, of 3.5 GiB */
        assert_int_equal(a.snapshot.balloon.actual_bytes, 3328 * MIB);
        assert_int_equal(a.snapshot.balloon_bytes, 256 * MIB);

        assert_int_equal(a.profile_error.code, ERROR_NONE);
        assert_int_equal(a.profile.min_bytes, GIB);
        assert_int_equal(a.profile.desired_bytes, 2 * GIB);
        assert_int_equal(a.profile.max_bytes, 8 * GIB);
        assert_int_equal(a.profile.weight, 200);
        char lacks[400];
        assert_false(domain_account_lacks(&a, sizeof(lacks), lacks));
        domain_account_done(&a);
}

/* name, memory and the like of a small one around what the test is about */
static const char *domain(const char *head, const char *devices)
{
        static char text[4096];

        snprintf(text, sizeof(text),
                "<domain type='qemu'><name>d</name><uuid>" UUID
                "</uuid>%s<memory unit='KiB'>1048576</memory><vcpu>4</vcpu>"
                "<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>%s</devices></domain>",
                head, devices);
        return text;
}

static void test_lacking(void **state)
{
        static const struct {
                const char *head, *devices;
                bool lacks, channel, max, cell;
        } cases[] = {
                { "", "", true, true, true, true },
                { "<maxMemory slots='4' unit='GiB'>4</maxMemory>", CHANNEL, true, false, true, true },
                { "<cpu><numa><cell id='0' memory='1' unit='GiB'/></numa></cpu>", CHANNEL, true, false, true,
                        false },
                { "<maxMemory slots='4' unit='GiB'>4</maxMemory><cpu><numa><cell id='0' memory='1' "
                  "unit='GiB'/></numa></cpu>",
                        CHANNEL, false, false, false, false },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct domain_account a;
                struct error error;
                char text[400];

                assert_int_equal(
                        domain_account_parse(domain(cases[i].head, cases[i].devices), &a, &error), 0);
                assert_int_equal(a.id, -1);
                assert_int_equal(domain_account_lacks(&a, sizeof(text), text), cases[i].lacks);
                assert_int_equal(strstr(text, "<channel type='unix'>") != NULL, cases[i].channel);
                assert_int_equal(
                        strstr(text, "<maxMemory slots='16' unit='KiB'>4194304<") != NULL, cases[i].max);
                assert_int_equal(strstr(text, "<cell>") != NULL, cases[i].cell);
                domain_account_done(&a);
        }
}

/* libvirt says where virtio-mem lies from 9.4 on; two of which it does not say it do not overlap. */
static void test_virtio_mem(void **state)
{
#define VIRTIO_MEM(id, address)                                                                              \
        "<memory model='virtio-mem'><target><size unit='GiB'>2</size><block unit='MiB'>2</block>"            \
        "<requested unit='GiB'>1</requested><current unit='GiB'>1</current>" address                         \
        "</target><alias name='" id "'/></memory>"
        static const char devices[] =
                "<memballoon model='virtio'><stats period='10'/></memballoon>" VIRTIO_MEM("ua-a", "")
                        VIRTIO_MEM("ua-b", "<address base='0x140000000'/>") VIRTIO_MEM("ua-c", "");
        struct domain_account a;
        struct error error;

        assert_int_equal(domain_account_parse(domain("", devices), &a, &error), 0);
        assert_int_equal(a.snapshot.n_devices, 3);
        assert_string_equal(a.snapshot.devices[0].id, "ua-b");
        assert_int_equal(a.snapshot.devices[0].address, 0x140000000);
        assert_string_equal(a.snapshot.devices[1].id, "ua-a");
        assert_string_equal(a.snapshot.devices[2].id, "ua-c");
        assert_int_equal(a.snapshot.devices[2].address, PLATFORM_ADDRESS_UNKNOWN + 2 * GIB);
        assert_int_equal(a.stats_sec, 10);
        domain_account_done(&a);
}

/* LMBs need no NUMA cell, and QEMU calls the architecture by another name. */
static void test_pseries(void **state)
{
        struct domain_account a;
        struct error error;

        assert_int_equal(domain_account_parse("<domain type='qemu'><name>p</name><uuid>" UUID
                                              "</uuid><maxMemory slots='32' unit='KiB'>8388608</maxMemory>"
                                              "<memory unit='GiB'>1</memory><os><type arch='ppc64le' "
                                              "machine='pseries'>hvm</type></os><devices>" CHANNEL
                                              "</devices></domain>",
                                 &a, &error),
                0);
        assert_string_equal(a.snapshot.arch, "ppc64");
        assert_true(platform_arch_is_pseries(a.snapshot.arch));
        assert_true(a.has_hotplug);
        assert_int_equal(a.snapshot.node_base_bytes[0], GIB);
        domain_account_done(&a);
}

static void test_bad(void **state)
{
        static const char *const cases[] = {
                "",
                "no xml",
                "<domain>",
                "<network><name>n</name></network>",
                "<domain/>",
                "<domain><name>d</name></domain>",
                "<domain><name>d</name><memory unit='furlong'>1</memory></domain>",
                "<domain><name>d</name><memory>-1</memory></domain>",
                "<domain><name>d</name><memory unit='TiB'>99999999999999</memory></domain>",
                "<domain><name>d</name><memory>1</memory><devices><memory model='dimm'/></devices></domain>",
                "<!DOCTYPE domain [<!ENTITY a 'aaaa'>]><domain><name>&a;</name><memory>1</memory></domain>",
                "<!DOCTYPE domain SYSTEM 'file:///x'><domain><name>d</name><memory>1</memory></domain>",
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct domain_account a = { .has_channel = true };
                struct error error = { 0 };

                assert_true(domain_account_parse(cases[i], &a, &error) < 0);
                assert_int_equal(error.code, ERROR_HYPERVISOR_MISBEHAVED);
                assert_true(a.has_channel); /* untouched */
        }
}

static void test_profile(void **state)
{
        static const struct {
                const char *element;
                uint64_t min_bytes;
                unsigned weight;
                bool bad;
        } cases[] = {
                { "<profile xmlns='" DOMAIN_METADATA_URI "' min='512M'/>", 512 * MIB,
                        PARTITION_WEIGHT_DEFAULT, false },
                { "<profile xmlns='http://example.org/other' min='512M'/>", 0, PARTITION_WEIGHT_DEFAULT,
                        false },
                { "<profile min='512M'/>", 0, PARTITION_WEIGHT_DEFAULT, false },
                { "<profile xmlns='" DOMAIN_METADATA_URI "' min='512'/>", 0, PARTITION_WEIGHT_DEFAULT, true },
                { "<profile xmlns='" DOMAIN_METADATA_URI "' min='4G' max='2G'/>", 0, PARTITION_WEIGHT_DEFAULT,
                        true },
                { "<profile xmlns='" DOMAIN_METADATA_URI "' weight='0'/>", 0, PARTITION_WEIGHT_DEFAULT,
                        true },
                { "<profile xmlns='" DOMAIN_METADATA_URI "' weight='256'/>", 0, PARTITION_WEIGHT_DEFAULT,
                        true },
                { "<profile xmlns='" DOMAIN_METADATA_URI "' weight='7'/>", 0, 7, false },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char head[256];
                struct domain_account a;
                struct error error;

                snprintf(head, sizeof(head), "<metadata>%s</metadata>", cases[i].element);
                assert_int_equal(domain_account_parse(domain(head, ""), &a, &error), 0);
                assert_int_equal(a.profile.min_bytes, cases[i].min_bytes);
                assert_int_equal(a.profile.weight, cases[i].weight);
                assert_int_equal(a.profile_error.code != ERROR_NONE, cases[i].bad);
                domain_account_done(&a);
        }

        struct partition_profile p = { .min_bytes = GIB, .max_bytes = 1536 * MIB, .weight = 3 };
        _cleanup_free_ char *xml = domain_profile_xml(&p);
        assert_string_equal(xml, "<profile min='1G' max='1536M' weight='3'/>");
}

static void test_aliases(void **state)
{
        static const struct {
                const char *alias, *id;
                unsigned life;
        } cases[] = {
                { "ua-opendlpar-dimm-0", "opendlpar-dimm-0", 0 },
                { "ua-opendlpar-dimm-0_2", "opendlpar-dimm-0", 2 },
                { "dimm0", "dimm0", 0 },
                { "ua-dimm_0", "ua-dimm_0", 1 },
                { "ua-opendlpar-other", "ua-opendlpar-other", 0 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char id[PLATFORM_ID_MAX], alias[PLATFORM_ID_MAX + 3];

                domain_alias_to_id(cases[i].alias, id);
                assert_string_equal(id, cases[i].id);
                domain_id_to_alias(id, cases[i].life, alias);
                assert_string_equal(alias, cases[i].alias);
        }
}

static void test_devices(void **state)
{
        _cleanup_free_ char *dimm = domain_dimm_xml("ua-opendlpar-dimm-3", 512 * MIB, 0);
        assert_string_equal(dimm,
                "<memory model='dimm'><target><size unit='KiB'>524288</size><node>0</node></target>"
                "<alias name='ua-opendlpar-dimm-3'/></memory>");
        _cleanup_free_ char *without = domain_dimm_xml("ua-opendlpar-dimm-3", 512 * MIB, -1);
        assert_null(strstr(without, "<node>"));

        struct error error;
        _cleanup_free_ char *resize = domain_resize_xml(running, "ua-vm0", 2 * GIB, &error);
        assert_non_null(resize);
        assert_non_null(strstr(resize, "<requested unit=\"KiB\">2097152</requested>"));
        assert_non_null(strstr(resize, "<block unit=\"KiB\">2048</block>"));
        assert_null(strstr(resize, "dimm1"));
        assert_null(domain_resize_xml(running, "dimm1", GIB, &error));
        assert_int_equal(error.code, ERROR_UNKNOWN_DEVICE);
}

static void test_enroll(void **state)
{
        struct domain_account a;
        struct error error, what;
        char *xml = NULL;

        assert_int_equal(domain_enroll_xml(domain("", ""), 0, 0, &xml, &what, &error), 0);
        assert_non_null(xml);
        assert_non_null(strstr(what.message, "channel"));
        assert_non_null(strstr(what.message, "4 GiB with 16 slots"));
        assert_non_null(strstr(xml, "<cell id=\"0\" cpus=\"0-3\" memory=\"1048576\" unit=\"KiB\"/>"));
        assert_int_equal(domain_account_parse(xml, &a, &error), 0);
        assert_true(a.has_channel && a.has_hotplug);
        assert_int_equal(a.snapshot.max_bytes, 4 * GIB);
        domain_account_done(&a);

        /* once is enough */
        char *again = NULL;
        assert_int_equal(domain_enroll_xml(xml, 0, 0, &again, &what, &error), 0);
        assert_null(again);
        /* but a max that is given is taken, and what is there stays */
        assert_int_equal(domain_enroll_xml(xml, 8 * GIB, 0, &again, &what, &error), 0);
        assert_non_null(again);
        assert_non_null(strstr(again, "<maxMemory slots=\"16\" unit=\"KiB\">8388608</maxMemory>"));
        assert_string_equal(what.message, "maxMemory of 8 GiB with 16 slots");
        free(again);
        free(xml);

        assert_true(domain_enroll_xml(domain("", ""), 512 * MIB, 0, &xml, &what, &error) < 0);
        assert_int_equal(error.code, ERROR_INVALID_SIZE);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_running),
                cmocka_unit_test(test_lacking),
                cmocka_unit_test(test_virtio_mem),
                cmocka_unit_test(test_pseries),
                cmocka_unit_test(test_bad),
                cmocka_unit_test(test_profile),
                cmocka_unit_test(test_aliases),
                cmocka_unit_test(test_devices),
                cmocka_unit_test(test_enroll),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
