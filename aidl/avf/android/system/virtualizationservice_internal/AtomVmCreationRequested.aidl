// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice_internal;

/** Statistics: a VM was asked for. */
parcelable AtomVmCreationRequested {
    int uid;
    String vmIdentifier;
    boolean isProtected;
    boolean creationSucceeded;
    int binderExceptionCode;
    int configType;
    int numCpus;
    int memoryMib;
    String apexes;
}
