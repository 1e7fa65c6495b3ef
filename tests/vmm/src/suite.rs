// SPDX-License-Identifier: Apache-2.0
//! How a test program runs: libtest's options and output, tests one after the other, in order.

use anyhow::Result;
use libtest_mimic::{Arguments, ColorSetting, Failed, Trial};
use std::process;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// A test: name, and code that says what is wrong.
pub type Test = (&'static str, fn() -> Result<()>);

/// The tests of a program, named after their functions.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $crate::suite::run(&[$((stringify!($name), $name as fn() -> anyhow::Result<()>)),*])
    };
}

/// Runs the tests that the command line asks for; does not return.
pub fn run(tests: &[Test]) -> ! {
    let mut arguments = Arguments::from_args();
    // Tests of one program share a VM.
    arguments.test_threads = Some(1);
    // Programs read the output, on the console of a test machine too.
    arguments.color.get_or_insert(ColorSetting::Never);
    let trial = |&(name, test): &Test| {
        // Brackets would look like a message of the host's kernel where a guest's is quoted.
        Trial::test(name, move || {
            guarded(name, test).map_err(|e| Failed::from(format!("{e:#}").replace('[', "(")))
        })
    };
    libtest_mimic::run(&arguments, tests.iter().map(trial).collect()).exit()
}

/// How long a test may take, which is more than anything that it waits for.
const LIMIT: Duration = Duration::from_secs(150);

/// A test that hangs ends the program instead of keeping the machine for ever. Its VMMs end because
/// their failure port has no reader any more.
fn guarded(name: &'static str, test: fn() -> Result<()>) -> Result<()> {
    let (done, running) = channel::<()>();
    thread::spawn(move || {
        if running.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            process::exit(101);
        }
    });
    let result = test();
    drop(done);
    result
}
