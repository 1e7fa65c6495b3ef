// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationcommon;

/** A DER-encoded X.509 certificate. */
parcelable Certificate {
    byte[] encodedCertificate;
}
