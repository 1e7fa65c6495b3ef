// SPDX-License-Identifier: Apache-2.0
//! Who owns each page of RAM: one state a page and one small set of transitions.
//!
//! ```text
//!                 pin/unpin, share/unshare
//!                     ┌──────┐
//!                     ▼      │
//!   Absent        Host{shares, pins} ──donate(vm)──▶ Guest{vm, closed} ──open──▶ Guest{vm, open}
//!   Hypervisor        ▲                                   │    ▲                   │    │
//!                     └───────────reclaim(vm), wiped──────┴────┼───────────────────┘    │
//!                                                              └────────close───────────┘
//! ```
//!
//! A transition is a function from a state to a state or a refusal; it depends on nothing else.

/// The state of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// Not RAM.
    Absent,
    /// The hypervisor's own: image, tables.
    Hypervisor,
    /// The host's.
    Host {
        /// Guest mappings of this page.
        shares: u16,
        /// Uses by the hypervisor itself as a run page, mailbox or buffer.
        pins: u8,
    },
    /// Given to a protected VM.
    Guest {
        /// The VM's slot.
        vm: u8,
        /// The guest lets the host see it.
        open: bool,
    },
}

/// Why a transition was refused; the state is then unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The page is not the host's (not RAM, the hypervisor's, or a guest's).
    NotHosts,
    /// The page is not that guest's.
    NotGuests,
    /// The page is the host's, but shared or in use.
    InUse,
    /// A counter is full.
    TooMany,
    /// The page is already in that state.
    Already,
}

impl Page {
    /// A page of the host that nobody else uses.
    pub const FREE: Self = Self::Host { shares: 0, pins: 0 };

    /// One more guest mapping of a host page.
    pub fn share(self) -> Result<Self, Refusal> {
        let Self::Host { shares, pins } = self else { return Err(Refusal::NotHosts) };
        if pins != 0 {
            return Err(Refusal::InUse);
        }
        let shares = shares.checked_add(1).ok_or(Refusal::TooMany)?;
        Ok(Self::Host { shares, pins })
    }

    /// One guest mapping of a host page less.
    pub fn unshare(self) -> Result<Self, Refusal> {
        let Self::Host { shares, pins } = self else { return Err(Refusal::NotHosts) };
        let shares = shares.checked_sub(1).ok_or(Refusal::Already)?;
        Ok(Self::Host { shares, pins })
    }

    /// The hypervisor starts to use a host page. Pages that guests map are refused: a guest could
    /// otherwise change what the hypervisor reads.
    pub fn pin(self) -> Result<Self, Refusal> {
        let Self::Host { shares, pins } = self else { return Err(Refusal::NotHosts) };
        if shares != 0 {
            return Err(Refusal::InUse);
        }
        let pins = pins.checked_add(1).ok_or(Refusal::TooMany)?;
        Ok(Self::Host { shares, pins })
    }

    /// The hypervisor stops using a host page.
    pub fn unpin(self) -> Result<Self, Refusal> {
        let Self::Host { shares, pins } = self else { return Err(Refusal::NotHosts) };
        let pins = pins.checked_sub(1).ok_or(Refusal::Already)?;
        Ok(Self::Host { shares, pins })
    }

    /// The host gives an otherwise unused page to a VM.
    pub fn donate(self, vm: u8) -> Result<Self, Refusal> {
        match self {
            Self::FREE => Ok(Self::Guest { vm, open: false }),
            Self::Host { .. } => Err(Refusal::InUse),
            _ => Err(Refusal::NotHosts),
        }
    }

    /// A VM lets the host see its page.
    pub fn open(self, vm: u8) -> Result<Self, Refusal> {
        match self {
            Self::Guest { vm: owner, open: false } if owner == vm => {
                Ok(Self::Guest { vm, open: true })
            }
            Self::Guest { vm: owner, open: true } if owner == vm => Err(Refusal::Already),
            _ => Err(Refusal::NotGuests),
        }
    }

    /// A VM hides its page from the host again.
    pub fn close(self, vm: u8) -> Result<Self, Refusal> {
        match self {
            Self::Guest { vm: owner, open: true } if owner == vm => {
                Ok(Self::Guest { vm, open: false })
            }
            Self::Guest { vm: owner, open: false } if owner == vm => Err(Refusal::Already),
            _ => Err(Refusal::NotGuests),
        }
    }

    /// A VM's page returns to the host. The caller has wiped it.
    pub fn reclaim(self, vm: u8) -> Result<Self, Refusal> {
        match self {
            Self::Guest { vm: owner, .. } if owner == vm => Ok(Self::FREE),
            _ => Err(Refusal::NotGuests),
        }
    }

    /// Whether the host's stage 2 maps the page to itself.
    pub fn host_sees(self) -> bool {
        matches!(self, Self::Host { .. } | Self::Guest { open: true, .. })
    }
}

/// The state of all pages between the first and the last of RAM.
#[derive(Debug)]
pub struct Pages<'a> {
    first: u64,
    states: &'a mut [Page],
}

impl<'a> Pages<'a> {
    /// A table for the pages from frame number `first` on, in the states given.
    pub fn new(first: u64, states: &'a mut [Page]) -> Self {
        Self { first, states }
    }

    fn index(&self, pfn: u64) -> Option<usize> {
        usize::try_from(pfn.checked_sub(self.first)?).ok().filter(|i| *i < self.states.len())
    }

    /// The state of a page; [`Page::Absent`] outside of the table.
    pub fn get(&self, pfn: u64) -> Page {
        self.index(pfn).and_then(|i| self.states.get(i)).copied().unwrap_or(Page::Absent)
    }

    /// Puts one page through a transition.
    pub fn apply(
        &mut self,
        pfn: u64,
        transition: impl FnOnce(Page) -> Result<Page, Refusal>,
    ) -> Result<(), Refusal> {
        let next = transition(self.get(pfn))?;
        let index = self.index(pfn).ok_or(Refusal::NotHosts)?;
        if let Some(state) = self.states.get_mut(index) {
            *state = next;
        }
        Ok(())
    }

    /// Puts `count` pages through a transition, all or none.
    pub fn apply_all(
        &mut self,
        first: u64,
        count: u64,
        transition: impl Fn(Page) -> Result<Page, Refusal>,
    ) -> Result<(), Refusal> {
        let end = first.checked_add(count).ok_or(Refusal::NotHosts)?;
        for pfn in first..end {
            transition(self.get(pfn))?;
        }
        for pfn in first..end {
            self.apply(pfn, &transition)?;
        }
        Ok(())
    }

    /// Frame numbers and states of all pages, for audits.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Page)> + '_ {
        (self.first..).zip(self.states.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [Page; 8] = [
        Page::Absent,
        Page::Hypervisor,
        Page::FREE,
        Page::Host { shares: 1, pins: 0 },
        Page::Host { shares: 0, pins: 1 },
        Page::Host { shares: u16::MAX, pins: 0 },
        Page::Guest { vm: 1, open: false },
        Page::Guest { vm: 1, open: true },
    ];

    #[test]
    fn only_free_host_pages_can_be_donated() {
        for state in STATES {
            assert_eq!(state.donate(2).is_ok(), state == Page::FREE, "{state:?}");
        }
    }

    #[test]
    fn nobody_but_the_owner_moves_a_guest_page() {
        for state in STATES {
            assert!(state.open(2).is_err());
            assert!(state.close(2).is_err());
            assert!(state.reclaim(2).is_err());
        }
        assert_eq!(Page::Guest { vm: 1, open: true }.reclaim(1), Ok(Page::FREE));
    }

    #[test]
    fn used_pages_are_neither_shared_nor_pinned_by_the_other_kind() {
        assert_eq!(Page::Host { shares: 1, pins: 0 }.pin(), Err(Refusal::InUse));
        assert_eq!(Page::Host { shares: 0, pins: 1 }.share(), Err(Refusal::InUse));
        assert_eq!(Page::Host { shares: u16::MAX, pins: 0 }.share(), Err(Refusal::TooMany));
        assert_eq!(Page::FREE.unpin(), Err(Refusal::Already));
        assert_eq!(Page::FREE.unshare(), Err(Refusal::Already));
    }

    #[test]
    fn transitions_come_in_pairs() {
        let back = |p: Page| p.share().and_then(Page::unshare);
        assert_eq!(back(Page::FREE), Ok(Page::FREE));
        assert_eq!(Page::FREE.pin().and_then(Page::unpin), Ok(Page::FREE));
        let given = Page::FREE.donate(3);
        assert_eq!(given.and_then(|p| p.open(3)).and_then(|p| p.close(3)), given);
    }

    #[test]
    fn apply_all_changes_all_or_nothing() {
        let mut states = [Page::FREE, Page::FREE, Page::Hypervisor];
        let mut pages = Pages::new(10, &mut states);
        assert_eq!(pages.apply_all(10, 3, Page::pin), Err(Refusal::NotHosts));
        assert_eq!(pages.get(10), Page::FREE);
        assert_eq!(pages.apply_all(10, 2, Page::pin), Ok(()));
        assert_eq!(pages.get(11), Page::Host { shares: 0, pins: 1 });
        assert_eq!(pages.get(9), Page::Absent);
        assert_eq!(pages.get(13), Page::Absent);
    }
}
