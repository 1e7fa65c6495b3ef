// SPDX-License-Identifier: Apache-2.0
//! Threads that run vCPUs, and which CPU they run on.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use gzvm_device_test::machine::Vcpu;
use gzvm_device_test::signals::{self, Target};

/// Keeps the current thread on one CPU.
pub fn pin(cpu: usize) {
    // SAFETY: a set of CPUs is a plain bit mask, for which zero is valid; all pointers are live.
    let answer = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    assert_eq!(answer, 0, "sched_setaffinity: {}", io::Error::last_os_error());
}

/// A thread that runs a vCPU until it is stopped, answering nothing.
pub struct Runner {
    thread: JoinHandle<()>,
    target: Target,
}

impl Runner {
    /// Starts it, on a CPU if one is given.
    pub fn start(mut vcpu: Vcpu, cpu: Option<usize>) -> Self {
        signals::handle(0);
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            if let Some(cpu) = cpu {
                pin(cpu);
            }
            sender.send(Target::this()).expect("the other end waits");
            while vcpu.run().is_ok() {}
        });
        let target = receiver.recv().expect("the thread says who it is");
        Self { thread, target }
    }

    /// Ends it.
    pub fn stop(self) {
        while !self.thread.is_finished() {
            self.target.signal_after(Duration::from_millis(1));
        }
        self.thread.join().expect("a thread of a vCPU");
    }
}
