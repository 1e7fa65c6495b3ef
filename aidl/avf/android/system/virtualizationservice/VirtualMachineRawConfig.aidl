// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

import android.system.virtualizationservice.AssignedDevices;
import android.system.virtualizationservice.AudioConfig;
import android.system.virtualizationservice.CpuOptions;
import android.system.virtualizationservice.CustomMemoryBackingFile;
import android.system.virtualizationservice.DiskImage;
import android.system.virtualizationservice.DisplayConfig;
import android.system.virtualizationservice.GpuConfig;
import android.system.virtualizationservice.InputDevice;
import android.system.virtualizationservice.SharedPath;
import android.system.virtualizationservice.UsbConfig;

/** A VM, file by file. */
parcelable VirtualMachineRawConfig {
    String name;
    /** Identity of the VM. */
    byte[64] instanceId;
    /** Kernel Image. */
    @nullable ParcelFileDescriptor kernel;
    @nullable ParcelFileDescriptor initrd;
    /** Kernel parameters. */
    @nullable @utf8InCpp String params;
    /** Flat binary instead of a kernel. */
    @nullable ParcelFileDescriptor bootloader;
    DiskImage[] disks;
    SharedPath[] sharedPaths;
    boolean protectedVm;
    /** MiB; 0 or less: the default. */
    int memoryMib;
    /** MiB of the restricted-DMA pool of a protected VM; 0 or less: the default. */
    int swiotlbMib;
    CpuOptions cpuOptions;
    /** Which platform versions the VM runs on, as a SemVer requirement. */
    @utf8InCpp String platformVersion;
    /** TCP port for gdb, or 0. */
    int gdbPort = 0;
    /** Ask for transparent huge pages. */
    boolean hugePages;
    AssignedDevices devices;
    @nullable DisplayConfig displayConfig;
    InputDevice[] inputDevices;
    @nullable GpuConfig gpuConfig;
    boolean networkSupported;
    @nullable AudioConfig audioConfig;
    /** Where console input goes: `hvc0` (default) or `ttyS0`. */
    @nullable @utf8InCpp String consoleInputDevice;
    @nullable UsbConfig usbConfig;
    boolean boostUclamp;
    boolean balloon;
    @utf8InCpp String[] teeServices;
    /** Gunyah only. */
    boolean enableHypervisorSpecificAuthMethod;
    CustomMemoryBackingFile[] customMemoryBackingFiles;
}
