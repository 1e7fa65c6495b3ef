// SPDX-License-Identifier: Apache-2.0
package com.android.gzvm;

import com.android.gzvm.GzvmCounter;

/** Counters of a VM since its start. */
parcelable GzvmVmStats {
    int cid;
    /** Process id of its VMM. */
    int pid;
    /** Bytes of guest memory, pools included. */
    long memoryBytes;
    /** Bytes of host memory that back guest memory. */
    long residentBytes;
    /** Nanoseconds that all vCPUs ran. */
    long guestTimeNanos;
    /** What hypervisor and driver count, by their names. */
    GzvmCounter[] counters;
}
