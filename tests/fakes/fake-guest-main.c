/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "tests/fakes/fake-guest.h"

int main(int argc, char **argv)
{
        return fake_main(argc, argv, fake_guest_new);
}
