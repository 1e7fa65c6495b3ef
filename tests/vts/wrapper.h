/* SPDX-License-Identifier: Apache-2.0 */
/* What the bindings for VTS are made from: libavf_bindgen is visible to AVF alone. */
#include <android/virtualization.h>
