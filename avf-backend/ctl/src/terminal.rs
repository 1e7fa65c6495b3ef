// SPDX-License-Identifier: Apache-2.0
//! Colour, where a person looks: on a terminal, unless `NO_COLOR` is set (no-color.org) or the
//! terminal is dumb.

use std::env;
use std::io::IsTerminal;

/// Escape sequences: green, red, yellow, and back (ECMA-48, 8.3.117).
const GOOD: &str = "\x1b[32m";
const BAD: &str = "\x1b[31m";
const NEITHER: &str = "\x1b[33m";
const BACK: &str = "\x1b[0m";

/// Whether `stream` is to have colour.
pub fn has_colour(stream: &impl IsTerminal) -> bool {
    let variable = |name| env::var_os(name).unwrap_or_default();
    wants_colour(stream.is_terminal(), &variable("NO_COLOR"), &variable("TERM"))
}

fn wants_colour(terminal: bool, no_color: &std::ffi::OsStr, term: &std::ffi::OsStr) -> bool {
    terminal && no_color.is_empty() && term != "dumb"
}

/// The word in the colour of what is good, bad, or neither.
pub fn paint(colour: bool, word: &str, good: Option<bool>) -> String {
    let start = match good {
        _ if !colour => return word.to_owned(),
        Some(true) => GOOD,
        Some(false) => BAD,
        None => NEITHER,
    };
    format!("{start}{word}{BACK}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_whose_users_want_it() {
        let wants = |terminal, no_color: &str, term: &str| {
            wants_colour(terminal, no_color.as_ref(), term.as_ref())
        };
        assert!(wants(true, "", "xterm"));
        assert!(!wants(false, "", "xterm"));
        assert!(!wants(true, "1", "xterm"));
        assert!(!wants(true, "", "dumb"));
    }

    #[test]
    fn without_colour_a_word_stays_as_it_is() {
        assert_eq!(paint(false, "no", Some(false)), "no");
        assert_eq!(paint(true, "no", Some(false)), "\x1b[31mno\x1b[0m");
        assert_eq!(paint(true, "yes", Some(true)), "\x1b[32myes\x1b[0m");
    }
}
