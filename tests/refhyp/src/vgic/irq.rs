// SPDX-License-Identifier: Apache-2.0
//! The state of one interrupt.

/// [`Irq::revoked`]: the pending state in a list register counts no more.
pub(super) const REVOKED_PENDING: u8 = 1 << 0;
/// [`Irq::revoked`]: the active state in a list register counts no more.
pub(super) const REVOKED_ACTIVE: u8 = 1 << 1;

/// [`Irq::revoked`]: another vCPU has deactivated it, which ends it.
pub(super) const REVOKED_ENDED: u8 = 1 << 2;

/// One interrupt. vCPUs are noted by their index plus 1; 0 is none, so that all is zero at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Irq {
    pub enabled: bool,
    /// Latched: a pulse, a rise or a software-generated interrupt that was not taken yet.
    pub pending: bool,
    /// The level of its line. Makes it pending unless it is edge-triggered.
    pub line: bool,
    pub active: bool,
    pub edge: bool,
    pub group1: bool,
    pub priority: u8,
    /// Shared interrupts: the affinity bits 23:0 and the "any" bit of the route register.
    pub route: u32,
    /// The vCPU that took it while it is active; 0 too if a register made it so.
    pub active_on: u8,
    /// The vCPU whose list registers it is in, while that one is in the guest.
    pub listed_on: u8,
    /// In a list register: the latch went there.
    pub listed_latch: bool,
    /// In a list register: it was active before.
    pub listed_active: bool,
    /// In a list register: the host wanted to know of the end already. Else the end may be that of
    /// an earlier one.
    pub listed_report: bool,
    /// What another vCPU took away from the list register meanwhile.
    pub revoked: u8,
    /// The host wants to know when the guest ends it.
    pub report: bool,
    /// The vCPU that ended it, until the host has been told.
    pub ended_by: u8,
}

impl Irq {
    pub const NEW: Self = Self {
        enabled: false,
        pending: false,
        line: false,
        active: false,
        edge: false,
        group1: false,
        priority: 0,
        route: 0,
        active_on: 0,
        listed_on: 0,
        listed_latch: false,
        listed_active: false,
        listed_report: false,
        revoked: 0,
        report: false,
        ended_by: 0,
    };

    /// Whether its line alone makes it pending.
    pub fn is_high(self) -> bool {
        self.line && !self.edge
    }

    pub fn is_pending(self) -> bool {
        self.pending || self.is_high()
    }

    /// What is pending, clears in the latch, and in a list register too.
    pub fn clear_pending(&mut self) {
        self.pending = false;
        if self.listed_on != 0 {
            self.revoked |= REVOKED_PENDING;
        }
        self.settle();
    }

    /// Not active any more, by a register: that is no end that a host is told of.
    pub fn clear_active(&mut self) {
        self.active = false;
        self.active_on = 0;
        if self.listed_on != 0 {
            self.revoked |= REVOKED_ACTIVE;
        }
        self.settle();
    }

    /// There will be no end to report if there is nothing to end.
    pub fn settle(&mut self) {
        self.report &= self.active || self.is_pending() || self.listed_on != 0;
    }
}

/// A vCPU as it is noted in an [`Irq`].
pub(super) fn note(vcpu: usize) -> u8 {
    u8::try_from(vcpu + 1).unwrap_or(0)
}
