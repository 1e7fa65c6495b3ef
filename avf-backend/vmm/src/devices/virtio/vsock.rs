// SPDX-License-Identifier: Apache-2.0
//! The socket device (5.10), served by the host kernel's vhost-vsock.
//!
//! vhost's interrupts come as eventfds. They go through a thread here, not straight to the VM:
//! INTx needs the status byte, which is this process's.

use super::transport::{ACCESS_PLATFORM, EVENT_IDX, VERSION_1};
use super::worker::{event, wait, Worker};
use super::{device_type, read_bytes, Activation, ActiveQueue, VirtioDevice};
use crate::guest_warn;
use crate::memory::GuestRam;
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd};
use std::sync::Arc;
use thiserror::Error;
use vhost::vhost_kern::vsock::Vsock as Vhost;
use vhost::vsock::VhostVsock;
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_queue::QueueT;
use vm_memory::{GuestMemory, GuestMemoryMmap};

/// Receive, transmit, events.
const QUEUES: [u16; 3] = [256, 256, 256];
/// The first two are vhost's; there is nothing to report through the third.
const VHOST_QUEUES: usize = 2;

/// A socket device.
pub struct Vsock {
    cid: u64,
    memory: Arc<GuestMemoryMmap>,
    /// Keeps the context id this VM's while the device does not run.
    reserved: Option<Vhost<Arc<GuestMemoryMmap>>>,
    running: Option<Running>,
}

/// A started one.
struct Running {
    vhost: Vhost<Arc<GuestMemoryMmap>>,
    worker: Worker<()>,
}

/// Why there is no device.
#[derive(Debug, Error)]
pub enum VsockError {
    /// The host has no vhost-vsock, or none for this process.
    #[error("/dev/vhost-vsock: {0}")]
    Absent(io::Error),
    /// A guest cannot have this context id.
    #[error(
        "vsock context id {0} is not a guest's: give one from 3 to 4294967294 that is not the \
         host's (--cid)"
    )]
    NotForGuests(u32),
    /// It is in use.
    #[error("vsock context id {0} is another VM's: end that one, or give another id (--cid)")]
    InUse(u32),
    /// The kernel refused something else.
    #[error(transparent)]
    Refused(io::Error),
}

impl Vsock {
    /// A device for the guest with context id `cid`, which nobody else can have from now on.
    pub fn new(cid: u32, ram: &GuestRam) -> Result<Self, VsockError> {
        let memory = Arc::new(ram.memory().clone());
        let vhost = open(&memory).map_err(|e| match e {
            vhost::Error::VhostOpen(e) => VsockError::Absent(e),
            other => VsockError::Refused(failed(other)),
        })?;
        vhost.set_guest_cid(cid.into()).map_err(|e| match errno(&e) {
            Some(Errno::EINVAL) => VsockError::NotForGuests(cid),
            Some(Errno::EADDRINUSE) => VsockError::InUse(cid),
            _ => VsockError::Refused(failed(e)),
        })?;
        Ok(Self { cid: cid.into(), memory, reserved: Some(vhost), running: None })
    }

    fn reserve(&self) -> vhost::Result<Vhost<Arc<GuestMemoryMmap>>> {
        let vhost = open(&self.memory)?;
        vhost.set_guest_cid(self.cid)?;
        Ok(vhost)
    }
}

fn open(memory: &Arc<GuestMemoryMmap>) -> vhost::Result<Vhost<Arc<GuestMemoryMmap>>> {
    let vhost = Vhost::new(Arc::clone(memory))?;
    vhost.set_owner()?;
    Ok(vhost)
}

fn errno(e: &vhost::Error) -> Option<Errno> {
    match e {
        vhost::Error::IoctlError(e) => e.raw_os_error().map(Errno::from_raw),
        _ => None,
    }
}

fn failed(e: vhost::Error) -> io::Error {
    io::Error::other(format!("vhost-vsock: {e}"))
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> u16 {
        device_type::VSOCK
    }

    fn pci_class(&self) -> u32 {
        0x02_8000
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_bytes(&self.cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> io::Result<()> {
        let Activation { ram, queues, interrupt, features, .. } = activation;
        let vhost = match self.reserved.take() {
            Some(vhost) => vhost,
            None => self.reserve().map_err(failed)?,
        };
        // ACCESS_PLATFORM would turn on address translation, which nobody would serve.
        let known = vhost.get_features().map_err(failed)? & (VERSION_1 | EVENT_IDX);
        vhost.set_features(features & known & !ACCESS_PLATFORM).map_err(failed)?;
        vhost.set_mem_table(&regions(ram.memory())?).map_err(failed)?;
        let mut calls = Vec::new();
        for (index, queue) in queues.iter().enumerate().take(VHOST_QUEUES) {
            let queue = queue.as_ref().ok_or_else(|| io::Error::other("a queue is missing"))?;
            calls.push(set_up(&vhost, index, queue)?);
        }
        vhost.start().map_err(failed)?;
        let work = move |(): &mut (), stop: &_| {
            let [receive, transmit] = &calls[..] else { return };
            while let Some(ready) = wait(stop, [Some(receive.as_fd()), Some(transmit.as_fd())]) {
                for (call, ready) in calls.iter().zip(ready) {
                    if ready && call.read().is_ok() {
                        interrupt.queue();
                    }
                }
            }
        };
        let worker = Worker::spawn("virtio-vsock", (), work)?;
        self.running = Some(Running { vhost, worker });
        Ok(())
    }

    fn reset(&mut self) {
        if let Some(running) = self.running.take() {
            if let Err(e) = running.vhost.stop() {
                guest_warn!("vhost-vsock: {e}");
            }
            running.worker.stop();
            // Closing it is what ends the guest's connections; the id stays this VM's.
            drop(running.vhost);
            match self.reserve() {
                Ok(vhost) => self.reserved = Some(vhost),
                Err(e) => guest_warn!("{}", failed(e)),
            }
        }
    }
}

/// Guest memory as vhost wants to know it.
fn regions(memory: &GuestMemoryMmap) -> io::Result<Vec<VhostUserMemoryRegionInfo>> {
    let info = |region| VhostUserMemoryRegionInfo::from_guest_region(region).map_err(failed);
    memory.iter().map(info).collect()
}

/// Hands a queue to vhost; returns what vhost signals when it has used buffers.
fn set_up(
    vhost: &Vhost<Arc<GuestMemoryMmap>>,
    index: usize,
    queue: &ActiveQueue,
) -> io::Result<EventFd> {
    let ActiveQueue { queue, kick } = queue;
    let config = VringConfigData {
        queue_max_size: queue.max_size(),
        queue_size: queue.size(),
        flags: 0,
        desc_table_addr: queue.desc_table(),
        used_ring_addr: queue.used_ring(),
        avail_ring_addr: queue.avail_ring(),
        log_addr: None,
    };
    vhost.set_vring_num(index, queue.size()).map_err(failed)?;
    vhost.set_vring_base(index, 0).map_err(failed)?;
    vhost.set_vring_addr(index, &config).map_err(failed)?;
    let call = event()?;
    let duplicate =
        |event: &EventFd| event.as_fd().try_clone_to_owned().map(IntoRawFd::into_raw_fd);
    let (call_fd, kick_fd) = (duplicate(&call)?, duplicate(kick)?);
    let (call_event, kick_event) =
        // SAFETY: both were just made by duplication, and nothing else owns them.
        unsafe { (FromRawFd::from_raw_fd(call_fd), FromRawFd::from_raw_fd(kick_fd)) };
    vhost.set_vring_call(index, &call_event).map_err(failed)?;
    vhost.set_vring_kick(index, &kick_event).map_err(failed)?;
    Ok(call)
}
