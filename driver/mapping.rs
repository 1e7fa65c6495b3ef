// SPDX-License-Identifier: GPL-2.0

//! Mapping pinned pages into a guest, by the way of paging that the hypervisor chose.
//!
//! One call to pin, then as few hypercalls as the batch allows. All memory that is needed is
//! allocated before the hypercall: what is mapped is always recorded, and pages of a failed
//! hypercall are unmapped again or stay pinned.

use crate::{
    abi::{
        ext,
        hvc::{
            Constituent,
            MemRegionHeader,
            MAX_CONSTITUENTS, //
        }, //
    },
    backing::{
        Abandoned,
        Reservation, //
    },
    hyp::{
        self,
        RegionBuffer, //
    },
    kx::{
        gup::PinnedPages,
        ratelimit::warn_limited, //
    },
    model::{
        addr::{
            Gfn,
            PageRange,
            Pfn, //
        },
        fault::Paging,
        pins::Run,
        slots::Slot, //
    },
    pages::{
        Claim,
        Commit,
        Pages, //
    }, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// Pages that a SET_MEMREGION call describes at most: the hypervisor works on them in one go.
pub(crate) const POPULATE_PAGES: u64 = 512;

/// What a batch needs before it is mapped.
struct Prepared {
    /// Room for the records.
    room: KVec<Reservation>,
    /// The list of pages, where it does not go by frame numbers.
    list: Option<RegionBuffer>,
}

impl Pages {
    /// Pins and maps a range of a slot of which nothing is backed, and which the caller has
    /// claimed. `false` if the owner's mapping changed meanwhile, and some of it is not mapped.
    pub(crate) fn map(
        &self,
        claim: &Claim<'_>,
        slot: &Slot,
        range: PageRange,
        paging: Paging,
    ) -> Result<bool> {
        let address = crate::uio::address(slot.hva_of(range.start()))?;
        let mut pages = self.owner.pin(address, usize::try_from(range.pages())?)?;
        for batch in range.chunks(self.batch(&pages, paging)) {
            let prepared = self.prepare(slot, batch, &pages, paging)?;
            let Some(commit) = claim.commit() else { return Ok(false) };
            match self.send(slot, batch, &pages, &prepared) {
                Ok(()) => self.record(slot, batch, &mut pages, prepared.room),
                Err(error) => {
                    self.undo(commit, range, pages);
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// Takes pages back whose mapping failed, if the hypervisor can do that, or leaves them pinned.
    fn undo(&self, commit: Commit<'_, '_>, range: PageRange, pages: PinnedPages) {
        // Of the range, what was recorded before is mapped. The rest is whatever the call did.
        let gap = self.given.backing.lock().first_gap(range);
        let unmapped = self.gzvm().features.has(ext::UNMAP)
            && gap.is_none_or(|gap| self.unmap_from_guest(gap).is_ok());
        drop(commit);
        if unmapped {
            return;
        }
        match KBox::new_uninit(GFP_KERNEL_ACCOUNT) {
            Ok(room) => {
                let entry = KBox::write(room, Abandoned::new(pages));
                self.given.backing.lock().abandon(entry);
            }
            Err(_) => {
                // Unpinning could hand the hypervisor's memory to somebody else.
                warn_limited!("no memory to note pages of a failed mapping: pinned for ever\n");
                pages.leak();
            }
        }
    }

    /// Maps the page of an existing record once more: the guest faulted although it was mapped, so
    /// either another vCPU was faster or the page was given back meanwhile. The caller has claimed
    /// it. If its owner replaced it meanwhile, the guest will fault again.
    pub(crate) fn map_again(
        &self,
        claim: &Claim<'_>,
        slot: &Slot,
        gfn: Gfn,
        run: &Run,
    ) -> Result {
        let pfn = run.pfn_of(gfn).ok_or(EFAULT)?;
        let Some(_commit) = claim.commit() else { return Ok(()) };
        match self.paging {
            Paging::Block => {
                let page = PageRange::single(gfn).ok_or(EFAULT)?;
                self.send_block(slot, page, core::iter::once(pfn.0))?;
            }
            Paging::Page | Paging::Populate => hyp::map_page(self.id(), slot.id, pfn, gfn)?,
        }
        let at = self.count_mapping();
        self.given.backing.lock().mapped_again(gfn, at);
        Ok(())
    }

    /// Announces a slot without populating it.
    pub(crate) fn register(&self, slot: &Slot) -> Result {
        let buffer = Self::region_buffer(slot, slot.range, &[])?;
        hyp::memregion_purpose(self.id(), slot.range, slot.purpose)?;
        Ok(hyp::set_memregion(self.id(), &buffer)?)
    }

    /// Counts a mapping that is complete.
    fn count_mapping(&self) -> u64 {
        self.mappings.fetch_add(1, kernel::sync::atomic::Full) + 1
    }

    fn batch(&self, pages: &PinnedPages, paging: Paging) -> u64 {
        match paging {
            Paging::Page => 1,
            Paging::Block => u64::from(self.gzvm().demand_batch.load(Relaxed)),
            Paging::Populate if pages.runs_within(usize::MAX) > MAX_CONSTITUENTS => {
                POPULATE_PAGES / 2
            }
            Paging::Populate => POPULATE_PAGES,
        }
    }

    fn prepare(
        &self,
        slot: &Slot,
        range: PageRange,
        pages: &PinnedPages,
        paging: Paging,
    ) -> Result<Prepared> {
        let count = usize::try_from(range.pages())?;
        let mut room = KVec::<Reservation>::new();
        for _ in 0..pages.runs_within(count) {
            room.push(Reservation::new(GFP_KERNEL)?, GFP_KERNEL)?;
        }
        if paging != Paging::Populate {
            return Ok(Prepared { room, list: None });
        }
        let mut entries = KVec::new();
        for (pfn, pages) in pages.runs(count) {
            let pg_cnt = u32::try_from(pages)?;
            let address = Pfn(pfn).phys();
            entries.push(Constituent { address, pg_cnt, reserved: 0 }, GFP_KERNEL)?;
        }
        let list = Some(Self::region_buffer(slot, range, &entries)?);
        Ok(Prepared { room, list })
    }

    /// Has the hypervisor map a batch.
    fn send(
        &self,
        slot: &Slot,
        range: PageRange,
        pages: &PinnedPages,
        prepared: &Prepared,
    ) -> Result {
        if let Some(list) = &prepared.list {
            return Ok(hyp::set_memregion(self.id(), list)?);
        }
        if self.given.mailbox.is_some() {
            let count = usize::try_from(range.pages())?;
            return self.send_block(slot, range, pages.pfns(count));
        }
        let pfn = Pfn(pages.pfns(1).next().ok_or(EINVAL)?);
        Ok(hyp::map_page(self.id(), slot.id, pfn, range.start())?)
    }

    fn send_block(&self, slot: &Slot, range: PageRange, pfns: impl Iterator<Item = u64>) -> Result {
        let mailbox = self.given.mailbox.as_ref().ok_or(EINVAL)?.lock();
        for (index, pfn) in pfns.enumerate() {
            mailbox.write_bytes(index * size_of::<u64>(), &pfn.to_le_bytes())?;
        }
        Ok(hyp::map_block(self.given.vm.id(), slot.id, range)?)
    }

    fn region_buffer(
        slot: &Slot,
        range: PageRange,
        entries: &[Constituent],
    ) -> Result<RegionBuffer> {
        use zerocopy::IntoBytes;

        let buffer = RegionBuffer::new()?;
        buffer.write::<_, 0>(&MemRegionHeader {
            slot: slot.id,
            constituent_cnt: u32::try_from(entries.len())?,
            total_pages: range.pages(),
            gpa: range.start().gpa(),
        });
        buffer.write_bytes(size_of::<MemRegionHeader>(), entries.as_bytes())?;
        Ok(buffer)
    }

    /// Records the first pages as backing the range.
    fn record(
        &self,
        slot: &Slot,
        range: PageRange,
        pages: &mut PinnedPages,
        room: KVec<Reservation>,
    ) {
        self.given.vm.count_mapped(range.pages());
        let at = self.count_mapping();
        let mut room = room.into_iter();
        let mut rest = Some(range);
        let mut backing = self.given.backing.lock();
        while let Some(range) = rest {
            let max = usize::try_from(range.pages()).unwrap_or(usize::MAX);
            let (Some(run), Some(room)) = (pages.take_run(max), room.next()) else { return };
            let next = Gfn(range.start().0 + run.count() as u64);
            backing.add(slot.range, range.start(), run, at, room);
            (_, rest) = range.split_at(next);
        }
    }
}
