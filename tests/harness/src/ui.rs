// SPDX-License-Identifier: Apache-2.0
//! What the user sees while a step runs: one live line on a terminal, few plain lines in a log.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often a log (not a terminal) gets a line about a step that is still running.
const LOG_INTERVAL: Duration = Duration::from_secs(20);
/// How often the live line is repainted.
const LIVE_INTERVAL: Duration = Duration::from_millis(100);
/// Columns of the live line: it must not wrap, or it could not be repainted.
const WIDTH: usize = 79;

/// One step of work, from its first line to its last.
pub struct Step {
    name: String,
    started: Instant,
    painted: Option<Instant>,
    live: bool,
}

impl Step {
    /// Starts a step; nothing is shown until it takes long enough to be of interest.
    pub fn start(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            started: Instant::now(),
            painted: None,
            live: io::stderr().is_terminal(),
        }
    }

    /// How long the step has been running.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Says what the step is doing; too frequent calls are dropped.
    pub fn update(&mut self, text: &str) {
        let interval = if self.live { LIVE_INTERVAL } else { LOG_INTERVAL };
        let last = self.painted.unwrap_or(self.started);
        if last.elapsed() >= interval {
            self.paint(text);
        }
    }

    /// Says what the step is doing, now.
    pub fn announce(&mut self, text: &str) {
        self.paint(text);
    }

    fn paint(&mut self, text: &str) {
        self.painted = Some(Instant::now());
        let line: String = format!("{:<11} {text}", self.name).chars().take(WIDTH).collect();
        if self.live {
            eprint!("\r\x1b[K{line}");
            // A lost progress line is no reason to stop.
            let _ = io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    fn clear(&self) {
        if self.live && self.painted.is_some() {
            eprint!("\r\x1b[K");
        }
    }

    /// Ends the step with its last line; a step without news says nothing.
    pub fn done(self, text: &str) {
        self.clear();
        if !text.is_empty() {
            eprintln!("{:<11} {text} ({})", self.name, human(self.elapsed()));
        }
    }
}

/// A duration for people: `0.4 s`, `38 s`, `4 min 05 s`.
pub fn human(time: Duration) -> String {
    let secs = time.as_secs();
    match secs {
        0..=9 => format!("{:.1} s", time.as_secs_f64()),
        10..=99 => format!("{secs} s"),
        _ => format!("{} min {:02} s", secs / 60, secs % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(human(Duration::from_millis(420)), "0.4 s");
        assert_eq!(human(Duration::from_secs(38)), "38 s");
        assert_eq!(human(Duration::from_secs(605)), "10 min 05 s");
    }
}
