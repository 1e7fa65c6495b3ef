// SPDX-License-Identifier: Apache-2.0
//! B10: exits, faults and interrupts of several vCPUs at once. For a machine with eight CPUs, one for
//! each.

use std::sync::Barrier;
use std::thread;

use gzvm_device_test::events::Event;
use gzvm_device_test::guest::{gic_redist, GIC_DIST, REPORT};
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
/// Interrupts that each vCPU sends to its neighbour, and gets from it.
const INTERRUPTS: u64 = 500;
/// Where the doorbells are, 8 bytes for each vCPU.
const DOORBELLS: u64 = REPORT + 0x1000;

/// What all vCPUs do at once.
struct Work<'a> {
    /// An event, in words.
    what: &'a str,
    /// Events of each vCPU.
    each: u64,
    program: &'a [u8],
}

/// All of them.
pub fn rows(report: &mut Report) {
    let work = |what, each, program| Work { what, each, program };
    let writes = work("MMIO write that hits an ioeventfd", WRITES, guests::orders());
    let touches = work("first touch of a 2 MiB block", BLOCKS, guests::orders());
    let interrupts = work("SGI to the neighbour, who sleeps", INTERRUPTS, guests::rallies());
    for vcpus in [1, 2, 4, 8] {
        // Writes, to which address, memory to touch from, to, in which steps.
        for _ in 0..2 {
            together(report, &writes, vcpus, |vcpu| vec![WRITES, DOORBELLS + 8 * vcpu, 0, 0, 0]);
            together(report, &touches, vcpus, |vcpu| {
                let start = RAM + BLOCK * (1 + vcpu * BLOCKS);
                vec![0, 0, start, start + BLOCKS * BLOCK, BLOCK]
            });
            if vcpus > 1 {
                together(report, &interrupts, vcpus, |_| vec![INTERRUPTS]);
            }
        }
    }
}

/// Has all vCPUs follow their orders at once: words that each of them reads.
fn together(
    report: &mut Report,
    work: &Work<'_>,
    count: u64,
    orders: impl Fn(u64) -> Vec<u64> + Send + Sync,
) {
    // A block more than the program's own needs: faults are served in whole blocks.
    let machine = Machine::bare(Backing::Huge.mapping((1 + count * BLOCKS) * BLOCK));
    machine.ram.load(0, work.program);
    machine.add_ram().expect("memory slot");
    machine.add_gic(count);
    let events: Vec<_> = (0..count).map(|_| Event::new()).collect();
    for (event, vcpu) in events.iter().zip(0..) {
        mmio::connect(&machine, event, DOORBELLS + 8 * vcpu);
    }
    let words = RAM + MIB;
    // All are there before the first starts the others.
    let mut vcpus: Vec<_> =
        vec![machine.boot_vcpu(&[count, GIC_DIST, gic_redist(count), 0, words, RAM])];
    vcpus.extend(
        (1..usize::try_from(count).expect("a small number")).map(|index| machine.vcpu(index)),
    );
    let barrier = Barrier::new(vcpus.len() + 1);
    thread::scope(|scope| {
        for ((cpu, vcpu), index) in vcpus.into_iter().enumerate().zip(0..) {
            let (barrier, orders) = (&barrier, orders(index));
            scope.spawn(move || {
                pin(cpu);
                follow(vcpu, &orders, barrier);
            });
        }
        // All wait for the last word of their orders.
        barrier.wait();
        let what = format!("{}, {count} vCPUs", work.what);
        report.window(Row::new("B10", &what, count * work.each), || {
            barrier.wait();
            barrier.wait();
        });
    });
}

/// Tells a vCPU its orders, the last word when all are ready, and waits until it has followed them.
fn follow(mut vcpu: Vcpu, orders: &[u64], barrier: &Barrier) {
    let (last, first) = orders.split_last().expect("a word at least");
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
