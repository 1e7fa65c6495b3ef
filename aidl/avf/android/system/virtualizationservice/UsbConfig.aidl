// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** USB. */
parcelable UsbConfig {
    boolean controller;
}
