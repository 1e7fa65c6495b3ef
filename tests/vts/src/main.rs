// SPDX-License-Identifier: Apache-2.0
//! VTS: VMs through `libavf`, Android's C interface, so that it says the same of every VMM and manager that a
//! device has. The guest is AVF's own signed rialto, which pvmfw accepts.
//!
//! Each test asks the device first, and is ignored, with the reason, where the device does not claim to have
//! what it needs.

mod avf;
mod device;

use std::fs::File;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use vsock::{VsockListener, VsockStream, VMADDR_CID_ANY};

use avf::{Config, Service, StopReason};

/// The guest, beside this program.
const KERNEL: &str = "/data/nativetest64/vendor/rialto.bin";
/// MiB of a VM.
const MEMORY: i32 = 16;
/// How long a guest may take to call, and a VM to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which VMs a test is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unprotected,
    Protected,
}

impl Kind {
    /// The port on the host that the guest calls when it runs.
    fn port(self) -> u32 {
        match self {
            Self::Unprotected => 5679,
            Self::Protected => 5680,
        }
    }

    fn config(self, memory: i32) -> Result<Config> {
        let kernel = File::open(KERNEL).with_context(|| KERNEL.to_owned())?;
        Config::new(c"vts_gzvm_test", kernel, memory, self == Self::Protected)
    }
}

/// A VM runs: its guest calls the host by vsock, which needs its devices, interrupts and, for a protected
/// one, memory that it shares. It ends when it is told to.
fn runs(kind: Kind) -> Result<()> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, kind.port())?;
    listener.set_nonblocking(true)?;
    let service = Service::new()?;
    let vm = service.create(kind.config(MEMORY)?)?;
    vm.start()?;
    let stream = accept(&listener)?;
    drop(stream);
    vm.stop()?;
    let reason = vm.wait(PATIENCE)?;
    ensure!(reason == StopReason::KILLED, "the VM was stopped, but its reason is {reason:?}");
    Ok(())
}

fn accept(listener: &VsockListener) -> Result<VsockStream> {
    let step = Duration::from_millis(50);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                std::thread::sleep(step)
            }
            Err(error) => return Err(error).context("vsock"),
        }
    }
    anyhow::bail!("the guest did not call within {PATIENCE:?}")
}

/// Ten VMs one after the other: what one leaves behind would stop a later one.
fn runs_again(kind: Kind) -> Result<()> {
    (0..10).try_for_each(|round| runs(kind).with_context(|| format!("round {round}")))
}

/// More memory than any device has is refused, and the next VM starts.
fn survives_a_refusal(kind: Kind) -> Result<()> {
    let service = Service::new()?;
    let refused = service.create(kind.config(i32::MAX / 2)?).and_then(|vm| {
        vm.start()?;
        vm.wait(PATIENCE).map(drop)
    });
    // How it is refused is the manager's business: at creation, at the start, or by its end.
    drop(refused);
    runs(kind)
}

/// A test, and what it is about.
type Test = (&'static str, Kind, fn(Kind) -> Result<()>);

const TESTS: [Test; 6] = [
    ("unprotected_vm_runs", Kind::Unprotected, runs),
    ("unprotected_vms_run_one_after_the_other", Kind::Unprotected, runs_again),
    ("unprotected_vm_runs_after_a_refusal", Kind::Unprotected, survives_a_refusal),
    ("protected_vm_runs", Kind::Protected, runs),
    ("protected_vms_run_one_after_the_other", Kind::Protected, runs_again),
    ("protected_vm_runs_after_a_refusal", Kind::Protected, survives_a_refusal),
];

fn main() {
    let mut arguments = Arguments::from_args();
    // One port of the host for each kind.
    arguments.test_threads = Some(1);
    let trial = |&(name, kind, test): &Test| {
        let lacks = device::lacks(kind == Kind::Protected);
        if let Some(why) = &lacks {
            println!("{name} is ignored: {why}");
        }
        let test = move || test(kind).map_err(|error| Failed::from(format!("{error:#}")));
        Trial::test(name, test).with_ignored_flag(lacks.is_some())
    };
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit()
}
