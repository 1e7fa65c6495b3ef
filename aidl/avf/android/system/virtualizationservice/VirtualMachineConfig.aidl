// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

import android.system.virtualizationservice.VirtualMachineAppConfig;
import android.system.virtualizationservice.VirtualMachineRawConfig;

/** A VM that runs an app, or anything else. */
union VirtualMachineConfig {
    VirtualMachineAppConfig appConfig;
    VirtualMachineRawConfig rawConfig;
}
