/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What is new of a domain, from a look at it or from an event, and the platform's handlers that are told. */

#include <string.h>

#include "hvd/platform/libvirt-internal.h"

void lv_platform_down(struct libvirt_platform *p, const struct error *error)
{
        bool is_silent = error->code == ERROR_HYPERVISOR_SILENT;

        /* One that was silent may prove to be gone. */
        if (!p->is_up && !(p->is_silent && !is_silent))
                return;
        p->is_up = false;
        p->is_silent = is_silent;
        p->n_lost = 0;
        p->balloon_wish_bytes = 0;
        while (!LIST_EMPTY(&p->ops)) {
                LIST_FIRST(&p->ops)->error = *error;
                lv_op_complete(LIST_FIRST(&p->ops));
        }
        platform_snapshot_done(&p->last);
        p->last = (struct platform_snapshot) { 0 };
        p->base.handlers->on_down(&p->base, error, p->base.userdata);
}

static void device_left(struct libvirt_platform *p, const char *id)
{
        struct platform_op *op = lv_find_detach(p, id);

        if (op)
                lv_detach_finish(op);
        else if (lv_find_last(p, id)) {
                lv_forget_device(p, id);
                p->base.handlers->on_device_deleted(&p->base, id, p->base.userdata);
        }
}

static void tell_devices(struct libvirt_platform *p, const struct platform_snapshot *s, bool *changed)
{
        /* From the end, as what has left is taken out. */
        for (size_t i = p->last.n_devices; i-- > 0;) {
                char id[PLATFORM_ID_MAX];

                if (i >= p->last.n_devices) /* more than one has left at once */
                        continue;
                memcpy(id, p->last.devices[i].id, sizeof(id));
                const struct platform_device *now = platform_snapshot_find(s, id);
                if (!now)
                        device_left(p, id);
                else if (!now->is_dimm && now->size_bytes != p->last.devices[i].size_bytes &&
                         p->base.handlers->on_device_size)
                        p->base.handlers->on_device_size(&p->base, id, now->size_bytes, p->base.userdata);
                else if (now->requested_bytes != p->last.devices[i].requested_bytes)
                        *changed = true;
        }
        *changed |= p->last.n_devices != s->n_devices;
}

static void take_changes(struct libvirt_platform *p, const struct platform_snapshot *s)
{
        bool changed = p->last.state != s->state || p->last.base_bytes != s->base_bytes ||
                       p->last.max_bytes != s->max_bytes;
        bool balloon = p->last.balloon.actual_bytes != s->balloon.actual_bytes;

        tell_devices(p, s, &changed);
        if (lv_remember(p, s) < 0)
                return; /* the next look tells it again */
        if (balloon && p->base.handlers->on_balloon)
                p->base.handlers->on_balloon(&p->base, s->balloon.actual_bytes, p->base.userdata);
        if (changed || balloon)
                p->base.handlers->on_changed(&p->base, p->base.userdata);
}

static void take_port(struct libvirt_platform *p, bool open)
{
        p->port_open = open;
        p->base.handlers->on_port(&p->base, open, p->base.userdata);
}

void lv_platform_take(struct libvirt_platform *p, const struct lv_look *look, bool is_first)
{
        bool is_active = !look->is_absent && look->is_active;
        struct error error;

        if (!is_active || look->domain_id != p->domain_id) {
                error_set(&error, ERROR_HYPERVISOR_ABSENT, "The domain does not run");
                lv_platform_down(p, &error);
        }
        if (!is_active)
                return;
        memcpy(p->channel_alias, look->account.channel_alias, sizeof(p->channel_alias));
        if (is_first || !p->is_up)
                p->port_was_heard = false;
        if (p->is_up) {
                take_changes(p, &look->account.snapshot);
                if (!p->port_was_heard && p->port_open != look->account.channel_open)
                        take_port(p, look->account.channel_open);
                return;
        }
        if (lv_remember(p, &look->account.snapshot) < 0)
                return;
        p->is_up = true;
        p->is_silent = false;
        p->domain_id = look->domain_id;
        p->base.handlers->on_up(&p->base, p->base.userdata);
        take_port(p, look->account.channel_open);
}

void lv_platform_take_news(struct libvirt_platform *p, const struct lv_news *news)
{
        char id[PLATFORM_ID_MAX];
        struct platform_op *op;

        if (!p->is_up)
                return;
        domain_alias_to_id(news->alias, id);
        switch (news->kind) {
        case LV_NEWS_REMOVED:
                device_left(p, id);
                break;
        case LV_NEWS_REMOVAL_FAILED:
                lv_mark_pending(p, id, false);
                if ((op = lv_find_detach(p, id))) {
                        error_set(&op->error, ERROR_UNPLUG_REFUSED,
                                "the guest refused to let go of %s: its kernel could not release it", id);
                        lv_op_complete(op);
                }
                break;
        case LV_NEWS_RESET:
                for (size_t i = 0; i < p->last.n_devices; i++)
                        p->last.devices[i].unplug_pending = false;
                LIST_FOREACH (op, &p->ops, entry)
                        op->reissue = sd_event_source_disable_unref(op->reissue);
                p->base.handlers->on_reset(&p->base, p->base.userdata);
                break;
        case LV_NEWS_PORT:
                if (strcmp(news->alias, p->channel_alias) != 0)
                        break;
                p->port_was_heard = true;
                take_port(p, news->value);
                break;
        default:
                break;
        }
}
