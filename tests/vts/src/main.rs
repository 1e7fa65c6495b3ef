// SPDX-License-Identifier: Apache-2.0
//! VTS: VMs through `libavf`, Android's C interface, so that it says the same of every VMM and manager that a
//! device has. The guest is AVF's own signed rialto, which pvmfw accepts.
//!
//! Each test asks the device first, and is ignored, with the reason, where the device does not claim to have
//! what it needs. On systems without Android the same program has a stand-in for libavf over our own manager,
//! and a guest of ours that talks as rialto does.

mod avf;
mod device;
mod rialto;

use std::fs::File;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use libtest_mimic::{Arguments, ColorSetting, Failed, Trial};

use avf::{Config, Service, StopReason, Vm};
use rialto::{Guest, Port};

/// MiB of a VM.
const MEMORY: i32 = 16;
/// How long anything may take: the guest to call or to answer, a VM to end. Long, as devices can be emulated.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which VMs a test is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unprotected,
    Protected,
}

impl Kind {
    fn is_protected(self) -> bool {
        self == Self::Protected
    }

    fn config(self, memory: i32) -> Result<Config> {
        let kernel = File::open(device::KERNEL).with_context(|| device::KERNEL.to_owned())?;
        Config::new(c"vts_gzvm_test", kernel, memory, self.is_protected())
    }
}

/// Has a VM run until its guest has called, and hands both over.
fn with_guest(kind: Kind, test: impl FnOnce(&Vm<'_>, Guest) -> Result<()>) -> Result<()> {
    let port = Port::open(kind.is_protected())?;
    let service = Service::new()?;
    let vm = service.create(kind.config(MEMORY)?)?;
    vm.start()?;
    test(&vm, port.accept(PATIENCE)?)
}

fn ends(vm: &Vm<'_>, expected: StopReason) -> Result<()> {
    let reason = vm.wait(PATIENCE)?;
    ensure!(reason == expected, "the VM's end has the reason {reason:?}, not {expected:?}");
    Ok(())
}

/// A VM runs: its guest calls the host by vsock, which needs its devices, interrupts and, for a protected
/// one, memory that it shares; computes something, and turns itself off.
fn serves(kind: Kind) -> Result<()> {
    with_guest(kind, |vm, mut guest| {
        guest.reverses(&[1, 2, 3, 4, 5])?;
        guest.reverses(&[])?;
        guest.shut_down()?;
        ends(vm, StopReason::SHUTDOWN)
    })
}

/// It ends when it is told to.
fn is_stopped(kind: Kind) -> Result<()> {
    with_guest(kind, |vm, guest| {
        vm.stop()?;
        ends(vm, StopReason::KILLED)?;
        drop(guest);
        Ok(())
    })
}

/// Ten VMs one after the other, each stopped while it runs: what one leaves behind would stop a later one.
fn is_stopped_again(kind: Kind) -> Result<()> {
    (0..10).try_for_each(|round| is_stopped(kind).with_context(|| format!("round {round}")))
}

/// More memory than any device has is refused, and the next VM runs.
fn serves_after_a_refusal(kind: Kind) -> Result<()> {
    let service = Service::new()?;
    let refused = service.create(kind.config(i32::MAX / 2)?).and_then(|vm| {
        vm.start()?;
        let reason = vm.wait(PATIENCE)?;
        ensure!(reason == StopReason::SHUTDOWN, "it ended: {reason:?}");
        Ok(())
    });
    // How it is refused is the manager's business: at creation, at the start, or by its end.
    ensure!(refused.is_err(), "a VM with {} MiB ran", i32::MAX / 2);
    serves(kind)
}

/// A test, and what it is about.
type Test = (&'static str, Kind, fn(Kind) -> Result<()>);

const TESTS: [Test; 8] = [
    ("unprotected_vm_serves_and_shuts_down", Kind::Unprotected, serves),
    ("unprotected_vm_is_stopped", Kind::Unprotected, is_stopped),
    ("unprotected_vms_are_stopped_one_after_the_other", Kind::Unprotected, is_stopped_again),
    ("unprotected_vm_serves_after_a_refusal", Kind::Unprotected, serves_after_a_refusal),
    ("protected_vm_serves_and_shuts_down", Kind::Protected, serves),
    ("protected_vm_is_stopped", Kind::Protected, is_stopped),
    ("protected_vms_are_stopped_one_after_the_other", Kind::Protected, is_stopped_again),
    ("protected_vm_serves_after_a_refusal", Kind::Protected, serves_after_a_refusal),
];

fn main() {
    let mut arguments = Arguments::from_args();
    // One port of the host for each kind.
    arguments.test_threads = Some(1);
    // Programs read the output.
    arguments.color.get_or_insert(ColorSetting::Never);
    let lacks = [Kind::Unprotected, Kind::Protected].map(|kind| device::lacks(kind.is_protected()));
    let trial = |&(name, kind, test): &Test| {
        let lacks = &lacks[usize::from(kind.is_protected())];
        if let Some(why) = lacks {
            println!("{name} is ignored: {why}");
        }
        let test = move || test(kind).map_err(|error| Failed::from(format!("{error:#}")));
        Trial::test(name, test).with_ignored_flag(lacks.is_some())
    };
    libtest_mimic::run(&arguments, TESTS.iter().map(trial).collect()).exit()
}
