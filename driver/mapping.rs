// SPDX-License-Identifier: GPL-2.0

//! Mapping pinned pages into a guest, by the way of paging that the hypervisor chose.
//!
//! One call to pin, then as few hypercalls as the batch allows. Records get their room before the
//! hypercall, so that what is mapped is always recorded; pages of a failed hypercall stay pinned.

use crate::{
    abi::hvc::{
        Constituent,
        MemRegionHeader,
        MAX_CONSTITUENTS, //
    },
    backing::Reservation,
    hyp::{
        self,
        RegionBuffer, //
    },
    kx::gup::PinnedPages,
    memory::Memory,
    model::{
        addr::{
            Gfn,
            PageRange,
            Pfn, //
        },
        fault::Paging,
        pins::Run,
        slots::Slot, //
    }, //
};
use kernel::{
    prelude::*,
    sync::atomic::Relaxed, //
};

/// Pages that a SET_MEMREGION call describes at most: the hypervisor works on them in one go.
pub(crate) const POPULATE_PAGES: u64 = 512;

impl Memory {
    /// Pins and maps a range of a slot of which nothing is backed. The caller has claimed it.
    pub(crate) fn map(&self, slot: &Slot, range: PageRange, paging: Paging) -> Result {
        let address = crate::uio::address(slot.hva_of(range.start()))?;
        let mut pages = self.owner.pin(address, usize::try_from(range.pages())?)?;
        for batch in range.chunks(self.batch(&pages, paging)) {
            let count = usize::try_from(batch.pages())?;
            let mut room = KVec::<Reservation>::new();
            for _ in 0..pages.runs_within(count) {
                room.push(Reservation::new(GFP_KERNEL)?, GFP_KERNEL)?;
            }
            if let Err(error) = self.send(slot, batch, &pages, paging) {
                self.given.backing.lock().abandon(pages);
                return Err(error);
            }
            self.record(batch, &mut pages, room);
        }
        Ok(())
    }

    /// Maps the page of an existing record once more: the guest faulted although it was mapped, so
    /// either another vCPU was faster or the page was given back meanwhile.
    pub(crate) fn map_again(&self, slot: &Slot, gfn: Gfn, run: &Run) -> Result {
        let pfn = run.pfn_of(gfn).ok_or(EFAULT)?;
        match self.paging {
            Paging::Block => {
                let page = PageRange::single(gfn).ok_or(EFAULT)?;
                self.send_block(slot, page, core::iter::once(pfn.0))?;
            }
            Paging::Page | Paging::Populate => {
                hyp::map_page(self.given.vm.id(), slot.id, pfn, gfn)?
            }
        }
        let at = self.count_mapping();
        self.given.backing.lock().mapped_again(gfn, at);
        Ok(())
    }

    /// Announces a slot without populating it.
    pub(crate) fn register(&self, slot: &Slot) -> Result {
        hyp::memregion_purpose(self.given.vm.id(), slot.range, slot.purpose)?;
        self.send_region(slot, slot.range, &[])
    }

    /// Counts a mapping that is complete.
    fn count_mapping(&self) -> u64 {
        self.mappings.fetch_add(1, kernel::sync::atomic::Full) + 1
    }

    fn batch(&self, pages: &PinnedPages, paging: Paging) -> u64 {
        match paging {
            Paging::Page => 1,
            Paging::Block => u64::from(self.given.vm.gzvm().demand_batch.load(Relaxed)),
            Paging::Populate if pages.runs_within(usize::MAX) > MAX_CONSTITUENTS => {
                POPULATE_PAGES / 2
            }
            Paging::Populate => POPULATE_PAGES,
        }
    }

    fn send(&self, slot: &Slot, range: PageRange, pages: &PinnedPages, paging: Paging) -> Result {
        let count = usize::try_from(range.pages())?;
        match paging {
            Paging::Page => {
                let pfn = Pfn(pages.pfns().next().ok_or(EINVAL)?);
                Ok(hyp::map_page(self.given.vm.id(), slot.id, pfn, range.start())?)
            }
            Paging::Block => self.send_block(slot, range, pages.pfns().take(count)),
            Paging::Populate => {
                let mut entries = KVec::new();
                for (pfn, pages) in pages.runs(count) {
                    let pg_cnt = u32::try_from(pages)?;
                    let address = Pfn(pfn).phys();
                    entries.push(Constituent { address, pg_cnt, reserved: 0 }, GFP_KERNEL)?;
                }
                self.send_region(slot, range, &entries)
            }
        }
    }

    fn send_block(&self, slot: &Slot, range: PageRange, pfns: impl Iterator<Item = u64>) -> Result {
        let mailbox = self.given.mailbox.as_ref().ok_or(EINVAL)?.lock();
        for (index, pfn) in pfns.enumerate() {
            mailbox.write_bytes(index * size_of::<u64>(), &pfn.to_le_bytes())?;
        }
        Ok(hyp::map_block(self.given.vm.id(), slot.id, range)?)
    }

    fn send_region(&self, slot: &Slot, range: PageRange, entries: &[Constituent]) -> Result {
        use zerocopy::IntoBytes;

        let buffer = RegionBuffer::new()?;
        buffer.write::<_, 0>(&MemRegionHeader {
            slot: slot.id,
            constituent_cnt: u32::try_from(entries.len())?,
            total_pages: range.pages(),
            gpa: range.start().gpa(),
        });
        buffer.write_bytes(size_of::<MemRegionHeader>(), entries.as_bytes())?;
        Ok(hyp::set_memregion(self.given.vm.id(), &buffer)?)
    }

    /// Records the first pages as backing the range.
    fn record(&self, range: PageRange, pages: &mut PinnedPages, room: KVec<Reservation>) {
        self.given.vm.count_mapped(range.pages());
        let at = self.count_mapping();
        let mut room = room.into_iter();
        let mut rest = Some(range);
        let mut backing = self.given.backing.lock();
        while let Some(range) = rest {
            let max = usize::try_from(range.pages()).unwrap_or(usize::MAX);
            let (Some(run), Some(room)) = (pages.take_run(max), room.next()) else { return };
            let next = Gfn(range.start().0 + run.count() as u64);
            backing.add(range.start(), run, at, room);
            (_, rest) = range.split_at(next);
        }
    }
}
