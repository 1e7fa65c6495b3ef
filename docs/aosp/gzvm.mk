# SPDX-License-Identifier: Apache-2.0
# What a product adds for GenieZone: inherit it from device.mk.
PRODUCT_PACKAGES += \
    gzvmctl \
    gzvm_init.rc \
    gzvm_ueventd.rc

# Device tests, for builds that have them.
PRODUCT_PACKAGES_ENG += \
    gzvm_device_test_capabilities \
    gzvm_device_test_ioctls \
    gzvm_device_test_memory \
    gzvm_device_test_vcpus
