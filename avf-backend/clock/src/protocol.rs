// SPDX-License-Identifier: Apache-2.0
//! What agent and client say to each other: a line each way.
//!
//! ```text
//! sample                      ok guest_ns host_ns guest_ns host_ns ...
//! resync                      ok stepped=ns guest_ns host_ns ...
//!                             error why
//! ```
//!
//! Both ends treat what the other says as untrusted: lines are bounded, numbers are checked.

use crate::Sample;
use std::io::{self, BufRead, Read};

/// Bytes of the longest line.
pub const LINE: u64 = 512;
/// Samples in an answer.
pub const SAMPLES: usize = 5;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Compare the clocks.
    Sample,
    /// Set the guest's clock to the host's, then compare them.
    Resync,
}

impl Request {
    /// Its line, without the end.
    pub fn word(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Resync => "resync",
        }
    }

    /// What the line asks for, if anything.
    pub fn parse(line: &str) -> Option<Self> {
        [Self::Sample, Self::Resync].into_iter().find(|request| request.word() == line.trim_end())
    }
}

/// What an agent answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The clocks.
    Samples {
        /// What the guest's clock was set forward by, in nanoseconds.
        stepped_ns: Option<i64>,
        /// At most [`SAMPLES`].
        samples: Vec<Sample>,
    },
    /// Why there are none.
    Error(String),
}

impl Answer {
    /// Its line, without the end.
    pub fn line(&self) -> String {
        match self {
            Self::Error(why) => format!("error {}", why.replace(['\n', '\r'], " ")),
            Self::Samples { stepped_ns, samples } => {
                let mut line = "ok".to_owned();
                if let Some(stepped) = stepped_ns {
                    line += &format!(" stepped={stepped}");
                }
                for Sample { guest_ns, host_ns } in samples {
                    line += &format!(" {guest_ns} {host_ns}");
                }
                line
            }
        }
    }

    /// What a line says, if it is an answer.
    pub fn parse(line: &str) -> Option<Self> {
        let (word, rest) = line.trim_end().split_once(' ')?;
        if word == "error" {
            return Some(Self::Error(rest.to_owned()));
        }
        let mut words = rest.split(' ').peekable();
        let stepped = words.next_if(|word| word.starts_with("stepped="));
        let stepped_ns = match stepped.and_then(|word| word.strip_prefix("stepped=")) {
            Some(number) => Some(number.parse().ok()?),
            None => None,
        };
        let numbers = words.map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let (pairs, []) = numbers.as_chunks() else { return None };
        let samples = pairs.iter().map(|&[guest_ns, host_ns]| Sample { guest_ns, host_ns });
        let fits = word == "ok" && (1..=SAMPLES).contains(&pairs.len());
        fits.then(|| Self::Samples { stepped_ns, samples: samples.collect() })
    }
}

/// Reads a line; one that is too long, or has no end, is an error.
pub fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.take(LINE).read_line(&mut line)?;
    if !line.ends_with('\n') {
        let why = if line.is_empty() { "closed" } else { "a line that is cut off, or too long" };
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_are_words() {
        assert_eq!(Request::parse("resync\n"), Some(Request::Resync));
        assert_eq!(Request::parse("sample"), Some(Request::Sample));
        assert_eq!(Request::parse("resyn"), None);
    }

    #[test]
    fn lines_have_an_end_and_a_limit() {
        assert_eq!(read_line(&mut &b"a\nb\n"[..]).unwrap(), "a\n");
        assert!(read_line(&mut &b"cut"[..]).is_err());
        assert!(read_line(&mut &b""[..]).is_err());
        let long = [vec![b'x'; 512], vec![b'\n']].concat();
        assert!(read_line(&mut &long[..]).is_err());
    }

    #[test]
    fn what_is_no_answer_is_none() {
        for line in ["", "ok", "ok 1", "ok x y", "ok stepped= 1 2", "no 1 2", "ok -1 2"] {
            assert_eq!(Answer::parse(line), None, "{line:?}");
        }
        assert_eq!(Answer::parse(&format!("ok{}", " 1 2".repeat(6))), None, "too many");
    }

    proptest! {
        #[test]
        fn answers_survive_the_way(
            stepped_ns: Option<i64>,
            pairs in proptest::collection::vec(any::<(u64, u64)>(), 1..=5),
        ) {
            let samples =
                pairs.into_iter().map(|(guest_ns, host_ns)| Sample { guest_ns, host_ns }).collect();
            let answer = Answer::Samples { stepped_ns, samples };
            let line = answer.line();
            prop_assert!(line.len() < 512);
            prop_assert_eq!(Answer::parse(&line), Some(answer));
        }

        #[test]
        fn garbage_is_survived(line in "\\PC{0,100}") {
            let _ = Answer::parse(&line);
        }
    }
}
