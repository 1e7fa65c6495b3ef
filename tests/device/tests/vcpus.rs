// SPDX-License-Identifier: Apache-2.0
//! Running guests: exits, signals, time.

use std::time::{Duration, Instant};

use gzvm_abi::{ext, guest as calls, reg, run};
use gzvm_device_test::guest::{self, REPORT};
use gzvm_device_test::machine::{Exit, Machine, Vcpu, RAM};
use gzvm_device_test::signals::{self, Target};
use gzvm_device_test::suite::Needs;
use gzvm_device_test::tests;

const MIB: u64 = 1 << 20;

fn arguments_arrive_and_writes_are_seen() {
    let machine = Machine::new(MIB, guest::report_args());
    let arguments = [1, u64::MAX, 3, 0x8000_0000_0000_0001, 5, 6, 7, 8];
    let mut vcpu = machine.boot_vcpu(&arguments);
    for argument in arguments {
        match vcpu.run() {
            Ok(Exit::Write(mmio)) => {
                assert_eq!(mmio.phys_addr, REPORT);
                assert_eq!(mmio.size, 8);
                assert_eq!(u64::from_le_bytes(mmio.data), argument);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(vcpu.run.exit_reason, run::EXIT_MMIO);
    }
}

fn w34_registers_can_be_read() {
    let machine = Machine::new(MIB, guest::report_args());
    let mut vcpu = machine.boot_vcpu(&[7, 8]);
    assert_eq!(vcpu.get_reg(reg::PC), Ok(RAM));
    assert!(matches!(vcpu.run(), Ok(Exit::Write(_))));
    let pc = vcpu.get_reg(reg::PC).expect("PC");
    assert!(pc > RAM && pc < RAM + MIB, "{pc:#x}");
    assert_eq!((vcpu.get_reg(reg::x(1)), vcpu.get_reg(reg::x(20))), (Ok(8), Ok(REPORT)));
}

fn w34_registers_are_refused_without_the_extension() {
    let machine = Machine::new(MIB, guest::report_args());
    assert_eq!(machine.boot_vcpu(&[]).get_reg(reg::PC), Err(libc::EOPNOTSUPP));
}

fn reads_of_all_widths_are_completed() {
    let machine = Machine::new(MIB, guest::read_widths());
    let mut vcpu = machine.boot_vcpu(&[]);
    let value = 0x8182_8384_8586_8788;
    for (size, expected) in [
        (1, 0x88),
        (2, 0x8788),
        (4, 0x8586_8788),
        (8, value),
        (1, 0xffff_ffff_ffff_ff88),
        (4, 0xffff_ffff_8586_8788),
    ] {
        match vcpu.run() {
            Ok(Exit::Read(mmio)) => assert_eq!(mmio.size, size),
            other => panic!("{other:?}"),
        }
        vcpu.answer(value);
        assert_eq!(vcpu.report(), expected);
    }
}

fn w13_writes_survive_signals() {
    let machine = Machine::new(MIB, guest::count());
    let mut vcpu = machine.boot_vcpu(&[0]);
    signals::storm(|| {
        for expected in 0..3000 {
            assert_eq!(vcpu.report(), expected);
        }
    });
}

fn w13_reads_survive_signals() {
    let machine = Machine::new(MIB, guest::echo());
    let mut vcpu = machine.boot_vcpu(&[]);
    signals::storm(|| {
        for expected in 1..2000 {
            vcpu.answer_next_read(expected * 0x0101);
            assert_eq!(vcpu.report(), expected * 0x0101);
        }
    });
}

fn w13_an_exit_that_cannot_be_copied_is_delivered_later() {
    let machine = Machine::new(MIB, guest::count());
    let mut vcpu = machine.boot_vcpu(&[7]);
    assert_eq!(vcpu.report(), 7);
    // Readable, but not writable: the run structure is copied in, but not out.
    // SAFETY: a new mapping at an address of the kernel's choice.
    let read_only = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, flags, -1, 0)
    };
    assert_ne!(read_only, libc::MAP_FAILED);
    let number = gzvm_abi::uapi::RUN;
    let answer = gzvm_device_test::sys::ioctl_raw(&vcpu.fd, number, read_only as usize);
    assert_eq!(answer, Err(libc::EFAULT));
    assert_eq!(vcpu.report(), 8, "the exit that could not be copied");
    assert_eq!(vcpu.report(), 9);
}

fn a_signal_ends_a_busy_guest() {
    signals::handle(0);
    let machine = Machine::new(MIB, guest::spin());
    let mut vcpu = machine.boot_vcpu(&[]);
    let target = Target::this();
    std::thread::scope(|scope| {
        scope.spawn(move || target.signal_after(Duration::from_millis(50)));
        assert_eq!(vcpu.run().map(|_| ()), Err(libc::EINTR));
    });
}

fn a_signal_with_sa_restart_ends_through_immediate_exit() {
    signals::handle(libc::SA_RESTART);
    let machine = Machine::new(MIB, guest::spin());
    let mut vcpu = machine.boot_vcpu(&[]);
    let target = Target::this();
    let flag = std::ptr::from_mut(&mut vcpu.run.immediate_exit) as usize;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            // As a signal handler of the VMM would do.
            // SAFETY: the byte is live; the other thread is inside of the ioctl.
            unsafe { (flag as *mut u8).write_volatile(1) };
            target.signal();
        });
        assert_eq!(vcpu.run().map(|_| ()), Err(libc::EINTR));
    });
}

/// The run structure is the VMM's memory: another thread may set the flag while the guest runs.
fn w13_immediate_exit_is_not_overwritten() {
    let ticks = guest::counter_hz() / 5;
    for _ in 0..100 {
        let machine = Machine::new(MIB, guest::sleep());
        machine.add_gic(1);
        let mut vcpu = machine.boot_vcpu(&[ticks]);
        let flag = std::ptr::from_mut(&mut vcpu.run.immediate_exit) as usize;
        let exit = std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                // SAFETY: the byte is live; the other thread is inside of the ioctl.
                unsafe { (flag as *mut u8).write_volatile(1) };
            });
            vcpu.run()
        });
        match exit {
            // It came before the call.
            Err(libc::EINTR) => continue,
            Ok(Exit::Write(_)) => {
                assert_eq!(vcpu.run.immediate_exit, 1, "the exit overwrote the flag");
                return assert_eq!(vcpu.run().map(|_| ()), Err(libc::EINTR));
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("the other thread was always faster");
}

fn w15_a_waiting_guest_without_timer_costs_nothing() {
    signals::handle(0);
    let machine = Machine::new(MIB, guest::wait());
    machine.add_gic(1);
    let mut vcpu = machine.boot_vcpu(&[]);
    vcpu.report();
    let target = Target::this();
    let before = cpu_time();
    std::thread::scope(|scope| {
        scope.spawn(move || target.signal_after(Duration::from_millis(1000)));
        assert_eq!(vcpu.run().map(|_| ()), Err(libc::EINTR));
    });
    let used = cpu_time() - before;
    assert!(used < Duration::from_millis(300), "{used:?} of CPU time in a second of waiting");
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is live.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn a_sleeping_guest_is_woken_by_its_timer() {
    let machine = Machine::new(MIB, guest::sleep());
    machine.add_gic(1);
    let ticks = guest::counter_hz() / 5;
    let mut vcpu = machine.boot_vcpu(&[ticks]);
    let (start, before) = (Instant::now(), cpu_time());
    let slept = vcpu.report();
    let (elapsed, used) = (start.elapsed(), cpu_time() - before);
    assert!(slept >= ticks, "woken early: {slept} of {ticks} ticks");
    assert!(elapsed >= Duration::from_millis(199), "{elapsed:?}");
    assert!(used * 2 < elapsed, "{used:?} of CPU time in {elapsed:?} of sleep");
}

fn w09_one_thread_at_a_time_runs_a_vcpu() {
    signals::handle(0);
    let machine = Machine::new(MIB, guest::spin());
    let mut vcpu = machine.boot_vcpu(&[]);
    let fd = vcpu.fd.try_clone().expect("descriptor");
    let target = Target::this();
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            let mut second = Vcpu { fd, run: Box::default() };
            // Not even looked at while the other thread has the vCPU.
            second.run.padding1 = [1; 3];
            let answers = (second.run().map(|_| ()), second.set_reg(gzvm_abi::reg::x(0), 1));
            target.signal();
            answers
        });
        assert_eq!(vcpu.run().map(|_| ()), Err(libc::EINTR));
        let busy = Err(libc::EBUSY);
        assert_eq!(other.join().expect("other thread"), (busy, busy));
    });
}

fn hypercalls_that_nobody_knows_are_answered() {
    let machine = Machine::new(MIB, guest::hypercall());
    let mut vcpu = machine.boot_vcpu(&[u64::from(calls::SMCCC_VERSION), 0, 0, 0]);
    assert!(vcpu.report() >= 0x1_0001, "SMCCC version");
}

fn the_guest_can_ask_for_the_time() {
    let machine = Machine::new(MIB, guest::hypercall());
    let call = [u64::from(calls::PTP), calls::PTP_VIRT_COUNTER, 0, 0];
    let mut vcpu = machine.boot_vcpu(&call);
    let mut earlier = 0;
    for _ in 0..3 {
        let [high, low, _, _] = [(); 4].map(|()| vcpu.report());
        let seconds = (high << 32 | low) / 1_000_000_000;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.expect("time").as_secs();
        assert!(now.abs_diff(seconds) <= 2, "guest was told {seconds}, it is {now}");
        assert!((high << 32 | low) > earlier);
        earlier = high << 32 | low;
    }
}

fn w36_unknown_counters_are_not_supported() {
    let machine = Machine::new(MIB, guest::hypercall());
    let mut vcpu = machine.boot_vcpu(&[u64::from(calls::PTP), 2, 0, 0]);
    assert_eq!(vcpu.report() as i64, calls::NOT_SUPPORTED);
}

fn power_off_is_a_system_event() {
    let machine = Machine::new(MIB, guest::hypercall());
    let mut vcpu = machine.boot_vcpu(&[0x8400_0008, 0, 0, 0]);
    match vcpu.run() {
        Ok(Exit::System(event)) => assert_eq!(event.kind, run::SYSTEM_EVENT_SHUTDOWN),
        other => panic!("{other:?}"),
    }
}

/// Lets a guest run for a while; answers this thread's guest time and its run time, in clock ticks.
fn guest_and_run_time(vcpu: &mut Vcpu) -> (u64, u64) {
    signals::handle(0);
    let target = Target::this();
    let (guest, busy, used) = (guest_ticks(), busy_ticks(), cpu_time());
    std::thread::scope(|scope| {
        scope.spawn(move || target.signal_after(Duration::from_millis(1500)));
        assert_eq!(vcpu.run().map(|_| ()), Err(libc::EINTR));
    });
    // SAFETY: has no requirements.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as u128;
    let used = (cpu_time() - used).as_micros() * per_second / 1_000_000;
    // Guest time is counted in ticks, of which an emulated machine loses some: then the machine's
    // own count of ticks is what it can be compared with.
    let used = u64::try_from(used).expect("ticks").min(busy_ticks() - busy);
    (guest_ticks() - guest, used)
}

fn guest_time_of_a_busy_guest_is_counted_as_such() {
    let machine = Machine::new(MIB, guest::spin());
    let (guest, used) = guest_and_run_time(&mut machine.boot_vcpu(&[]));
    assert!(used >= 20, "the guest ran for {used} ticks only");
    assert!(guest * 10 >= used * 8, "{guest} ticks of guest time in {used} of run time");
}

fn a_waiting_guest_has_no_guest_time() {
    let machine = Machine::new(MIB, guest::wait());
    machine.add_gic(1);
    let mut vcpu = machine.boot_vcpu(&[]);
    vcpu.report();
    let (guest, _) = guest_and_run_time(&mut vcpu);
    assert!(guest <= 15, "{guest} ticks of guest time in 1.5 s of waiting");
}

/// Ticks in which the machine's CPUs did something for processes.
fn busy_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc is mounted");
    let all = stat.lines().find_map(|line| line.strip_prefix("cpu ")).expect("a line for all CPUs");
    // User time, that of low priority, and system time; guest time is a part of the first.
    all.split_whitespace().take(3).map(|field| field.parse::<u64>().expect("a number")).sum()
}

/// Field 43 of this thread's stat: guest time in clock ticks.
fn guest_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").expect("/proc is mounted");
    let after_name = stat.rsplit_once(')').expect("name in parentheses").1;
    let field = after_name.split_whitespace().nth(43 - 3).expect("field 43");
    field.parse().expect("a number")
}

fn main() {
    tests![
        Needs::Device => [
            arguments_arrive_and_writes_are_seen,
            reads_of_all_widths_are_completed,
            w13_writes_survive_signals,
            w13_reads_survive_signals,
            w13_an_exit_that_cannot_be_copied_is_delivered_later,
            a_signal_ends_a_busy_guest,
            a_signal_with_sa_restart_ends_through_immediate_exit,
            w13_immediate_exit_is_not_overwritten,
            w15_a_waiting_guest_without_timer_costs_nothing,
            a_sleeping_guest_is_woken_by_its_timer,
            w09_one_thread_at_a_time_runs_a_vcpu,
            hypercalls_that_nobody_knows_are_answered,
            the_guest_can_ask_for_the_time,
            w36_unknown_counters_are_not_supported,
            power_off_is_a_system_event,
            guest_time_of_a_busy_guest_is_counted_as_such,
            a_waiting_guest_has_no_guest_time,
        ],
        Needs::Extensions(ext::GET_REG) => [w34_registers_can_be_read],
        Needs::NoExtensions => [w34_registers_are_refused_without_the_extension],
    ]
}
