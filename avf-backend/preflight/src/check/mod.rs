// SPDX-License-Identifier: Apache-2.0
//! Can this machine run VMs, protected VMs, and if not, why: facts ([`Facts`]), what they mean
//! ([`Report`]), and both forms of the answer ([`Report::text`], [`Report::json`]).

mod facts;
mod hypervisor;
mod print;
mod resources;
#[cfg(test)]
mod tests;

pub use facts::{Asked, Facts, Node};
pub use print::Paint;

use crate::Reading;

/// Exit status of a check: yes, no, nobody knows. 1 and 2 are errors of the program and of its
/// command line.
pub const STATUS_YES: u8 = 0;
/// See [`STATUS_YES`].
pub const STATUS_NO: u8 = 3;
/// See [`STATUS_YES`].
pub const STATUS_UNKNOWN: u8 = 4;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Yes,
    /// No.
    No,
    /// Nobody knows, and why.
    Unknown(String),
}

impl Answer {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The exit status for it.
    pub fn status(&self) -> u8 {
        match self {
            Self::Yes => STATUS_YES,
            Self::No => STATUS_NO,
            Self::Unknown(_) => STATUS_UNKNOWN,
        }
    }

    /// Whether both hold: a no decides, then what is not known.
    fn and(self, other: &Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unknown(why), _) => Self::Unknown(why),
            (Self::Yes, other) => other.clone(),
        }
    }
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes {
            Self::Yes
        } else {
            Self::No
        }
    }
}

/// What depends on a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: good to know.
    Nothing,
    /// All VMs.
    Vms,
    /// Protected VMs.
    ProtectedVms,
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its name, which does not change between versions.
    pub name: &'static str,
    /// Whether it is so.
    pub answer: Answer,
    /// More about it; may be empty.
    pub detail: String,
    /// What to do if that is not what was wanted.
    pub remedy: Option<String>,
    /// What depends on it.
    pub need: Need,
}

impl Line {
    fn new(name: &'static str, answer: impl Into<Answer>) -> Self {
        let answer = answer.into();
        Self { name, answer, detail: String::new(), remedy: None, need: Need::Nothing }
    }

    /// Yes, no if it is absent, unknown if it cannot be read.
    fn of<T>(name: &'static str, reading: &Reading<T>) -> Self {
        Self::new(
            name,
            match reading {
                Reading::Value(_) => Answer::Yes,
                Reading::Absent => Answer::No,
                Reading::Unknown(why) => Answer::Unknown(why.clone()),
            },
        )
    }

    fn unknown(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, Answer::Unknown(why.into()))
    }

    fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    fn needed_by(mut self, need: Need) -> Self {
        self.need = need;
        self
    }
}

/// All facts, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The facts.
    pub lines: Vec<Line>,
    /// Whether this user can run VMs here.
    pub vms: Answer,
    /// Whether this user can run protected VMs here.
    pub protected_vms: Answer,
}

impl Report {
    /// What the facts mean for a VM with `needed` bytes of memory.
    pub fn new(facts: &Facts, needed: u64) -> Self {
        let mut lines = hypervisor::lines(facts);
        lines.extend(resources::lines(facts, needed));
        let all = |need| {
            let lines = lines.iter().filter(|line| line.need == need);
            lines.fold(Answer::Yes, |all, line| all.and(&line.answer))
        };
        let vms = all(Need::Vms);
        let protected_vms = vms.clone().and(&all(Need::ProtectedVms));
        Self { lines, vms, protected_vms }
    }
}
