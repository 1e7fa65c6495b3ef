// SPDX-License-Identifier: Apache-2.0
//! B10: exits and faults of several vCPUs at once. For a machine with eight CPUs, one for each.

use std::sync::Barrier;
use std::thread;

use gzvm_device_test::events::Event;
use gzvm_device_test::guest::REPORT;
use gzvm_device_test::machine::{Exit, Machine, Vcpu, RAM};

use crate::cpus::pin;
use crate::memory::Backing;
use crate::window::{Report, Row};
use crate::{guests, mmio};

const MIB: u64 = 1 << 20;
/// Unit of demand paging.
const BLOCK: u64 = 2 * MIB;
/// Blocks that each vCPU touches.
const BLOCKS: u64 = 16;
/// Writes that each vCPU makes.
const WRITES: u64 = 1000;
/// Where the doorbells are, 8 bytes for each vCPU.
const DOORBELLS: u64 = REPORT + 0x1000;

/// What a vCPU is to do next: writes, to which address, memory to touch from, to, in which steps.
type Order = [u64; 5];

/// All of them.
pub fn rows(report: &mut Report) {
    for vcpus in [1, 2, 4, 8] {
        let writes = move |vcpu| [WRITES, DOORBELLS + 8 * vcpu, 0, 0, 0];
        let what = format!("MMIO write that hits an ioeventfd, {vcpus} vCPUs");
        together(report, &what, vcpus, WRITES, writes);
        let touches = move |vcpu| {
            let start = RAM + BLOCK * (1 + vcpu * BLOCKS);
            [0, 0, start, start + BLOCKS * BLOCK, BLOCK]
        };
        let what = format!("first touch of a 2 MiB block, {vcpus} vCPUs");
        together(report, &what, vcpus, BLOCKS, touches);
    }
}

fn together(
    report: &mut Report,
    what: &str,
    vcpus: u64,
    each: u64,
    order: impl Fn(u64) -> Order + Copy + Send + Sync,
) {
    // A block more than the program's own needs: faults are served in whole blocks.
    let machine = Machine::bare(Backing::Huge.mapping((1 + vcpus * BLOCKS) * BLOCK));
    machine.ram.load(0, guests::orders());
    machine.add_ram().expect("memory slot");
    machine.add_gic(vcpus);
    let events: Vec<_> = (0..vcpus).map(|_| Event::new()).collect();
    for (event, vcpu) in events.iter().zip(0..) {
        mmio::connect(&machine, event, DOORBELLS + 8 * vcpu);
    }
    let words = RAM + MIB;
    let barrier = Barrier::new(usize::try_from(vcpus).expect("a small number") + 1);
    thread::scope(|scope| {
        for index in 0..vcpus {
            let (machine, barrier) = (&machine, &barrier);
            let cpu = usize::try_from(index).expect("a small number");
            let vcpu = match cpu {
                0 => machine.boot_vcpu(&[vcpus, 0, 0, 0, words, RAM]),
                _ => machine.vcpu(cpu),
            };
            scope.spawn(move || {
                pin(cpu);
                follow(vcpu, order(index), barrier);
            });
        }
        // All wait for the last word of their orders.
        barrier.wait();
        report.window(Row::new("B10", what, vcpus * each), || {
            barrier.wait();
            barrier.wait();
        });
    });
}

/// Tells a vCPU its orders, the last word when all are ready, and waits until it has followed them.
fn follow(mut vcpu: Vcpu, order: Order, barrier: &Barrier) {
    let (last, first) = order.split_last().expect("five words");
    for word in first {
        vcpu.answer_next_read(*word);
    }
    loop {
        match vcpu.run() {
            Ok(Exit::Read(_)) => break,
            Err(libc::EINTR) => {}
            other => panic!("no read but {other:?}"),
        }
    }
    barrier.wait();
    barrier.wait();
    vcpu.answer(*last);
    vcpu.report();
    barrier.wait();
}
