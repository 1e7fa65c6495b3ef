// SPDX-License-Identifier: Apache-2.0
//! Memory regions and the pages behind them.

use super::{status_of, Hypervisor, Status};
use crate::hostcall::{Answer, Call};
use crate::hw::{Hardware, PAGE_SIZE};
use crate::memory::{Memory, Progress};
use crate::regions::{NotAdded, Region};
use crate::stage2::IPA_END;
use crate::vm::{Population, State};
use gzvm_abi::hvc::{self, Constituent, MemRegionHeader};
use gzvm_abi::uapi;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Pages that one slice of a population maps.
const SLICE: usize = 96;

/// Checks a range of guest memory and gives it in frames.
pub(super) fn frames(gpa: u64, size: u64) -> Result<(u64, u64), Status> {
    let end = gpa.checked_add(size).ok_or(hvc::ERR_INVALID_ARGS)?;
    if !gpa.is_multiple_of(PAGE_SIZE)
        || !size.is_multiple_of(PAGE_SIZE)
        || size == 0
        || end > IPA_END
    {
        return Err(hvc::ERR_INVALID_ARGS);
    }
    Ok((gpa / PAGE_SIZE, size / PAGE_SIZE))
}

/// Adds a region, or finds the very same one.
fn add_region(state: &mut State, gfn: u64, pages: u64) -> Result<&mut Region, Status> {
    state.regions.add(gfn, pages).map_err(|error| match error {
        NotAdded::Overlaps => hvc::ERR_INVALID_ARGS,
        NotAdded::Full => hvc::ERR_NO_MEMORY,
    })
}

impl<H: Hardware> Hypervisor<'_, H> {
    /// Announces a region and what it is for.
    pub(super) fn memregion_purpose(&self, call: &Call) -> Result<Answer, Status> {
        let (_, vm, mut state) = self.live(call.vm())?;
        let (gfn, pages) = frames(call.x(2), call.x(3))?;
        let known = uapi::MEM_REGION_GUEST_MEM
            | uapi::MEM_REGION_PROTECT_FW
            | uapi::MEM_REGION_STATIC_SWIOTLB;
        if call.x(4) & !u64::from(known) != 0 || vm.shared.lock().gic.overlaps(call.x(2), call.x(3))
        {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        let fixed = state.in_firmware(gfn, pages);
        // A protected VM's pages were given to it, or not, by what their region was for.
        let settled = state.ran || state.protected;
        let region = add_region(&mut state, gfn, pages)?;
        if region.purpose != call.x(4) && (fixed || region.registered && settled) {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        region.purpose = call.x(4);
        Ok(Answer::ok(0, 0, 0))
    }

    /// Registers a region, or populates a part of a registered one.
    ///
    /// The two uses look alike, and a stock driver's registration has rubbish where a population
    /// has its list. The first call for a region that was announced is its registration.
    pub(super) fn set_memregion(&self, call: &Call) -> Result<Answer, Status> {
        let (slot, _, mut state) = self.live(call.vm())?;
        if call.x(2) != hvc::MEM_REGION_BUFFER_SIZE || !call.x(3).is_multiple_of(PAGE_SIZE) {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        let mut header = MemRegionHeader::new_zeroed();
        let memory = self.memory.lock();
        memory.read_host(&self.hw, call.x(3), header.as_mut_bytes()).map_err(status_of)?;
        drop(memory);
        let size = header.total_pages.checked_mul(PAGE_SIZE).ok_or(hvc::ERR_INVALID_ARGS)?;
        let (gfn, pages) = frames(header.gpa, size)?;
        match state.region(gfn) {
            Some(region) if region.registered && header.constituent_cnt != 0 => {
                self.populate(slot, &mut state, call.x(3), &header, gfn)
            }
            _ => {
                let region = add_region(&mut state, gfn, pages)?;
                region.slot = header.slot;
                region.registered = true;
                Ok(Answer::ok(0, 0, 0))
            }
        }
    }

    /// Maps one slice of a list of host pages.
    fn populate(
        &self,
        slot: usize,
        state: &mut State,
        buffer: u64,
        header: &MemRegionHeader,
        gfn: u64,
    ) -> Result<Answer, Status> {
        let before = match state.population.take() {
            Some(population) if population.buffer == buffer => population.done,
            _ => 0,
        };
        let region = find_slot(state, u64::from(header.slot), gfn, header.total_pages)?;
        let mut pfns = [0; SLICE];
        let (count, total) = self.collect(buffer, header, before, &mut pfns)?;
        if total != header.total_pages {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        let pfns = pfns.get(..count).unwrap_or_default();
        let private = state.protected && !region.is_pool();
        let mut memory = self.memory.lock();
        if self.map(&mut memory, slot, gfn + before, pfns, private)? == Progress::More {
            state.population = Some(Population { buffer, done: before });
            return Ok(Answer::Again);
        }
        drop(memory);
        // CAST: at most SLICE.
        let done = before + count as u64;
        if done < total {
            state.population = Some(Population { buffer, done });
            return Ok(Answer::Again);
        }
        Ok(Answer::ok(0, 0, 0))
    }

    /// Collects the frames from number `skip` of the list on; returns how many, and how many the
    /// whole list has. The list is the host's and may change meanwhile; it is only numbers.
    fn collect(
        &self,
        buffer: u64,
        header: &MemRegionHeader,
        skip: u64,
        pfns: &mut [u64; SLICE],
    ) -> Result<(usize, u64), Status> {
        const ENTRY: usize = size_of::<Constituent>();
        let entries = usize::try_from(header.constituent_cnt)
            .ok()
            .filter(|count| *count <= hvc::MAX_CONSTITUENTS)
            .ok_or(hvc::ERR_INVALID_ARGS)?;
        let mut bytes = [0; ENTRY * hvc::MAX_CONSTITUENTS];
        let bytes = bytes.get_mut(..entries * ENTRY).unwrap_or_default();
        // CAST: a small constant.
        let list = buffer + size_of::<MemRegionHeader>() as u64;
        self.memory.lock().read_host(&self.hw, list, bytes).map_err(status_of)?;
        let (mut count, mut total) = (0, 0u64);
        for entry in bytes.chunks_exact(ENTRY) {
            let entry = Constituent::read_from_bytes(entry).map_err(|_| hvc::ERR_INVALID_ARGS)?;
            if entry.address % PAGE_SIZE != 0 {
                return Err(hvc::ERR_INVALID_ARGS);
            }
            let pages = u64::from(entry.pg_cnt);
            for page in skip.saturating_sub(total).min(pages)..pages {
                let Some(place) = pfns.get_mut(count) else { break };
                let first = entry.address / PAGE_SIZE;
                *place = first.checked_add(page).ok_or(hvc::ERR_INVALID_ARGS)?;
                count += 1;
            }
            total += pages;
        }
        Ok((count, total))
    }

    /// Maps pages, all or none, or prepares a slice of what that takes.
    fn map(
        &self,
        memory: &mut Memory<'_>,
        slot: usize,
        gfn: u64,
        pfns: &[u64],
        private: bool,
    ) -> Result<Progress, Status> {
        let room = memory.make_room(&self.hw, slot, gfn, pfns, private).map_err(status_of)?;
        if room == Progress::Done {
            memory.map(&self.hw, slot, gfn, pfns, private).map_err(status_of)?;
        }
        Ok(room)
    }

    /// Maps host-contiguous pages.
    pub(super) fn map_guest(&self, call: &Call) -> Result<Answer, Status> {
        let (slot, _, mut state) = self.live(call.vm())?;
        let (first, gfn, pages) = (call.x(3), call.x(4), call.x(5));
        let region = find_slot(&mut state, call.x(2), gfn, pages)?;
        let count = usize::try_from(pages).ok().filter(|n| *n <= hvc::MAILBOX_ENTRIES);
        let count = count.ok_or(hvc::ERR_INVALID_ARGS)?;
        first.checked_add(pages).ok_or(hvc::ERR_INVALID_ARGS)?;
        let mut pfns = [0; hvc::MAILBOX_ENTRIES];
        let pfns = pfns.get_mut(..count).unwrap_or_default();
        pfns.iter_mut().zip(first..).for_each(|(place, pfn)| *place = pfn);
        let private = state.protected && !region.is_pool();
        match self.map(&mut self.memory.lock(), slot, gfn, pfns, private)? {
            Progress::More => Ok(Answer::Again),
            Progress::Done => Ok(Answer::ok(0, 0, 0)),
        }
    }

    /// Maps the pages that the mailbox lists.
    pub(super) fn map_guest_block(&self, call: &Call) -> Result<Answer, Status> {
        let (slot, _, mut state) = self.live(call.vm())?;
        let (gfn, pages) = (call.x(3), call.x(4));
        let region = find_slot(&mut state, call.x(2), gfn, pages)?;
        let count = usize::try_from(pages).ok().filter(|n| *n <= hvc::MAILBOX_ENTRIES);
        let count = count.ok_or(hvc::ERR_INVALID_ARGS)?;
        if state.mailbox == 0 {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        let mut pfns = [0u64; hvc::MAILBOX_ENTRIES];
        let pfns = pfns.get_mut(..count).unwrap_or_default();
        let private = state.protected && !region.is_pool();
        let mut memory = self.memory.lock();
        // Read once: the host may change the page at any time.
        memory.read_host(&self.hw, state.mailbox, pfns.as_mut_bytes()).map_err(status_of)?;
        match self.map(&mut memory, slot, gfn, pfns, private)? {
            Progress::More => Ok(Answer::Again),
            Progress::Done => Ok(Answer::ok(0, 0, 0)),
        }
    }

    /// Notes nothing: the device tree is guest memory like any other. Checked all the same.
    pub(super) fn set_dtb_config(&self, call: &Call) -> Result<Answer, Status> {
        let (_, _, state) = self.live(call.vm())?;
        let end = call.x(2).checked_add(call.x(3)).filter(|end| *end <= IPA_END);
        let last = end.and_then(|end| end.checked_sub(1)).ok_or(hvc::ERR_INVALID_ARGS)?;
        let inside = |gpa: u64| state.region(gpa / PAGE_SIZE).is_some();
        if call.x(3) == 0 || !inside(call.x(2)) || !inside(last) {
            return Err(hvc::ERR_INVALID_ARGS);
        }
        Ok(Answer::ok(0, 0, 0))
    }
}

/// The region of slot `slot` that holds these frames, in which something is about to be mapped: a
/// removal that has seen nothing there starts over.
fn find_slot(state: &mut State, slot: u64, gfn: u64, pages: u64) -> Result<Region, Status> {
    let region = state
        .region_of_range(gfn, pages)
        .filter(|region| u64::from(region.slot) == slot)
        .copied()
        .ok_or(hvc::ERR_INVALID_ARGS)?;
    state.removal = None;
    Ok(region)
}
