// SPDX-License-Identifier: Apache-2.0
//! The screen: headings, what guests say, and verdicts; in colour on a terminal only.

use std::env;
use std::io::{self, IsTerminal, Write};

/// Guests' lines that are longer are cut, by characters.
const WIDTH: usize = 110;

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    color: bool,
}

impl Screen {
    /// Colour if standard output is a terminal and nobody objects (no-color.org).
    pub fn new() -> Self {
        let objection = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { color: io::stdout().is_terminal() && !objection }
    }

    /// A heading.
    pub fn heading(&self, text: &str) {
        self.line(&format!("\n{}", self.paint("1;36", &format!("=== {text} ==="))));
    }

    /// A remark of the demo's own.
    pub fn note(&self, text: &str) {
        self.line(&format!("  {text}"));
    }

    /// A line that a child process or its guest printed.
    pub fn quote(&self, text: &str) {
        self.line(&format!("  {} {}", self.paint("2", "|"), cut(text)));
    }

    /// How a claim turned out.
    pub fn verdict(&self, held: bool, text: &str) {
        let mark = if held { self.paint("1;32", "[ ok ]") } else { self.paint("1;31", "[FAIL]") };
        self.line(&format!("  {mark} {text}"));
    }

    /// A line for programs that read along.
    pub fn marker(&self, text: &str) {
        self.line(text);
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn line(&self, text: &str) {
        // Nobody is left to tell when the screen is gone; the exit status still says all.
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }
}

/// A line as it fits on the screen, without what could control a terminal.
fn cut(text: &str) -> String {
    let mut plain = text.chars().filter(|character| !character.is_control());
    let mut shown: String = plain.by_ref().take(WIDTH).collect();
    let hidden = plain.count();
    if hidden > 0 {
        shown.push_str(&format!("... ({hidden} more characters)"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_and_control_characters_dropped() {
        assert_eq!(cut("guest: \x1b[31mred\r"), "guest: [31mred");
        assert_eq!(cut(&"x".repeat(WIDTH)), "x".repeat(WIDTH));
        assert!(cut(&"x".repeat(WIDTH + 5)).ends_with("x... (5 more characters)"));
    }
}
