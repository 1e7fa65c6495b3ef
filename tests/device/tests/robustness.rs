// SPDX-License-Identifier: Apache-2.0
//! What a driver may waste without being wrong: pages, eventfds, wake-ups, lines of the kernel's log,
//! and whether it can be watched.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use gzvm_abi::{ext, uapi};
use gzvm_device_test::events::Event;
use gzvm_device_test::guest::{self, GIC_DIST};
use gzvm_device_test::life::available;
use gzvm_device_test::machine::{Exit, Machine};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::sys::{self, ioctl};
use gzvm_device_test::{signals, tests};

const MIB: u64 = 1 << 20;
const TRACING: &str = "/sys/kernel/tracing";

fn w26_refused_devices_leave_no_pages() {
    let machine = Machine::new(MIB, guest::spin());
    let attributes = [0u8; 64];
    let refuse = |count: u32| {
        for _ in 0..count {
            let mut device = uapi::CreateDevice {
                dev_type: uapi::DEV_TYPE_VGIC_V3_DIST,
                // No hypervisor can have registers there.
                dev_addr: guest::GIC_DIST + 1,
                dev_reg_size: uapi::VGIC_DIST_SIZE,
                attr_addr: attributes.as_ptr() as u64,
                attr_size: 64,
                ..Default::default()
            };
            assert!(ioctl(&machine.vm, uapi::CREATE_DEVICE, &mut device).is_err());
        }
    };
    refuse(100);
    let before = available();
    refuse(20_000);
    // A page for each would be 80 MB.
    let lost = before.saturating_sub(available());
    assert!(lost < 40_000, "{lost} kB less after 20000 refusals");
}

/// The kernel's number of an eventfd: the lowest one that no other has.
fn number(event: &Event) -> u64 {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", event.fd())).expect("fdinfo");
    let line = info.lines().find_map(|line| line.strip_prefix("eventfd-id:"));
    line.and_then(|line| line.trim().parse().ok()).expect("eventfd-id")
}

fn w28_eventfds_go_with_their_vm() {
    let before = number(&Event::new());
    for _ in 0..50 {
        let machine = Machine::new(MIB, guest::spin());
        machine.add_gic(1);
        let (write, inject, resample) = (Event::new(), Event::new(), Event::new());
        let mut ioeventfd = uapi::Ioeventfd {
            datamatch: 0,
            addr: 0x1000,
            len: 4,
            fd: write.fd(),
            flags: 0,
            pad: [0; 36],
        };
        assert_eq!(ioctl(&machine.vm, uapi::IOEVENTFD, &mut ioeventfd), Ok(0));
        let descriptor = |event: &Event| u32::try_from(event.fd()).expect("descriptor");
        let mut irqfd = uapi::Irqfd {
            fd: descriptor(&inject),
            gsi: 3,
            flags: uapi::IRQFD_FLAG_RESAMPLE,
            resamplefd: descriptor(&resample),
            pad: [0; 16],
        };
        assert_eq!(ioctl(&machine.vm, uapi::IRQFD, &mut irqfd), Ok(0));
        // The eventfds' files are closed before the VM's.
        drop((write, inject, resample));
    }
    assert_eq!(number(&Event::new()), before, "eventfds that nobody has any more are still there");
}

/// A vCPU's exits by reason, from debugfs; 0 if there was none.
fn exits(vcpu: usize, reason: &str) -> Option<u64> {
    let prefix = format!("{}-", std::process::id());
    let mut entries = fs::read_dir("/sys/kernel/debug/gzvm").ok()?.filter_map(Result::ok);
    let dir = entries.find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))?;
    let stats = fs::read_to_string(dir.path().join("vcpu_stats")).ok()?;
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("vcpu{vcpu} ")))?;
    let field = line.split_whitespace().find_map(|word| {
        let (name, value) = word.split_once('=')?;
        (name == reason).then(|| value.parse().expect("a number"))
    });
    Some(field.unwrap_or(0))
}

fn w32_only_the_target_is_woken() {
    const SPI: u32 = 9;
    const ROUNDS: u64 = 100;
    let machine = Machine::new(MIB, guest::take_irq());
    machine.add_gic(2);
    let mut vcpu = machine.boot_vcpu(&[32 + u64::from(SPI), GIC_DIST, guest::gic_redist(2)]);
    // Powered off, as nobody starts it.
    let mut other = machine.vcpu(1);
    let background = move || assert!(matches!(other.run(), Err(libc::EINTR)));
    signals::with_background(background, || {
        assert_eq!(vcpu.report(), 0, "the guest is ready");
        // The time for the other one to fall asleep: until then it may look around.
        std::thread::sleep(std::time::Duration::from_millis(100));
        let Some(before) = exits(1, "idle") else { return };
        assert!(before > 0, "the other vCPU does not wait");
        for _ in 0..ROUNDS {
            machine.raise(SPI).expect("IRQ_LINE");
            assert_eq!(vcpu.report(), 32 + u64::from(SPI));
            // Time for the other one to look around in vain.
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let woken = exits(1, "idle").expect("statistics") - before;
        assert!(woken < ROUNDS / 10, "woken {woken} times by {ROUNDS} interrupts of another vCPU");
    });
}

fn w40_refusals_do_not_flood_the_log() {
    let mut options = fs::File::options();
    let Ok(mut log) = options.read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg") else {
        return;
    };
    let mut records = move || {
        let (mut count, mut record) = (0, [0; 8192]);
        // EPIPE: records were overwritten; the next read goes on behind them.
        loop {
            match log.read(&mut record) {
                Ok(_) => count += 1,
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => count += 1000,
                Err(_) => return count,
            }
        }
    };
    records();
    let machine = Machine::new(MIB, guest::spin());
    for _ in 0..5000 {
        assert!(machine.raise(0xffff).is_err());
        let garbage = sys::set_region(&machine.vm, 0, 1, MIB, machine.ram.address());
        assert_eq!(garbage, Err(libc::EINVAL));
    }
    let lines = records();
    assert!(lines < 200, "{lines} lines in the kernel's log for 10000 refusals");
}

fn w42_exits_have_names_in_traces() {
    let write = |name: &str, text: &str| fs::write(format!("{TRACING}/{name}"), text);
    if write("events/geniezone/enable", "1").is_err() {
        return;
    }
    write("trace", "").expect("an empty trace");
    let machine = Machine::new(MIB, guest::hypercall());
    machine.add_gic(1);
    // PSCI SYSTEM_OFF.
    let ended = machine.boot_vcpu(&[0x8400_0008, 0, 0, 0]).run();
    assert!(matches!(ended, Ok(Exit::System(_))), "{ended:?}");
    write("events/geniezone/enable", "0").expect("no tracing");
    let trace = fs::read_to_string(format!("{TRACING}/trace")).expect("trace");
    for wanted in [
        "mtk_hypcall_enter: id=0xfb0010",
        "mtk_vcpu_exit: vcpu exit_reason=EXCEPTION(0x92920004)",
        "mtk_vcpu_exit: vcpu exit_reason=SYSTEM_EVENT(0x92920008)",
    ] {
        assert!(trace.contains(wanted), "not in the trace: {wanted}\n{trace}");
    }
    assert!(trace.contains(" invalid=0"), "{trace}");
}

fn main() {
    tests![
        Needs::Device => [
            w26_refused_devices_leave_no_pages,
            w28_eventfds_go_with_their_vm,
            w40_refusals_do_not_flood_the_log,
            w42_exits_have_names_in_traces,
        ],
        Needs::Extensions(ext::WAKE_MASK) => [w32_only_the_target_is_woken],
    ]
}
