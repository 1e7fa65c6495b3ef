// SPDX-License-Identifier: Apache-2.0
//! Protected VMs that start with the hypervisor's firmware.

use super::*;
use crate::firmware::{Firmware, WINDOW, WINDOW_PAGES};
use crate::hostcall::Ids;
use gzvm_abi::{ext, uapi};

const WINDOW_AT: u64 = GUEST - WINDOW;
const WINDOW_GFN: u64 = WINDOW_AT >> 12;
const MAGIC: u64 = 0x644d_5241;
/// The host's pages, of which those from [`BACKING`] on back the window.
const MANY: u64 = HOST_PAGES + WINDOW_PAGES;

/// A hypervisor with a firmware of two pages and a word, in the place of the pool's last pages.
fn with_firmware() -> Hypervisor<'static, FakeHardware> {
    let hyp = machine(Options::default(), MANY);
    let address = (FIRST + MANY + ALL_PAGES - HOST_PAGES - 4) * PAGE_SIZE;
    (0..0x400).for_each(|word| hyp.hw.write(address + word * 8, 0xf1f1_0000 + word));
    hyp.hw.write(address + 16, 2 * PAGE_SIZE + 8);
    hyp.hw.write(address + 56, MAGIC);
    hyp.hw.write(address + 2 * PAGE_SIZE, 0xf2f2);
    let firmware = Firmware::find(&hyp.hw, address);
    assert!(firmware.is_some());
    hyp.with_firmware(firmware)
}

fn register_window(hyp: &Hypervisor<'_, FakeHardware>, id: u64, purpose: u32) {
    let announce = [id, WINDOW_AT, WINDOW, u64::from(purpose)];
    assert_eq!(status(hyp, hvc::MEMREGION_PURPOSE, &announce), 0);
    [6, WINDOW_PAGES, WINDOW_AT].iter().zip(0..).for_each(|(word, n)| {
        hyp.hw.write(BUFFER + n * 8, *word);
    });
    assert_eq!(status(hyp, hvc::SET_MEMREGION, &[id, 8192, BUFFER]), 0);
}

fn set_firmware(hyp: &Hypervisor<'_, FakeHardware>, id: u64, gpa: u64) -> i32 {
    status(hyp, hvc::ENABLE_CAP, &[id, cap::PROTECTED_VM, cap::PVM_SET_PVMFW_GPA, gpa])
}

fn firmware_size(hyp: &Hypervisor<'_, FakeHardware>, id: u64) -> [u64; 4] {
    call(hyp, hvc::ENABLE_CAP, &[id, cap::PROTECTED_VM, cap::PVM_GET_PVMFW_SIZE])
}

/// RUN, as the host makes it: again, as long as it is told to.
fn run<'a>(hyp: &Hypervisor<'a, FakeHardware>, id: u64) -> Result<Begin<'a>, Status> {
    loop {
        match hyp.begin_run(Ids { vm: id as u16, vcpu: 0 }) {
            Ok(Begin::Again) => (),
            other => return other,
        }
    }
}

#[test]
fn without_firmware_none_is_placed() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, false);
    assert_eq!(firmware_size(&hyp, id), [0; 4]);
    assert_eq!(set_firmware(&hyp, id, WINDOW_AT), hvc::ERR_NOT_SUPPORTED);
    assert!(!hyp.vms[0].state.lock().protected);
}

#[test]
fn the_window_must_be_the_firmware_s_own_region() {
    let hyp = with_firmware();
    let bad = hvc::ERR_INVALID_ARGS;
    let id = vm(&hyp, false);
    assert_eq!(set_firmware(&hyp, id, WINDOW_AT), bad, "no region");
    register_window(&hyp, id, uapi::MEM_REGION_STATIC_SWIOTLB);
    assert_eq!(set_firmware(&hyp, id, WINDOW_AT), bad, "shared with the host");
    register_window(&hyp, id, uapi::MEM_REGION_PROTECT_FW);
    for gpa in [WINDOW_AT + 8, WINDOW_AT + PAGE_SIZE, GUEST, !0xfff] {
        assert_eq!(set_firmware(&hyp, id, gpa), bad, "{gpa:#x}");
    }
    drop(begin(&hyp, id));
    assert_eq!(set_firmware(&hyp, id, WINDOW_AT), bad, "it has run");
    assert!(!hyp.vms[0].state.lock().protected);
    let other = vm_without_run_pages(&hyp);
    register_window(&hyp, other, uapi::MEM_REGION_PROTECT_FW);
    let without = [other, cap::PROTECTED_VM, cap::PVM_SET_PROTECTED_VM];
    assert_eq!(status(&hyp, hvc::ENABLE_CAP, &without), 0);
    assert_eq!(set_firmware(&hyp, other, WINDOW_AT), bad, "protected without firmware");
}

/// A VM without vCPUs and memory.
fn vm_without_run_pages(hyp: &Hypervisor<'_, FakeHardware>) -> u64 {
    let [0, id, ..] = call(hyp, hvc::CREATE_VM, &[0]) else { panic!("no VM") };
    id
}

#[test]
fn the_guest_starts_in_firmware_that_the_host_neither_chose_nor_sees() {
    let hyp = with_firmware();
    let id = vm(&hyp, false);
    assert_eq!(firmware_size(&hyp, id), [0, 2 * PAGE_SIZE + 8, 0, 0]);
    register_window(&hyp, id, uapi::MEM_REGION_PROTECT_FW);
    // The first pages are there already, with what the host wants to be run.
    (BACKING..BACKING + WINDOW_PAGES).for_each(|pfn| hyp.hw.write(pfn * PAGE_SIZE + 64, 0xbad));
    let map = |gfn: u64, pages: u64| {
        let pfn = BACKING + gfn - WINDOW_GFN;
        status(&hyp, hvc::MAP_GUEST, &[id, 6, pfn, gfn, pages])
    };
    assert_eq!(map(WINDOW_GFN, 2), 0);
    assert_eq!(set_firmware(&hyp, id, WINDOW_AT), 0);
    assert_eq!(set_firmware(&hyp, id, WINDOW_AT), 0, "again");
    assert_eq!(set_firmware(&hyp, id, WINDOW_AT - WINDOW), hvc::ERR_INVALID_ARGS);
    assert!(hyp.vms[0].state.lock().protected);
    // The host may say what the firmware is told, not where the guest starts.
    let set = |register: u64| status(&hyp, hvc::SET_ONE_REG, &[id << 16, register, 0x77]);
    assert_eq!((set(reg::x(1)), set(reg::PC)), (0, hvc::ERR_NOT_SUPPORTED));
    // Nor can it make the window something else.
    let purpose = [id, WINDOW_AT, WINDOW, u64::from(uapi::MEM_REGION_STATIC_SWIOTLB)];
    assert_eq!(status(&hyp, hvc::MEMREGION_PURPOSE, &purpose), hvc::ERR_INVALID_ARGS);
    let remove = [id, ext::REMOVE_REGION, WINDOW_AT, WINDOW];
    assert_eq!(status(&hyp, hvc::ENABLE_CAP, &remove), hvc::ERR_INVALID_ARGS);
    // What is missing is asked for before the guest is entered.
    for gfn in [WINDOW_GFN + 2, WINDOW_GFN + 512] {
        let Ok(Begin::Exit(Exit::Fault(at))) = run(&hyp, id) else { panic!("no fault") };
        assert_eq!(at, gfn << 12);
        assert_eq!(map(gfn, if gfn == WINDOW_GFN + 2 { 510 } else { 512 }), 0);
    }
    let Ok(Begin::Run(running)) = run(&hyp, id) else { panic!("does not run") };
    assert_eq!((running.vcpu.regs.pc, running.vcpu.regs.x[1]), (WINDOW_AT, 0x77));
    for word in 0..0x401 {
        let expected = match word {
            2 => 2 * PAGE_SIZE + 8,
            7 => MAGIC,
            0x400 => 0xf2f2,
            _ => 0xf1f1_0000 + word,
        };
        assert_eq!(hyp.hw.read(BACKING * PAGE_SIZE + word * 8), expected, "word {word}");
    }
    for pfn in BACKING..BACKING + WINDOW_PAGES {
        assert_eq!(hyp.memory.lock().page(pfn), Page::Guest { vm: 0, open: false });
        let rest = if pfn == BACKING + 2 { 8 } else { 0 };
        if pfn >= BACKING + 2 {
            let mut bytes = [0; PAGE_SIZE as usize];
            hyp.hw.copy_in(pfn * PAGE_SIZE, &mut bytes);
            assert!(bytes[rest..].iter().all(|byte| *byte == 0), "page {pfn:#x}");
        }
    }
    drop(running);
}

#[test]
fn a_running_guest_gets_no_second_first_vcpu() {
    let hyp = hypervisor(Options::default());
    let id = vm(&hyp, true);
    let recreate = || {
        assert_eq!(status(&hyp, hvc::DESTROY_VCPU, &[id << 16]), 0);
        status(&hyp, hvc::CREATE_VCPU, &[id << 16, RUN_PAGES])
    };
    assert_eq!(recreate(), 0, "it has not run yet");
    drop(begin(&hyp, id));
    assert_eq!(recreate(), hvc::ERR_NOT_SUPPORTED);
    let second = [id << 16 | 1, RUN_PAGES + 2 * PAGE_SIZE];
    assert_eq!(status(&hyp, hvc::CREATE_VCPU, &second), 0, "which is off");
}
