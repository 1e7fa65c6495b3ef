// SPDX-License-Identifier: Apache-2.0
package com.android.gzvm;

import com.android.gzvm.IGzvmBackend;

/** Finds backends; offered by the global service under the name `com.android.gzvm`. */
interface IGzvmRegistry {
    /** Offers a backend to callers with the user id of the caller, until it dies. */
    void addBackend(IGzvmBackend backend);

    /** The backends of the caller's user id; all of them for root. */
    IGzvmBackend[] getBackends();
}
