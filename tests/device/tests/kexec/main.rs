// SPDX-License-Identifier: Apache-2.0
//! kexec with VMs alive: a second kernel takes the machine over, and finds all memory its own.
//!
//! The program is its own second half: as the first process of the second kernel it looks around,
//! ends the test's line, and powers the machine off. So it runs in a boot of its own.

mod fdt;

use std::fs;
use std::time::Duration;

use gzvm_device_test::events::Event;
use gzvm_device_test::guest;
use gzvm_device_test::life::{live_fully, memory};
use gzvm_device_test::machine::{Machine, RAM};
use gzvm_device_test::mapping::{Mapping, PAGE};
use gzvm_device_test::raw::{Audit, Raw};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::{sys, tests};

const IMAGE: &str = "/usr/share/gzvm/guests/Image";
const MODULES: [&str; 2] = ["gzvm.ko", "gzvm_raw.ko"];
/// Where the second kernel and what it needs go: any RAM that is not the hypervisor's.
const KERNEL_AT: u64 = 0x6000_0000;
const STUB_AT: u64 = 0x6800_0000;
const TREE_AT: u64 = 0x6820_0000;
const INITRAMFS_AT: u64 = 0x6900_0000;
/// Memory that the second kernel's test uses; with the first kernel's guests still there, some of
/// it would not be the host's.
const TOUCHED: u64 = 1200 << 20;

/// What arm64's kexec does not do for kexec_load(2): x0 = device tree, x1 to x3 = 0, off to the kernel.
fn stub() -> Vec<u8> {
    let code: [u32; 6] = [
        0x5800_00c0, // ldr x0, tree
        0x5800_00e4, // ldr x4, kernel
        0xd280_0001, // mov x1, #0
        0xd280_0002, // mov x2, #0
        0xd280_0003, // mov x3, #0
        0xd61f_0080, // br x4
    ];
    let mut bytes: Vec<u8> = code.into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.extend(TREE_AT.to_le_bytes());
    bytes.extend(KERNEL_AT.to_le_bytes());
    bytes
}

/// A file of an archive in the format newc.
fn entry(archive: &mut Vec<u8>, name: &str, mode: u32, data: &[u8]) {
    let size = data.len();
    let fields = [0, mode, 0, 0, 1, 0, size as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend(b"070701");
    fields.iter().for_each(|field| archive.extend(format!("{field:08x}").into_bytes()));
    archive.extend(name.as_bytes());
    let pad = |archive: &mut Vec<u8>, at_least: usize| {
        let end = (archive.len() + at_least + 3) & !3;
        archive.resize(end, 0);
    };
    pad(archive, 1);
    archive.extend(data);
    pad(archive, 0);
}

/// This program as the first process, and the modules it needs.
fn initramfs() -> Vec<u8> {
    let mut archive = Vec::new();
    entry(&mut archive, "init", 0o100_755, &fs::read("/proc/self/exe").expect("this program"));
    for module in MODULES {
        let data = fs::read(format!("/lib/modules/{module}")).expect(module);
        entry(&mut archive, module, 0o100_644, &data);
    }
    entry(&mut archive, "TRAILER!!!", 0, &[]);
    archive
}

/// Size in memory that an arm64 Image says it needs.
fn image_size(image: &[u8]) -> usize {
    let field = image.get(16..24).and_then(|bytes| bytes.try_into().ok());
    usize::try_from(u64::from_le_bytes(field.expect("an Image"))).expect("size")
}

/// The second kernel's parts, for kexec_load(2).
fn load() -> sys::Result<()> {
    let image = fs::read(IMAGE).expect(IMAGE);
    let archive = initramfs();
    let mut tree = fs::read("/sys/firmware/fdt").expect("device tree");
    let end = INITRAMFS_AT + archive.len() as u64;
    for (name, value) in [("linux,initrd-start", INITRAMFS_AT), ("linux,initrd-end", end)] {
        fdt::set(&mut tree, name, value).expect(name);
    }
    let stub = stub();
    let round = |size: usize| size.next_multiple_of(PAGE as usize);
    let segment = |data: &[u8], at: u64, size: usize| {
        [data.as_ptr() as u64, data.len() as u64, at, round(size) as u64]
    };
    let segments = [
        segment(&image, KERNEL_AT, image_size(&image).max(image.len())),
        segment(&stub, STUB_AT, stub.len()),
        segment(&tree, TREE_AT, tree.len()),
        segment(&archive, INITRAMFS_AT, archive.len()),
    ];
    let count = segments.len() as u64;
    // SAFETY: each segment names live memory of that size; the kernel copies it.
    let loaded = unsafe {
        // KEXEC_ARCH_DEFAULT is 0.
        libc::syscall(libc::SYS_kexec_load, STUB_AT, count, segments.as_ptr(), 0u64)
    };
    if loaded == 0 {
        Ok(())
    } else {
        Err(sys::errno())
    }
}

/// Leaves this kernel, or powers the machine off.
fn reboot(command: libc::c_int) -> i32 {
    // SAFETY: ends this system; only returns if it is refused.
    unsafe { libc::reboot(command) };
    sys::errno()
}

/// The first half: two VMs, one of them protected and both running, and off to the second kernel.
fn kexec_with_vms_alive() {
    load().expect("kexec_load");
    let counter = Machine::new(4 << 20, guest::spin());
    let secret = Machine::new(64 << 20, guest::check_pages());
    secret.protect().expect("SET_PROTECTED_VM");
    let mut checker = secret.boot_vcpu(&[RAM + PAGE, RAM + (64 << 20), PAGE, 0]);
    checker.report();
    std::thread::scope(|scope| {
        let mut busy = counter.boot_vcpu(&[]);
        scope.spawn(move || busy.run().map(|_| ()));
        std::thread::sleep(Duration::from_millis(200));
        // Only whole lines of the first kernel are on the console.
        let errno = reboot(libc::RB_KEXEC);
        panic!("the machine goes on: errno {errno}");
    });
}

fn insert(module: &str) {
    let image = fs::read(format!("/{module}")).expect(module);
    let no_arguments = c"";
    // SAFETY: live memory of that size, and a string.
    let done = unsafe {
        libc::syscall(libc::SYS_init_module, image.as_ptr(), image.len(), no_arguments.as_ptr())
    };
    assert_eq!(done, 0, "{module}: {}", std::io::Error::last_os_error());
}

/// The second half, in the second kernel.
fn look_around() {
    for (kind, at) in [(c"devtmpfs", c"/dev"), (c"proc", c"/proc"), (c"sysfs", c"/sys")] {
        let _ = fs::create_dir(at.to_str().expect("a path"));
        let none = std::ptr::null();
        // SAFETY: strings and no data.
        let done = unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, none) };
        assert_eq!(done, 0, "{kind:?}: {}", std::io::Error::last_os_error());
    }
    MODULES.into_iter().for_each(insert);
    let nothing = Audit { wrong: 0, used: 0, vms: 0 };
    assert_eq!(Raw::get().audit(), Some(nothing), "what the first kernel left behind");
    let memory_of_old = Mapping::anonymous(TOUCHED);
    for offset in (0..TOUCHED).step_by(PAGE as usize) {
        memory_of_old.write(offset, offset);
    }
    for offset in (0..TOUCHED).step_by(PAGE as usize) {
        assert_eq!(memory_of_old.read(offset), offset, "a page that is not the host's");
    }
    drop(memory_of_old);
    assert_eq!(live_fully(&memory(), &Event::new(), true), Ok(()), "a VM of the second kernel");
}

/// What the init script and libtest would have said.
fn second_kernel() -> ! {
    let done = std::panic::catch_unwind(look_around).is_ok();
    let (verdict, passed) = if done { ("ok", 1) } else { ("FAILED", 0) };
    println!("\n{verdict}\n\ntest result: {verdict}. {passed} passed; {} failed;", 1 - passed);
    println!("##suite-end kexec rc={}\n##all-done", i32::from(!done));
    reboot(libc::RB_POWER_OFF);
    unreachable!("the machine is off");
}

fn main() {
    if std::process::id() == 1 {
        second_kernel();
    }
    tests![Needs::RawTest => [kexec_with_vms_alive]]
}
