// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** A display. */
parcelable DisplayConfig {
    int width;
    int height;
    int horizontalDpi;
    int verticalDpi;
    int refreshRate;
}
