// SPDX-License-Identifier: Apache-2.0
//! The console: a 16550 that the VMM emulates.

use core::fmt;
use core::ptr::{with_exposed_provenance_mut, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};
use uart_16550::backend::MmioBackend;
use uart_16550::{Config, Uart16550};

/// Address of the console that is in use, for the panic handler; 0 is none.
static IN_USE: AtomicUsize = AtomicUsize::new(0);

/// The console.
#[derive(Debug)]
pub struct Console(Uart16550<MmioBackend>);

impl Console {
    /// Sets up the 16550 whose registers are at `address`, one byte apart. To be called once.
    pub fn new(address: u64) -> Option<Self> {
        // CAST: usize has 64 bits here.
        let address = address as usize;
        let mut uart = open(address)?;
        uart.init(Config::default()).ok()?;
        IN_USE.store(address, Ordering::Release);
        Some(Self(uart))
    }

    /// A second port, beside the one that panics are said on.
    pub fn quiet(address: u64) -> Option<Self> {
        // CAST: usize has 64 bits here.
        let mut uart = open(address as usize)?;
        uart.init(Config::default()).ok()?;
        Some(Self(uart))
    }

    /// The console of a program that will never use it again, if it has one.
    pub fn take_over() -> Option<Self> {
        // Taken, so that a panic in here does not end up here again.
        open(IN_USE.swap(0, Ordering::Acquire)).map(Self)
    }

    /// Takes a byte that came in.
    pub fn get(&mut self) -> Option<u8> {
        self.0.try_receive_byte().ok()
    }

    /// Writes all of `bytes`.
    pub fn put(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.0.send_bytes(bytes) {
                0 => pause(),
                sent => bytes = &bytes[sent..],
            }
        }
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// The registers at `address`, if it can be one.
fn open(address: usize) -> Option<Uart16550<MmioBackend>> {
    let base = NonNull::new(with_exposed_provenance_mut(address))?;
    // SAFETY: The device tree says that a 16550 is at the address, which the page table maps as
    // device memory. Only one is in use at a time: `Console::new` is called once, and who takes
    // over does so when the program has ended.
    unsafe { Uart16550::new_mmio(base, 1) }.ok()
}

/// Lets another vCPU run; `spin_loop` would be an `isb`, which does not.
fn pause() {
    // SAFETY: The instruction is a hint and touches nothing.
    unsafe { core::arch::asm!("yield", options(nomem, nostack, preserves_flags)) }
}
