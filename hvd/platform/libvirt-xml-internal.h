/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <libxml/parser.h>
#include <libxml/tree.h>

#include "common/error.h"

/* Shared by platform/libvirt-xml.c and platform/libvirt-edit.c. */

#define XML_BYTES_MAX (4U * 1024U * 1024U)

/* The document, if it is a domain's; xmlFreeDoc(). */
int xml_parse(const char *text, xmlDoc **ret, struct error *ret_error);
/* The first child element of that name, and the next sibling of the same name; NULL in, NULL out. */
xmlNode *xml_child(xmlNode *parent, const char *name);
xmlNode *xml_next(xmlNode *n);
/* Into a buffer; false, and "": it is not there, or does not fit. */
bool xml_attribute(xmlNode *n, const char *name, size_t size, char *ret);
bool xml_attribute_is(xmlNode *n, const char *name, const char *value);
bool xml_attribute_u64(xmlNode *n, const char *name, uint64_t max, uint64_t *ret);
/* The element's text, cut to the buffer. */
bool xml_text(xmlNode *n, size_t size, char *ret);
/* A number of bytes with libvirt's unit attribute. */
bool xml_bytes(xmlNode *n, uint64_t *ret);
