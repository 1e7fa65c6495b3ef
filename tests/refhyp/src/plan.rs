// SPDX-License-Identifier: Apache-2.0
//! The fault plan of test builds: which of the host's next calls fail, lie or take long.

use gzvm_abi::{ext, hvc};

/// Host functions.
pub const FUNCTIONS: usize = hvc::NR_FUNCTIONS as usize;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Refused without doing anything.
    Refuse,
    /// Done, and answered with the status and rubbish all the same.
    Lie,
    /// Done and answered truly, after a long time.
    Delay,
}

impl Mode {
    /// The mode with a number of the ABI ([`ext::TEST_FAULT`]).
    pub const fn from_abi(number: u64) -> Option<Self> {
        match number {
            ext::TEST_FAULT_REFUSE => Some(Self::Refuse),
            ext::TEST_FAULT_LIE => Some(Self::Lie),
            ext::TEST_FAULT_DELAY => Some(Self::Delay),
            _ => None,
        }
    }
}

/// What happens to the calls of one function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Calls that pass first.
    pub skip: u64,
    /// Calls that are struck then.
    pub count: u64,
    /// What they answer.
    pub status: i32,
    /// What happens to them.
    pub mode: Mode,
}

impl Entry {
    /// No call is struck.
    pub const NONE: Self = Self { skip: 0, count: 0, status: 0, mode: Mode::Refuse };
}

impl Default for Entry {
    fn default() -> Self {
        Self::NONE
    }
}

/// One function's entry and what became of it.
#[derive(Clone, Copy, Debug)]
struct Planned {
    entry: Entry,
    /// Calls struck.
    struck: u64,
    /// Calls that let interrupts in and will be made again; these are no new ones.
    unfinished: u64,
}

/// The entries of all functions.
#[derive(Debug)]
pub struct Plan([Planned; FUNCTIONS]);

impl Plan {
    /// The plan with these entries, by the functions' indices.
    pub fn new(entries: [Entry; FUNCTIONS]) -> Self {
        Self(entries.map(|entry| Planned { entry, struck: 0, unfinished: 0 }))
    }

    fn planned(&mut self, index: u32) -> Option<&mut Planned> {
        self.0.get_mut(usize::try_from(index).ok()?)
    }

    /// Replaces a function's entry; how often the one before struck, or nothing if there is no
    /// such function.
    pub fn set(&mut self, index: u64, entry: Entry) -> Option<u64> {
        let planned = self.planned(u32::try_from(index).ok()?)?;
        planned.entry = entry;
        Some(core::mem::take(&mut planned.struck))
    }

    /// A call begins: what is to happen to it, if anything.
    pub fn strike(&mut self, index: u32) -> Option<(Mode, i32)> {
        let planned = self.planned(index)?;
        if planned.unfinished != 0 {
            planned.unfinished -= 1;
            return None;
        }
        let entry = &mut planned.entry;
        if entry.count == 0 {
            return None;
        }
        if entry.skip != 0 {
            entry.skip -= 1;
            return None;
        }
        entry.count -= 1;
        planned.struck += 1;
        Some((entry.mode, entry.status))
    }

    /// A call will be made again after interrupts.
    pub fn unfinished(&mut self, index: u32) {
        if let Some(planned) = self.planned(index) {
            planned.unfinished += 1;
        }
    }
}

/// A function's index and its entry in the words of the command line: numbers in decimal, parted
/// by colons, `INDEX:SKIP:COUNT:STATUS`, then `:refuse` (if nothing is said), `:lie` or `:delay`.
pub fn parse(text: &str) -> Option<(usize, Entry)> {
    let mut words = text.split(':');
    let index = words.next()?.parse().ok().filter(|index| *index < FUNCTIONS)?;
    let skip = words.next()?.parse().ok()?;
    let count = words.next()?.parse().ok()?;
    let status = words.next()?.parse().ok()?;
    let mode = match words.next() {
        None | Some("refuse") => Mode::Refuse,
        Some("lie") => Mode::Lie,
        Some("delay") => Mode::Delay,
        Some(_) => return None,
    };
    words.next().is_none().then_some((index, Entry { skip, count, status, mode }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAIL: Entry = Entry { skip: 1, count: 2, status: -5, mode: Mode::Refuse };

    #[test]
    fn the_calls_named_are_struck_and_no_others() {
        let mut plan = Plan::new([Entry::NONE; FUNCTIONS]);
        assert_eq!(plan.set(5, FAIL), Some(0));
        let struck: Vec<bool> = (0..5).map(|_| plan.strike(5).is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        assert_eq!(plan.strike(4), None);
        assert_eq!(plan.set(5, Entry::NONE), Some(2));
        assert_eq!(plan.set(5, Entry::NONE), Some(0));
        assert_eq!(plan.set(FUNCTIONS as u64, FAIL), None);
        assert_eq!(plan.set(u64::MAX, FAIL), None);
        assert_eq!(plan.strike(u32::MAX), None);
    }

    #[test]
    fn a_call_made_again_is_not_a_new_one() {
        let mut plan = Plan::new([Entry::NONE; FUNCTIONS]);
        plan.set(4, FAIL);
        for _ in 0..3 {
            assert_eq!(plan.strike(4), None);
            plan.unfinished(4);
        }
        assert_eq!(plan.strike(4), None);
        assert_eq!(plan.strike(4), Some((Mode::Refuse, -5)));
    }

    #[test]
    fn words_become_entries() {
        assert_eq!(parse("5:1:2:-5"), Some((5, FAIL)));
        let lie = Entry { mode: Mode::Lie, ..FAIL };
        assert_eq!(parse("5:1:2:-5:lie"), Some((5, lie)));
        for bad in ["", "5", "5:1:2", "20:1:2:-5", "5:1:2:-5:", "5:1:2:-5:lie:1", "5:-1:2:3", "x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
