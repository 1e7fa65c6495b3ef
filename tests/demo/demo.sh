#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# What the host machine runs with gzvm.mode=run: the demo. Its exit status is 0 only if everything
# that it shows really happened.
grep -qw gzvm.color=no /proc/cmdline && export NO_COLOR=1
exec gzvm-demo run
