// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice_internal;

import android.system.virtualizationcommon.DeathReason;

/** Statistics: a VM has ended. */
parcelable AtomVmExited {
    int uid;
    String vmIdentifier;
    DeathReason deathReason;
    int exitSignal;
    long elapsedTimeMillis;
    long guestTimeMillis;
    long rssVmKb;
    long rssCrosvmKb;
}
