// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

import android.system.virtualizationservice.CpuOptions;
import android.system.virtualizationservice.VirtualMachinePayloadConfig;

/** A Microdroid VM that runs an app's payload. */
parcelable VirtualMachineAppConfig {
    String name;
    byte[64] instanceId;
    ParcelFileDescriptor apk;
    ParcelFileDescriptor idsig;
    List<ParcelFileDescriptor> extraIdsigs;
    ParcelFileDescriptor instanceImage;
    @nullable ParcelFileDescriptor encryptedStorageImage;

    /** Where the payload's description is. */
    union Payload {
        @utf8InCpp String configPath;
        VirtualMachinePayloadConfig payloadConfig;
    }
    Payload payload;
    @utf8InCpp String osName = "microdroid";

    @Backing(type="int")
    enum DebugLevel {
        NONE = 0,
        FULL = 1,
    }
    DebugLevel debugLevel = DebugLevel.NONE;
    boolean protectedVm;
    int memoryMib;
    CpuOptions cpuOptions;

    /** What only privileged clients may set. */
    parcelable CustomConfig {
        @nullable ParcelFileDescriptor customKernelImage;
        int gdbPort = 0;
        @nullable ParcelFileDescriptor vendorImage;
        @utf8InCpp String[] devices;
        boolean wantUpdatable = true;
        boolean networkSupported;
        @utf8InCpp String[] extraKernelCmdlineParams;
        @utf8InCpp String[] teeServices;
    }
    @nullable CustomConfig customConfig;
    boolean hugePages;
    boolean boostUclamp;
}
