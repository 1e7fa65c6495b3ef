// SPDX-License-Identifier: Apache-2.0
//! Rings with anything in them, for tests: what a guest may write, devices survive.

use super::interrupt::Interrupt;
use super::queue::Chain;
use super::worker::event;
use super::ActiveQueue;
use crate::layout::{Layout, MIB, RAM_BASE};
use crate::memory::{GuestRam, Policy};
use proptest::collection::vec;
use proptest::prelude::*;
use std::sync::Arc;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Entries of the queue.
const SIZE: u16 = 16;
const MEMORY: u64 = 16 * MIB;
/// Where buffers are; requests' headers are anywhere in here.
const BUFFERS: u64 = 64 * 1024;
const DESCRIPTORS: u64 = RAM_BASE + MIB;
const AVAILABLE: u64 = DESCRIPTORS + 0x1000;
const USED: u64 = DESCRIPTORS + 0x2000;

/// What is in the rings, and in the first bytes of the buffers.
#[derive(Clone, Debug)]
pub struct Rings {
    descriptors: Vec<(u64, u32, u16, u16)>,
    available: Vec<u16>,
    index: u16,
    data: Vec<u8>,
}

/// Rings that make sense in part.
pub fn rings() -> impl Strategy<Value = Rings> {
    let address = prop_oneof![
        8 => (0..BUFFERS).prop_map(|offset| RAM_BASE + offset / 16 * 16),
        1 => (0..64_u64).prop_map(|left| RAM_BASE + MEMORY - left),
        1 => any::<u64>(),
    ];
    let len = prop_oneof![4 => 0..2048_u32, 2 => Just(16), 2 => Just(512), 1 => any::<u32>()];
    // NEXT, WRITE, or any of the three bits.
    let flags = prop_oneof![3 => Just(1), 3 => Just(2), 1 => 0..8_u16];
    let descriptor = (address, len, flags, 0..SIZE + 2);
    let index = prop_oneof![4 => 0..=SIZE, 1 => any::<u16>()];
    // A block device's requests: type, and a sector.
    let kind = prop_oneof![4 => 0..2_u32, 1 => 0..16_u32, 1 => any::<u32>()];
    let sector = prop_oneof![4 => 0..8_u64, 1 => any::<u64>()];
    let data = vec((kind, sector), 4).prop_map(|requests| {
        let bytes = |(kind, sector): (u32, u64)| {
            [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat()
        };
        requests.into_iter().flat_map(bytes).collect()
    });
    let entries = vec(descriptor, usize::from(SIZE));
    (entries, vec(0..SIZE + 2, usize::from(SIZE)), index, data).prop_map(
        |(descriptors, available, index, data)| Rings { descriptors, available, index, data },
    )
}

/// Where the answer to [`Rings::request`] is.
pub const ANSWER: GuestAddress = GuestAddress(RAM_BASE + BUFFERS / 2);

impl Rings {
    /// Rings with one request: these bytes, at most 64, and room for an answer of so many.
    pub fn request(bytes: &[u8], answer: u32) -> Self {
        let len = u32::try_from(bytes.len()).unwrap();
        let descriptors = vec![(RAM_BASE, len, 1, 1), (ANSWER.0, answer, 2, 0)];
        Self { descriptors, available: vec![0], index: 1, data: bytes.to_vec() }
    }

    fn write(&self, memory: &GuestMemoryMmap) -> Result<(), vm_memory::GuestMemoryError> {
        for offset in (0..BUFFERS).step_by(64) {
            memory.write_slice(&self.data, GuestAddress(RAM_BASE + offset))?;
        }
        for (at, (address, len, flags, next)) in (DESCRIPTORS..).step_by(16).zip(&self.descriptors)
        {
            memory.write_obj(*address, GuestAddress(at))?;
            memory.write_obj(*len, GuestAddress(at + 8))?;
            memory.write_obj(*flags, GuestAddress(at + 12))?;
            memory.write_obj(*next, GuestAddress(at + 14))?;
        }
        memory.write_obj(self.index, GuestAddress(AVAILABLE + 2))?;
        for (at, head) in (AVAILABLE + 4..).step_by(2).zip(&self.available) {
            memory.write_obj(*head, GuestAddress(at))?;
        }
        Ok(())
    }

    /// Has a device work through them; answers how many chains it got.
    pub fn serve(
        &self,
        mut handle: impl FnMut(&GuestMemoryMmap, Chain<'_>) -> Option<u32>,
    ) -> usize {
        let layout = Layout::new(MEMORY, None, 1, false, false).unwrap();
        let ram = GuestRam::new(&layout, Policy::default()).unwrap();
        self.write(ram.memory()).unwrap();
        let mut queue = Queue::new(SIZE).unwrap();
        queue.set_desc_table_address(Some(DESCRIPTORS as u32), None);
        queue.set_avail_ring_address(Some(AVAILABLE as u32), None);
        queue.set_used_ring_address(Some(USED as u32), None);
        queue.set_ready(true);
        assert!(queue.is_valid(ram.memory()));
        let mut queue = ActiveQueue { queue, kick: Arc::new(event().unwrap()) };
        let interrupt = Interrupt::new(0).unwrap();
        let mut served = 0;
        // An error is the guest's own.
        let _ = queue.process(ram.memory(), &interrupt, |chain| {
            served += 1;
            handle(ram.memory(), chain)
        });
        assert!(served <= usize::from(SIZE), "it never ends");
        served
    }
}
