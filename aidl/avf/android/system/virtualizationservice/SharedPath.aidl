// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** A directory that the guest sees. */
parcelable SharedPath {
    String sharedPath;
    int hostUid;
    int hostGid;
    int guestUid;
    int guestGid;
    int mask;
    String tag;
    String socketPath;
    @nullable ParcelFileDescriptor socketFd;
    boolean appDomain;
}
