// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** What a new partition holds. */
@Backing(type="int")
enum PartitionType {
    /** Zeros. */
    RAW = 0,
    /** An instance image of Microdroid. */
    ANDROID_VM_INSTANCE = 1,
    /** Space for an encrypted store. */
    ENCRYPTEDSTORE = 2,
}
