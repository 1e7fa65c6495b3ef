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
    backing::Abandoned,
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
        slots::Slot, //
    },
    pages::{
        Claim,
        Commit,
        Pages, //
    },
    record::Room, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// Pages that a SET_MEMREGION call describes at most: the hypervisor works on them in one go.
pub(crate) const POPULATE_PAGES: u64 = 512;

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
        let mut room = self.room_for(range, &pages);
        for batch in range.chunks(self.batch(&pages, paging)) {
            room.fill(&pages, usize::try_from(batch.pages())?)?;
            let list = self.list(slot, batch, &pages, paging)?;
            let Some(commit) = claim.commit() else { return Ok(false) };
            match self.send(slot, batch, &pages, list.as_ref()) {
                Ok(()) => self.record(slot, batch, &mut pages, &mut room),
                Err(error) => {
                    self.undo(commit, batch, pages);
                    return Err(error);
                }
            }
        }
        Ok(true)
    }

    /// The way to record pages of a range that takes less memory. In a hole of a table they become
    /// a part of that, if it is not cut off meanwhile.
    fn room_for(&self, range: PageRange, pages: &PinnedPages) -> Room {
        match Room::new(pages) {
            Room::Table(_) if self.given.backing.lock().is_in_table(range.start()) => Room::runs(),
            room => room,
        }
    }

    /// Takes pages back of which mapping a batch failed, if the hypervisor can do that, or leaves
    /// them pinned.
    fn undo(&self, commit: Commit<'_, '_>, batch: PageRange, pages: PinnedPages) {
        // Of the batch, some may be mapped; behind it nothing is.
        let unmapped = self.gzvm().features.has(ext::UNMAP) && self.unmap_from_guest(batch).is_ok();
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
    pub(crate) fn map_again(&self, claim: &Claim<'_>, slot: &Slot, gfn: Gfn, pfn: Pfn) -> Result {
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

    /// The list of the pages of a batch, where it does not go by frame numbers.
    fn list(
        &self,
        slot: &Slot,
        range: PageRange,
        pages: &PinnedPages,
        paging: Paging,
    ) -> Result<Option<RegionBuffer>> {
        if paging != Paging::Populate {
            return Ok(None);
        }
        let mut entries = KVec::new();
        for (pfn, pages) in pages.runs(usize::try_from(range.pages())?) {
            let pg_cnt = u32::try_from(pages)?;
            let address = Pfn(pfn).phys();
            entries.push(Constituent { address, pg_cnt, reserved: 0 }, GFP_KERNEL)?;
        }
        Ok(Some(Self::region_buffer(slot, range, &entries)?))
    }

    /// Has the hypervisor map a batch.
    fn send(
        &self,
        slot: &Slot,
        range: PageRange,
        pages: &PinnedPages,
        list: Option<&RegionBuffer>,
    ) -> Result {
        if let Some(list) = list {
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
        mailbox.write_words(pfns)?;
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
    fn record(&self, slot: &Slot, range: PageRange, pages: &mut PinnedPages, room: &mut Room) {
        self.given.vm.count_mapped(range.pages());
        let at = self.count_mapping();
        let Room::Runs(nodes) = room else {
            return self.given.backing.lock().add_to_table(slot.range, range, pages, at, room);
        };
        let mut rest = Some(range);
        while let Some(range) = rest {
            let max = usize::try_from(range.pages()).unwrap_or(usize::MAX);
            let (Some(run), Some(node)) = (pages.take_run(max), nodes.pop()) else { return };
            let next = Gfn(range.start().0 + run.count() as u64);
            self.given.backing.lock().add(slot.range, range.start(), run, at, node);
            (_, rest) = range.split_at(next);
        }
    }
}
