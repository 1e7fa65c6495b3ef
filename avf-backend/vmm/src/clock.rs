// SPDX-License-Identifier: Apache-2.0
//! Sets the guest's clock after the host's was set, or the host was suspended: asks the agent in the
//! guest, if there is one. (What a guest learns by itself, by its real-time clock and the PTP call,
//! needs nobody here.)

use gzvm_clock::client::{self, ClockError};
use gzvm_clock::watch::Watch;
use std::io;
use std::str::FromStr;
use std::thread;

/// Whether the VMM resynchronises the guest's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resync {
    /// After each discontinuity of the host's clock.
    #[default]
    Auto,
    /// Never; `vm clock --resync` does.
    Off,
}

impl FromStr for Resync {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => Err("auto or off is expected".into()),
        }
    }
}

/// Follows the host's clock for as long as the process lives.
pub fn follow(cid: u32) -> io::Result<()> {
    let watch = Watch::new()?;
    thread::Builder::new().name("clock".into()).spawn(move || loop {
        if let Err(e) = watch.wait() {
            log::warn!("the host's clock is not watched any more: {e}");
            return;
        }
        match client::resync(cid) {
            Ok(report) => {
                let (stepped, bound) = (report.stepped_ns.unwrap_or(0), report.bound_ns);
                log::info!("the host's clock was set; the guest's by {stepped} ns, to {bound} ns");
            }
            // Most guests have none.
            Err(e @ ClockError::NoAgent { .. }) => log::debug!("clock: {e}"),
            Err(e) => log::warn!("the guest's clock is not set: {e}"),
        }
    })?;
    Ok(())
}
