// SPDX-License-Identifier: Apache-2.0
package com.android.gzvm;

import com.android.gzvm.GzvmCapabilities;
import com.android.gzvm.GzvmClockInfo;
import com.android.gzvm.GzvmMemoryPolicy;
import com.android.gzvm.GzvmVmStats;

/**
 * What one virtmgr knows about its VMs beyond AVF's interfaces. Only callers with its own user id, and
 * root, are answered; others get EX_SECURITY. A CID that is none of its VMs' is EX_ILLEGAL_ARGUMENT.
 */
interface IGzvmBackend {
    /** What VMs of this backend can have. */
    GzvmCapabilities getCapabilities();

    /** Context ids of its VMs that run. */
    int[] listVms();

    /** Counters of a running VM. */
    GzvmVmStats getVmStats(int cid);

    /** How far the guest's clock is from the host's. */
    GzvmClockInfo getClockInfo(int cid);

    /** Sets the guest's clock to the host's; the answer is taken behind that. */
    GzvmClockInfo resyncClock(int cid);

    /** Writes the VM's flattened device tree, as the guest got it, to a file or pipe. */
    void dumpDeviceTree(int cid, in ParcelFileDescriptor output);

    /** When the host provides the memory of VMs that are created from now on. */
    void setMemoryPolicy(GzvmMemoryPolicy policy);

    GzvmMemoryPolicy getMemoryPolicy();
}
