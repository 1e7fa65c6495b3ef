// SPDX-License-Identifier: Apache-2.0
//! The physical GICv3, as far as EL2 uses it: a kick from CPU to CPU, and the interrupts of the
//! guests' timers and of the virtual CPU interface.

use super::cpu;
use super::sysreg::{dsb, isb, read, write};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use refhyp::dt::Range;

/// The software-generated interrupt that makes a CPU leave its guest. Linux uses 0 to 7.
pub const KICK: u32 = 15;
/// Maintenance interrupt of the virtual CPU interface.
pub const MAINTENANCE: u32 = 25;
/// EL2's physical timer.
pub const HYP_TIMER: u32 = 26;
/// The virtual timer.
pub const VIRTUAL_TIMER: u32 = 27;

/// Interrupt ids from here on mean that none is pending.
pub const NONE: u64 = 1020;

/// Bytes of a redistributor's two frames.
const FRAMES: u64 = 0x2_0000;
const TYPER: u64 = 0x8;
const LAST: u64 = 1 << 4;
/// Registers in the second frame.
const ISENABLER0: u64 = 0x1_0100;
const ICPENDR0: u64 = 0x1_0280;
const ISACTIVER0: u64 = 0x1_0300;
const ICACTIVER0: u64 = 0x1_0380;

static REDISTRIBUTORS: [AtomicU64; cpu::MAX_CPUS] = [const { AtomicU64::new(0) }; cpu::MAX_CPUS];

/// CPUs that were kicked since they last took a kick back.
static KICKED: [AtomicBool; cpu::MAX_CPUS] = [const { AtomicBool::new(false) }; cpu::MAX_CPUS];

fn mmio_read32(address: u64) -> u32 {
    // SAFETY: the address is in a redistributor's frames (`find`), mapped as device memory.
    unsafe { (address as *const u32).read_volatile() }
}

fn mmio_read64(address: u64) -> u64 {
    // SAFETY: as above.
    unsafe { (address as *const u64).read_volatile() }
}

fn mmio_write32(address: u64, value: u32) {
    // SAFETY: as above; the registers concern interrupts only.
    unsafe { (address as *mut u32).write_volatile(value) }
}

/// Finds each CPU's redistributor in the region that the device tree names.
pub fn find(region: Range) {
    let mut frame = region.start;
    while frame + FRAMES <= region.end {
        let typer = mmio_read64(frame + TYPER);
        let affinity = typer >> 32;
        let mpidr = (affinity & 0xff_ffff) | (affinity >> 24) << 32;
        if let Some(place) = cpu::find(mpidr).and_then(|index| REDISTRIBUTORS.get(index)) {
            place.store(frame, Ordering::Relaxed);
        }
        if typer & LAST != 0 {
            break;
        }
        frame += FRAMES;
    }
    debug_assert_eq!(mmio_read32(region.start + 0x4) & 0xfff, 0x43b, "not Arm's redistributor");
}

fn own() -> u64 {
    REDISTRIBUTORS.get(cpu::current()).map_or(0, |frame| frame.load(Ordering::Relaxed))
}

fn write_own(register: u64, interrupt: u32) {
    let frame = own();
    if frame != 0 {
        mmio_write32(frame + register, 1 << interrupt);
    }
}

/// Sets up the CPU interface for EL2 and for EL1 behind it.
pub fn init_cpu() {
    // System registers at EL2 and EL1.
    write!("S3_4_C12_C9_5", 0xf); // ICC_SRE_EL2
    isb();
    write!("S3_0_C12_C12_5", 0x7); // ICC_SRE_EL1
    write!("S3_4_C12_C11_0", 0); // ICH_HCR_EL2
    isb();
}

/// Enables EL2's interrupts on this CPU. The host's own set-up clears them, so this comes before
/// each run of a guest.
pub fn enable_own() {
    let frame = own();
    if frame != 0 {
        let all = 1 << KICK | 1 << MAINTENANCE | 1 << HYP_TIMER | 1 << VIRTUAL_TIMER;
        mmio_write32(frame + ISENABLER0, all);
    }
}

/// Makes a CPU leave its guest.
pub fn kick(target: usize) {
    if let Some(kicked) = KICKED.get(target) {
        kicked.store(true, Ordering::Release);
    }
    let mpidr = cpu::mpidr(target);
    let (aff0, aff1, aff2, aff3) =
        (mpidr & 0xff, (mpidr >> 8) & 0xff, (mpidr >> 16) & 0xff, (mpidr >> 32) & 0xff);
    let range = aff0 / 16;
    let targets = 1u64 << (aff0 % 16);
    dsb();
    write!(
        "S3_0_C12_C11_5", // ICC_SGI1R_EL1
        aff3 << 48 | range << 44 | aff2 << 32 | u64::from(KICK) << 24 | aff1 << 16 | targets
    );
    isb();
}

/// Takes back a kick that has done its work, so that the host does not see it. Called after the
/// lock under which kicks are sent was taken and left, so that none is under way.
pub fn clear_kick() {
    let kicked = KICKED.get(cpu::current());
    if kicked.is_some_and(|kicked| kicked.swap(false, Ordering::Acquire)) {
        write_own(ICPENDR0, KICK);
        dsb();
    }
}

/// The interrupt that would be taken next, if any; 1020 and above mean none.
pub fn highest_pending() -> u64 {
    read!("S3_0_C12_C12_2") // ICC_HPPIR1_EL1
}

/// Marks the virtual timer's interrupt as active, so that it is not signalled again before the
/// guest has ended it, or takes that mark away.
pub fn set_timer_active(active: bool) {
    write_own(if active { ISACTIVER0 } else { ICACTIVER0 }, VIRTUAL_TIMER);
    dsb();
}
