// SPDX-License-Identifier: Apache-2.0
package com.android.gzvm;

/** A guest's clock. */
parcelable GzvmClockInfo {
    /** Whether the guest answered: it needs an agent on vsock. */
    boolean known;
    /** Guest time minus host time at the same counter value, in nanoseconds. */
    long offsetNanos;
    /** The error of that number, in nanoseconds. */
    long errorNanos;
    /** Why it is not known, or the report in words. */
    @utf8InCpp String message;
}
