// SPDX-License-Identifier: Apache-2.0
//! The agent: answers one client after the other.

use crate::protocol::{read_line, Answer, Request, SAMPLES};
use crate::Sample;
use std::io::{self, BufReader, Read, Write};

/// The guest's clock and the host's.
pub trait Clocks {
    /// Reads both at the same counter value.
    ///
    /// # Errors
    ///
    /// The host does not tell its time.
    fn sample(&mut self) -> io::Result<Sample>;

    /// Sets the guest's clock forward, or back.
    ///
    /// # Errors
    ///
    /// It may not be set.
    fn shift(&mut self, ns: i64) -> io::Result<()>;
}

/// Answers requests until the client closes.
///
/// # Errors
///
/// The connection failed.
pub fn serve(stream: impl Read + Write, clocks: &mut impl Clocks) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let line = match read_line(&mut stream) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            line => line?,
        };
        let answer = match Request::parse(&line) {
            Some(request) => answer(request, clocks),
            None => Answer::Error("sample or resync is expected".into()),
        };
        stream.get_mut().write_all(format!("{}\n", answer.line()).as_bytes())?;
    }
}

fn answer(request: Request, clocks: &mut impl Clocks) -> Answer {
    let stepped = match request {
        Request::Sample => Ok(None),
        Request::Resync => resync(clocks).map(Some),
    };
    let samples = stepped.and_then(|stepped_ns| {
        let samples = (0..SAMPLES).map(|_| clocks.sample()).collect::<io::Result<_>>()?;
        Ok(Answer::Samples { stepped_ns, samples })
    });
    samples.unwrap_or_else(|e| Answer::Error(e.to_string()))
}

/// Sets the guest's clock to the host's; returns by how much. Relative, so that it does not matter
/// how long setting takes.
fn resync(clocks: &mut impl Clocks) -> io::Result<i64> {
    let ns = clocks.sample()?.offset_ns().saturating_neg();
    clocks.shift(ns)?;
    Ok(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clocks that tick by a microsecond a look.
    struct Fake {
        host_ns: u64,
        offset_ns: i64,
        locked: bool,
    }

    impl Clocks for Fake {
        fn sample(&mut self) -> io::Result<Sample> {
            self.host_ns += 1000;
            let guest_ns = self.host_ns.checked_add_signed(self.offset_ns).unwrap();
            Ok(Sample { guest_ns, host_ns: self.host_ns })
        }

        fn shift(&mut self, ns: i64) -> io::Result<()> {
            if self.locked {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.offset_ns += ns;
            Ok(())
        }
    }

    /// A connection in memory.
    struct Wire(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Wire {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Wire {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.1.write(data)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ask(clocks: &mut Fake, requests: &str) -> Vec<Answer> {
        let mut wire = Wire(io::Cursor::new(requests.into()), Vec::new());
        serve(&mut wire, clocks).unwrap();
        let text = String::from_utf8(wire.1).unwrap();
        text.lines().map(|line| Answer::parse(line).unwrap()).collect()
    }

    fn offsets(answer: &Answer) -> (Option<i64>, Vec<i64>) {
        let Answer::Samples { stepped_ns, samples } = answer else { panic!("{answer:?}") };
        (*stepped_ns, samples.iter().map(Sample::offset_ns).collect())
    }

    #[test]
    fn a_resync_takes_the_offset_away() {
        let mut clocks = Fake { host_ns: 1_000_000_000, offset_ns: -77, locked: false };
        let answers = ask(&mut clocks, "sample\nresync\nsample\n");
        assert_eq!(offsets(&answers[0]), (None, vec![-77; SAMPLES]));
        assert_eq!(offsets(&answers[1]), (Some(77), vec![0; SAMPLES]));
        assert_eq!(offsets(&answers[2]), (None, vec![0; SAMPLES]));
    }

    #[test]
    fn errors_are_answers() {
        let mut clocks = Fake { host_ns: 1_000_000_000, offset_ns: 5, locked: true };
        let answers = ask(&mut clocks, "frob\nresync\n");
        assert!(answers.iter().all(|answer| matches!(answer, Answer::Error(_))), "{answers:?}");
        assert_eq!(clocks.offset_ns, 5);
    }
}
