// SPDX-License-Identifier: Apache-2.0
//! The memory balloon (5.5): pages that the guest does not use go back to the host.
//!
//! What a guest says is a hint about its own memory: [`Reclaimer`] decides what may be taken, and a
//! guest that lies harms nobody but itself. A page of the balloon that the guest uses again is a page
//! fault like any other, so there is nothing to do when the balloon shrinks.

pub mod handle;
pub mod stats;

use super::interrupt::Interrupt;
use super::queue::Chain;
use super::transport::ACCESS_PLATFORM;
use super::worker::{wait, Worker};
use super::{device_type, read_bytes, Activation, ActiveQueue, VirtioDevice};
use crate::guest_warn;
use crate::memory::{GuestRam, Reclaimer, Rule};
use handle::{Handle, UNIT, UNSUPPORTED};
use stats::BalloonStats;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

/// Feature bits (5.5.3).
const MUST_TELL_HOST: u64 = 1 << 0;
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;
const REPORTING: u64 = 1 << 5;

/// Inflate, deflate, statistics, free pages.
const QUEUES: [u16; 4] = [128; 4];
/// Bytes of a request's page numbers that are looked at: 64 MiB of memory. Linux sends 256 numbers.
const NUMBERS: usize = 64 * 1024;
/// Where `actual` is in the configuration, a number of 32 bits.
const ACTUAL: u64 = 4;

/// A balloon.
pub struct Balloon {
    handle: Arc<Handle>,
    rule: Rule,
    protected: bool,
    reporting: bool,
    worker: Option<Worker<()>>,
}

impl Balloon {
    /// A balloon whose size `handle` knows. Free pages may be reported if `reporting` is wanted and
    /// `rule` lets them be taken.
    pub fn new(handle: Arc<Handle>, rule: Rule, protected: bool, reporting: bool) -> Self {
        let reporting = reporting && rule != Rule::Never;
        Self { handle, rule, protected, reporting, worker: None }
    }
}

impl VirtioDevice for Balloon {
    fn device_type(&self) -> u16 {
        device_type::BALLOON
    }

    fn pci_class(&self) -> u32 {
        0xff_0000
    }

    fn features(&self) -> u64 {
        let reporting = if self.reporting { REPORTING } else { 0 };
        MUST_TELL_HOST | STATS_VQ | DEFLATE_ON_OOM | reporting
    }

    fn queue_sizes(&self) -> &[u16] {
        if self.reporting {
            &QUEUES
        } else {
            &QUEUES[..3]
        }
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // num_pages, actual
        let (target, actual) = self.handle.sizes();
        read_bytes([target, actual].map(u32::to_le_bytes).as_flattened(), offset, data);
    }

    fn write_config(&self, offset: u64, data: &[u8]) {
        if let (ACTUAL, &[a, b, c, d]) = (offset, data) {
            self.handle.set_actual(u32::from_le_bytes([a, b, c, d]));
        }
    }

    /// In a protected VM, a driver that gives ACCESS_PLATFORM back has private rings. Refused here,
    /// it gives up; served, it would wait for ever.
    fn refuses(&self, accepted: u64) -> Option<&'static str> {
        let refused = self.protected && accepted & ACCESS_PLATFORM == 0;
        refused.then(|| {
            self.handle.set_unsupported();
            UNSUPPORTED
        })
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation { ram, queues, interrupt, features, vm } = activation;
        let mut queues = queues.into_iter();
        let (inflate, deflate) = (queues.next().flatten(), queues.next().flatten());
        // The others are numbered without gaps (as Linux and crosvm do).
        let mut negotiated =
            |feature| if features & feature != 0 { queues.next().flatten() } else { None };
        let (stats, reporting) = (negotiated(STATS_VQ), negotiated(REPORTING));
        let pages = Pages(vm.map(|vm| Reclaimer::new(Arc::clone(&ram), vm, self.rule)));
        self.handle.set_driver(Some(Arc::clone(&interrupt)));
        let stats = stats.map(|queue| Stats { queue, held: None });
        let handle = Arc::clone(&self.handle);
        let mut running =
            Running { ram, interrupt, handle, pages, inflate, deflate, stats, reporting };
        let worker =
            Worker::spawn("balloon", (), move |(), stop| while running.serve(stop).is_some() {});
        self.worker = Some(worker?);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker.take().map(Worker::stop);
        self.handle.set_driver(None);
    }
}

/// A balloon whose driver runs.
struct Running {
    ram: Arc<GuestRam>,
    interrupt: Arc<Interrupt>,
    handle: Arc<Handle>,
    pages: Pages,
    inflate: Option<ActiveQueue>,
    deflate: Option<ActiveQueue>,
    stats: Option<Stats>,
    reporting: Option<ActiveQueue>,
}

impl Running {
    /// Waits for work and does it; `None` when the device is to stop.
    fn serve(&mut self, stop: &nix::sys::eventfd::EventFd) -> Option<()> {
        let kick = |queue: &Option<ActiveQueue>| queue.as_ref().map(|q| Arc::clone(&q.kick));
        let (inflate, deflate) = (kick(&self.inflate), kick(&self.deflate));
        let reporting = kick(&self.reporting);
        let stats = self.stats.as_ref().map(|stats| Arc::clone(&stats.queue.kick));
        let kicks = [&inflate, &deflate, &reporting, &stats].map(|k| k.as_ref().map(|k| k.as_fd()));
        let [inflate, deflate, reporting, stats] = kicks;
        let asked = Some(self.handle.asked().as_fd());
        let [inflate, deflate, reporting, stats, asked] =
            wait(stop, [inflate, deflate, reporting, stats, asked])?;
        // Also without a queue to answer from: else it would stay signalled.
        let asked = asked && self.handle.asked().read().is_ok();
        let (memory, pages) = (self.ram.memory(), &mut self.pages);
        let serve = |queue: &mut Option<ActiveQueue>, handle: &mut dyn FnMut(Chain<'_>)| {
            let Some(queue) = queue else { return };
            queue.take_kick();
            let all = |chain: Chain<'_>| {
                handle(chain);
                Some(0)
            };
            if let Err(e) = queue.process(memory, &self.interrupt, all) {
                guest_warn!("balloon: {e}");
            }
        };
        if inflate {
            serve(&mut self.inflate, &mut |chain| pages.inflate(memory, chain));
        }
        if deflate {
            serve(&mut self.deflate, &mut |_| {});
        }
        if reporting {
            serve(&mut self.reporting, &mut |chain| pages.report(memory, chain));
        }
        if let Some(queue) = self.stats.as_mut().filter(|_| stats || asked) {
            if let Err(e) = queue.serve(memory, &self.interrupt, &self.handle, asked) {
                guest_warn!("balloon: statistics: {e}");
            }
        }
        Some(())
    }
}

/// Where pages go.
struct Pages(Option<Reclaimer>);

impl Pages {
    fn give_back(&mut self, start: u64, len: u64) {
        let Some(reclaimer) = &mut self.0 else { return };
        match reclaimer.give_back(start, len) {
            Ok(done) => log::trace!("balloon: {done} of {len} bytes at {start:#x} are the host's"),
            Err(e) => guest_warn!("balloon: {e}"),
        }
    }

    /// The guest says which pages it puts into the balloon.
    fn inflate(&mut self, memory: &GuestMemoryMmap, chain: Chain<'_>) {
        match page_numbers(memory, chain) {
            Ok(numbers) => runs(numbers).for_each(|(start, len)| self.give_back(start, len)),
            Err(e) => guest_warn!("balloon: page numbers: {e}"),
        }
    }

    /// The guest says where it has free memory: the chain's buffers.
    fn report(&mut self, _: &GuestMemoryMmap, chain: Chain<'_>) {
        for buffer in chain.writable() {
            self.give_back(buffer.addr().0, buffer.len().into());
        }
    }
}

/// The page numbers of a request, sorted; at most [`NUMBERS`] bytes of them.
fn page_numbers(memory: &GuestMemoryMmap, chain: Chain<'_>) -> io::Result<Vec<u32>> {
    let mut reader = chain.reader(memory).map_err(io::Error::other)?;
    let mut bytes = vec![0; reader.available_bytes().min(NUMBERS)];
    reader.read_exact(&mut bytes)?;
    let (words, _) = bytes.as_chunks::<4>();
    let mut numbers: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// The ranges of bytes that sorted page numbers without repetitions make.
fn runs(numbers: Vec<u32>) -> impl Iterator<Item = (u64, u64)> {
    let mut rest = numbers.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = u64::from(rest.next()?);
        let mut count = 1;
        while rest.next_if(|&next| u64::from(next) == first + count).is_some() {
            count += 1;
        }
        Some((first * UNIT, count * UNIT))
    })
}

/// The queue of statistics (5.5.6.3): the guest leaves a buffer with them here, and fills a new one
/// when it gets the old one back.
struct Stats {
    queue: ActiveQueue,
    held: Option<u16>,
}

impl Stats {
    fn serve(
        &mut self,
        memory: &GuestMemoryMmap,
        interrupt: &Interrupt,
        handle: &Handle,
        wanted: bool,
    ) -> Result<(), virtio_queue::Error> {
        self.queue.take_kick();
        let mut given_back = false;
        // More buffers than one make no sense, but are no harm.
        for _ in 0..self.queue.queue.size() {
            let Some(chain) = self.queue.queue.iter(memory)?.next() else { break };
            let head = chain.head_index();
            handle.set_stats(read_stats(memory, chain));
            if let Some(older) = self.held.replace(head) {
                self.queue.queue.add_used(memory, older, 0)?;
                given_back = true;
            }
        }
        if let Some(head) = self.held.take_if(|_| wanted) {
            self.queue.queue.add_used(memory, head, 0)?;
            given_back = true;
        }
        if self.queue.queue.enable_notification(memory)? {
            // It came meanwhile.
            self.queue.kick_again();
        }
        if given_back && self.queue.queue.needs_notification(memory)? {
            interrupt.queue();
        }
        Ok(())
    }
}

fn read_stats(memory: &GuestMemoryMmap, chain: Chain<'_>) -> BalloonStats {
    let mut data = [0; stats::LIMIT];
    let read = chain.reader(memory).map_err(io::Error::other).and_then(|mut reader| {
        let len = reader.available_bytes().min(data.len());
        reader.read_exact(&mut data[..len])?;
        Ok(len)
    });
    match read {
        Ok(len) => BalloonStats::parse(&data[..len]),
        Err(e) => {
            guest_warn!("balloon: statistics: {e}");
            BalloonStats::default()
        }
    }
}

#[cfg(test)]
mod tests;
