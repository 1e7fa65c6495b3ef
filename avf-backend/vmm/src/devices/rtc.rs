// SPDX-License-Identifier: Apache-2.0
//! A PL030 real-time clock (ARM DDI 0140A) that shows the host's time. A guest may set it; the
//! host's time stays what it is. Alarms never fire: AVF's guests do not use them.

use super::bus::MmioDevice;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

const DATA: u64 = 0x00;
const MATCH: u64 = 0x04;
const LOAD: u64 = 0x0c;
const CONTROL: u64 = 0x10;
const PERIPHERAL_ID: u64 = 0xfe0;
const CELL_ID: u64 = 0xff0;

/// What the device tree calls the peripheral id.
pub const PERIPHID: u32 = 0x0004_1030;
/// PrimeCell's identification, a byte a register.
const CELL: u32 = 0xb105_f00d;

#[derive(Debug, Default)]
struct Registers {
    /// Guest's time minus the host's, in seconds.
    offset: u32,
    matching: u32,
    load: u32,
    control: u32,
}

/// The clock.
#[derive(Debug)]
pub struct Rtc {
    registers: Mutex<Registers>,
    now: fn() -> u32,
}

impl Default for Rtc {
    fn default() -> Self {
        Self { registers: Mutex::default(), now: host_seconds }
    }
}

/// Seconds since 1970, modulo 2^32 as the register has it.
fn host_seconds() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // CAST: the low half is meant.
    since.as_secs() as u32
}

impl MmioDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        let value = match offset {
            DATA => (self.now)().wrapping_add(registers.offset),
            MATCH => registers.matching,
            LOAD => registers.load,
            CONTROL => registers.control,
            PERIPHERAL_ID..CELL_ID => id_byte(PERIPHID, offset - PERIPHERAL_ID),
            CELL_ID..0x1000 => id_byte(CELL, offset - CELL_ID),
            _ => 0,
        };
        for (to, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = from;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let Some(bytes) = data.first_chunk() else { return };
        let value = u32::from_le_bytes(*bytes);
        let mut registers = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        match offset {
            MATCH => registers.matching = value,
            LOAD => {
                registers.load = value;
                registers.offset = value.wrapping_sub((self.now)());
            }
            CONTROL => registers.control = value,
            _ => {}
        }
    }
}

/// One of four registers with a byte each.
fn id_byte(id: u32, offset: u64) -> u32 {
    // CAST: at most 31.
    (id >> (8 * (offset / 4)) as u32) & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rtc: &Rtc, offset: u64) -> u32 {
        let mut data = [0; 4];
        rtc.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn at(now: fn() -> u32) -> Rtc {
        Rtc { now, ..Rtc::default() }
    }

    #[test]
    fn it_shows_the_hosts_time_until_it_is_set() {
        let rtc = at(|| 1_700_000_000);
        assert_eq!(read(&rtc, DATA), 1_700_000_000);
        rtc.write(LOAD, &5_u32.to_le_bytes());
        assert_eq!(read(&rtc, DATA), 5);
        let rtc = Rtc { now: || 1_700_000_010, ..rtc };
        assert_eq!(read(&rtc, DATA), 15);
    }

    #[test]
    fn it_identifies_itself() {
        let rtc = Rtc::default();
        let id = |start| (0..4).map(|i| read(&rtc, start + 4 * i) << (8 * i)).sum::<u32>();
        assert_eq!((id(PERIPHERAL_ID), id(CELL_ID)), (PERIPHID, CELL));
    }
}
