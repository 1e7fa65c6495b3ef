// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

import android.system.virtualizationservice.AssignableDevice;
import android.system.virtualizationservice.IVirtualMachine;
import android.system.virtualizationservice.PartitionType;
import android.system.virtualizationservice.VirtualMachineConfig;
import android.system.virtualizationservice.VirtualMachineDebugInfo;

/** Creates VMs; the root object that virtmgr offers its client. */
interface IVirtualizationService {
    const String FEATURE_DICE_CHANGES = "com.android.kvm.DICE_CHANGES";
    const String FEATURE_LLPVM_CHANGES = "com.android.kvm.LLPVM_CHANGES";
    const String FEATURE_MULTI_TENANT = "com.android.kvm.MULTI_TENANT";
    const String FEATURE_NETWORK = "com.android.kvm.NETWORK";
    const String FEATURE_REMOTE_ATTESTATION = "com.android.kvm.REMOTE_ATTESTATION";
    const String FEATURE_VENDOR_MODULES = "com.android.kvm.VENDOR_MODULES";

    /** Creates a VM, which is not started yet. It ends when the last reference is gone. */
    IVirtualMachine createVm(in VirtualMachineConfig config,
            in @nullable ParcelFileDescriptor consoleOutFd,
            in @nullable ParcelFileDescriptor consoleInFd,
            in @nullable ParcelFileDescriptor osLogFd,
            in @nullable ParcelFileDescriptor dumpDtFd);

    /** A new identity for a VM. */
    byte[64] allocateInstanceId();

    /** Makes an empty file a partition of `sizeBytes`. */
    void initializeWritablePartition(
            in ParcelFileDescriptor imageFd, long sizeBytes, PartitionType type);

    /** Writes the idsig of an APK, or brings it up to date. */
    void createOrUpdateIdsigFile(in ParcelFileDescriptor inputFd, in ParcelFileDescriptor idsigFd);

    /** All VMs that run on this machine. */
    VirtualMachineDebugInfo[] debugListVms();

    AssignableDevice[] getAssignableDevices();

    String[] getSupportedOSList();

    /** The debug policy in words. */
    String getDebugPolicy();

    boolean isFeatureEnabled(in String feature);

    void enableTestAttestation();

    boolean isRemoteAttestationSupported();

    boolean isUpdatableVmSupported();

    /** Forgets an identity. */
    void removeVmInstance(in byte[64] instanceId);

    /** Says that an identity belongs to the caller. */
    void claimVmInstance(in byte[64] instanceId);
}
