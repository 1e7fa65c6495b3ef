// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice_internal;

/** Statistics: a guest has booted. */
parcelable AtomVmBooted {
    int uid;
    String vmIdentifier;
    long elapsedTimeMillis;
}
