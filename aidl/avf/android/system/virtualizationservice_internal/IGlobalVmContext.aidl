// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice_internal;

/** What the global service keeps for one VM. */
interface IGlobalVmContext {
    int getCid();

    String getTemporaryDirectory();

    void setHostConsoleName(@utf8InCpp String pathname);
}
