# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A toolchain for guestd in PPC64 guests (little-endian): Debian's cross compiler, and Debian's ppc64el libraries in a
# folder outside the tree. `scripts/lab prepare --arch ppc64le` makes that folder.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR ppc64le)

if(DEFINED ENV{XDG_CACHE_HOME} AND NOT "$ENV{XDG_CACHE_HOME}" STREQUAL "")
        set(cache $ENV{XDG_CACHE_HOME})
else()
        set(cache $ENV{HOME}/.cache)
endif()
set(OPENDLPAR_SYSROOT ${cache}/opendlpar/sysroot-ppc64le CACHE PATH "Debian's ppc64el libraries, unpacked")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES OPENDLPAR_SYSROOT)
if(NOT EXISTS ${OPENDLPAR_SYSROOT}/usr/include)
        message(FATAL_ERROR "There are no ppc64el libraries in ${OPENDLPAR_SYSROOT}: "
                "run scripts/lab prepare --arch ppc64le, or set OPENDLPAR_SYSROOT")
endif()

set(CMAKE_C_COMPILER powerpc64le-linux-gnu-gcc)
set(CMAKE_LIBRARY_ARCHITECTURE powerpc64le-linux-gnu)
set(CMAKE_SYSROOT ${OPENDLPAR_SYSROOT})
set(CMAKE_FIND_ROOT_PATH ${OPENDLPAR_SYSROOT})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

# pkg-config shall find what is in the sysroot, and nothing of this machine.
set(ENV{PKG_CONFIG_LIBDIR}
        ${OPENDLPAR_SYSROOT}/usr/lib/powerpc64le-linux-gnu/pkgconfig:${OPENDLPAR_SYSROOT}/usr/share/pkgconfig)
set(ENV{PKG_CONFIG_SYSROOT_DIR} ${OPENDLPAR_SYSROOT})
