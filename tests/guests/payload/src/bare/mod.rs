// SPDX-License-Identifier: Apache-2.0
//! From the first instruction to power-off, on bare metal at EL1.

mod board;
mod cpus;
mod stall;
mod timer;

use arm_sysregs::el0::accessors::read_currentel;
use board::Board;
use guest_bare::page::Page;
use gzvm_guest::{GenieZone, Hypervisor};
use payload::machine::Machine;
use payload::mode::Mode;
use payload::{hello, say, secret, DONE};
use stall::StallDetector;

/// The page that is shared in one mode and kept secret in another.
static PAGE: Page = Page::zeroed();

guest_bare::program!("payload", main);

/// Runs the program that the command line asks for. The boot protocol has the device tree's address
/// in x0.
fn main([dtb, ..]: [u64; 3]) -> ! {
    let machine = match Machine::from_device_tree(guest_bare::start::device_tree(dtb)) {
        Ok(machine) => machine,
        // There is no console yet; the panic resets the VM.
        Err(error) => panic!("{error}"),
    };
    let refusal = guard_in(&machine).err();
    let mut board = Board::new(machine.clone());
    let mode = match Mode::from_command_line(machine.command_line) {
        Ok(mode) => mode,
        Err(word) => panic!("mode={word} is unknown: it names no mode"),
    };
    say!(&mut board, "payload: gzvm payload {}, mode {}", env!("CARGO_PKG_VERSION"), mode.name());
    if let Some(error) = refusal {
        say!(&mut board, "payload: {error}");
    }
    run(&mut board, &machine, mode);
    say!(&mut board, "{DONE}");
    guest_bare::exceptions::power_off()
}

/// Makes the devices' pages reachable: under GenieZone, a guest says which pages the host may
/// emulate devices in.
fn guard_in(machine: &Machine<'_>) -> Result<(), gzvm_guest::Error> {
    let geniezone = GenieZone::detect(Hypervisor)?;
    let guard = geniezone.enroll_mmio_guard()?;
    let granule = guard.granule();
    for address in [Some(machine.uart), machine.stall_detector].into_iter().flatten() {
        guard.map(address - address % granule, granule)?.keep();
    }
    Ok(())
}

/// Runs a mode to its end, if it has one.
fn run(board: &mut Board<'_>, machine: &Machine<'_>, mode: Mode) {
    // CAST: the exception level has two bits.
    let exception_level = read_currentel().el() as u8;
    match mode {
        Mode::Hello => {
            hello::banner(board, machine, exception_level);
            hello::run(board, machine, &PAGE);
        }
        Mode::Secret => {
            hello::banner(board, machine, exception_level);
            if let Err(error) = secret::run(board, &PAGE) {
                say!(board, "secret: FAILED: {error}");
            }
        }
        Mode::Panic => panic!("as asked by mode=panic"),
        Mode::Spin => {
            say!(board, "spin: running");
            for round in 0_u64.. {
                core::hint::black_box(round);
            }
        }
        Mode::Stall | Mode::Watched => watched(board, machine, mode),
        Mode::Idle => {
            use payload::Platform;
            say!(board, "idle: sleeping");
            loop {
                board.sleep(1000);
            }
        }
    }
}

/// Computes for ever under the eyes of the stall detector, whose time is a second.
fn watched(board: &mut Board<'_>, machine: &Machine<'_>, mode: Mode) {
    use payload::Platform;
    let Some(mut detector) = machine.stall_detector.and_then(StallDetector::new) else {
        panic!("there is no stall detector");
    };
    detector.start(1000);
    say!(board, "{}: running", mode.name());
    for round in 1_u64.. {
        let until = board.counter() + board.counter_frequency() / 10;
        while board.counter() < until || mode == Mode::Stall {}
        detector.reload();
        say!(board, "watched: {round}");
    }
}
