// SPDX-License-Identifier: Apache-2.0
//! The hypervisor's words on the host's kernel command line: `refhyp.NAME` or `refhyp.NAME=VALUE`.

use crate::plan::{self, Entry};

/// What the command line asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `refhyp.strict=1`: behave as phones were seen to; no extensions.
    pub strict: bool,
    /// `refhyp.selftest`: run the built-in host program instead of Linux (test builds only).
    pub selftest: bool,
    /// `refhyp.measure`: the built-in host program tells how long interrupts were off (test builds
    /// only, and under an emulator that counts instructions as time).
    pub measure: bool,
    /// `refhyp.linux-guest`: the built-in host program starts a Linux guest (test builds only).
    pub linux_guest: bool,
    /// `refhyp.protected`: that guest is a protected VM.
    pub protected: bool,
    /// `refhyp.insecure-entropy=1`: without any source of entropy, seed the guests' generator with
    /// a constant instead of refusing them.
    pub insecure_entropy: bool,
    /// `refhyp.fault=INDEX:SKIP:COUNT:STATUS[:MODE]`, once for each host function that is to fail
    /// ([`plan::parse`]; test builds only).
    pub faults: [Entry; plan::FUNCTIONS],
}

impl Options {
    /// Reads the words in `cmdline`; `unknown` is told those that mean nothing.
    pub fn parse(cmdline: &str, mut unknown: impl FnMut(&str)) -> Self {
        let mut options = Self::default();
        for word in cmdline.split_ascii_whitespace() {
            let Some(word) = word.strip_prefix("refhyp.") else { continue };
            let (name, value) = word.split_once('=').unwrap_or((word, "1"));
            if name == "fault" {
                options.fault(value).unwrap_or_else(|| unknown(word));
                continue;
            }
            let on = match value {
                "1" => true,
                "0" => false,
                _ => {
                    unknown(word);
                    continue;
                }
            };
            match name {
                "strict" => options.strict = on,
                "selftest" => options.selftest = on,
                "measure" => options.measure = on,
                "linux-guest" => options.linux_guest = on,
                "protected" => options.protected = on,
                "insecure-entropy" => options.insecure_entropy = on,
                _ => unknown(word),
            }
        }
        options
    }

    /// Adds to the fault plan; nothing if that is not possible.
    fn fault(&mut self, value: &str) -> Option<()> {
        let (index, entry) = plan::parse(value).filter(|_| cfg!(feature = "test-hooks"))?;
        *self.faults.get_mut(index)? = entry;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_and_others_left_alone() {
        let mut unknown = Vec::new();
        let options = Options::parse(
            "console=ttyAMA0 refhyp.strict=1 refhyp.selftest refhyp.nonsense refhyp.protected=2",
            |word| unknown.push(word.to_string()),
        );
        assert_eq!(options, Options { strict: true, selftest: true, ..Options::default() });
        assert_eq!(unknown, ["nonsense", "protected=2"]);
    }

    #[test]
    #[cfg(feature = "test-hooks")]
    fn each_function_has_its_own_fault() {
        let mut unknown = Vec::new();
        let options = Options::parse(
            "refhyp.fault=0:1:2:-5 refhyp.fault=10:0:1:0:lie refhyp.fault=20:0:1:0",
            |word| unknown.push(word.to_string()),
        );
        let entry = |text| plan::parse(text).expect("an entry").1;
        assert_eq!(options.faults[0], entry("0:1:2:-5"));
        assert_eq!(options.faults[10], entry("10:0:1:0:lie"));
        assert_eq!(unknown, ["fault=20:0:1:0"]);
    }
}
