// SPDX-License-Identifier: Apache-2.0
//! How a test program runs: libtest's options and output, tests in one thread.

use libtest_mimic::{Arguments, Failed, Trial};

use std::time::Duration;

use crate::raw::{Audit, Raw};
use crate::sys;
use gzvm_abi::{cap, ext};

/// What a test needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// `/dev/gzvm`.
    Device,
    /// A hypervisor with protected VMs.
    Protected,
    /// A hypervisor with these extensions.
    Extensions(u64),
    /// A hypervisor without extensions.
    NoExtensions,
    /// A driver that takes pages from a guest whose owner replaces them.
    SyncMmu,
    /// This word on the kernel's command line: a hypervisor that was told to fail.
    Word(&'static str),
    /// The test module.
    Raw,
    /// The test module, and a hypervisor with protected VMs.
    RawProtected,
    /// The test module, and a hypervisor built for tests.
    RawTest,
    /// SELinux without a policy so far, and one to load.
    Policy,
}

/// A compiled policy for the tests of it.
pub const POLICY: &str = "/usr/share/gzvm/sepolicy";

/// A test: name, needs, code that panics if something is wrong.
pub type Test = (&'static str, Needs, fn());

/// The tests of a program, named after their functions: `tests![Needs::Device => [a, b]]`; with
/// `after f;` in front, `f` is called after the last.
#[macro_export]
macro_rules! tests {
    (after $last:expr; $($needs:expr => [$($name:ident),* $(,)?]),* $(,)?) => {
        $crate::suite::run_and(
            &[$($((stringify!($name), $needs, $name as fn())),*),*],
            $last,
        )
    };
    ($($needs:expr => [$($name:ident),* $(,)?]),* $(,)?) => {
        $crate::suite::run(&[$($((stringify!($name), $needs, $name as fn())),*),*])
    };
}

/// What the machine lacks for the test.
fn missing(needs: Needs) -> Option<&'static str> {
    let Ok(device) = sys::open_device() else { return Some("no /dev/gzvm") };
    let features = sys::check_extension(&device, ext::DISCOVER).unwrap_or(0);
    let protected = sys::check_extension(&device, cap::PROTECTED_VM) == Ok(1);
    let raw = Raw::open();
    let unless = |there: bool, what| (!there).then_some(what);
    let module =
        unless(raw.is_some(), "the test module gzvm_raw is not loaded, or we are not root");
    let protection = unless(protected, "the hypervisor has no protected VMs");
    match needs {
        Needs::Device => None,
        Needs::Protected => protection,
        Needs::Extensions(wanted) => {
            unless(features & wanted == wanted, "the hypervisor lacks an extension")
        }
        Needs::NoExtensions => unless(features == 0, "the hypervisor has extensions"),
        Needs::SyncMmu => {
            unless(sys::follows_owner(&device), "guests keep what their owner replaces")
        }
        Needs::Word(wanted) => {
            let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
            let there = line.split_whitespace().any(|word| word == wanted);
            unless(there, "the hypervisor was not told to fail")
        }
        Needs::Raw => module,
        Needs::RawProtected => module.or(protection),
        Needs::Policy => {
            let there = |path: &str| std::path::Path::new(path).exists();
            let ours =
                there(POLICY) && there("/sys/fs/selinux") && !there("/sys/fs/selinux/enforce");
            unless(ours, "no policy to load, or the kernel has one")
        }
        Needs::RawTest => module.or_else(|| {
            let audits = raw.is_some_and(|raw| raw.audit().is_some());
            unless(audits, "the hypervisor is not one that was built for tests")
        }),
    }
}

/// Runs the tests that the command line asks for; does not return.
pub fn run(tests: &[Test]) -> ! {
    run_and(tests, || ())
}

/// As [`run`]; does something after the last test.
pub fn run_and(tests: &[Test], last: impl FnOnce()) -> ! {
    if let Err(error) = sys::open_device() {
        eprintln!("all tests are ignored: {}: {error}", gzvm_abi::uapi::DEVICE_PATH);
    }
    let mut arguments = Arguments::from_args();
    // Tests count what the process has (descriptors, pinned memory) and fork.
    arguments.test_threads = Some(1);
    // Programs read the output, on the console of a test machine too.
    arguments.color.get_or_insert(libtest_mimic::ColorSetting::Never);
    let trial = |(name, needs, test): &Test| {
        let (lacks, test) = (missing(*needs), *test);
        if let Some(why) = lacks {
            println!("{name} is ignored: {why}");
        }
        Trial::test(*name, move || guarded(test)).with_ignored_flag(lacks.is_some())
    };
    let conclusion = libtest_mimic::run(&arguments, tests.iter().map(trial).collect());
    last();
    conclusion.exit()
}

/// Seconds that one test may take on an emulated machine.
const LIMIT: u32 = 120;

/// How often [`LIMIT`] a test may take: `$GZVM_TIMEOUT_FACTOR`, 1 if it is not set.
fn factor() -> u32 {
    let factor = std::env::var("GZVM_TIMEOUT_FACTOR").ok().and_then(|text| text.parse().ok());
    factor.unwrap_or(1).clamp(1, 1000)
}

/// A test that hangs ends the program by SIGALRM instead of keeping the machine for ever. Where the
/// hypervisor can be audited, it has to be as it was before the test.
fn guarded(test: fn()) -> Result<(), Failed> {
    let raw = Raw::open();
    let audit = || raw.as_ref().and_then(Raw::audit);
    let before = audit();
    // SAFETY: sets a timer of this process.
    unsafe { libc::alarm(LIMIT * factor()) };
    let result = std::panic::catch_unwind(test);
    let audited = before.map_or(Ok(()), |before| settled(before, audit));
    // SAFETY: as above.
    unsafe { libc::alarm(0) };
    let result = result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("panic").to_owned()
    });
    match (result, audited) {
        (Ok(()), audited) => audited.map_err(Failed::from),
        (Err(why), Ok(())) => Err(Failed::from(why)),
        (Err(why), Err(audit)) => Err(Failed::from(format!("{why}\nand {audit}"))),
    }
}

/// What a test leaves behind may take a moment to end: files are closed by the kernel's workers.
const MOMENTS: u32 = 60;

/// Waits until the hypervisor is as before, all of whose tables must agree at any time.
fn settled(before: Audit, audit: impl Fn() -> Option<Audit>) -> Result<(), String> {
    let mut now = before;
    for _ in 0..MOMENTS {
        now = audit().ok_or("the hypervisor's audit is not there any more")?;
        if now.wrong != 0 {
            return Err(format!("the hypervisor's tables disagree: {now:?}"));
        }
        if now == before {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("the hypervisor has {now:?} after the test, {before:?} before"))
}
