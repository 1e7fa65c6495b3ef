// SPDX-License-Identifier: Apache-2.0
//! Who keeps whom alive: files closed in any order, processes killed, modules unloaded.

use std::time::Duration;

use gzvm_abi::uapi;
use gzvm_device_test::guest;
use gzvm_device_test::machine::{Exit, Machine, RAM};
use gzvm_device_test::mapping::PAGE;
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, ioctl_fd};
use gzvm_device_test::{life, signals, tests};

const MIB: u64 = 1 << 20;

/// Directories in debugfs: one for each VM of this process.
fn vms_in_debugfs() -> Option<usize> {
    let prefix = format!("{}-", std::process::id());
    let dir = std::fs::read_dir("/sys/kernel/debug/gzvm").ok()?;
    let of_us = |name: std::ffi::OsString| name.to_string_lossy().starts_with(&prefix);
    Some(dir.filter_map(Result::ok).filter(|entry| of_us(entry.file_name())).count())
}

fn w27_vm_ids_are_given_back() {
    let device = sys::open_device().expect("/dev/gzvm");
    // More than any hypervisor has room for at once.
    for round in 0..1000 {
        let vm = ioctl_fd(&device, uapi::CREATE_VM, 0);
        assert!(vm.is_ok(), "VM number {round}: errno {vm:?}");
    }
}

fn vms_side_by_side_have_their_own_memory() {
    let mut guests: Vec<_> = (0..4)
        .map(|index| {
            let machine = Machine::new(4 * MIB, guest::poke());
            let vcpu = machine.boot_vcpu(&[0, 100 + index]);
            (machine, vcpu)
        })
        .collect();
    for _ in 0..2 {
        for (machine, vcpu) in &mut guests {
            machine.ram.read(0);
            vcpu.answer_next_read(RAM + 2 * MIB);
            vcpu.report();
        }
    }
    for (index, (machine, _)) in guests.iter().enumerate() {
        assert_eq!(machine.ram.read(2 * MIB), 100 + index as u64);
    }
}

fn w02_a_vcpu_keeps_its_vm() {
    let machine = Machine::new(4 * MIB, guest::count());
    let mut vcpu = machine.boot_vcpu(&[0]);
    assert_eq!(vcpu.report(), 0);
    let Machine { device, vm, ram } = machine;
    drop(vm);
    drop(device);
    for expected in 1..50 {
        assert_eq!(vcpu.report(), expected);
    }
    if let Some(vms) = vms_in_debugfs() {
        assert_eq!(vms, 1);
    }
    drop(vcpu);
    assert_eq!(vms_in_debugfs().unwrap_or(0), 0);
    drop(ram);
}

fn w02_files_are_closed_in_any_order() {
    for order in 0..6 {
        let machine = Machine::new(4 * MIB, guest::count());
        machine.add_gic(2);
        let mut first = machine.boot_vcpu(&[0]);
        let second = machine.vcpu(1);
        first.report();
        let Machine { device, vm, ram: _ram } = machine;
        let mut files: [Option<std::os::fd::OwnedFd>; 3] =
            [Some(vm), Some(first.fd), Some(second.fd)];
        drop(device);
        for position in [order % 3, (order + 1 + order / 3) % 3, (order + 2 - order / 3) % 3] {
            files[position] = None;
        }
    }
    assert_eq!(vms_in_debugfs().unwrap_or(0), 0);
}

fn memory_may_go_before_the_vm() {
    let machine = Machine::new(4 * MIB, guest::poke());
    let mut vcpu = machine.boot_vcpu(&[0, 7]);
    vcpu.answer_next_read(RAM + MIB);
    vcpu.report();
    let Machine { device: _device, vm, ram } = machine;
    let follows = sys::follows_owner(&vm);
    drop(ram);
    if follows {
        // The guest has nothing left, not even its program.
        let exit = vcpu.run();
        assert!(matches!(exit, Ok(Exit::Exception(_))), "{exit:?}");
        return;
    }
    // The guest keeps the pages, which stay pinned.
    vcpu.answer_next_read(RAM + MIB);
    assert_eq!(vcpu.report(), 7);
}

fn a_process_killed_while_running_leaves_nothing() {
    for round in 0..20u64 {
        // SAFETY: the child runs a guest until it is killed, and touches nothing else.
        let child = unsafe { libc::fork() };
        assert!(child >= 0);
        if child == 0 {
            let machine = Machine::new(16 * MIB, guest::check_pages());
            let mut vcpu = machine.boot_vcpu(&[RAM + PAGE, RAM + 16 * MIB, PAGE, 0]);
            loop {
                let _ = vcpu.run();
            }
        }
        std::thread::sleep(Duration::from_micros(1500 * round));
        // SAFETY: our own child.
        unsafe { libc::kill(child, libc::SIGKILL) };
        assert_eq!(sys::wait_for(child), -libc::SIGKILL);
    }
    assert_eq!(vms_in_debugfs().unwrap_or(0), 0);
}

fn w11_a_vcpu_may_go_while_its_timer_runs() {
    signals::handle(0);
    let hz = guest::counter_hz();
    for round in 0..10 {
        // 50 ms from now, when nothing of the VM is left.
        let machine = Machine::new(MIB, guest::sleep());
        machine.add_gic(2);
        let mut vcpu = machine.boot_vcpu(&[hz / 20]);
        let _other = machine.vcpu(1);
        let target = signals::Target::this();
        std::thread::scope(|scope| {
            scope.spawn(move || target.signal_after(Duration::from_millis(2 * round)));
            let ended = vcpu.run().map(|_| ());
            assert!(matches!(ended, Err(libc::EINTR) | Ok(())), "{ended:?}");
        });
    }
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(vms_in_debugfs().unwrap_or(0), 0);
}

fn w03_the_module_stays_while_files_are_open() {
    let unload = || {
        let result =
            // SAFETY: asks to unload the module; this process keeps using it only if that fails.
            unsafe { libc::syscall(libc::SYS_delete_module, c"gzvm".as_ptr(), libc::O_NONBLOCK) };
        if result == 0 {
            Ok(())
        } else {
            Err(sys::errno())
        }
    };
    let machine = Machine::new(MIB, guest::count());
    let mut vcpu = machine.boot_vcpu(&[0]);
    // Not a module here, or not allowed: nothing to prove.
    if matches!(unload(), Err(libc::ENOENT | libc::EPERM | libc::ENOSYS)) {
        return;
    }
    assert_eq!(unload(), Err(libc::EAGAIN), "all files open");
    let Machine { device, vm, ram: _ram } = machine;
    drop(device);
    assert_eq!(unload(), Err(libc::EAGAIN), "VM and vCPU open");
    drop(vm);
    assert_eq!(unload(), Err(libc::EAGAIN), "vCPU open");
    assert_eq!(vcpu.report(), 0, "the guest runs");
}

/// The platform driver's directory, if this process may write to it.
fn driver_dir() -> Option<std::path::PathBuf> {
    let dir = std::path::PathBuf::from("/sys/bus/platform/drivers/gzvm");
    std::fs::File::options().write(true).open(dir.join("unbind")).ok()?;
    Some(dir)
}

/// The device that the driver is bound to: the link in its directory that is no attribute.
fn bound_device(dir: &std::path::Path) -> Option<std::ffi::OsString> {
    let entries = std::fs::read_dir(dir).ok()?.filter_map(Result::ok);
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    links.map(|entry| entry.file_name()).find(|name| name != "module")
}

fn w03_unbinding_leaves_running_vms_alone() {
    let Some(dir) = driver_dir() else { return };
    let device = bound_device(&dir).expect("a device is bound");
    let machine = Machine::new(4 * MIB, guest::count());
    let mut vcpu = machine.boot_vcpu(&[0]);
    assert_eq!(vcpu.report(), 0);
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(device.as_os_str());
    for expected in 1..4 {
        std::fs::write(dir.join("unbind"), bytes).expect("unbind");
        assert!(sys::open_device().is_err(), "nobody new can come in");
        assert!(!std::path::Path::new("/sys/kernel/gzvm").exists());
        // The open file of the device goes on too.
        let other = ioctl_fd(&machine.device, uapi::CREATE_VM, 0).expect("another VM");
        assert_eq!(vcpu.report(), expected);
        std::fs::write(dir.join("bind"), bytes).expect("bind");
        drop(other);
    }
    let second = Machine::new(4 * MIB, guest::count());
    assert_eq!(second.boot_vcpu(&[7]).report(), 7);
    assert_eq!(vcpu.report(), 4);
}

fn w46_sleep_of_the_machine_keeps_vms() {
    // The machine freezes all tasks, suspends its devices, and goes back, without really sleeping.
    if std::fs::write("/sys/power/pm_test", "devices").is_err() {
        return;
    }
    let machine = Machine::new(4 * MIB, guest::wait());
    machine.add_gic(1);
    let mut waiting = machine.boot_vcpu(&[3]);
    assert_eq!(waiting.report(), 3);
    let busy = Machine::new(4 * MIB, guest::count());
    let mut counting = busy.boot_vcpu(&[0]);
    let background = move || assert!(matches!(waiting.run(), Err(libc::EINTR)));
    signals::with_background(background, || {
        for expected in 0..3 {
            assert_eq!(counting.report(), expected);
            std::fs::write("/sys/power/state", "freeze").expect("test of suspend");
        }
    });
    std::fs::write("/sys/power/pm_test", "none").expect("pm_test");
}

fn w21_tunables_are_checked() {
    let dir = std::path::Path::new("/sys/kernel/gzvm");
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect(name);
    let demand = read("demand_paging_batch_pages");
    let destroy = read("destroy_batch_pages");
    let number = |text: &str| text.strip_suffix('\n').and_then(|text| text.parse::<u64>().ok());
    assert_eq!(512 % number(&demand).expect("a number"), 0);
    assert!(number(&destroy).expect("a number").is_power_of_two());
    assert!(read("hypervisor_version").split('.').count() == 3);
    let write = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).map_err(|error| error.raw_os_error())
    };
    let bad = Err(Some(libc::EINVAL));
    for text in ["0", "3", "-1", "x", "", "2147483648", "99999999999999999999"] {
        assert_eq!(write("destroy_batch_pages", text), if text.is_empty() { Ok(()) } else { bad });
    }
    for text in ["0", "3", "1024", "x"] {
        assert_eq!(write("demand_paging_batch_pages", text), bad);
    }
    // With the smallest batches everything still works.
    assert_eq!(write("destroy_batch_pages", "1\n"), Ok(()));
    assert_eq!(write("demand_paging_batch_pages", "1\n"), Ok(()));
    let machine = Machine::new(6 * MIB, guest::check_pages());
    for offset in (PAGE..6 * MIB).step_by(PAGE as usize) {
        machine.ram.write(offset, RAM + offset);
    }
    let mut vcpu = machine.boot_vcpu(&[RAM + PAGE, RAM + 6 * MIB, PAGE, 0]);
    assert_eq!(vcpu.report(), 0);
    drop((machine, vcpu));
    assert_eq!(write("destroy_batch_pages", &destroy), Ok(()));
    assert_eq!(write("demand_paging_batch_pages", &demand), Ok(()));
}

fn w12_statistics_are_whole_lines() {
    let machine = Machine::new(8 * MIB, guest::poke());
    let mut vcpu = machine.boot_vcpu(&[0, 1]);
    vcpu.answer_next_read(RAM + 4 * MIB);
    vcpu.report();
    let Ok(entries) = std::fs::read_dir("/sys/kernel/debug/gzvm") else { return };
    let prefix = format!("{}-", std::process::id());
    let ours = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with(&prefix);
    let dir = entries.filter_map(Result::ok).find(ours).expect("directory of the VM").path();
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect(name);
    for name in ["protected_hyp_mem", "protected_shared_mem"] {
        let text = read(name);
        let digits = text.strip_suffix('\n').expect("one line");
        assert!(digits.parse::<u64>().is_ok(), "{name}: {text:?}");
        // A short read gets what it asked for and not a byte more.
        let mut short = [0xee; 8];
        let file = std::fs::File::open(dir.join(name)).expect(name);
        let got = std::io::Read::read(&mut (&file), &mut short[..1]).expect("read");
        assert_eq!((got, &short[1..]), (1, &[0xee; 7][..]));
    }
    assert!(read("vm_stats").contains("pinned_pages 1024\n"), "{}", read("vm_stats"));
    let stats = read("vcpu_stats");
    let boot = stats.lines().find(|line| line.starts_with("vcpu0 ")).expect("a line for vCPU 0");
    assert!(boot.contains(" faults=2") && boot.contains(" mmio=2"), "{boot}");
}

fn vcpus_have_statistics_of_their_own() {
    let machine = Machine::new(8 * MIB, guest::poke());
    if life::statistics("vm_stats").is_none() {
        return;
    }
    let read = |vcpu: usize| life::statistics(&format!("vcpu{vcpu}"));
    assert_eq!(read(0), None, "there is no vCPU yet");
    let mut vcpu = machine.boot_vcpu(&[0, 1]);
    let other = machine.vcpu(1);
    vcpu.answer_next_read(RAM + 4 * MIB);
    vcpu.report();
    let fields = |vcpu| {
        let text = read(vcpu).expect("a file of this vCPU");
        assert!(text.ends_with('\n'), "{text:?}");
        let fields = text.lines().map(|line| {
            let (name, value) = line.split_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse::<u64>().expect("a number"))
        });
        fields.collect::<std::collections::BTreeMap<_, _>>()
    };
    let busy = fields(0);
    assert_eq!((busy["faults"], busy["exit_mmio"]), (2, 2), "{busy:?}");
    assert!(busy["run_ns"] > 0);
    let reasons = busy.iter().filter(|(name, _)| name.starts_with("exit_"));
    assert_eq!(busy["exits"], reasons.map(|(_, count)| count).sum::<u64>(), "{busy:?}");
    let idle = fields(1);
    assert!(idle.keys().eq(busy.keys()) && idle.values().all(|value| *value == 0), "{idle:?}");
    drop(other);
    assert_eq!(read(1), None, "the vCPU is gone");
    let other = machine.vcpu(1);
    assert!(read(1).is_some(), "there is one again");
    drop((other, vcpu));
}

fn main() {
    tests![
        Needs::Device => [
            w27_vm_ids_are_given_back,
            vms_side_by_side_have_their_own_memory,
            w02_a_vcpu_keeps_its_vm,
            w02_files_are_closed_in_any_order,
            memory_may_go_before_the_vm,
            a_process_killed_while_running_leaves_nothing,
            w11_a_vcpu_may_go_while_its_timer_runs,
            w03_the_module_stays_while_files_are_open,
            w03_unbinding_leaves_running_vms_alone,
            w46_sleep_of_the_machine_keeps_vms,
            w21_tunables_are_checked,
            w12_statistics_are_whole_lines,
            vcpus_have_statistics_of_their_own,
        ],
    ]
}
