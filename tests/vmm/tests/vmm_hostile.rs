// SPDX-License-Identifier: Apache-2.0
//! Guests that mean no good.

#![forbid(unsafe_code)]

use anyhow::{ensure, Result};
use gzvm_vmm_test::console::Console;
use gzvm_vmm_test::vmm::{pipe, Setup, Vmm};
use gzvm_vmm_test::{host, tests, PATIENCE};
use nix::libc::O_NONBLOCK;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// A VM that runs `code`, which `file` gets, and its serial port.
fn bare(file: &str, code: &[u32]) -> Result<(Vmm, Console)> {
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    fs::write(file, bytes)?;
    let mut setup = Setup::new()?;
    let console = setup.console("hardware=serial,num=1")?;
    let bios = setup.open(file)?;
    setup.args("--mem 16 --bios").arg(&bios);
    Ok((setup.start()?, console))
}

/// Accesses of [`FLOOD`] that leave the guest.
const EXITS: u64 = 5 * 4000;
/// What the VMM may grow by, in KiB: less than 16 bytes for each exit.
const GROWTH: u64 = EXITS * 16 / 1024;

/// Says S, writes and reads configuration space and a device's registers in turn with a counter, at
/// offsets that follow it, says D and sleeps.
const FLOOD: [u32; 23] = [
    0xd280_7f07, // mov x7, #0x3f8
    0x5280_0a68, // mov w8, #'S'
    0x3900_00e8, // strb w8, [x7]
    0x5280_0148, // mov w8, #'\n'
    0x3900_00e8, // strb w8, [x7]
    0xd2a5_c001, // mov x1, #0x2e000000
    0xd2a5_8005, // mov x5, #0x2c000000
    0xd284_0006, // mov x6, #0x2000
    0x5281_f402, // mov w2, #4000
    0xd37e_3043, // 1: ubfiz x3, x2, #2, #13
    0xb823_6822, // str w2, [x1, x3]
    0xb863_6824, // ldr w4, [x1, x3]
    0xb823_68a2, // str w2, [x5, x3]
    0xb863_68a4, // ldr w4, [x5, x3]
    0xb900_00c2, // str w2, [x6]
    0x7100_0442, // subs w2, w2, #1
    0x54ff_ff21, // b.ne 1b
    0x5280_0888, // mov w8, #'D'
    0x3900_00e8, // strb w8, [x7]
    0x5280_0148, // mov w8, #'\n'
    0x3900_00e8, // strb w8, [x7]
    0xd503_207f, // 2: wfi
    0x17ff_ffff, // b 2b
];

/// Whatever a guest writes where, the VMM keeps nothing of it.
fn flood_of_mmio_does_not_grow_the_vmm() -> Result<()> {
    let (mut vmm, mut console) = bare("/tmp/flood", &FLOOD)?;
    console.expect("S", PATIENCE)?;
    let before = host::own_memory(vmm.pid())?;
    console.expect("D", PATIENCE)?;
    let grown = host::own_memory(vmm.pid())?.saturating_sub(before);
    ensure!(grown < GROWTH, "the VMM has grown by {grown} KiB");
    ensure!(vmm.runs(), "it has ended: {}", vmm.said());
    vmm.signal(Signal::SIGTERM)?;
    vmm.wait()?.check(-(Signal::SIGTERM as i32), "")
}

/// Starts of a device that [`FAULTS`] does, each without features.
const STARTS: usize = 4000;
/// Lines of the log that may come of it: the first few, and one each ten seconds.
const LINES: usize = STARTS / 10;

/// Resets and starts the first device again and again, says D and sleeps.
const FAULTS: [u32; 14] = [
    0xd2a5_8001, // mov x1, #0x2c000000
    0x5281_f402, // mov w2, #4000
    0x3900_503f, // 1: strb wzr, [x1, #0x14]
    0x5280_0083, // mov w3, #4 (DRIVER_OK)
    0x3900_5023, // strb w3, [x1, #0x14]
    0x7100_0442, // subs w2, w2, #1
    0x54ff_ff81, // b.ne 1b
    0xd280_7f07, // mov x7, #0x3f8
    0x5280_0888, // mov w8, #'D'
    0x3900_00e8, // strb w8, [x7]
    0x5280_0148, // mov w8, #'\n'
    0x3900_00e8, // strb w8, [x7]
    0xd503_207f, // 2: wfi
    0x17ff_ffff, // b 2b
];

/// A guest's faults are told, but they do not fill the log.
fn faults_do_not_fill_the_log() -> Result<()> {
    let (mut vmm, mut console) = bare("/tmp/faults", &FAULTS)?;
    console.expect("D", PATIENCE).map_err(|e| e.context(vmm.said()))?;
    vmm.signal(Signal::SIGTERM)?;
    let ended = vmm.wait()?;
    ended.check(-(Signal::SIGTERM as i32), "started before its features were agreed on")?;
    let lines = ended.said.matches("started before its features").count();
    println!("{STARTS} faults, {lines} lines");
    ensure!(lines <= LINES, "{lines} lines");
    Ok(())
}

/// Prints for ever.
const CHATTER: [u32; 4] = [
    0xd280_7f07, // mov x7, #0x3f8
    0x5280_0f08, // mov w8, #'x'
    0x3900_00e8, // 1: strb w8, [x7]
    0x17ff_ffff, // b 1b
];

/// A guest whose serial port nobody reads stops there; the VMM can be ended all the same.
fn console_that_nobody_reads_does_not_keep_the_vmm() -> Result<()> {
    fs::write("/tmp/chatter", CHATTER.map(u32::to_le_bytes).as_flattened())?;
    let (_reader, writer) = pipe()?;
    // Of its own, not to wait: the other one's owner does.
    let path = format!("/proc/self/fd/{}", writer.as_raw_fd());
    let mut probe = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(path)?;
    let mut setup = Setup::new()?;
    let (output, bios) = (setup.file(writer), setup.open("/tmp/chatter")?);
    setup.arg(&format!("--serial=type=file,path={output},num=1"));
    setup.args("--mem 16 --bios").arg(&bios);
    let mut vmm = setup.start()?;
    host::settles("the vCPU waits for a reader", || {
        ensure!(vmm.runs(), "it has ended: {}", vmm.said());
        // A guest that prints all the time never sleeps, but for this.
        Ok(probe.write(b"y").is_err() && sleeps(vmm.pid(), "vcpu0")?)
    })?;
    vmm.signal(Signal::SIGTERM)?;
    let ended = vmm.wait()?;
    ended.check(-(Signal::SIGTERM as i32), "")?;
    ensure!(!ended.said.contains("do not stop"), "it waited for the reader: {}", ended.said);
    Ok(())
}

/// Whether a thread of a process is in an interruptible sleep.
fn sleeps(process: Pid, thread: &str) -> Result<bool> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim_end() == thread {
            return Ok(fs::read_to_string(task.join("stat"))?.contains(") S "));
        }
    }
    Ok(false)
}

fn main() {
    tests![
        flood_of_mmio_does_not_grow_the_vmm,
        faults_do_not_fill_the_log,
        console_that_nobody_reads_does_not_keep_the_vmm,
    ]
}
