// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationcommon;

/** What a payload reports. */
@Backing(type="int")
enum ErrorCode {
    UNKNOWN = 0,
    PAYLOAD_VERIFICATION_FAILED = 1,
    PAYLOAD_CHANGED = 2,
    PAYLOAD_INVALID_CONFIG = 3,
}
