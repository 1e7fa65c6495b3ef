// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice_internal;

import android.system.virtualizationcommon.Certificate;
import android.system.virtualizationservice.AssignableDevice;
import android.system.virtualizationservice.VirtualMachineDebugInfo;
import android.system.virtualizationservice_internal.AtomVmBooted;
import android.system.virtualizationservice_internal.AtomVmCreationRequested;
import android.system.virtualizationservice_internal.AtomVmExited;
import android.system.virtualizationservice_internal.IBoundDevice;
import android.system.virtualizationservice_internal.IGlobalVmContext;

/** The global service behind all virtmgr processes. */
interface IVirtualizationServiceInternal {
    /** Lifts the caller's limit of locked memory. */
    void removeMemlockRlimit();

    /** A context id and a directory, for as long as the answer is referenced. */
    IGlobalVmContext allocateGlobalVmContext(int requesterDebugPid);

    void atomVmBooted(in AtomVmBooted atom);

    void atomVmCreationRequested(in AtomVmCreationRequested atom);

    void atomVmExited(in AtomVmExited atom);

    /** All VMs. */
    VirtualMachineDebugInfo[] debugListVms();

    Certificate[] requestAttestation(in byte[] csr, int requesterUid, in boolean testMode);

    void enableTestAttestation();

    boolean isRemoteAttestationSupported();

    AssignableDevice[] getAssignableDevices();

    IBoundDevice[] bindDevicesToVfioDriver(in String[] devices);

    ParcelFileDescriptor getDtboFile();

    byte[64] allocateInstanceId();

    void removeVmInstance(in byte[64] instanceId);

    void claimVmInstance(in byte[64] instanceId);

    void setDisplayService(IBinder ibinder);

    void clearDisplayService();

    IBinder waitDisplayService();

    ParcelFileDescriptor createTapInterface(String ifaceNameSuffix);

    void deleteTapInterface(in ParcelFileDescriptor tapFd);
}
