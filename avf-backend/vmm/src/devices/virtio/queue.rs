// SPDX-License-Identifier: Apache-2.0
//! Working through a queue.

use super::interrupt::Interrupt;
use super::ActiveQueue;
use nix::errno::Errno;
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

/// A chain of buffers.
pub type Chain<'m> = DescriptorChain<&'m GuestMemoryMmap>;

impl ActiveQueue {
    /// Takes note of the driver's kick.
    pub fn take_kick(&self) {
        match self.kick.read() {
            Ok(_) | Err(Errno::EAGAIN) => {}
            Err(e) => log::warn!("virtio kick: {e}"),
        }
    }

    /// Handles the chains that the driver has made available, at most a queue's worth: a driver
    /// that never stops must not keep the device from being stopped. `handle` says how many bytes
    /// it wrote to a chain, or `None` to put it back and end. Interrupts the driver if it wants to
    /// know. An error is the driver's: its rings make no sense.
    pub fn process(
        &mut self,
        memory: &GuestMemoryMmap,
        interrupt: &Interrupt,
        mut handle: impl FnMut(Chain<'_>) -> Option<u32>,
    ) -> Result<(), virtio_queue::Error> {
        self.queue.disable_notification(memory)?;
        let mut used = false;
        let mut stopped = false;
        for _ in 0..self.queue.size() {
            // `iter` checks that the ring's index makes sense, which `pop` alone does not.
            let Some(chain) = self.queue.iter(memory)?.next() else { break };
            let head = chain.head_index();
            let Some(written) = handle(chain) else {
                self.queue.go_to_previous_position();
                stopped = true;
                break;
            };
            self.queue.add_used(memory, head, written)?;
            used = true;
        }
        if used && self.queue.needs_notification(memory)? {
            interrupt.queue();
        }
        if self.queue.enable_notification(memory)? && !stopped {
            // There is more, or there was by the time the driver saw that it has to kick again.
            self.kick_again();
        }
        Ok(())
    }

    /// Has the device look at the queue once more.
    pub fn kick_again(&self) {
        if let Err(e) = self.kick.write(1) {
            log::warn!("virtio kick: {e}");
        }
    }
}
