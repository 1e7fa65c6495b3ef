// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** A payload in an APK. */
parcelable VirtualMachinePayloadConfig {
    @utf8InCpp String payloadBinaryName;
    List<ParcelFileDescriptor> extraApks;
}
