// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** Sound. */
parcelable AudioConfig {
    boolean useMicrophone;
    boolean useSpeaker;
}
