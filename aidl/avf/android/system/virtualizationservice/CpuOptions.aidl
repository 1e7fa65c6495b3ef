// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** vCPUs. */
parcelable CpuOptions {
    union CpuTopology {
        int cpuCount = 1;
        /** As many as the host has. */
        boolean matchHost;
    }
    CpuTopology cpuTopology;
}
