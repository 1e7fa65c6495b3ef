// SPDX-License-Identifier: Apache-2.0
package com.android.gzvm;

/** What VMs of a backend can have. */
parcelable GzvmCapabilities {
    /** The program that runs a VM. */
    @utf8InCpp String vmm;
    /** Whether VMs that are protected from the host are possible. */
    boolean protectedVms;
    /** Whether a VM's memory can be given back while it runs. */
    boolean balloon;
    /** Whether vCPUs can be stopped and continued. */
    boolean suspend;
    /** Whether `getVmStats` has answers. */
    boolean statistics;
}
