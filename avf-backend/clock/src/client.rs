// SPDX-License-Identifier: Apache-2.0
//! The host's side: asks an agent, and believes it only what can be true.

use crate::protocol::{read_line, Answer, Request};
use crate::{Report, Sample, PORT};
use std::io::{self, BufReader, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thiserror::Error;
use vsock::{VsockAddr, VsockStream};

/// How long an agent may take to answer; a busy emulated machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// How far wall clock and monotonic clock may drift apart during a question before the wall clock
/// must have been set.
const STEP: Duration = Duration::from_millis(100);

/// Why nothing can be said.
#[derive(Debug, Error)]
pub enum ClockError {
    /// Nobody answers.
    #[error(
        "nobody answers on vsock port {PORT} of CID {cid}: is the VM running, and gzvm-clock-agent \
         in it? ({source})"
    )]
    NoAgent {
        /// The VM.
        cid: u32,
        /// Cause.
        source: io::Error,
    },
    /// The agent could not do it.
    #[error("the agent in CID {cid}: {why}")]
    Agent {
        /// The VM.
        cid: u32,
        /// Its words.
        why: String,
    },
    /// What the agent said cannot be.
    #[error("CID {cid} says that the host's clock was {claimed} ns, it was {from} to {to} ns")]
    Implausible {
        /// The VM.
        cid: u32,
        /// Nanoseconds since 1970.
        claimed: u64,
        /// The host's clock before the question.
        from: u64,
        /// The host's clock after the answer.
        to: u64,
    },
    /// The host's clock was set while the agent was asked.
    #[error("the host's clock was set meanwhile: ask again")]
    HostStepped,
}

/// Asks the agent in the VM with this CID.
///
/// # Errors
///
/// There is none, or what it says cannot be.
pub fn ask(cid: u32, request: Request) -> Result<Report, ClockError> {
    let no_agent = |source| ClockError::NoAgent { cid, source };
    let stream = VsockStream::connect(&VsockAddr::new(cid, PORT)).map_err(no_agent)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(no_agent)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(no_agent)?;
    let mut stream = BufReader::new(stream);
    let asked = Now::read();
    let line = format!("{}\n", request.word());
    stream.get_mut().write_all(line.as_bytes()).map_err(no_agent)?;
    let answer = read_line(&mut stream).map_err(no_agent)?;
    judge(cid, &answer, asked, Now::read())
}

/// How often a resync is tried.
const ATTEMPTS: u32 = 3;

/// Has the agent in the VM with this CID set the guest's clock. If the host's is set meanwhile, it is
/// asked again.
///
/// # Errors
///
/// As [`ask`].
pub fn resync(cid: u32) -> Result<Report, ClockError> {
    persist(|| ask(cid, Request::Resync))
}

fn persist(mut ask: impl FnMut() -> Result<Report, ClockError>) -> Result<Report, ClockError> {
    let mut attempt = 1;
    loop {
        match ask() {
            Err(ClockError::HostStepped | ClockError::Implausible { .. }) if attempt < ATTEMPTS => {
                attempt += 1;
            }
            other => return other,
        }
    }
}

/// The host's clocks.
#[derive(Clone, Copy, Debug)]
struct Now {
    wall: Duration,
    monotonic: Instant,
}

impl Now {
    fn read() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall, monotonic: Instant::now() }
    }

    fn wall_ns(&self) -> u64 {
        u64::try_from(self.wall.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What the answer to a question means.
fn judge(cid: u32, line: &str, asked: Now, answered: Now) -> Result<Report, ClockError> {
    let agent = |why: &str| ClockError::Agent { cid, why: why.to_owned() };
    let elapsed = answered.monotonic.saturating_duration_since(asked.monotonic);
    let by_wall = answered.wall.checked_sub(asked.wall);
    if by_wall.is_none_or(|wall| wall.abs_diff(elapsed) > STEP) {
        return Err(ClockError::HostStepped);
    }
    let (stepped_ns, samples) = match Answer::parse(line) {
        Some(Answer::Samples { stepped_ns, samples }) => (stepped_ns, samples),
        Some(Answer::Error(why)) => return Err(agent(&why)),
        None => return Err(agent("its answer is not understood")),
    };
    // The guest read the host's clock between question and answer.
    let (from, to) = (asked.wall_ns(), answered.wall_ns());
    if let Some(Sample { host_ns, .. }) =
        samples.iter().find(|sample| !(from..=to).contains(&sample.host_ns))
    {
        return Err(ClockError::Implausible { cid, claimed: *host_ns, from, to });
    }
    Report::new(&samples, stepped_ns, elapsed).ok_or_else(|| agent("its answer is empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question at one second, answered `ms` later by the monotonic clock, `wall_ms` by the wall.
    fn judged(line: &str, ms: u64, wall_ms: u64) -> Result<Report, ClockError> {
        let asked = Now { wall: Duration::from_secs(1), monotonic: Instant::now() };
        let answered = Now {
            wall: Duration::from_millis(1000 + wall_ms),
            monotonic: asked.monotonic + Duration::from_millis(ms),
        };
        judge(7, line, asked, answered)
    }

    #[test]
    fn an_answer_becomes_a_report() {
        let report = judged("ok stepped=5 1000000100 1000000000 1000000201 1000000100", 4, 4);
        let report = report.unwrap();
        assert_eq!((report.offset_ns, report.stepped_ns, report.samples), (101, Some(5), 2));
        assert_eq!(report.bound_ns, 10 + 1 + 5 * 500);
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let earlier = judged("ok 0 999999999", 4, 4);
        assert!(matches!(earlier, Err(ClockError::Implausible { claimed: 999_999_999, .. })));
        let later = judged("ok 0 1004000001", 4, 4);
        assert!(matches!(later, Err(ClockError::Implausible { .. })));
        for line in ["", "ok", "ok 1", "what"] {
            assert!(matches!(judged(line, 4, 4), Err(ClockError::Agent { .. })), "{line:?}");
        }
        let error = judged("error no clock", 4, 4).unwrap_err().to_string();
        assert_eq!(error, "the agent in CID 7: no clock");
    }

    #[test]
    fn a_host_clock_that_was_set_meanwhile_is_noticed() {
        let line = "ok 1000000000 1000000000";
        assert!(matches!(judged(line, 4, 10_004), Err(ClockError::HostStepped)));
        assert!(matches!(judged(line, 10_004, 4), Err(ClockError::HostStepped)));
        assert!(judged(line, 50, 60).is_ok());
    }

    #[test]
    fn a_clock_that_is_set_meanwhile_is_asked_again() {
        let mut asked = 0;
        let report = persist(|| {
            asked += 1;
            let report =
                Report::new(&[Sample { guest_ns: 1, host_ns: 1 }], Some(5), Duration::ZERO);
            report.filter(|_| asked == 2).ok_or(ClockError::HostStepped)
        });
        assert_eq!((report.unwrap().stepped_ns, asked), (Some(5), 2));
    }

    #[test]
    fn asking_ends() {
        let count = |error: fn() -> ClockError| {
            let mut asked = 0;
            let done = persist(|| {
                asked += 1;
                Err(error())
            });
            assert!(done.is_err());
            asked
        };
        assert_eq!(count(|| ClockError::HostStepped), ATTEMPTS);
        // Who does not listen is asked once.
        let nobody = || ClockError::NoAgent { cid: 3, source: io::ErrorKind::TimedOut.into() };
        assert_eq!(count(nobody), 1);
    }
}
