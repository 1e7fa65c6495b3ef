// SPDX-License-Identifier: Apache-2.0
//! How a test program runs: libtest's options and output, tests one after the other, in order.

use anyhow::Result;
use libtest_mimic::{Arguments, ColorSetting, Failed, Trial};
use std::env;
use std::mem;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// A test: name, and code that says what is wrong.
pub type Test = (&'static str, fn() -> Result<()>);

/// The tests of a program, named after their functions; with `after f;` in front, `f` is called after
/// the last.
#[macro_export]
macro_rules! tests {
    (after $last:expr; $($name:ident),* $(,)?) => {
        $crate::suite::run_and(
            &[$((stringify!($name), $name as fn() -> anyhow::Result<()>)),*],
            $last,
        )
    };
    ($($name:ident),* $(,)?) => {
        $crate::suite::run(&[$((stringify!($name), $name as fn() -> anyhow::Result<()>)),*])
    };
}

/// Runs the tests that the command line asks for; does not return.
pub fn run(tests: &[Test]) -> ! {
    run_and(tests, || ())
}

/// As [`run`]; does something after the last test.
pub fn run_and(tests: &[Test], last: impl FnOnce()) -> ! {
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
    let conclusion = libtest_mimic::run(&arguments, tests.iter().map(trial).collect());
    last();
    conclusion.exit()
}

/// How long a test may take, which is more than anything that it waits for.
const LIMIT: Duration = Duration::from_secs(150);
/// What a test with many steps has done so far.
static STEPS: AtomicU32 = AtomicU32::new(0);

/// Says that a test with many steps has come to the next one, for which there is time again.
pub fn goes_on() {
    STEPS.fetch_add(1, Ordering::Relaxed);
}

/// Whether storms are to have their full length, not that of a sample: `$GZVM_FULL` is set.
pub fn is_full() -> bool {
    env::var_os("GZVM_FULL").is_some()
}

/// How much slower than usual this machine is: `$GZVM_TIMEOUT_FACTOR`, 1 if it is not set.
pub fn factor() -> u32 {
    let factor = env::var("GZVM_TIMEOUT_FACTOR").ok().and_then(|text| text.parse().ok());
    factor.unwrap_or(1).clamp(1, 1000)
}

/// A test that hangs ends the program instead of keeping the machine for ever. Its VMMs end because
/// their failure port has no reader any more.
fn guarded(name: &'static str, test: fn() -> Result<()>) -> Result<()> {
    let (done, running) = channel::<()>();
    thread::spawn(move || {
        let mut steps = STEPS.load(Ordering::Relaxed);
        while running.recv_timeout(LIMIT * factor()) == Err(RecvTimeoutError::Timeout) {
            let before = mem::replace(&mut steps, STEPS.load(Ordering::Relaxed));
            if steps == before {
                eprintln!("{name} hangs");
                process::exit(101);
            }
        }
    });
    let result = test();
    drop(done);
    result
}
