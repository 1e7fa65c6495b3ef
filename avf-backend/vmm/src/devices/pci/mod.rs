// SPDX-License-Identifier: Apache-2.0
//! The PCI host: configuration space, and which address, slot and interrupt each device has.
//!
//! Guests without firmware never assign addresses (`linux,pci-probe-only`), so everything is
//! assigned here, before boot; guests that assign them all the same find the devices there. Slot n interrupts through SPI 3 + n, as AOSP's firmware demands.

mod config;
mod host;

pub use config::{ConfigSpace, Identity};
pub use host::{slot_spi, PciDevice, PciHost, PciWindows, Slot};
