// SPDX-License-Identifier: Apache-2.0
//! What the hypervisor says. It shares one PL011 with the host, so it prints only before the host
//! runs and when it dies; otherwise messages go to a ring that the death message shows.

use arm_pl011_uart::{PL011Registers, Uart};
use core::fmt::{self, Write};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use refhyp::lock::Mutex;
use safe_mmio::UniqueMmioPointer;

/// The first PL011 of QEMU's "virt" machine, until the device tree says otherwise.
const DEFAULT_UART: usize = 0x900_0000;
const RING: usize = 8192;

static UART: AtomicUsize = AtomicUsize::new(DEFAULT_UART);
/// Whether the hypervisor has the console to itself.
static OURS: AtomicBool = AtomicBool::new(true);

struct Ring {
    bytes: [u8; RING],
    next: usize,
}

static LOG: Mutex<Ring> = Mutex::new(Ring { bytes: [0; RING], next: 0 });

/// Writes to the UART, whoever it belongs to.
struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let Some(registers) = NonNull::new(UART.load(Ordering::Relaxed) as *mut PL011Registers)
        else {
            return Err(fmt::Error);
        };
        // SAFETY: the address is a PL011's, which `space.rs` maps as device memory, and no other
        // pointer to it exists in this program while this one lives.
        let mut uart = Uart::new(unsafe { UniqueMmioPointer::new(registers) });
        for byte in text.bytes() {
            if byte == b'\n' {
                put(&mut uart, b'\r');
            }
            put(&mut uart, byte);
        }
        Ok(())
    }
}

fn put(uart: &mut Uart, byte: u8) {
    while uart.is_tx_fifo_full() {
        refhyp::lock::relax();
    }
    uart.write_word(byte);
}

impl Write for Ring {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if let Some(place) = self.bytes.get_mut(self.next % RING) {
                *place = byte;
            }
            self.next = self.next.wrapping_add(1);
        }
        Ok(())
    }
}

/// The device tree's UART.
pub fn set_uart(address: u64) {
    if let Ok(address) = usize::try_from(address) {
        UART.store(address, Ordering::Relaxed);
    }
}

/// From now on the console is the host's.
pub fn hand_over() {
    OURS.store(false, Ordering::Release);
}

/// Prints without locks, for the last words and for a start that went wrong.
pub fn emergency(arguments: fmt::Arguments<'_>) {
    // A console that cannot be written to leaves nothing to complain on.
    let _ = Port.write_fmt(arguments);
}

/// Prints what the log holds, as far as it is not locked.
pub fn dump_log() {
    if OURS.load(Ordering::Acquire) {
        return;
    }
    let Some(ring) = LOG.try_lock() else { return };
    let (new, old) = ring.bytes.split_at(ring.next % RING);
    for part in [old, new] {
        for byte in part.iter().filter(|byte| **byte != 0) {
            emergency(format_args!("{}", char::from(*byte)));
        }
    }
}

/// Logs; use [`log!`].
pub fn write(arguments: fmt::Arguments<'_>) {
    let mut ring = LOG.lock();
    // Writing to the ring cannot fail.
    let _ = ring.write_fmt(arguments);
    if OURS.load(Ordering::Acquire) {
        emergency(arguments);
    }
}

/// Logs one line.
macro_rules! log {
    ($($argument:tt)*) => {
        $crate::el2::console::write(format_args!(
            "refhyp: {}\n", format_args!($($argument)*)
        ))
    };
}
pub(crate) use log;
