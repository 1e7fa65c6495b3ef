// SPDX-License-Identifier: Apache-2.0
//! The world switch: from the host's RUN call into a guest and back.

use super::hardware::{vttbr, Real};
use super::machine::hypervisor;
use super::sysreg::{self, isb, read, write};
use super::{cpu, gic, lists, stretch, vectors};
use core::sync::atomic::{AtomicU8, Ordering};
use gzvm_abi::hvc;
use refhyp::context::{Fp, Regs, Sys, SYS_COUNT};
use refhyp::esr::Esr;
use refhyp::guest::{Next, Trap};
use refhyp::hostcall::{index, Ids};
use refhyp::hyp::{Begin, Exit, Hypervisor, Running};
use refhyp::inject::{self, Exception};
use refhyp::memory::MAX_VMS;
use refhyp::timer::Timer;
use refhyp::vgic::{Lists, PHYSICAL_TIMER, VIRTUAL_TIMER};

/// Names every switched register once, in the order of `refhyp::context::Sys`.
macro_rules! switched {
    ($($name:literal),* $(,)?) => {
        fn save_sys(sys: &mut Sys) {
            *sys = [$(read!($name)),*];
        }

        fn load_sys(sys: &Sys) {
            let mut values = sys.iter().copied();
            $(write!($name, values.next().unwrap_or(0));)*
        }
    };
}

switched!(
    "sctlr_el1",
    "cpacr_el1",
    "sp_el0",
    "sp_el1",
    "elr_el1",
    "spsr_el1",
    "ttbr0_el1",
    "ttbr1_el1",
    "tcr_el1",
    "esr_el1",
    "afsr0_el1",
    "afsr1_el1",
    "far_el1",
    "mair_el1",
    "vbar_el1",
    "contextidr_el1",
    "amair_el1",
    "cntkctl_el1",
    "par_el1",
    "tpidr_el0",
    "tpidrro_el0",
    "tpidr_el1",
    "csselr_el1",
    "mdscr_el1",
);

/// What the host has in registers that guests use too.
struct Host {
    sys: Sys,
    fp: Fp,
    vttbr: u64,
    hcr: u64,
    mdcr: u64,
    vmpidr: u64,
}

impl Host {
    fn save() -> Self {
        let mut host = Self {
            sys: [0; SYS_COUNT],
            fp: Fp::ZERO,
            vttbr: read!("vttbr_el2"),
            hcr: read!("hcr_el2"),
            mdcr: read!("mdcr_el2"),
            vmpidr: read!("vmpidr_el2"),
        };
        save_sys(&mut host.sys);
        vectors::save_fp(&mut host.fp);
        host
    }

    fn load(&self) {
        write!("vbar_el2", vectors::host_table());
        write!("hcr_el2", self.hcr);
        write!("vttbr_el2", self.vttbr);
        write!("mdcr_el2", self.mdcr);
        write!("vmpidr_el2", self.vmpidr);
        write!("cnthctl_el2", sysreg::CNTHCTL_HOST);
        write!("cntvoff_el2", 0);
        load_sys(&self.sys);
        vectors::load_fp(&self.fp);
        isb();
    }
}

/// Which vCPU of each VM ran last on each CPU, plus 1.
static LAST_RAN: [[AtomicU8; MAX_VMS]; cpu::MAX_CPUS] =
    [const { [const { AtomicU8::new(0) }; MAX_VMS] }; cpu::MAX_CPUS];

/// vCPUs of one VM may use equal address space ids for different things; each expects TLBs and
/// instruction caches of its own.
fn separate_from_siblings(running: &Running<'_>) {
    let last = LAST_RAN.get(cpu::current()).and_then(|cpu| cpu.get(running.slot));
    let own = u8::try_from(running.index + 1).unwrap_or(0);
    if last.is_none_or(|last| last.swap(own, Ordering::Relaxed) != own) {
        super::hardware::drop_local_translations();
    }
}

fn load_guest(hypervisor: &Hypervisor<'_, Real>, running: &Running<'_>) {
    let space = match hypervisor.memory.lock().guest_space(running.slot) {
        Some(space) => space,
        None => panic!("a running VM has no address space"),
    };
    write!("vbar_el2", vectors::guest_table());
    write!("hcr_el2", sysreg::hcr::GUEST);
    write!("vttbr_el2", vttbr(space));
    write!("mdcr_el2", read!("mdcr_el2") | sysreg::MDCR_GUEST);
    write!("vmpidr_el2", 1 << 31 | refhyp::vm::mpidr_of_vcpu(running.index));
    write!("cnthctl_el2", sysreg::CNTHCTL_GUEST);
    write!("cntvoff_el2", running.counter_offset);
    load_sys(&running.vcpu.sys);
    vectors::load_fp(&running.vcpu.fp);
    write!("cntv_cval_el0", running.vcpu.virtual_timer.compare);
    write!("cntv_ctl_el0", running.vcpu.virtual_timer.control);
    lists::load(&running.vcpu.gic);
    isb();
    separate_from_siblings(running);
}

fn save_guest(running: &mut Running<'_>) {
    write!("cntv_ctl_el0", 0);
    let vcpu = &mut *running.vcpu;
    lists::save(&mut vcpu.gic);
    save_sys(&mut vcpu.sys);
    vectors::save_fp(&mut vcpu.fp);
    isb();
}

/// Runs a vCPU for the host; the results for x0 to x3, or nothing if the host is to make the call
/// again after its interrupts.
pub fn run(ids: Ids) -> Option<[u64; 4]> {
    let hypervisor = hypervisor();
    let mut running = match hypervisor.begin_run(ids) {
        Ok(Begin::Run(running)) => running,
        Ok(Begin::Exit(exit)) => return Some([0, u64::from(exit.reason()), 0, 0]),
        Ok(Begin::Again) => return None,
        // CAST: sign extension.
        Err(status) => return Some([i64::from(status) as u64, 0, 0, 0]),
    };
    let host = Host::save();
    gic::enable_own();
    load_guest(hypervisor, &running);
    let mut timer_active = false;
    let mut shown = Lists::default();
    let exit = loop {
        if let Some(exit) = hypervisor.owed(&running) {
            break exit;
        }
        let next = enter(hypervisor, &mut running, &mut timer_active, &mut shown);
        match next {
            Next::Resume => (),
            Next::Inject(exception) => inject(&mut running.vcpu.regs, exception),
            Next::Exit(exit) => break exit,
        }
        if hypervisor.stopping(running.slot) {
            break Exit::Irq;
        }
    };
    if timer_active {
        gic::set_timer_active(false);
    }
    save_guest(&mut running);
    host.load();
    hypervisor.report(&running, &exit, &shown);
    Some([0, u64::from(exit.reason()), 0, 0])
}

/// Enters the guest once and handles what it stopped for.
fn enter(
    hypervisor: &Hypervisor<'_, Real>,
    running: &mut Running<'_>,
    timer_active: &mut bool,
    shown: &mut Lists,
) -> Next {
    let (virtual_line, physical_line) = hypervisor.timer_lines(running);
    let mut shared = running.vm.shared.lock();
    shared.gic.set_line(running.index, VIRTUAL_TIMER, virtual_line);
    shared.gic.set_line(running.index, PHYSICAL_TIMER, physical_line);
    let mut in_use = shared.gic.enter(running.index, cpu::current(), lists::count());
    drop(shared);
    // The physical interrupt is active while its virtual one is being handled, and also while the
    // guest does not want it; else it would stop the guest again and again.
    let active = virtual_line || in_use.timer;
    if active || *timer_active {
        gic::set_timer_active(active);
    }
    *timer_active = active;
    arm_physical_timer(running.vcpu.physical_timer, physical_line);
    lists::write(&in_use);
    isb();
    stretch::end(u64::from(index(hvc::RUN)));
    let exit = vectors::run(&mut running.vcpu.regs);
    stretch::begin();
    let trap =
        Trap { esr: Esr(read!("esr_el2")), far: read!("far_el2"), hpfar: read!("hpfar_el2") };
    write!("cnthp_ctl_el2", 0);
    let ended = lists::read(&mut in_use);
    running.vcpu.virtual_timer =
        Timer { control: read!("cntv_ctl_el0") & 0b11, compare: read!("cntv_cval_el0") };
    hypervisor.leave(running, &in_use, ended);
    // Kicks are sent under that lock, and from now on this vCPU gets none.
    gic::clear_kick();
    *shown = in_use;
    match exit {
        vectors::Exit::Sync => hypervisor.guest_trap(running, trap),
        vectors::Exit::Irq => after_interrupt(),
        vectors::Exit::SError => Next::Exit(Exit::Internal([trap.esr.0, trap.far, trap.hpfar])),
    }
}

/// The guest was stopped by a physical interrupt: the host's must be taken by the host; what was
/// for EL2 itself has done its work by stopping the guest.
fn after_interrupt() -> Next {
    match gic::highest_pending() {
        pending if pending >= gic::NONE => Next::Resume,
        pending if pending == u64::from(gic::VIRTUAL_TIMER) => Next::Resume,
        _ => Next::Exit(Exit::Irq),
    }
}

/// Has the guest stopped when its physical timer, which is not in hardware, fires.
fn arm_physical_timer(timer: Timer, line: bool) {
    if timer.armed() && !line {
        write!("cnthp_cval_el2", timer.compare);
        write!("cnthp_ctl_el2", 1);
    }
}

/// Makes EL1, whose registers are loaded, take an exception.
pub fn inject(regs: &mut Regs, exception: Exception) {
    let entry = inject::entry(exception, regs.pstate, read!("sctlr_el1"));
    write!("elr_el1", regs.pc);
    write!("spsr_el1", regs.pstate);
    write!("esr_el1", entry.esr);
    if let Some(far) = entry.far {
        write!("far_el1", far);
    }
    // The low bits of the table's address mean nothing.
    regs.pc = (read!("vbar_el1") & !0x7ff) + entry.vector;
    regs.pstate = entry.pstate;
}
