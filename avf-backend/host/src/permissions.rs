// SPDX-License-Identifier: Apache-2.0
//! Who may have VMs. Android asks its package manager; elsewhere a table says it:
//! `/etc/gzvm/permissions`, or what the environment variable `GZVM_PERMISSIONS` names. Each line
//! is a user id, or `*` for everybody, and what it may do:
//!
//! ```text
//! # user    permissions
//! 1000      manage custom
//! *         manage
//! ```
//!
//! Root may do everything. Without the file so may everybody: who may start VMs is then decided by
//! the access rights of `/dev/gzvm`, which each VM's own process needs.

use anyhow::{ensure, Context, Result};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::{env, fs};

const FILE: &str = "/etc/gzvm/permissions";
const FILE_VARIABLE: &str = "GZVM_PERMISSIONS";
const ROOT: u32 = 0;

/// Something that not everybody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Have VMs at all.
    Manage,
    /// Say file by file what a VM consists of.
    UseCustom,
}

impl Permission {
    /// Android's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manage => "android.permission.MANAGE_VIRTUAL_MACHINE",
            Self::UseCustom => "android.permission.USE_CUSTOM_VIRTUAL_MACHINE",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Manage => "manage",
            Self::UseCustom => "custom",
        }
    }
}

/// The table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions(Option<Vec<Line>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    /// `None` is everybody.
    uid: Option<u32>,
    words: Vec<String>,
}

impl Permissions {
    /// Reads the table.
    ///
    /// # Errors
    ///
    /// It exists and cannot be read or understood: then nobody should be let in.
    pub fn load() -> Result<Self> {
        let given = env::var_os(FILE_VARIABLE).map(PathBuf::from);
        let path = given.clone().unwrap_or_else(|| FILE.into());
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).with_context(|| path.display().to_string()),
            Err(e) if given.is_none() && e.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// What a table with this text says.
    ///
    /// # Errors
    ///
    /// It cannot be understood.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(who) = words.next() else { continue };
            let uid = match who {
                "*" => None,
                uid => Some(uid.parse().with_context(|| {
                    format!("line {number}: \"{uid}\" is neither a user id nor *")
                })?),
            };
            let words: Vec<_> = words.map(str::to_owned).collect();
            for word in &words {
                let known = [Permission::Manage, Permission::UseCustom].map(Permission::word);
                ensure!(
                    known.contains(&word.as_str()),
                    "line {number}: \"{word}\" is none of {known:?}"
                );
            }
            lines.push(Line { uid, words });
        }
        Ok(Self(Some(lines)))
    }

    /// Whether a user may do it.
    pub fn allow(&self, uid: u32, permission: Permission) -> bool {
        let Some(lines) = &self.0 else { return true };
        let says = |line: &Line| {
            line.uid.is_none_or(|id| id == uid)
                && line.words.iter().any(|word| word == permission.word())
        };
        uid == ROOT || lines.iter().any(says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_who_may() {
        let table = Permissions::parse("# users\n1000 manage custom # me\n\n * manage\n").unwrap();
        assert!(table.allow(1000, Permission::UseCustom));
        assert!(table.allow(2000, Permission::Manage));
        assert!(!table.allow(2000, Permission::UseCustom));
        assert!(table.allow(ROOT, Permission::UseCustom));
        assert!(!Permissions::parse("").unwrap().allow(1000, Permission::Manage));
        assert!(Permissions::default().allow(1000, Permission::UseCustom));
    }

    #[test]
    fn a_table_that_is_not_understood_is_an_error() {
        for (text, word) in [("me manage", "\"me\""), ("1\n2 mange", "line 2")] {
            let error = format!("{:#}", Permissions::parse(text).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
