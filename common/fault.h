/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Points at which a program can be made to end as by kill -9, to see that what it leaves behind is made whole
 * again. Only in a build with OPENDLPAR_FAULTS; in any other a point is nothing at all.
 *
 * A point is named by two words, such as "qmp-send" and "device_del". Points are counted over the process and
 * its children together, from 1, which the environment steers:
 *
 *   OPENDLPAR_FAULT_FROM=WORDS  counting begins at the first point that is named so ("job SURVEYING")
 *   OPENDLPAR_FAULT_AT=N        the process ends at the Nth
 *   OPENDLPAR_FAULT_LOG=FILE    each that is passed is written there, "N WORDS" in a line */

#ifdef OPENDLPAR_FAULTS
void fault_point(const char *what, const char *which);
#else
#define fault_point(what, which)                                                                             \
        do {                                                                                                 \
                (void)sizeof(what);                                                                          \
                (void)sizeof(which);                                                                         \
        } while (0)
#endif
