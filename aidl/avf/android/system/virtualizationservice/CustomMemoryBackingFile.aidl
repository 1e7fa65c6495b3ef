// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** A file that is a part of guest memory. */
parcelable CustomMemoryBackingFile {
    ParcelFileDescriptor file;
    /** Guest address; unsigned. */
    long rangeStart;
    /** Bytes; unsigned. */
    long size;
}
