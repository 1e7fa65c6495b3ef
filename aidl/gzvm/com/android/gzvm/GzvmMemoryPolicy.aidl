// SPDX-License-Identifier: Apache-2.0
package com.android.gzvm;

/** When the host provides guest memory. */
@Backing(type="int")
enum GzvmMemoryPolicy {
    /** The VMM decides. */
    DEFAULT = 0,
    /** When the guest touches it. */
    LAZY = 1,
    /** All of it, step by step, before the guest runs. */
    PREFAULT = 2,
    /** As PREFAULT, and locked. */
    STATIC = 3,
}
