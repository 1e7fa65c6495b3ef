// SPDX-License-Identifier: Apache-2.0
//! From the first instruction to power-off, on bare metal at EL1.

mod board;
mod console;
mod cpus;
mod exceptions;
mod start;
mod timer;

use arm_sysregs::el0::accessors::read_currentel;
use board::Board;
use gzvm_guest::{GenieZone, Hypervisor};
use payload::machine::Machine;
use payload::mode::Mode;
use payload::page::Page;
use payload::{hello, say, secret, DONE};

/// The page that is shared in one mode and kept secret in another.
static PAGE: Page = Page::zeroed();

/// Runs the program that the command line asks for. Entered by `start.rs`.
fn main(dtb: &'static [u8]) -> ! {
    let machine = match Machine::from_device_tree(dtb) {
        Ok(machine) => machine,
        // There is no console yet; the panic resets the VM.
        Err(error) => panic!("{error}"),
    };
    let refusal = guard_console_in(machine.uart).err();
    let mut board = Board::new(machine.clone());
    let mode = match Mode::from_command_line(machine.command_line) {
        Ok(mode) => mode,
        Err(word) => panic!("mode={word} is unknown: use hello, secret, panic, spin or idle"),
    };
    say!(&mut board, "payload: gzvm payload {}, mode {}", env!("CARGO_PKG_VERSION"), mode.name());
    if let Some(error) = refusal {
        say!(&mut board, "payload: {error}");
    }
    run(&mut board, &machine, mode);
    say!(&mut board, "{DONE}");
    power_off()
}

/// Makes the console's page reachable: under GenieZone, a guest says which pages the host may
/// emulate devices in.
fn guard_console_in(uart: u64) -> Result<(), gzvm_guest::Error> {
    let geniezone = GenieZone::detect(Hypervisor)?;
    let guard = geniezone.enroll_mmio_guard()?;
    let granule = guard.granule();
    guard.map(uart - uart % granule, granule)?.keep();
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
        Mode::Idle => {
            use payload::Platform;
            say!(board, "idle: sleeping");
            loop {
                board.sleep(1000);
            }
        }
    }
}

/// Turns the VM off.
fn power_off() -> ! {
    let _ = smccc::psci::system_off::<smccc::Hvc>();
    stop()
}

/// Waits for ever; used where the hypervisor did not do as it was told.
fn stop() -> ! {
    loop {
        arm_gic::wfi();
    }
}
