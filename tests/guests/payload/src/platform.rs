// SPDX-License-Identifier: Apache-2.0
//! What the payload's programs need of the machine.

use core::fmt;
use gzvm_guest::Hvc;

/// A machine with a console, a clock, and a hypervisor below.
pub trait Platform {
    /// How hypervisor calls are made.
    type Conduit: Hvc;

    /// The hypervisor below.
    fn hypervisor(&self) -> Self::Conduit;

    /// Writes to the console; blocks until the console has taken all of it.
    fn put(&mut self, bytes: &[u8]);

    /// Takes a byte from the console if there is one.
    fn get(&mut self) -> Option<u8>;

    /// Sleeps until the timer's interrupt. Returns false if the time passed without it.
    fn sleep(&mut self, milliseconds: u64) -> bool;

    /// The virtual counter, in ticks.
    fn counter(&self) -> u64;

    /// Ticks of the counter in a second.
    fn counter_frequency(&self) -> u64;

    /// Starts the machine's other CPUs, waits until they have said hello, for a bounded time, and
    /// returns how many did.
    fn start_cpus(&mut self) -> usize;
}

/// The console as a target of `write!`. It ends lines as a terminal wants them.
#[derive(Debug)]
pub struct Out<'a, P: Platform>(
    /// The machine with the console.
    pub &'a mut P,
);

impl<P: Platform> fmt::Write for Out<'_, P> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, part) in text.split('\n').enumerate() {
            if index > 0 {
                self.0.put(b"\r\n");
            }
            if !part.is_empty() {
                self.0.put(part.as_bytes());
            }
        }
        Ok(())
    }
}

/// Prints a line on a machine's console. A console cannot refuse.
#[macro_export]
macro_rules! say {
    ($platform:expr, $($format:tt)*) => {{
        use core::fmt::Write as _;
        let mut out = $crate::Out(&mut *$platform);
        let _ = out.write_fmt(core::format_args!($($format)*));
        let _ = out.write_str("\n");
    }};
}
