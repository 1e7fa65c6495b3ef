// SPDX-License-Identifier: Apache-2.0
//! A vCPU: registers, running, and ending a run from another thread.

use crate::error::Result;
use crate::exit::Exit;
use crate::ioctl;
use gzvm_abi::run::{Run, PAYLOAD_SIZE};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, Ordering};
use std::sync::Arc;

/// The memory of [`Run`] as the kernel sees it: atomics, because a [`Kicker`] in another thread
/// writes `immediate_exit` while the kernel may copy the structure.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RunArea {
    exit_reason: AtomicU32,
    immediate_exit: AtomicU8,
    padding1: [AtomicU8; 3],
    payload: [AtomicU64; PAYLOAD_SIZE / 8],
}

const _: () = {
    assert!(size_of::<RunArea>() == size_of::<Run>());
    assert!(offset_of!(RunArea, exit_reason) == offset_of!(Run, exit_reason));
    assert!(offset_of!(RunArea, immediate_exit) == offset_of!(Run, immediate_exit));
    assert!(offset_of!(RunArea, payload) == offset_of!(Run, payload));
};

impl RunArea {
    fn new() -> Self {
        Self {
            exit_reason: AtomicU32::new(0),
            immediate_exit: AtomicU8::new(0),
            padding1: [const { AtomicU8::new(0) }; 3],
            payload: [const { AtomicU64::new(0) }; PAYLOAD_SIZE / 8],
        }
    }

    /// What the VMM completed goes to where the kernel reads it.
    fn store(&self, run: &Run) {
        for (to, from) in self.payload.iter().zip(run.payload) {
            to.store(from, Ordering::Relaxed);
        }
    }

    fn load(&self, run: &mut Run) {
        run.exit_reason = self.exit_reason.load(Ordering::Relaxed);
        for (to, from) in run.payload.iter_mut().zip(&self.payload) {
            *to = from.load(Ordering::Relaxed);
        }
    }
}

/// What a vCPU and its kickers share.
#[derive(Debug)]
struct Shared {
    /// Whether [`Vcpu::run`] is to return. The truth; `immediate_exit` only closes the gap between
    /// the look at it and the kernel's copy of the structure, and the kernel's copy back may
    /// overwrite it.
    exit_requested: AtomicBool,
    area: RunArea,
}

/// A vCPU.
#[derive(Debug)]
pub struct Vcpu {
    fd: OwnedFd,
    id: u32,
    run: Box<Run>,
    shared: Arc<Shared>,
}

impl Vcpu {
    pub(crate) fn new(fd: OwnedFd, id: u32) -> Self {
        let shared =
            Arc::new(Shared { exit_requested: AtomicBool::new(false), area: RunArea::new() });
        Self { fd, id, run: Box::default(), shared }
    }

    /// The index given at creation.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Writes a register (`abi::reg`).
    pub fn set_reg(&self, id: u64, value: u64) -> Result<()> {
        let mut value = value;
        ioctl::call_reg(self.fd.as_fd(), &ioctl::SET_ONE_REG, id, &mut value)
    }

    /// Reads a register. Phones refuse it, and so does every hypervisor for protected VMs.
    pub fn get_reg(&self, id: u64) -> Result<u64> {
        let mut value = 0;
        ioctl::call_reg(self.fd.as_fd(), &ioctl::GET_ONE_REG, id, &mut value)?;
        Ok(value)
    }

    /// Completes the exit that the previous call returned and runs the guest until the next one.
    ///
    /// A signal, or a [`Kicker`], ends the run with [`Exit::Interrupted`].
    pub fn run(&mut self) -> Result<Exit<'_>> {
        if self.exit_requested() {
            return Ok(Exit::Interrupted);
        }
        self.shared.area.store(&self.run);
        match ioctl::call_run(self.fd.as_fd(), &self.shared.area) {
            Ok(()) => {
                self.shared.area.load(&mut self.run);
                Ok(Exit::decode(&mut self.run))
            }
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => Ok(Exit::Interrupted),
            Err(e) => Err(e),
        }
    }

    /// Whether a [`Kicker`] asked for the end of the run; else [`Exit::Interrupted`] came from a
    /// signal.
    pub fn exit_requested(&self) -> bool {
        self.shared.exit_requested.load(Ordering::SeqCst)
    }

    /// A handle with which another thread ends [`Vcpu::run`].
    pub fn kicker(&self) -> Kicker {
        Kicker { shared: self.shared.clone() }
    }
}

/// Makes a vCPU leave the guest.
#[derive(Clone, Debug)]
pub struct Kicker {
    shared: Arc<Shared>,
}

impl Kicker {
    /// From now on [`Vcpu::run`] returns [`Exit::Interrupted`]. A run that is under way ends when
    /// its thread gets a signal, which the caller sends after this.
    pub fn request_exit(&self) {
        self.shared.exit_requested.store(true, Ordering::SeqCst);
        self.shared.area.immediate_exit.store(1, Ordering::SeqCst);
    }

    /// Lets the vCPU run again.
    pub fn clear(&self) {
        self.shared.exit_requested.store(false, Ordering::SeqCst);
        self.shared.area.immediate_exit.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn fake() -> Vcpu {
        Vcpu::new(File::open("/dev/null").unwrap().into(), 0)
    }

    #[test]
    fn a_requested_exit_comes_before_the_kernel() {
        let mut vcpu = fake();
        let kicker = vcpu.kicker();
        kicker.request_exit();
        assert!(matches!(vcpu.run(), Ok(Exit::Interrupted)));
        assert!(matches!(vcpu.run(), Ok(Exit::Interrupted)), "the request stays");
        kicker.clear();
        assert_eq!(vcpu.run().unwrap_err().errno(), libc::ENOTTY);
    }

    #[test]
    fn registers_wider_than_the_value_are_refused_here() {
        let v0 = 0x6040_0000_0010_0054;
        assert_eq!(fake().set_reg(v0, 0).unwrap_err().errno(), libc::EINVAL);
        assert_eq!(fake().set_reg(gzvm_abi::reg::PC, 0).unwrap_err().errno(), libc::ENOTTY);
    }

    #[test]
    fn the_area_carries_completed_data() {
        let mut run = Run { payload: [7; PAYLOAD_SIZE / 8], ..Run::default() };
        let area = RunArea::new();
        area.store(&run);
        run.payload = [0; PAYLOAD_SIZE / 8];
        area.load(&mut run);
        assert_eq!(run.payload, [7; PAYLOAD_SIZE / 8]);
    }
}
