// SPDX-License-Identifier: Apache-2.0
//! The entropy device (5.4): fills buffers from the host's generator.

use super::queue::Chain;
use super::worker::{wait, Worker};
use super::{device_type, Activation, VirtioDevice};
use crate::guest_warn;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;

const QUEUES: [u16; 1] = [64];
/// Bytes that one request gets at most; a driver asks again.
const LIMIT: usize = 4096;

/// An entropy device.
#[derive(Debug)]
pub struct Rng {
    source: Arc<File>,
    worker: Option<Worker<()>>,
}

impl Rng {
    /// A device that reads `source`.
    pub fn new(source: File) -> Self {
        Self { source: Arc::new(source), worker: None }
    }
}

impl VirtioDevice for Rng {
    fn device_type(&self) -> u16 {
        device_type::RNG
    }

    fn pci_class(&self) -> u32 {
        0xff_0000
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation { ram, queues, interrupt, .. } = activation;
        let Some(mut queue) = queues.into_iter().next().flatten() else { return Ok(()) };
        let source = Arc::clone(&self.source);
        let work = move |(): &mut (), stop: &_| {
            while wait(stop, [Some(queue.kick.as_fd())]).is_some() {
                queue.take_kick();
                let memory = ram.memory();
                let fill = |chain: Chain<'_>| Some(fill(memory, chain, &source));
                if let Err(e) = queue.process(memory, &interrupt, fill) {
                    guest_warn!("virtio-rng: {e}");
                }
            }
        };
        self.worker = Some(Worker::spawn("virtio-rng", (), work)?);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker.take().map(Worker::stop);
    }
}

fn fill(memory: &vm_memory::GuestMemoryMmap, chain: Chain<'_>, mut source: &File) -> u32 {
    let mut buffer = [0; LIMIT];
    let written = chain.writer(memory).map_err(io::Error::other).and_then(|mut writer| {
        let len = writer.available_bytes().min(LIMIT);
        source.read_exact(&mut buffer[..len])?;
        writer.write_all(&buffer[..len])?;
        Ok(len)
    });
    match written {
        Ok(len) => u32::try_from(len).unwrap_or(0),
        Err(e) => {
            guest_warn!("virtio-rng: {e}");
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hostile::rings;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_rings_are_survived(rings in rings()) {
            let source = File::open("/dev/zero").unwrap();
            rings.serve(|memory, chain| {
                let written = fill(memory, chain, &source);
                assert!(usize::try_from(written).unwrap() <= LIMIT);
                Some(written)
            });
        }
    }
}
