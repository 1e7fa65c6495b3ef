// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

import android.system.virtualizationservice.Partition;

/** A disk: exactly one of image and partitions. */
parcelable DiskImage {
    @nullable ParcelFileDescriptor image;
    boolean writable;
    Partition[] partitions;
}
