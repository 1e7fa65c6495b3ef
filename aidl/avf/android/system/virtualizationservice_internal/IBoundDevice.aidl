// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice_internal;

/** A device that was taken from its driver. */
interface IBoundDevice {
    String getSysfsPath();

    String getDtboLabel();
}
