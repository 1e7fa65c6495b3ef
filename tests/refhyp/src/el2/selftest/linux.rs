// SPDX-License-Identifier: Apache-2.0
//! A Linux guest, run by a VMM of a few functions: to see a real kernel on the hypervisor without a
//! driver in between.
//!
//! QEMU's loader puts the kernel (arm64 Image) at [`MEMORY`], the initramfs at
//! [`MEMORY`] + [`INITRD`], and its size as eight bytes at [`INITRD_SIZE`].

use super::el1::{self, hvc, load, print, Report};
use super::uart::Uart;
use super::vmm::{audit, fill, Vcpu, Vm, BUFFER};
use super::{gic, guest_tree};
use crate::el2::sysreg::read;
use gzvm_abi::run::{self, Event, Exception, HwState, Mmio};
use gzvm_abi::{cap, hvc as id, reg, uapi, BLOCK_PAGES, BLOCK_SIZE, PAGE_SIZE};

/// The guest's memory in the host.
pub const MEMORY: u64 = 0x6000_0000;
/// Its size.
pub const SIZE: u64 = 256 << 20;
/// The guest's memory in the guest.
pub const GUEST: u64 = 0x9000_0000;
/// The initramfs in it.
pub const INITRD: u64 = 128 << 20;
/// The device tree in it.
const DTB: u64 = SIZE - (2 << 20);
/// Where the size of the initramfs is.
const INITRD_SIZE: u64 = 0x5500_0000;
const MAILBOX: u64 = BUFFER + 0x8000;
const VCPUS: usize = 2;
const SLOT: u32 = 1;
const UART: u64 = 0x3f8;
/// Ticks that a vCPU runs before the next one does.
const SLICE: u64 = 100_000;

struct Guest {
    vm: Vm,
    vcpus: [Vcpu; VCPUS],
    /// Counter value until which each vCPU sleeps.
    asleep_until: [u64; VCPUS],
    uart: Uart,
    exits: [u64; 16],
}

/// The program: a guest until it is off.
pub extern "C" fn main(protected: u64, _strict: u64) -> ! {
    gic::init();
    crate::el2::machine::init_heap();
    let mut report = Report::new();
    let before = audit();
    let mut guest = Guest::new(protected != 0);
    let end = guest.run();
    gic::no_tick();
    print(format_args!("# exits by reason: {:?}\n", guest.exits));
    report.equal("the Linux guest powers off", end, run::SYSTEM_EVENT_SHUTDOWN);
    report.check("audit with it", audit().is_none_or(|[wrong, ..]| wrong == 0));
    if protected != 0 {
        let seen = (0..SIZE).step_by(4096).any(|offset| load(MEMORY + offset).unwrap_or(0) != 0);
        report.check("no page of it that it used shows anything", !seen || untouched());
    }
    guest.vm.destroy();
    report.equal("audit after it", audit(), before);
    report.finish()
}

/// Pages that the guest never touched still hold what was loaded; only used ones are its own.
fn untouched() -> bool {
    load(MEMORY) == Ok(0)
}

fn now() -> u64 {
    read!("cntpct_el0")
}

impl Guest {
    fn new(protected: bool) -> Self {
        let initrd = load(INITRD_SIZE).unwrap_or(0);
        let tree = guest_tree::build(initrd, VCPUS);
        for (at, bytes) in (MEMORY + DTB..).step_by(8).zip(tree.chunks(8)) {
            let mut word = [0; 8];
            word.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
            fill(at, &[u64::from_le_bytes(word)]);
        }
        let vm = Vm::new();
        vm.add_region(SLOT, GUEST, SIZE / PAGE_SIZE, uapi::MEM_REGION_GUEST_MEM);
        let capability = u64::from(id::ENABLE_CAP);
        let mailbox = [vm.x1(), cap::BLOCK_BASED_DEMAND_PAGING, BLOCK_SIZE, MAILBOX];
        assert!(hvc(capability, &mailbox)[0] == 0, "no mailbox");
        if protected {
            vm.protect();
        }
        let vcpus = [vm.add_vcpu(0), vm.add_vcpu(1)];
        vcpus[0].set(reg::PC, GUEST);
        vcpus[0].set(reg::x(0), GUEST + DTB);
        Self { vm, vcpus, asleep_until: [0; VCPUS], uart: Uart::new(), exits: [0; 16] }
    }

    /// Runs the vCPUs in turns; the kind of the system event that ends it.
    fn run(&mut self) -> u32 {
        loop {
            for index in 0..VCPUS {
                if self.asleep_until[index] > now() {
                    continue;
                }
                gic::tick_after(SLICE);
                while let Some(event) = self.step(index) {
                    match event {
                        Step::Again => (),
                        Step::Next => break,
                        Step::End(kind) => return kind,
                    }
                }
            }
        }
    }

    /// Runs one vCPU until its next exit.
    fn step(&mut self, index: usize) -> Option<Step> {
        let vcpu = self.vcpus[index];
        let reason = vcpu.run();
        if let Some(count) = usize::try_from(reason & 0xf).ok().and_then(|r| self.exits.get_mut(r))
        {
            *count += 1;
        }
        Some(match reason {
            run::EXIT_MMIO => {
                self.mmio(&vcpu);
                Step::Again
            }
            run::EXIT_EXCEPTION => {
                self.fault(&vcpu);
                Step::Again
            }
            run::EXIT_IDLE => {
                let state = hw_state(&vcpu);
                assert!(state.vtimer_migrate != 0 && state.vtimer_delay != 0, "idle without delay");
                self.asleep_until[index] = now() + state.vtimer_delay;
                Step::Next
            }
            run::EXIT_IPI => {
                self.wake(vcpu.page().payload[0]);
                Step::Next
            }
            run::EXIT_IRQ => Step::Next,
            run::EXIT_SYSTEM_EVENT => {
                let event: Event = vcpu.page().payload();
                Step::End(event.kind)
            }
            other => {
                let event: Event = vcpu.page().payload();
                panic!("exit {other:#x} {:x?}", &event.data[..3]);
            }
        })
    }

    fn wake(&mut self, mask: u64) {
        for (index, until) in self.asleep_until.iter_mut().enumerate() {
            if mask & (1 << index) != 0 {
                *until = 0;
            }
        }
    }

    fn mmio(&mut self, vcpu: &Vcpu) {
        let mmio: Mmio = vcpu.page().payload();
        let register = mmio.phys_addr.wrapping_sub(UART);
        if mmio.is_write == 0 {
            let value = if register < 8 { self.uart.read(register) } else { 0 };
            vcpu.set_payload(1, value);
            return;
        }
        if register < 8 && self.uart.write(register, mmio.data[0]) {
            let line = [self.vcpus[0].x1, 0, 1];
            let [status, targets, ..] = hvc(u64::from(id::IRQ_LINE), &line);
            assert!(status == 0, "IRQ_LINE gave {status:#x}");
            self.wake(targets);
        }
    }

    /// Brings the block around a fault.
    fn fault(&self, vcpu: &Vcpu) {
        let fault: Exception = vcpu.page().payload();
        let offset = fault.fault_gpa.wrapping_sub(GUEST) & !(BLOCK_SIZE - 1);
        assert!(offset < SIZE, "a fault at {:#x}", fault.fault_gpa);
        for page in 0..BLOCK_PAGES {
            fill(MAILBOX + page * 8, &[(MEMORY + offset) / PAGE_SIZE + page]);
        }
        let call = [self.vm.x1(), u64::from(SLOT), (GUEST + offset) / PAGE_SIZE, BLOCK_PAGES];
        let status = el1::status(id::MAP_GUEST_BLOCK, &call);
        assert!(status == 0, "MAP_GUEST_BLOCK gave {status}");
    }
}

enum Step {
    Again,
    Next,
    End(u32),
}

fn hw_state(vcpu: &Vcpu) -> HwState {
    // SAFETY: the program's own memory; the hypervisor writes it only while the vCPU runs.
    unsafe { ((vcpu.pages + PAGE_SIZE) as *const HwState).read_volatile() }
}
