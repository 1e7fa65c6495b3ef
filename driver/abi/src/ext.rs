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
/// Guest frame ranges can be unmapped ([`UNMAP_RANGE`]) and regions removed ([`REMOVE_REGION`]).
pub const UNMAP: u64 = 1 << 1;
/// IRQ_LINE carries one of the `IRQ_KIND_*` in x4; ends of interrupts are reported.
pub const IRQ_KIND: u64 = 1 << 2;
/// GET_ONE_REG works for unprotected VMs.
pub const GET_REG: u64 = 1 << 3;
/// Limits can be asked for ([`QUERY_LIMITS`]).
pub const LIMITS: u64 = 1 << 4;
/// The state of a guest range can be asked for ([`QUERY_RANGE_STATE`]).
pub const RANGE_STATE: u64 = 1 << 5;
/// Test builds only: the ownership audit ([`TEST_AUDIT`]) and the fault plan ([`TEST_FAULT`]).
pub const TEST: u64 = 1 << 63;

/// Capability number of [`LIMITS`]: with x1 = 0 answers x1 = vCPUs per VM (bits 15:0), SPIs per VM
/// (31:16), IPA bits (39:32), protected VMs supported (bit 40).
pub const QUERY_LIMITS: u64 = 0x92f1;
/// Capability number of [`UNMAP`], for unprotected VMs: x1 = VM id, x3 = first guest frame, x4 =
/// pages, all in one region. Takes what is mapped there from the guest and gives the host frames
/// back; frames where nothing is mapped count as done. Answers x1 = pages done, from the first on:
/// with ERR_BUSY the caller goes on behind them, with 0 all are done. A protected VM answers
/// ERR_NOT_SUPPORTED: its memory is not the host's to take.
pub const UNMAP_RANGE: u64 = 0x92f2;
/// Capability number of [`UNMAP`]: x1 = VM id, x3 = guest physical address, x4 = size in bytes of
/// a region, exactly. Removes it; refused with ERR_INVALID_ARGS while a page is mapped in it.
/// Works for protected VMs too.
pub const REMOVE_REGION: u64 = 0x92f3;
/// Capability number of [`RANGE_STATE`]: x1 = VM id, x3 = first guest frame, x4 = pages (at least
/// 1). Answers x1 = one of the `RANGE_*`, x2 = number of pages from the first on that have this
/// state, between 1 and x4 (a hypervisor may stop early).
pub const QUERY_RANGE_STATE: u64 = 0x92f4;

/// Nothing is mapped at the guest frame.
pub const RANGE_ABSENT: u64 = 0;
/// The guest frame is mapped and the host has no access to it.
pub const RANGE_PRIVATE: u64 = 1;
/// The guest frame is mapped and the host has access to it.
pub const RANGE_SHARED: u64 = 2;

/// IRQ_LINE x4, and what v13 sends: level 1 latches the SPI pending once, level 0 does nothing.
pub const IRQ_KIND_PULSE: u64 = 0;
/// IRQ_LINE x4: x3 is the true level of the SPI's line. For an interrupt that the guest configured
/// as edge-triggered only its rise counts.
pub const IRQ_KIND_SPI_LEVEL: u64 = 1;
/// IRQ_LINE x4: x2 is a PPI's INTID (16 to 31) of the vCPU in x1, x3 the true level of its line.
/// The timers' PPIs are refused with ERR_INVALID_ARGS.
pub const IRQ_KIND_PPI_LEVEL: u64 = 2;
/// Flag in IRQ_LINE x4, with a level kind and level 1: report when the guest ends the interrupt.
///
/// The vCPU that ended it leaves the guest (reason IRQ if nothing else happens), and that exit's
/// [`super::run::HwState`] has an entry among the first `nr_lrs` of `lr` with the INTID in bits
/// 31:0, state (bits 63:62) 0, HW (bit 61) 0 and EOI (bit 41) 1. Each end is reported once.
pub const IRQ_KIND_REPORT_END: u64 = 1 << 8;

/// Capability number of [`TEST`]'s audit: with x1 = 0 compares the live stage 2 tables with the
/// ownership table; answers x1 = pages that disagree, x2 = pages in use by guests (theirs, shared,
/// pinned, and their tables), x3 = VMs alive.
pub const TEST_AUDIT: u64 = 0x92ff;
/// Capability number of [`TEST`]'s fault plan: x3 = index of a host function (below
/// [`super::hvc::NR_FUNCTIONS`]), x4 = calls of it to let pass first, x5 = calls to make fail then
/// (0 removes the entry), x6 = status that they answer, x7 = `TEST_FAULT_*`. One entry a function.
/// The plan's own call and the audit are never made to fail. x1 answers how often the function's
/// previous entry struck.
pub const TEST_FAULT: u64 = 0x92fe;
/// Fault plan: refuse the call without doing anything.
pub const TEST_FAULT_REFUSE: u64 = 0;
/// Fault plan: do the call, then answer the status and rubbish in x1 to x3 all the same.
pub const TEST_FAULT_LIE: u64 = 1;
/// Fault plan: spin for about a million counter ticks with interrupts off, then do the call.
pub const TEST_FAULT_DELAY: u64 = 2;
