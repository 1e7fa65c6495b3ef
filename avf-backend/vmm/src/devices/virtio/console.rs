// SPDX-License-Identifier: Apache-2.0
//! The console device (5.3), with one port.

use super::interrupt::Interrupt;
use super::queue::Chain;
use super::worker::{wait, Worker};
use super::{device_type, Activation, ActiveQueue, VirtioDevice};
use crate::devices::console::Output;
use crate::guest_warn;
use crate::memory::GuestRam;
use nix::sys::eventfd::EventFd;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;

const RECEIVE: usize = 0;
const TRANSMIT: usize = 1;
const QUEUES: [u16; 2] = [128, 128];
/// Bytes that are copied at a time.
const BUFFER: usize = 4096;

/// A console.
#[derive(Debug)]
pub struct Console {
    name: String,
    /// Here while the device is stopped.
    ends: Option<Ends>,
    worker: Option<Worker<Ends>>,
}

/// What the console is connected to.
#[derive(Debug)]
struct Ends {
    output: Output,
    input: Option<File>,
}

impl Console {
    /// A console that prints to `output` and reads from `input`.
    pub fn new(name: String, output: Output, input: Option<File>) -> Self {
        Self { name, ends: Some(Ends { output, input }), worker: None }
    }
}

impl VirtioDevice for Console {
    fn device_type(&self) -> u16 {
        device_type::CONSOLE
    }

    fn pci_class(&self) -> u32 {
        0x07_8000
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, _offset: u64, _data: &mut [u8]) {}

    fn activate(&mut self, mut activation: Activation) -> io::Result<()> {
        let transmit = activation.queues.get_mut(TRANSMIT).and_then(Option::take);
        let receive = activation.queues.get_mut(RECEIVE).and_then(Option::take);
        let Some(ends) = self.ends.take() else { return Ok(()) };
        let Activation { ram, interrupt, .. } = activation;
        let mut port = Port { name: self.name.clone(), ram, interrupt, transmit, receive };
        let work = move |ends: &mut Ends, stop: &EventFd| port.run(ends, stop);
        self.worker = Some(Worker::spawn(&self.name, ends, work)?);
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(ends) = self.worker.take().and_then(Worker::stop) {
            self.ends = Some(ends);
        }
    }
}

/// A running port.
struct Port {
    name: String,
    ram: Arc<GuestRam>,
    interrupt: Arc<Interrupt>,
    transmit: Option<ActiveQueue>,
    receive: Option<ActiveQueue>,
}

impl Port {
    fn run(&mut self, ends: &mut Ends, stop: &EventFd) {
        // Whether the driver is known to have no buffer for input: then input has to wait.
        let mut full = self.receive.is_none();
        loop {
            let kick = |queue: &'_ Option<ActiveQueue>| queue.as_ref().map(|q| Arc::clone(&q.kick));
            let (transmit, receive) = (kick(&self.transmit), kick(&self.receive));
            let input = ends.input.as_ref().filter(|_| !full).map(AsFd::as_fd);
            let fds = [
                transmit.as_ref().map(|kick| kick.as_fd()),
                receive.as_ref().map(|kick| kick.as_fd()),
                input,
            ];
            let Some([sent, room, ready]) = wait(stop, fds) else { return };
            if sent {
                self.send(&mut ends.output);
            }
            if room {
                self.receive.iter().for_each(ActiveQueue::take_kick);
                full = false;
            }
            if ready {
                full = self.feed(&mut ends.input);
            }
        }
    }

    /// The guest prints.
    fn send(&mut self, output: &mut Output) {
        let Some(queue) = &mut self.transmit else { return };
        queue.take_kick();
        let memory = self.ram.memory();
        let print = |chain: Chain<'_>| {
            if let Err(e) = print(memory, chain, output) {
                guest_warn!("{}: {e}", self.name);
            }
            Some(0)
        };
        if let Err(e) = queue.process(memory, &self.interrupt, print) {
            guest_warn!("{}: {e}", self.name);
        }
    }

    /// The host has input; returns whether the driver has no more buffers for it.
    fn feed(&mut self, input: &mut Option<File>) -> bool {
        let Some(queue) = &mut self.receive else { return true };
        let memory = self.ram.memory();
        let mut read_once = false;
        let fill = |chain: Chain<'_>| {
            // One read only: the next might block.
            if read_once {
                return None;
            }
            read_once = true;
            fill(memory, chain, input)
        };
        if let Err(e) = queue.process(memory, &self.interrupt, fill) {
            guest_warn!("{}: {e}", self.name);
        }
        !read_once
    }
}

fn print(memory: &GuestMemoryMmap, chain: Chain<'_>, output: &mut Output) -> io::Result<()> {
    let mut reader = chain.reader(memory).map_err(io::Error::other)?;
    let mut buffer = [0; BUFFER];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            count => output.write_all(&buffer[..count])?,
        }
    }
}

/// Fills one chain; `None` if there was nothing to fill it with.
fn fill(memory: &GuestMemoryMmap, chain: Chain<'_>, input: &mut Option<File>) -> Option<u32> {
    let file = input.as_mut()?;
    let mut buffer = [0; BUFFER];
    let count = chain.writer(memory).map_err(io::Error::other).and_then(|mut writer| {
        let len = writer.available_bytes().min(BUFFER);
        let count = file.read(&mut buffer[..len])?;
        writer.write_all(&buffer[..count])?;
        Ok(count)
    });
    match count {
        Ok(0) => *input = None,
        Ok(count) => return u32::try_from(count).ok(),
        Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
        Err(e) => {
            log::warn!("console input ends: {e}");
            *input = None;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::hostile::rings;
    use super::*;
    use crate::config::SerialOutput;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_rings_are_survived(rings in rings()) {
            let mut output = Output::open("hvc0".into(), &SerialOutput::Sink).unwrap();
            rings.serve(|memory, chain| print(memory, chain, &mut output).ok().map(|()| 0));
            let mut input = Some(File::open("/dev/zero").unwrap());
            rings.serve(|memory, chain| fill(memory, chain, &mut input));
        }
    }
}
