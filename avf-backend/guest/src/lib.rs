// SPDX-License-Identifier: Apache-2.0
//! What a guest says to GenieZone.
//!
//! Everything goes through the trait [`Hvc`], one hypervisor call; in a guest that is `Hypervisor`
//! (on aarch64), in tests a fake (feature `fake`). [`GenieZone::detect`] is the way in: it compares
//! the hypervisor's UID and only then offers GenieZone's own calls.
//!
//! ```no_run
//! # #[cfg(target_arch = "aarch64")]
//! # fn main() -> Result<(), gzvm_guest::Error> {
//! use gzvm_guest::{GenieZone, Hypervisor, Trng};
//!
//! let geniezone = GenieZone::detect(Hypervisor)?;
//! let guard = geniezone.enroll_mmio_guard()?;
//! // The UARTs are in page 0; from now on the host sees accesses to it.
//! guard.map(0, 4096)?.keep();
//! let mut seed = [0; 32];
//! Trng::new(Hypervisor)?.fill(&mut seed)?;
//! # Ok(())
//! # }
//! # #[cfg(not(target_arch = "aarch64"))]
//! # fn main() {}
//! ```
//!
//! Memory that is shared or given back stops being the guest's alone, which is why
//! [`GenieZone::share`] and [`GenieZone::relinquish`] are `unsafe`: the type system cannot see what
//! else refers to that memory.

#![cfg_attr(not(any(test, feature = "fake")), no_std)]
#![deny(unsafe_code)]

mod clock;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod geniezone;
mod held;
mod hvc;
mod mmio_guard;
#[cfg(any(test, feature = "virtio"))]
mod pool;
mod share;
#[cfg(test)]
mod tests;
mod trng;
mod uid;

pub use clock::{ClockSample, Counter};
pub use error::{Error, Status};
pub use geniezone::{Features, GenieZone};
pub use hvc::Hvc;
#[cfg(target_arch = "aarch64")]
pub use hvc::Hypervisor;
pub use mmio_guard::{GuardedRange, MmioGuard};
#[cfg(any(test, feature = "virtio"))]
pub use pool::{share_pool, PoolHal};
pub use share::SharedRange;
pub use trng::Trng;
pub use uid::Uid;
