// SPDX-License-Identifier: Apache-2.0
//! The machine as the programs want it.

use super::cpus;
use super::timer::{self, Timer};
use guest_bare::console::Console;
use gzvm_guest::Hypervisor;
use payload::machine::Machine;
use payload::Platform;

/// How long to wait for other CPUs: times, and milliseconds.
const CPU_WAIT: (u32, u64) = (3000, 10);

/// The VM's devices.
pub(super) struct Board<'a> {
    machine: Machine<'a>,
    console: Option<Console>,
    timer: Option<Timer>,
}

impl<'a> Board<'a> {
    /// Sets up the devices. To be called once.
    pub(super) fn new(machine: Machine<'a>) -> Self {
        let console = Console::new(machine.uart);
        let timer = machine.gic.and_then(|gic| Timer::new(gic, machine.cpus.ids().len()));
        Self { machine, console, timer }
    }
}

impl Platform for Board<'_> {
    type Conduit = Hypervisor;

    fn hypervisor(&self) -> Hypervisor {
        Hypervisor
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(console) = &mut self.console {
            console.put(bytes);
        }
    }

    fn get(&mut self) -> Option<u8> {
        self.console.as_mut()?.get()
    }

    fn sleep(&mut self, milliseconds: u64) -> bool {
        self.timer.as_mut().is_some_and(|timer| timer.sleep(milliseconds))
    }

    fn counter(&self) -> u64 {
        timer::counter()
    }

    fn counter_frequency(&self) -> u64 {
        timer::counter_frequency()
    }

    fn start_cpus(&mut self) -> usize {
        // The first CPU of the device tree is this one, by the boot protocol.
        let others = self.machine.cpus;
        let others = &others.ids()[1..];
        let started = others.iter().filter(|&&mpidr| cpus::start(mpidr)).count();
        let (times, milliseconds) = CPU_WAIT;
        for _ in 0..times {
            if cpus::arrived() >= started {
                break;
            }
            self.sleep(milliseconds);
        }
        cpus::arrived()
    }
}
