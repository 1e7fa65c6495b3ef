// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** A device that a VM may get. */
parcelable AssignableDevice {
    @utf8InCpp String node;
    @utf8InCpp String dtbo_label;
}
