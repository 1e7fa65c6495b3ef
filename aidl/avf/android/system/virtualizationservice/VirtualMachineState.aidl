// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** How far a VM is. */
@Backing(type="int")
enum VirtualMachineState {
    NOT_STARTED = 0,
    STARTING = 1,
    STARTED = 2,
    READY = 3,
    FINISHED = 4,
    DEAD = 6,
}
