// SPDX-License-Identifier: Apache-2.0
//! What can end a VM, told to the main thread.

use nix::sys::signal::Signal;

/// Something that ends the VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmEvent {
    /// The guest powered off.
    Shutdown,
    /// The guest asked for a reset.
    Reset,
    /// The guest says that it crashed.
    GuestCrash,
    /// A vCPU cannot go on.
    VcpuFailed {
        /// Its index.
        vcpu: u32,
        /// Why, in one line.
        why: String,
    },
    /// A vCPU has run without reloading its stall detector.
    Stalled {
        /// Its index.
        vcpu: usize,
    },
    /// A device's queue is in memory that the guest has not shared.
    PrivateQueue {
        /// The device's name.
        device: String,
        /// The queue's index.
        queue: usize,
        /// The first guest address of it that is private.
        address: u64,
    },
    /// This process was asked to end.
    Signal(Signal),
    /// A client of the control socket asked for the end.
    Stopped,
    /// The process that started this one is gone.
    ParentGone,
}
