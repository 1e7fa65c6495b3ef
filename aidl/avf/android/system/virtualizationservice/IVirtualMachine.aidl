// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

import android.system.virtualizationservice.IVirtualMachineCallback;
import android.system.virtualizationservice.VirtualMachineState;

/** One VM. */
interface IVirtualMachine {
    /** Service-specific error for which there is no better one. */
    const int ERROR_UNEXPECTED = -1;

    /** vsock context id. */
    int getCid();

    VirtualMachineState getState();

    /** Ignored when the VM is dead. */
    void registerCallback(IVirtualMachineCallback callback);

    /** Starts it; once. */
    void start();

    /** Ends it at once. */
    void stop();

    /** Bytes that the balloon holds. */
    long getMemoryBalloon();

    /** Bytes that the balloon is to hold. */
    void setMemoryBalloon(long num_bytes);

    /** Connects to a vsock port of the guest. */
    ParcelFileDescriptor connectVsock(int port);

    /** An accessor for a service of the guest. */
    IBinder createAccessorBinder(String instance, int port);

    /** The terminal that shows this VM's console, for listings. */
    void setHostConsoleName(in @utf8InCpp String pathname);

    /** Stops all vCPUs. */
    void suspend();

    void resume();
}
