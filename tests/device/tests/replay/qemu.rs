// SPDX-License-Identifier: Apache-2.0
//! What the QEMU port asks of the driver, in its order.

use std::os::fd::OwnedFd;
use std::time::Duration;

use gzvm_device_test::events::Event;
use gzvm_device_test::guest;
use gzvm_device_test::mapping::Mapping;
use gzvm_device_test::signals::Target;
use gzvm_device_test::sys::status_field;

use crate::client::{self, *};

const RAM: u64 = 0x8000_0000;
const SIZE: u64 = 8 << 20;
const FLASH: u64 = 64 << 20;
const DIST: u64 = 0x0800_0000;
const REDIST: u64 = 0x080a_0000;
const REPORT: u64 = 0x0900_0000;
const VCPUS: u64 = 4;
/// The port's numbering of shared interrupts: type 1 in bits 27:24.
const SPI: u64 = 1 << 24;
/// Where the second program is: it asks for a reset.
const RESET: u64 = 0x1000;

struct Qemu {
    vm: OwnedFd,
    vcpus: Vec<OwnedFd>,
    ram: Mapping,
    flash: [Mapping; 2],
}

fn line(vm: &OwnedFd, irq: u64, level: u64) -> Result<i32, i32> {
    call(vm, IRQ_LINE, 8, &[(0, 4, irq), (4, 4, level)])
}

fn start() -> Qemu {
    let (_device, vm) = client::open();
    let (answer, bits) = extension(&vm, CAP_GPA_SIZE);
    assert!(answer == Ok(0) && (40..=52).contains(&bits), "{bits} bits");
    assert_eq!(extension(&vm, CAP_PROTECTED), (Ok(0), 1));
    assert_eq!(extension(&vm, CAP_IDLE), (Err(libc::EOPNOTSUPP), CAP_IDLE));
    // There is neither memory nor a vCPU yet.
    assert_eq!(client::device(&vm, 0, DIST, 0x1_0000), Ok(0));
    assert_eq!(client::device(&vm, 1, REDIST, 0x2_0000), Ok(0));
    let pinned = status_field("VmPin");
    let flash = [0, 1].map(|index| {
        let flash = Mapping::anonymous(FLASH);
        assert_eq!(slot(&vm, index, 1, index * FLASH, FLASH, flash.address()), Ok(0));
        flash
    });
    assert_eq!(status_field("VmPin"), pinned, "flash that nobody touched");
    let create = |index| {
        std::thread::scope(|scope| {
            let create = || {
                assert_eq!(extension(&vm, CAP_GPA_SIZE), (Ok(0), bits));
                descriptor(&vm, CREATE_VCPU, index).expect("CREATE_VCPU")
            };
            scope.spawn(create).join().expect("a vCPU's thread")
        })
    };
    let vcpus: Vec<OwnedFd> = (0..VCPUS).map(create).collect();
    let ram = Mapping::anonymous(SIZE);
    ram.load(0, guest::take_irq());
    ram.load(RESET, guest::hypercall());
    assert_eq!(slot(&vm, 2, 1, RAM, SIZE, ram.address()), Ok(0));
    Qemu { vm, vcpus, ram, flash }
}

impl Qemu {
    /// Registers as the port writes them: twice, among them such as the ABI does not have.
    fn configure(&self) {
        for irq in 0..16 {
            assert_eq!(line(&self.vm, SPI | irq, 0), Ok(0), "a device is reset");
        }
        for pc in [0, RAM] {
            for (index, vcpu) in self.vcpus.iter().enumerate() {
                // The secondaries' may be refused; the port only warns.
                let done = set_reg(vcpu, PC, pc);
                assert!(done == Ok(0) || index > 0);
                // ID_AA64PFR0_EL1 without op0, as the port has it.
                assert!(set_reg(vcpu, 0x6030_0000_0013_0020, 0x11).is_err());
                assert!(set_reg(vcpu, 0x6040_0000_0010_0054, 0).is_err(), "128 bits");
                assert_eq!(set_reg(vcpu, PSTATE, 0x3c5), Ok(0));
            }
        }
        let boot = &self.vcpus[0];
        for (index, value) in [(0, 32 + 7), (1, DIST), (2, REDIST), (20, REPORT)] {
            assert_eq!(set_reg(boot, X0 + 2 * index, value), Ok(0));
        }
    }

    fn finish(&self) {
        let dtb = [(0, 8, RAM + SIZE - 0x1_2345), (8, 8, 0x1111)];
        assert_eq!(call(&self.vm, SET_DTB_CONFIG, 16, &dtb), Ok(0), "neither is aligned");
    }

    /// Memory of option ROMs and of flash in its other mode, while the guest runs.
    fn change_slots(&self, rom: &Mapping) {
        for round in 0..10 {
            let at = 0x1000_0000 + round * 0x10_0000;
            assert_eq!(slot(&self.vm, 40 + round, 1, at, 0x1000, rom.address()), Ok(0));
            // With the old address, unlike crosvm.
            assert_eq!(slot(&self.vm, 40 + round, 1, at, 0, rom.address()), Ok(0));
        }
        // Size 0 at guest address 0.
        let flash = &self.flash[0];
        assert_eq!(slot(&self.vm, 0, 1, 0, 0, flash.address()), Ok(0));
        assert_eq!(slot(&self.vm, 0, 1, 0, FLASH, flash.address()), Ok(0));
        let overlap = slot(&self.vm, 41, 1, FLASH - 0x1000, 0x2000, rom.address());
        assert_eq!(overlap, Err(libc::EEXIST));
    }

    /// Runs the boot vCPU while the others wait to be started, and kicks them at the end.
    fn run(&self, boot: impl FnOnce(&OwnedFd)) {
        client::install_kick();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let threads: Vec<_> = self.vcpus[1..]
                .iter()
                .map(|vcpu| {
                    let sender = sender.clone();
                    scope.spawn(move || {
                        sender.send(Target::this()).expect("the other end waits");
                        assert_eq!(RunBuffer::new().run(vcpu), Err(libc::EINTR));
                    })
                })
                .collect();
            let targets: Vec<Target> = receiver.iter().take(threads.len()).collect();
            boot(&self.vcpus[0]);
            while !threads.iter().all(|thread| thread.is_finished()) {
                targets.iter().for_each(|target| target.signal_after(Duration::from_millis(5)));
            }
        });
    }
}

pub fn qemu_runs_until_the_guest_s_reset() {
    let qemu = start();
    qemu.configure();
    qemu.finish();
    let rom = Mapping::anonymous(0x2000);
    qemu.run(|boot| {
        let mut run = RunBuffer::new();
        assert_eq!(run.stored(boot), (REPORT, 0));
        for round in 0..50 {
            let (event, at) = (Event::new(), 0x0a00_0000 + 0x200 * (round % 32) + 0x50);
            assert_eq!(ioeventfd(&qemu.vm, event.fd(), at, 4, Some(0), false), Ok(0));
            let twice = ioeventfd(&qemu.vm, event.fd(), at, 4, Some(0), false);
            assert_eq!(twice, Err(libc::EEXIST));
            assert_eq!(line(&qemu.vm, SPI | 7, 1), Ok(0));
            assert_eq!(run.stored(boot), (REPORT, 32 + 7));
            assert_eq!(line(&qemu.vm, SPI | 7, 0), Ok(0));
            assert_eq!(ioeventfd(&qemu.vm, event.fd(), at, 4, Some(0), true), Ok(0));
        }
        qemu.change_slots(&rom);
        // The guest asks for a reset.
        let reset = [(0, 0x8400_0009), (20, REPORT)];
        for (index, value) in reset {
            assert_eq!(set_reg(boot, X0 + 2 * index, value), Ok(0));
        }
        assert_eq!(set_reg(boot, PC, RAM + RESET), Ok(0));
        let reason = loop {
            match run.run(boot) {
                Err(libc::EINTR) => {}
                other => break other,
            }
        };
        assert_eq!(reason, Ok(EXIT_SYSTEM_EVENT));
        assert_eq!(field(run.bytes(), 8, 4), u64::from(SYSTEM_EVENT_RESET));
    });
    // The port resets in place: registers can be written again.
    assert_eq!(set_reg(&qemu.vcpus[0], PC, RAM), Ok(0));
    assert_eq!(set_reg(&qemu.vcpus[1], PSTATE, 0x3c5), Ok(0));
}

/// The port protects after everything else, and in two steps where there is firmware.
pub fn qemu_protects_its_vm() {
    let qemu = start();
    qemu.ram.load(0, guest::report_args());
    qemu.configure();
    let protect = [(0, 8, CAP_PROTECTED), (8, 8, 2)];
    assert_eq!(call(&qemu.vm, ENABLE_CAP, 48, &protect), Ok(0));
    assert_eq!(call(&qemu.vm, ENABLE_CAP, 48, &[(0, 8, CAP_IDLE)]), Ok(0));
    qemu.finish();
    qemu.run(|boot| {
        let mut run = RunBuffer::new();
        assert_eq!(run.stored(boot), (REPORT, 32 + 7));
        assert_eq!(run.stored(boot), (REPORT, DIST));
    });
}
