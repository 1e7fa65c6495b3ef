// SPDX-License-Identifier: Apache-2.0
//! Translations that outlive a donation: a CPU that used a page just before it was given away, and
//! uses it again right after, without having been in the hypervisor in between.

use gzvm_device_test::attack::{attempt, control, Got};
use gzvm_device_test::guest;
use gzvm_device_test::mapping::PAGE;
use gzvm_device_test::raw::{pin_to_cpu, Block, Gate, Raw};
use gzvm_device_test::rawvm::{RawVm, GFN};
use gzvm_device_test::sys;

use crate::victim::{FORGED, SECRET};

/// Where the page goes that is given away; the guest's program is in front of it.
const TARGET: u64 = GFN + 1;

/// What a VM needs, in the order of its life.
struct Stage {
    vm: RawVm,
    vcpu: Block,
    _code: Block,
}

impl Stage {
    /// A VM whose guest reads what it is told to.
    fn new(raw: &Raw, protected: bool) -> Self {
        let (code, vcpu) = (raw.alloc(PAGE), raw.alloc(2 * PAGE));
        code.mapping.load(0, guest::poke());
        let vm = RawVm::with_region(raw, 4);
        if protected {
            assert_eq!(vm.protect(), 0);
        }
        assert_eq!(vm.map(code.pfn(), GFN, 1), 0, "program");
        vm.boot_vcpu(&vcpu, &[0, SECRET]);
        Self { vm, vcpu, _code: code }
    }

    /// Gives the page away.
    fn take(&self, page: u64) {
        assert_eq!(self.vm.map(page, TARGET, 1), 0, "donation");
    }

    /// What the guest finds in it.
    fn guest_sees(&self) -> u64 {
        self.vm.answer(&self.vcpu, TARGET * PAGE);
        self.vm.report(&self.vcpu)
    }
}

/// The kernel of CPU 1 accesses the page while CPU 2 gives it away.
fn by_the_kernel(block: &Block, page: u64, write: bool, protected: bool) -> Got {
    let raw = Raw::get();
    let gate = Gate::new(&raw);
    let stage = Stage::new(&raw, protected);
    block.mapping.write(page * PAGE, SECRET);
    let pa = block.pa + page * PAGE;
    let value = write.then_some(!FORGED);
    let (before, after) = std::thread::scope(|scope| {
        let toucher = scope.spawn(|| {
            pin_to_cpu(1);
            raw.touch_twice(pa, value, &gate).expect("two accesses")
        });
        let giver = scope.spawn(|| {
            pin_to_cpu(2);
            gate.wait();
            stage.take(block.pfn() + page);
            gate.open();
        });
        giver.join().expect("the donation");
        toucher.join().expect("the accesses")
    });
    if write {
        assert_eq!(before, !FORGED);
        return Got::of_value(stage.guest_sees(), FORGED);
    }
    assert_eq!(before, SECRET, "the translation was in use");
    assert_eq!(stage.guest_sees(), SECRET, "donation keeps what is in the page");
    Got::of_value(after, SECRET)
}

/// A process on CPU 1 accesses the page while CPU 2 gives it away.
fn by_user_mode(block: &Block, page: u64, protected: bool) -> Got {
    let raw = Raw::get();
    let gate = Gate::new(&raw);
    let stage = Stage::new(&raw, protected);
    block.mapping.write(page * PAGE, SECRET);
    let child = sys::spawn(|| {
        pin_to_cpu(1);
        assert_eq!(block.mapping.read(page * PAGE), SECRET);
        gate.pass();
        u8::from(block.mapping.read(page * PAGE) == SECRET)
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin_to_cpu(2);
            gate.wait();
            stage.take(block.pfn() + page);
            gate.open();
        });
    });
    Got::of_child(sys::wait_for(child))
}

/// The first page comes out of a large mapping of the host's, the others out of what that became.
const PAGES: [u64; 4] = [300, 5, 6, 511];

pub fn stale_translations_of_a_donated_page() {
    let raw = Raw::get();
    let block = raw.alloc(1024 * PAGE);
    for page in PAGES {
        for (name, write) in
            [("stale load by the kernel", false), ("stale store by the kernel", true)]
        {
            attempt(name, by_the_kernel(&block, page, write, true));
            control(name, by_the_kernel(&block, page, write, false));
        }
        attempt("stale load in user mode", by_user_mode(&block, page, true));
        control("stale load in user mode", by_user_mode(&block, page, false));
    }
}

/// The other way round: once the host has its page again, what the kernel writes is not lost.
pub fn no_translation_outlives_the_guest() {
    let raw = Raw::get();
    let block = raw.alloc(PAGE);
    let gate = Gate::new(&raw);
    let stage = Stage::new(&raw, true);
    block.mapping.write(0, SECRET);
    stage.take(block.pfn());
    let (before, after) = std::thread::scope(|scope| {
        let toucher = scope.spawn(|| {
            pin_to_cpu(1);
            raw.touch_twice(block.pa, None, &gate).expect("two accesses")
        });
        scope.spawn(|| {
            pin_to_cpu(2);
            gate.wait();
            stage.vm.destroy();
            assert_eq!(block.mapping.read(0), 0, "the page came back wiped");
            block.mapping.write(0, FORGED);
            gate.open();
        });
        toucher.join().expect("the accesses")
    });
    assert_ne!(before, SECRET);
    assert_eq!(after, FORGED, "the kernel's view of a page that came back");
}
