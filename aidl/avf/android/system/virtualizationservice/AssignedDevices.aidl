// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** Devices of the host that the VM gets. */
union AssignedDevices {
    /** Nodes in sysfs. */
    @utf8InCpp String[] devices = {};
    /** A device tree overlay. */
    ParcelFileDescriptor dtbo;
}
