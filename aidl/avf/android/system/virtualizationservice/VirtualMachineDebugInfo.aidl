// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** A VM in a listing. */
parcelable VirtualMachineDebugInfo {
    int cid;
    @utf8InCpp String temporaryDirectory;
    int requesterUid;
    int requesterPid;
    @nullable @utf8InCpp String hostConsoleName;
}
