// SPDX-License-Identifier: Apache-2.0
package android.system.virtualizationservice;

/** A GPU. */
parcelable GpuConfig {
    @nullable @utf8InCpp String backend;
    @nullable @utf8InCpp String[] contextTypes;
    @nullable @utf8InCpp String pciAddress;
    @nullable @utf8InCpp String rendererFeatures;
    boolean rendererUseEgl = false;
    boolean rendererUseGles = false;
    boolean rendererUseGlx = false;
    boolean rendererUseSurfaceless = false;
    boolean rendererUseVulkan = false;
}
