// SPDX-License-Identifier: Apache-2.0
//! When the host provides guest memory. `docs/vmm.md` says what each mode costs.

use crate::layout::MIB;
use std::str::FromStr;

/// Bytes that are provided in one go.
pub const BATCH: u64 = 16 * MIB;

/// When the host provides guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// When the guest first touches it.
    #[default]
    Lazy,
    /// All of it before the VM is created.
    Prefault,
    /// As [`Mode::Prefault`], and locked: the host neither swaps nor moves it before the guest gets
    /// it.
    Static,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "lazy" => Ok(Self::Lazy),
            "prefault" => Ok(Self::Prefault),
            "static" => Ok(Self::Static),
            _ => Err("lazy, prefault or static is expected".into()),
        }
    }
}

/// How guest memory is to be treated by the host's kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// When it is provided.
    pub mode: Mode,
    /// Ask for transparent huge pages.
    pub hugepages: bool,
    /// Keep it out of child processes and core dumps. For protected VMs: an access to a private
    /// page is an error, and a core dump touches every page.
    pub private: bool,
}

/// The batches of `size` bytes: offset and length.
pub fn batches(size: u64) -> impl Iterator<Item = (u64, u64)> {
    let step = usize::try_from(BATCH).unwrap_or(usize::MAX);
    (0..size).step_by(step).map(move |start| (start, BATCH.min(size - start)))
}

/// Reports of progress that whoever waits for `total` bytes gets at most.
const STEPS: u64 = 10;

/// Whether progress `from` so many bytes `to` so many, of `total`, is worth a report: each tenth,
/// and the end.
pub fn is_step(from: u64, to: u64, total: u64) -> bool {
    let steps = |bytes: u64| u128::from(bytes) * u128::from(STEPS) / u128::from(total.max(1));
    steps(from) != steps(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_cover_everything_once() {
        let all: Vec<_> = batches(40 * MIB).collect();
        assert_eq!(all, [(0, BATCH), (BATCH, BATCH), (2 * BATCH, 8 * MIB)]);
        assert_eq!(batches(0).count(), 0);
    }

    #[test]
    fn progress_is_told_in_tenths() {
        let told = |total: u64| {
            let steps = batches(total).filter(|(at, len)| is_step(*at, at + len, total));
            steps.map(|(at, len)| (at + len) / MIB).collect::<Vec<_>>()
        };
        assert_eq!(told(16 * MIB), [16]);
        assert_eq!(told(64 * MIB), [16, 32, 48, 64]);
        let large = told(4096 * MIB);
        assert_eq!((large.len(), large[0], large[9]), (10, 416, 4096));
        assert!(!is_step(0, 0, 0));
    }

    #[test]
    fn modes_have_names() {
        let modes = ["lazy", "prefault", "static"].map(|name| name.parse());
        assert_eq!(modes, [Ok(Mode::Lazy), Ok(Mode::Prefault), Ok(Mode::Static)]);
        assert!("Lazy".parse::<Mode>().is_err());
        assert_eq!(Mode::default(), Mode::Lazy);
    }
}
