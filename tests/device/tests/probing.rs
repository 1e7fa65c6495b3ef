// SPDX-License-Identifier: Apache-2.0
//! How the driver begins: what is there when its probe fails, in which order it appears, and what it
//! makes of a hypervisor that refuses or answers rubbish.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use gzvm_abi::{ext, hvc, uapi};
use gzvm_device_test::guest;
use gzvm_device_test::machine::Machine;
use gzvm_device_test::suite::Needs;
use gzvm_device_test::{sys, tests};

const MIB: u64 = 1 << 20;
const FAILSLAB: &str = "/sys/kernel/debug/failslab";
const TUNABLES: &str = "/sys/kernel/gzvm";

/// The driver and the device that it is bound to, if this process may change that.
struct Binding {
    dir: PathBuf,
    device: std::ffi::OsString,
}

impl Binding {
    fn find() -> Option<Self> {
        let dir = PathBuf::from("/sys/bus/platform/drivers/gzvm");
        fs::File::options().write(true).open(dir.join("unbind")).ok()?;
        let entries = fs::read_dir(&dir).ok()?.filter_map(Result::ok);
        let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
        let device = links.map(|entry| entry.file_name()).find(|name| name != "module")?;
        Some(Self { dir, device })
    }

    fn bind(&self) -> std::io::Result<()> {
        fs::write(self.dir.join("bind"), self.device.as_bytes())
    }

    fn unbind(&self) {
        fs::write(self.dir.join("unbind"), self.device.as_bytes()).expect("unbind");
        assert!(nothing_is_there(), "after unbinding");
    }
}

/// Neither the device nor its tunables can be found.
fn nothing_is_there() -> bool {
    !Path::new(uapi::DEVICE_PATH).exists() && !Path::new(TUNABLES).exists()
}

/// A guest runs.
fn works() {
    let machine = Machine::new(MIB, guest::count());
    assert_eq!(machine.boot_vcpu(&[7]).report(), 7);
}

fn w04_a_failed_probe_leaves_nothing() {
    let Some(binding) = Binding::find() else { return };
    // Opened before, because opening allocates.
    let path = "/proc/thread-self/fail-nth";
    let Ok(switch) = fs::File::options().read(true).write(true).open(path) else { return };
    for (name, value) in [("ignore-gfp-wait", "N"), ("verbose", "0")] {
        fs::write(format!("{FAILSLAB}/{name}"), value).expect(name);
    }
    let bind = fs::File::options().write(true).open(binding.dir.join("bind")).expect("bind");
    let mut failures = 0;
    for nth in 1..1000 {
        binding.unbind();
        switch.write_at(format!("{nth}").as_bytes(), 0).expect("fail-nth");
        let bound = bind.write_at(binding.device.as_bytes(), 0).is_ok();
        // Ends the failures, and tells whether there was one at all: then the rest is 0.
        let mut rest = [0; 16];
        let count = switch.read_at(&mut rest, 0).expect("fail-nth");
        switch.write_at(b"0", 0).expect("fail-nth");
        if bound && !rest[..count].starts_with(b"0") {
            break;
        }
        if !bound {
            failures += 1;
            assert!(nothing_is_there(), "after failure of allocation {nth}");
            binding.bind().expect("bind without failures");
        }
    }
    assert!(failures > 3, "{failures} failures");
    works();
}

fn w22_the_device_comes_last() {
    let Some(binding) = Binding::find() else { return };
    // Odd from right before binding on until unbinding.
    let phase = AtomicUsize::new(0);
    let rounds = 20;
    std::thread::scope(|scope| {
        let early = scope.spawn(|| {
            let mut seen = 0;
            loop {
                let before = phase.load(Ordering::SeqCst);
                let open = sys::open_device().is_ok();
                let complete = Path::new(TUNABLES).join("destroy_batch_pages").exists();
                let same = phase.load(Ordering::SeqCst) == before;
                if open && before % 2 == 1 && same {
                    assert!(complete, "the device is there, the tunables are not");
                    seen += 1;
                }
                if before == 2 * rounds {
                    return seen;
                }
            }
        });
        for _ in 0..rounds {
            binding.unbind();
            phase.fetch_add(1, Ordering::SeqCst);
            binding.bind().expect("bind");
            works();
            phase.fetch_add(1, Ordering::SeqCst);
        }
        assert!(early.join().expect("the other thread") > 0, "the device was never seen");
    });
}

/// One hypervisor, one device: a second one, as another node of the device tree would make it, is
/// refused and harms nobody.
fn a_second_device_is_refused() {
    let Some(binding) = Binding::find() else { return };
    let devices = fs::read_dir("/sys/bus/platform/devices").expect("platform devices");
    let mut unbound = devices
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| !path.join("driver").exists() && path.join("driver_override").exists());
    let other = unbound.next().expect("a platform device without a driver");
    let choose =
        |driver| fs::write(other.join("driver_override"), driver).expect("driver_override");
    choose("gzvm");
    let name = other.file_name().expect("a name");
    let answer = fs::write(binding.dir.join("bind"), name.as_bytes());
    choose("\n");
    let errno = answer.err().and_then(|error| error.raw_os_error());
    assert_eq!(errno, Some(libc::EBUSY), "{}", name.display());
    works();
    assert!(Path::new(TUNABLES).exists());
    // What was refused holds nothing of the first one's.
    binding.unbind();
    binding.bind().expect("bind");
    works();
}

/// Refuses a vCPU's first RUN with ERR_INVALID_ARGS.
const NO_RUN: &str = "refhyp.fault=5:0:1:-8";
/// Does not know the questions that the driver asks first: extensions and batch sizes.
const MUTE: &str = "refhyp.fault=13:0:3:-24";
/// Answers them with success, and with rubbish.
const LIAR: &str = "refhyp.fault=13:0:3:0:lie";

fn w19_a_refused_run_is_an_errno() {
    let machine = Machine::new(MIB, guest::count());
    let mut vcpu = machine.boot_vcpu(&[7]);
    vcpu.run.exit_reason = 0x1234;
    assert_eq!(vcpu.run().map(|_| ()), Err(libc::EINVAL));
    assert_eq!(vcpu.run.exit_reason, 0x1234, "the structure stays as it is");
    assert_eq!(vcpu.report(), 7, "the next one is not refused");
}

/// The driver does without extensions, and has usable batch sizes: pages for a fault, and for a call
/// of destruction.
fn batches() -> (u64, u64) {
    let device = sys::open_device().expect("/dev/gzvm");
    assert_eq!(sys::check_extension(&device, ext::DISCOVER), Ok(0));
    let number = |name: &str| -> u64 {
        let text = fs::read_to_string(Path::new(TUNABLES).join(name)).expect(name);
        text.trim().parse().expect(name)
    };
    (number("demand_paging_batch_pages"), number("destroy_batch_pages"))
}

fn w23_a_hypervisor_that_answers_nothing_is_usable() {
    assert_eq!(batches(), (hvc::DEFAULT_DEMAND_BATCH_PAGES, hvc::DEFAULT_DESTROY_BATCH_PAGES));
    works();
}

fn w38_rubbish_answers_are_not_used() {
    let (demand, destroy) = batches();
    assert!(demand != 0 && 512 % demand == 0, "{demand} pages");
    assert!(destroy.is_power_of_two() && destroy <= 1 << 16, "{destroy} pages");
    works();
}

fn main() {
    tests![
        // First: no other vCPU may have run before.
        Needs::Word(NO_RUN) => [w19_a_refused_run_is_an_errno],
        Needs::Word(MUTE) => [w23_a_hypervisor_that_answers_nothing_is_usable],
        Needs::Word(LIAR) => [w38_rubbish_answers_are_not_used],
        Needs::Device => [
            w04_a_failed_probe_leaves_nothing,
            w22_the_device_comes_last,
            a_second_device_is_refused,
        ],
    ]
}
