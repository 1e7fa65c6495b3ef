// SPDX-License-Identifier: Apache-2.0
package com.android.gzvm;

/** A named number. */
parcelable GzvmCounter {
    /** As `/sys/kernel/debug/gzvm` names it. */
    @utf8InCpp String name;
    long value;
}
