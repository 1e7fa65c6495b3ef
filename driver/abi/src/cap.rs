// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Capability numbers of CHECK_EXTENSION and ENABLE_CAP.

/// CHECK_EXTENSION only: guest physical address bits.
pub const VM_GPA_SIZE: u64 = 0xa5;
/// CHECK_EXTENSION only: 1 if the guest of this VM, or of an unprotected one where no VM is asked,
/// loses what its owner unmaps, punches out or replaces in its own mapping behind a slot, and gets
/// the new pages at its next access; else 0. Ours: the driver's, not the hypervisor's.
pub const SYNC_MMU: u64 = 0x92e0;
/// User and hypervisor: protected VMs; the sub-command is `args[0]`, one of `PVM_*`.
pub const PROTECTED_VM: u64 = 0xffba_dab1;

/// [`PROTECTED_VM`]: place the hypervisor's firmware at the guest address in `args[1]`, and make
/// the VM protected.
pub const PVM_SET_PVMFW_GPA: u64 = 0;
/// [`PROTECTED_VM`]: report the firmware's size in bytes in `args[1]` (0: none is installed).
pub const PVM_GET_PVMFW_SIZE: u64 = 1;
/// [`PROTECTED_VM`]: make the VM protected, without firmware.
pub const PVM_SET_PROTECTED_VM: u64 = 2;

/// Driver only: block-based demand paging. x3 = block size in bytes, x4 = host physical address
/// of the one-page mailbox of host frame numbers.
pub const BLOCK_BASED_DEMAND_PAGING: u64 = 0x9201;
/// Driver only: page faults of the guest come to the host as exits.
pub const ENABLE_DEMAND_PAGING: u64 = 0x9202;
/// Driver only: idle vCPUs come to the host as exits. A known client sends it too.
pub const ENABLE_IDLE: u64 = 0x9203;
/// Driver only, VM id 0: x1 = pages per MAP_GUEST_BLOCK call, a divisor of 512.
pub const QUERY_HYP_BATCH_PAGES: u64 = 0x9204;
/// Driver only, VM id 0: x1 = pages per DESTROY_VM call, a power of two.
pub const QUERY_DESTROY_BATCH_PAGES: u64 = 0x9205;
