// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationcommon;

/** Why a VM ended. */
@Backing(type="int")
enum DeathReason {
    /** The service itself failed. */
    INFRASTRUCTURE_ERROR = 0,
    /** The VMM was killed. */
    KILLED = 1,
    UNKNOWN = 2,
    /** The guest powered off. */
    SHUTDOWN = 3,
    /** The VM could not be started. */
    START_FAILED = 4,
    /** The guest asked for a reset. */
    REBOOT = 5,
    /** Hypervisor, driver or VMM failed. */
    CRASH = 6,
    PVM_FIRMWARE_PUBLIC_KEY_MISMATCH = 7,
    PVM_FIRMWARE_INSTANCE_IMAGE_CHANGED = 8,
    // 9 and 10 were used once.
    MICRODROID_FAILED_TO_CONNECT_TO_VIRTUALIZATION_SERVICE = 11,
    MICRODROID_PAYLOAD_HAS_CHANGED = 12,
    MICRODROID_PAYLOAD_VERIFICATION_FAILED = 13,
    MICRODROID_INVALID_PAYLOAD_CONFIG = 14,
    MICRODROID_UNKNOWN_RUNTIME_ERROR = 15,
    /** The guest did not start its payload in time. */
    HANGUP = 16,
    /** The stall detector fired. */
    WATCHDOG_REBOOT = 17,
}
