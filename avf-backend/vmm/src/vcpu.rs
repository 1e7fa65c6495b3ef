// SPDX-License-Identifier: Apache-2.0
//! vCPU threads, and what each exit means.

mod threads;

pub use threads::{Gate, VcpuThreads};

use crate::devices::bus::Bus;
use crate::devices::stall::GuestTimes;
use crate::event::VmEvent;
use gzvm::{Exit, SystemEvent, Vcpu};
use std::io;
use std::sync::mpsc::Sender;
use std::sync::Arc;
use std::thread;
use threads::Thread;

/// SMCCC's answer to a call that nobody knows: -1.
const SMCCC_NOT_SUPPORTED: u64 = u64::MAX;

impl VcpuThreads {
    /// Runs each of `vcpus` in a thread until it is stopped, or until something ends the VM, which
    /// is sent to `events`.
    pub fn spawn(
        mut self,
        vcpus: Vec<Vcpu>,
        bus: Bus,
        times: &Arc<GuestTimes>,
        events: &Sender<VmEvent>,
    ) -> io::Result<Self> {
        let bus = Arc::new(bus);
        for mut vcpu in vcpus {
            let kicker = vcpu.kicker();
            let (bus, gate) = (Arc::clone(&bus), Arc::clone(&self.gate));
            let (times, events) = (Arc::clone(times), events.clone());
            let builder = thread::Builder::new().name(format!("vcpu{}", vcpu.id()));
            let handle = builder.spawn(move || {
                times.register(vcpu.id());
                if let Some(event) = run(&mut vcpu, &bus, &gate) {
                    // Nobody listens any more when the VM is ending anyway.
                    let _ = events.send(event);
                }
            })?;
            self.threads.push(Thread { handle, kicker });
        }
        Ok(self)
    }
}

/// What follows from an exit.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Run,
    Leave,
    End(VmEvent),
}

fn run(vcpu: &mut Vcpu, bus: &Bus, gate: &Gate) -> Option<VmEvent> {
    let id = vcpu.id();
    if !gate.pass() {
        return None;
    }
    loop {
        let next = match vcpu.run() {
            Ok(exit) => handle(id, exit, bus),
            Err(e) => failed(id, &e),
        };
        match next {
            Next::Run => {}
            Next::Leave if vcpu.exit_requested() && !gate.pass() => return None,
            Next::Leave => {}
            Next::End(event) => return Some(event),
        }
    }
}

fn handle(id: u32, exit: Exit<'_>, bus: &Bus) -> Next {
    match exit {
        Exit::MmioRead { gpa, data } => bus.read(gpa, data),
        Exit::MmioWrite { gpa, data } => bus.write(gpa, data),
        Exit::Hypercall(args) => {
            log::debug!("vcpu{id}: unknown hypercall {:#x}", args[0]);
            args[0] = SMCCC_NOT_SUPPORTED;
        }
        Exit::Irq => {}
        Exit::Interrupted => return Next::Leave,
        Exit::SystemEvent { event: SystemEvent::Shutdown, .. } | Exit::Shutdown => {
            return Next::End(VmEvent::Shutdown)
        }
        Exit::SystemEvent { event: SystemEvent::Reset, .. } => return Next::End(VmEvent::Reset),
        Exit::SystemEvent { event: SystemEvent::Crash, .. } => {
            return Next::End(VmEvent::GuestCrash)
        }
        other @ (Exit::SystemEvent { .. }
        | Exit::Exception { .. }
        | Exit::Debug
        | Exit::FailEntry { .. }
        | Exit::InternalError { .. }
        | Exit::Unknown { .. }) => return failed(id, &other),
    }
    Next::Run
}

fn failed(vcpu: u32, why: &dyn std::fmt::Display) -> Next {
    Next::End(VmEvent::VcpuFailed { vcpu, why: why.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(exit: Exit<'_>) -> Next {
        handle(1, exit, &Bus::default())
    }

    #[test]
    fn device_accesses_go_on() {
        let mut data = [7; 4];
        assert_eq!(next(Exit::MmioRead { gpa: 0x1000, data: &mut data }), Next::Run);
        assert_eq!(data, [0; 4], "nothing is there");
        assert_eq!(next(Exit::MmioWrite { gpa: 0x1000, data: &[1] }), Next::Run);
        assert_eq!(next(Exit::Irq), Next::Run);
    }

    #[test]
    fn unknown_hypercalls_are_answered() {
        let mut args = [0xc600_0042; 8];
        assert_eq!(next(Exit::Hypercall(&mut args)), Next::Run);
        assert_eq!(args[0], u64::MAX);
    }

    #[test]
    fn ends_are_told_apart() {
        let event = |event| Exit::SystemEvent { event, data: &[] };
        assert_eq!(next(event(SystemEvent::Shutdown)), Next::End(VmEvent::Shutdown));
        assert_eq!(next(event(SystemEvent::Reset)), Next::End(VmEvent::Reset));
        assert_eq!(next(event(SystemEvent::Crash)), Next::End(VmEvent::GuestCrash));
        assert_eq!(next(Exit::Shutdown), Next::End(VmEvent::Shutdown));
        let fault = Exit::Exception { kind: 1, error_code: 0, fault_gpa: 0x1234_5000 };
        match next(fault) {
            Next::End(VmEvent::VcpuFailed { vcpu: 1, why }) => {
                assert!(why.contains("0x12345000"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}
