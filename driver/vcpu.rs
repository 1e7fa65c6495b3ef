// SPDX-License-Identifier: GPL-2.0

//! vCPU files: running a vCPU and its registers.

use crate::{
    abi::{
        ext,
        run::{
            self,
            HwState,
            Run, //
        },
        uapi, //
    },
    debug::VcpuFile,
    hyp::{
        self,
        VcpuPages,
        PAGE, //
    },
    kx::{
        anon_inode::{
            self,
            AnonFile, //
        },
        clock,
        ratelimit::{
            info_limited,
            warn_limited, //
        },
        sched,
        trace,
        uaccess, //
    },
    machine::{
        Machine,
        VcpuPlace, //
    },
    memory::Entry,
    model::{
        exit::{
            self,
            Completion,
            Exit, //
        },
        idle,
        ids::VcpuId,
        irq,
        ptp,
        refusal::{
            Errno,
            Refusal, //
        },
        reg, //
    },
    uio,
    vm::Vm, //
};
use core::mem::offset_of;
use kernel::{
    new_mutex,
    prelude::*,
    str::CString,
    sync::{
        Arc,
        ArcBorrow,
        Mutex, //
    },
    time::{
        Instant,
        Monotonic, //
    }, //
};

/// A vCPU's number in its VM, taken while this value lives.
struct Number {
    machine: Arc<Machine>,
    id: VcpuId,
}

impl Drop for Number {
    fn drop(&mut self) {
        self.machine.vm().give_back_vcpu(self.id);
    }
}

/// A vCPU in the hypervisor, with the pages it uses.
struct HypVcpu {
    pages: Arc<VcpuPages>,
    // Dropped, that is free again, after the vCPU is gone.
    number: Number,
}

impl HypVcpu {
    fn new(machine: &Arc<Machine>, id: VcpuId) -> Result<Self> {
        machine.vm().take_vcpu(id)?;
        let number = Number { machine: machine.clone(), id };
        let pages = Arc::new(VcpuPages::new()?, GFP_KERNEL_ACCOUNT)?;
        machine.given().keep(&pages)?;
        hyp::create_vcpu(machine.id(), id, &pages)
            .inspect_err(|_| machine.given().let_go(&pages))?;
        Ok(Self { pages, number })
    }
}

impl Drop for HypVcpu {
    fn drop(&mut self) {
        let Number { machine, id } = &self.number;
        // With its VM it is gone already.
        if !machine.vm().is_gone() && hyp::destroy_vcpu(machine.id(), *id).is_err() {
            warn_limited!("the hypervisor kept a vCPU: its pages are kept until the VM is gone\n");
        } else {
            machine.given().let_go(&self.pages);
        }
    }
}

/// What lasts from one RUN to the next.
struct RunState {
    /// What the VMM's next RUN brings along.
    completion: Completion,
    /// The last exit: a private copy, so that what is decided upon is what is delivered.
    exit: Run,
    /// Could it not be copied to the VMM?
    undelivered: bool,
}

/// A vCPU, as user space holds it. Fields are dropped in order: the name in debugfs is free when
/// the number is.
#[pin_data]
pub(crate) struct Vcpu {
    #[pin]
    file: VcpuFile,
    hyp: HypVcpu,
    /// One thread at a time runs the vCPU or changes its registers.
    #[pin]
    state: Mutex<RunState>,
    vm: Arc<Vm>,
}

/// CREATE_VCPU: returns the file descriptor.
pub(crate) fn create(vm: Arc<Vm>, index: usize) -> Result<isize> {
    let id = VcpuId::new(index as u64, vm.machine.gzvm().limits.vcpus)?;
    let name = CString::try_from_fmt(fmt!("gzvm-vcpu:{index}"))?;
    let vcpu = Arc::pin_init(
        try_pin_init!(Vcpu {
            hyp: HypVcpu::new(&vm.machine, id)?,
            file <- VcpuFile::new(&vm.files, &vm.machine, id)?,
            state <- new_mutex!(
                RunState {
                    completion: Completion::None,
                    exit: Run::default(),
                    undelivered: false,
                },
                "gzvm_vcpu"
            ),
            vm,
        }? Error),
        GFP_KERNEL_ACCOUNT,
    )?;
    anon_inode::install(&name, vcpu)
}

impl AnonFile for Vcpu {
    type OwnerModule = crate::LocalModule;

    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: usize) -> Result<isize> {
        this.machine().check_owner()?;
        let busy = Refusal::new(Errno::Busy, "another thread is in an ioctl of this vCPU");
        let mut state = this.state.try_lock().ok_or(busy)?;
        match cmd {
            uapi::RUN => this.run(&mut state, arg)?,
            uapi::SET_ONE_REG => this.set_one_reg(&uio::read(arg)?)?,
            uapi::GET_ONE_REG => this.get_one_reg(&uio::read(arg)?)?,
            _ => return Err(ENOTTY),
        }
        Ok(0)
    }
}

impl Vcpu {
    fn machine(&self) -> &Machine {
        &self.vm.machine
    }

    fn id(&self) -> VcpuId {
        self.hyp.number.id
    }

    fn pages(&self) -> &VcpuPages {
        &self.hyp.pages
    }

    fn place(&self) -> Result<&VcpuPlace> {
        self.machine().places().get(self.id().index()).ok_or(EINVAL)
    }

    /// RUN: copies the VMM's answer to the last exit in, runs the guest until it needs the VMM, and
    /// copies that exit out.
    fn run(&self, state: &mut RunState, arg: usize) -> Result {
        let answer: Run = uio::read(arg)?;
        if answer.padding1 != [0; 3] {
            return Err(Refusal::new(Errno::Inval, "padding of the run structure is not 0").into());
        }
        if !state.undelivered {
            self.complete(state.completion, &answer);
        }
        if answer.immediate_exit != 0 {
            return Err(EINTR);
        }
        if !state.undelivered {
            self.run_guest(state)?;
        }
        // An exit is delivered whatever signal is pending: the next RUN reports the signal.
        let delivered = Self::deliver(arg, &state.exit);
        state.undelivered = delivered.is_err();
        delivered
    }

    /// Copies an exit out. What is the VMM's alone, `immediate_exit` with its padding, is not
    /// written: another of its threads may be setting it right now.
    fn deliver(arg: usize, exit: &Run) -> Result {
        let payload = arg.checked_add(offset_of!(Run, payload)).ok_or(EFAULT)?;
        uio::write(payload, &exit.payload)?;
        uaccess::put_u32(arg, exit.exit_reason)
    }

    /// Gives the VMM's answer to the hypervisor. Harmless if done twice.
    fn complete(&self, completion: Completion, answer: &Run) {
        if completion != Completion::None {
            let mut shared: Run = self.pages().read::<_, 0>();
            completion.apply(answer, &mut shared);
            self.pages().write::<_, 0>(&shared);
        }
    }

    /// Enters the guest until an exit is the VMM's.
    fn run_guest(&self, state: &mut RunState) -> Result {
        let mut entered = false;
        loop {
            if kernel::current!().signal_pending() {
                if entered {
                    // What the hypervisor makes of it is its own business.
                    let _ = hyp::inform_exit(self.machine().id());
                }
                return Err(ERESTARTSYS);
            }
            let (reason, entry) = self.enter()?;
            entered = true;
            state.completion = Completion::None;
            self.pages().read_into::<_, 0>(&mut state.exit);
            // CAST: truncation is the ABI: the reason is a 32-bit value.
            state.exit.exit_reason = reason as u32;
            if let Some(completion) = self.handle(reason, &mut state.exit, entry)? {
                state.completion = completion;
                return Ok(());
            }
            sched::cond_resched();
        }
    }

    /// Enters the guest once; answers the exit reason, and how memory was right before.
    fn enter(&self) -> Result<(u64, Entry)> {
        let place = self.place()?;
        place.waker.clear();
        let entry = self.machine().memory.entry();
        let stay = self.machine().vm().enter()?;
        let start = Instant::<Monotonic>::now();
        let reason = sched::in_guest(|| hyp::run(self.machine().id(), self.id()))?;
        drop(stay);
        place.stats.exit(reason, start.elapsed());
        trace::vcpu_exit(reason);
        if self.machine().take_resample() {
            self.vm.irqfds.resample();
        }
        if self.machine().has_levels() {
            self.notice_ends();
        }
        Ok((reason, entry))
    }

    /// Looks for ends of interrupts that the hypervisor reports with an exit.
    fn notice_ends(&self) {
        const NR_LRS: usize = PAGE + offset_of!(HwState, nr_lrs);
        const LR: usize = PAGE + offset_of!(HwState, lr);
        if !self.machine().gzvm().version.layout_known() {
            return;
        }
        let used = usize::try_from(self.pages().word::<NR_LRS>()).unwrap_or(usize::MAX);
        let entries = self.pages().words::<{ run::MAX_LIST_REGISTERS }, LR>();
        for spi in entries.take(used).filter_map(irq::ended_spi) {
            self.vm.irqfds.ended(self.machine(), spi);
        }
    }

    /// Handles an exit; answers what to expect from the VMM if the exit is its business.
    fn handle(
        &self,
        reason: u64,
        exit: &mut Run,
        entry: Entry,
    ) -> Result<Option<Completion>> {
        match exit::decode(reason, exit) {
            Exit::Again => Ok(None),
            Exit::PageFault { gpa } => self.page_fault(gpa, exit, entry),
            Exit::Write(mmio) => {
                Ok((!self.vm.ioeventfds.signal(&mmio)).then_some(Completion::None))
            }
            Exit::Relinquish { gpa } => {
                // Without memory for the bookkeeping the page stays pinned, which harms nobody.
                let _ = self.machine().memory.relinquish(gpa, entry);
                Ok(None)
            }
            Exit::Ptp { counter } => {
                self.tell_time(counter);
                Ok(None)
            }
            Exit::Idle => self.idle().map(|()| None),
            Exit::Ipi { targets } => {
                self.machine().wake(targets);
                Ok(None)
            }
            Exit::User(completion) => Ok(Some(completion)),
            Exit::Unknown => {
                warn_limited!("exit {reason:#x} of a vCPU makes no sense\n");
                Err(EIO)
            }
        }
    }

    /// Serves a page fault; if that fails for good, the VMM gets the exit with the errno as error
    /// code.
    fn page_fault(
        &self,
        gpa: u64,
        exit: &mut Run,
        entry: Entry,
    ) -> Result<Option<Completion>> {
        match self.machine().memory.fault(gpa, entry) {
            Ok(()) => {
                self.place()?.stats.fault();
                Ok(None)
            }
            // A signal came first: it is looked at before the guest is entered again.
            Err(error) if kernel::current!().signal_pending() && Self::interrupted(error) => {
                Ok(None)
            }
            Err(error) => {
                info_limited!("page fault at {gpa:#x} cannot be served: {error:?}\n");
                let mut exception: run::Exception = exit.payload();
                exception.error_code = error.to_errno().unsigned_abs();
                exit.set_payload(&exception);
                Ok(Some(Completion::None))
            }
        }
    }

    fn interrupted(error: Error) -> bool {
        error == EINTR || error == ERESTARTSYS || error == EAGAIN
    }

    fn hardware_state(&self) -> Option<HwState> {
        let known = self.machine().gzvm().version.layout_known();
        known.then(|| self.pages().read::<_, PAGE>())
    }

    /// Sleeps until something happens to the guest, or its timer fires.
    fn idle(&self) -> Result {
        let gzvm = self.machine().gzvm();
        let timer = self.hardware_state().map(|state| idle::Timer {
            armed: state.vtimer_migrate != 0,
            ticks: state.vtimer_delay,
        });
        let wakes_are_told = gzvm.features.has(ext::WAKE_MASK);
        self.place()?.waker.sleep(idle::sleep(timer, gzvm.counter_hz, wakes_are_told));
        Ok(())
    }

    /// Answers the guest's question for the time.
    fn tell_time(&self, counter: u64) {
        let now = clock::snapshot()
            .map(|clock::Snapshot { wall_ns, cycles }| ptp::Snapshot { wall_ns, cycles });
        let offset = self.hardware_state().map(|state| state.vtimer_offset);
        let answer = ptp::answer(now, counter, offset);
        self.pages().write::<[u64; 4], { offset_of!(Run, payload) }>(&answer);
    }

    fn set_one_reg(&self, argument: &uapi::OneReg) -> Result {
        let size = reg::size(argument.id)?;
        let mut value = [0; 8];
        let bytes = value.get_mut(..size).ok_or(EINVAL)?;
        uio::read_bytes(uio::address(argument.addr)?, bytes)?;
        let machine = self.machine().id();
        Ok(hyp::set_one_reg(machine, self.id(), argument.id, u64::from_le_bytes(value))?)
    }

    fn get_one_reg(&self, argument: &uapi::OneReg) -> Result {
        let size = reg::size(argument.id)?;
        if !self.machine().gzvm().features.has(ext::GET_REG) {
            let why = "the hypervisor does not tell registers";
            return Err(Refusal::new(Errno::OpNotSupp, why).into());
        }
        let value = hyp::get_one_reg(self.machine().id(), self.id(), argument.id)?.to_le_bytes();
        uio::write_bytes(uio::address(argument.addr)?, value.get(..size).ok_or(EINVAL)?)
    }
}
