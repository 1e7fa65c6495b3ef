// SPDX-License-Identifier: Apache-2.0
//! What the payload is asked to do: the word `mode=` of its command line.

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Say what it sees, check it, power off.
    #[default]
    Hello,
    /// Keep a secret until a line comes in on the console.
    Secret,
    /// Panic, which resets the VM.
    Panic,
    /// Compute for ever without a single exit of its own.
    Spin,
    /// Sleep for ever.
    Idle,
    /// Start the stall detector and compute for ever.
    Stall,
    /// Compute for ever and reload the stall detector meanwhile.
    Watched,
}

impl Mode {
    /// Finds the mode in a command line; the last one counts, none means [`Mode::Hello`].
    ///
    /// # Errors
    ///
    /// The word after `mode=` if it names none.
    pub fn from_command_line(line: &str) -> Result<Self, &str> {
        let words = line.split_ascii_whitespace();
        match words.filter_map(|word| word.strip_prefix("mode=")).next_back() {
            None | Some("hello") => Ok(Self::Hello),
            Some("secret") => Ok(Self::Secret),
            Some("panic") => Ok(Self::Panic),
            Some("spin") => Ok(Self::Spin),
            Some("idle") => Ok(Self::Idle),
            Some("stall") => Ok(Self::Stall),
            Some("watched") => Ok(Self::Watched),
            Some(other) => Err(other),
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Secret => "secret",
            Self::Panic => "panic",
            Self::Spin => "spin",
            Self::Idle => "idle",
            Self::Stall => "stall",
            Self::Watched => "watched",
        }
    }
}
