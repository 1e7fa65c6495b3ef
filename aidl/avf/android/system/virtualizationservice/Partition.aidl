// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** A partition of a disk. */
parcelable Partition {
    @utf8InCpp String label;
    ParcelFileDescriptor image;
    boolean writable;
    /** Unique id; a random one if there is none. */
    @nullable @utf8InCpp String guid;
}
