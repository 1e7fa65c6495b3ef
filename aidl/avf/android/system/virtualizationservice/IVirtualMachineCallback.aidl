// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

import android.system.virtualizationcommon.DeathReason;
import android.system.virtualizationcommon.ErrorCode;

/** What happens to a VM. Not called when virtmgr itself dies. */
oneway interface IVirtualMachineCallback {
    void onPayloadStarted(int cid);

    void onPayloadReady(int cid);

    void onPayloadFinished(int cid, int exitCode);

    void onError(int cid, ErrorCode errorCode, in String message);

    void onDied(int cid, DeathReason reason);
}
