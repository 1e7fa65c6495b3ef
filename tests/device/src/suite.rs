// SPDX-License-Identifier: Apache-2.0
//! How a test program runs: libtest's options and output, tests in one thread.

use libtest_mimic::{Arguments, Failed, Trial};

use crate::sys;
use gzvm_abi::{cap, ext};

/// What a test needs of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// `/dev/gzvm`.
    Device,
    /// A hypervisor with protected VMs.
    Protected,
    /// A hypervisor with these extensions.
    Extensions(u64),
    /// A hypervisor without extensions.
    NoExtensions,
}

/// A test: name, needs, code that panics if something is wrong.
pub type Test = (&'static str, Needs, fn());

/// The tests of a program, named after their functions: `tests![Device: a, b; Protected: c]`.
#[macro_export]
macro_rules! tests {
    ($($needs:expr => [$($name:ident),* $(,)?]),* $(,)?) => {
        $crate::suite::run(&[$($((stringify!($name), $needs, $name as fn())),*),*])
    };
}

/// Can this machine run the test?
fn available(needs: Needs) -> bool {
    let Ok(device) = sys::open_device() else { return false };
    let features = sys::check_extension(&device, ext::DISCOVER).unwrap_or(0);
    match needs {
        Needs::Device => true,
        Needs::Protected => sys::check_extension(&device, cap::PROTECTED_VM) == Ok(1),
        Needs::Extensions(wanted) => features & wanted == wanted,
        Needs::NoExtensions => features == 0,
    }
}

/// Runs the tests that the command line asks for; does not return.
pub fn run(tests: &[Test]) -> ! {
    if let Err(error) = sys::open_device() {
        eprintln!("all tests are ignored: {}: {error}", gzvm_abi::uapi::DEVICE_PATH);
    }
    let mut arguments = Arguments::from_args();
    // Tests count what the process has (descriptors, pinned memory) and fork.
    arguments.test_threads = Some(1);
    // Programs read the output, on the console of a test machine too.
    arguments.color.get_or_insert(libtest_mimic::ColorSetting::Never);
    let trial = |(name, needs, test): &Test| {
        let (ignored, test) = (!available(*needs), *test);
        Trial::test(*name, move || guarded(test)).with_ignored_flag(ignored)
    };
    libtest_mimic::run(&arguments, tests.iter().map(trial).collect()).exit()
}

/// Seconds that one test may take on an emulated machine.
const LIMIT: u32 = 120;

/// How often [`LIMIT`] a test may take: `$GZVM_TIMEOUT_FACTOR`, 1 if it is not set.
fn factor() -> u32 {
    let factor = std::env::var("GZVM_TIMEOUT_FACTOR").ok().and_then(|text| text.parse().ok());
    factor.unwrap_or(1).clamp(1, 1000)
}

/// A test that hangs ends the program by SIGALRM instead of keeping the machine for ever.
fn guarded(test: fn()) -> Result<(), Failed> {
    // SAFETY: sets a timer of this process.
    unsafe { libc::alarm(LIMIT * factor()) };
    let result = std::panic::catch_unwind(test);
    // SAFETY: as above.
    unsafe { libc::alarm(0) };
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied());
        Failed::from(text.unwrap_or("panic"))
    })
}
