// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Guest hypercalls: what a guest asks of the hypervisor by HVC. PSCI and TRNG are standard and
//! not repeated here.

/// SMCCC_VERSION.
pub const SMCCC_VERSION: u32 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES.
pub const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
/// Vendor hypervisor UID.
pub const VENDOR_HYP_UID: u32 = 0x8600_ff01;
/// Vendor features: a bitmap in x0, bit n for vendor call n, as in Linux's KVM guests. What a
/// phone answers is not known; ours sets the memory sharing bits only for protected VMs.
pub const VENDOR_FEATURES: u32 = 0x8600_0000;
/// PTP: x1 = counter kind; answered by the host driver.
pub const PTP: u32 = 0x8600_0001;
/// MEMINFO: the share granule in bytes.
pub const MEMINFO: u32 = 0xc600_0002;
/// Shares the granule at IPA x1 with the host.
pub const MEM_SHARE: u32 = 0xc600_0003;
/// Takes the granule at IPA x1 back.
pub const MEM_UNSHARE: u32 = 0xc600_0004;
/// MMIO guard granule in bytes.
pub const MMIO_GUARD_INFO: u32 = 0xc600_0005;
/// From here on only guarded-in pages reach the host as MMIO.
pub const MMIO_GUARD_ENROLL: u32 = 0xc600_0006;
/// Lets accesses to the page at IPA x1 reach the host.
pub const MMIO_GUARD_MAP: u32 = 0xc600_0007;
/// Undoes [`MMIO_GUARD_MAP`].
pub const MMIO_GUARD_UNMAP: u32 = 0xc600_0008;
/// Gives the page at IPA x1 back to the host, wiped.
pub const MEM_RELINQUISH: u32 = 0xc600_0009;

/// PTP counter kind: the guest's virtual counter.
pub const PTP_VIRT_COUNTER: u64 = 0;
/// PTP counter kind: the physical counter.
pub const PTP_PHYS_COUNTER: u64 = 1;

/// Bit of [`PTP`] in [`VENDOR_FEATURES`].
pub const FEATURE_PTP: u64 = 1 << 1;
/// Bit of [`MEM_SHARE`] in [`VENDOR_FEATURES`]: set for protected VMs only, since in others all
/// memory is shared already.
pub const FEATURE_MEM_SHARE: u64 = 1 << 3;
/// Bit of [`MMIO_GUARD_MAP`] in [`VENDOR_FEATURES`].
pub const FEATURE_MMIO_GUARD: u64 = 1 << 7;

/// UUID 7e134ed0-3b82-488d-8cee-69c19211dbe7 as the four words of a UID answer.
pub const GENIEZONE_UID: [u32; 4] = [0xd04e_137e, 0x8d48_823b, 0xc169_ee8c, 0xe7db_1192];

/// Result: done.
pub const SUCCESS: i64 = 0;
/// Result: not supported.
pub const NOT_SUPPORTED: i64 = -1;
/// Result: not required.
pub const NOT_REQUIRED: i64 = -2;
/// Result: an argument is wrong.
pub const INVALID_PARAMETER: i64 = -3;
