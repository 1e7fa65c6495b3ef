// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! Our extensions of the hypervisor ABI. A phone's GenieZone has none of them, nor has refhyp's
//! strict mode; the driver works without each and says in CHECK_EXTENSION what it has.
//!
//! Discovery: ENABLE_CAP of [`DISCOVER`] with x1 = 0 answers x0 = 0, x1 = feature bits and
//! x2 = [`MAGIC`]. A hypervisor that does not know the capability refuses it; one that answers
//! without the magic is treated as having no extension.

/// Capability number of the discovery.
pub const DISCOVER: u64 = 0x92f0;
/// What x2 holds after a discovery that is to be believed ("GZEX").
pub const MAGIC: u64 = 0x475a_4558;

/// IRQ_LINE answers the mask of target vCPUs in x1; an IPI exit carries it at run offset 8.
pub const WAKE_MASK: u64 = 1 << 0;
/// Guest frame ranges can be unmapped.
pub const UNMAP: u64 = 1 << 1;
/// IRQ_LINE carries type and true level; ends of interrupts are reported.
pub const IRQ_KIND: u64 = 1 << 2;
/// GET_ONE_REG works for unprotected VMs.
pub const GET_REG: u64 = 1 << 3;
/// Limits can be asked for ([`QUERY_LIMITS`]).
pub const LIMITS: u64 = 1 << 4;
/// The state of a guest range can be asked for.
pub const RANGE_STATE: u64 = 1 << 5;
/// Test builds only: the ownership audit.
pub const TEST: u64 = 1 << 63;

/// Capability number of [`LIMITS`]: with x1 = 0 answers x1 = vCPUs per VM (bits 15:0), SPIs per VM
/// (31:16), IPA bits (39:32), protected VMs supported (bit 40).
pub const QUERY_LIMITS: u64 = 0x92f1;
/// Capability number of [`TEST`]'s audit: with x1 = 0 compares the live stage 2 tables with the
/// ownership table; answers x1 = pages that disagree, x2 = pages in use by guests (theirs, shared,
/// pinned, and their tables), x3 = VMs alive.
pub const TEST_AUDIT: u64 = 0x92ff;
