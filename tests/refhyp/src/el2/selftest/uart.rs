// SPDX-License-Identifier: Apache-2.0
//! A 16550 for the Linux guest: output only, with the transmitter interrupt that its driver needs.

use super::el1::print;

const DATA: u64 = 0;
const INTERRUPT_ENABLE: u64 = 1;
const INTERRUPT_ID: u64 = 2;
const LINE_CONTROL: u64 = 3;
const LINE_STATUS: u64 = 5;
const MODEM_STATUS: u64 = 6;

/// The divisor is accessed instead of data.
const DIVISOR: u8 = 1 << 7;
/// Interrupts of the empty transmitter are wanted.
const TRANSMITTER: u8 = 1 << 1;
const NO_INTERRUPT: u64 = 1;
const TRANSMITTER_EMPTY: u64 = 2;
/// Transmitter and its register empty.
const IDLE: u64 = 0x60;
/// Carrier, ready, clear to send.
const CONNECTED: u64 = 0xb0;

/// The device's registers, as far as anything depends on them.
pub struct Uart {
    enabled: u8,
    line: u8,
    empty: bool,
}

impl Uart {
    /// After reset.
    pub const fn new() -> Self {
        Self { enabled: 0, line: 0, empty: false }
    }

    /// What a register reads as.
    pub fn read(&mut self, register: u64) -> u64 {
        match register {
            INTERRUPT_ENABLE => u64::from(self.enabled),
            INTERRUPT_ID if self.empty => {
                self.empty = false;
                TRANSMITTER_EMPTY
            }
            INTERRUPT_ID => NO_INTERRUPT,
            LINE_CONTROL => u64::from(self.line),
            LINE_STATUS => IDLE,
            MODEM_STATUS => CONNECTED,
            _ => 0,
        }
    }

    /// A write to a register; true if the device interrupts.
    pub fn write(&mut self, register: u64, value: u8) -> bool {
        match register {
            LINE_CONTROL => self.line = value,
            DATA | INTERRUPT_ENABLE if self.line & DIVISOR != 0 => (),
            DATA => {
                print(format_args!("{}", char::from(value)));
                self.empty = self.enabled & TRANSMITTER != 0;
                return self.empty;
            }
            INTERRUPT_ENABLE => {
                self.enabled = value;
                self.empty = value & TRANSMITTER != 0;
                return self.empty;
            }
            _ => (),
        }
        false
    }
}
