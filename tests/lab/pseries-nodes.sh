#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# nodes.sh with a pseries guest.
NODES_ARCH=ppc64le exec "${BASH_SOURCE[0]%/*}/nodes.sh"
