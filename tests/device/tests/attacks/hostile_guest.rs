// SPDX-License-Identifier: Apache-2.0
//! Guests that attack the hypervisor, the host's kernel, or other guests.

use std::time::Duration;

use gzvm_abi::{guest as calls, uapi};
use gzvm_device_test::attack::{attempt, control, Got};
use gzvm_device_test::guest::{self, GIC_DIST, REPORT};
use gzvm_device_test::hostile;
use gzvm_device_test::machine::{Exit, Machine, Vcpu, RAM};
use gzvm_device_test::mapping::{Mapping, PAGE};
use gzvm_device_test::random::Random;
use gzvm_device_test::{signals, sys};

use crate::victim::{Victim, AT, SECRET};

const SIZE: u64 = 4 << 20;
/// The pool that stays shared with the host; tables of calls are in it.
const POOL: u64 = RAM + SIZE;
/// Bytes of a call in a table.
const CALL: u64 = 64;

/// A VM with a pool, whose guest makes the calls in it.
struct Caller {
    machine: Machine,
    pool: Mapping,
}

impl Caller {
    fn new(protected: bool) -> Self {
        let machine = Machine::new(SIZE, hostile::call_table());
        let pool = Mapping::anonymous(1 << 20);
        let mut region = uapi::UserspaceMemoryRegion {
            slot: 1,
            flags: uapi::MEM_REGION_STATIC_SWIOTLB,
            guest_phys_addr: POOL,
            memory_size: pool.size(),
            userspace_addr: pool.address(),
        };
        sys::ioctl(&machine.vm, uapi::SET_USER_MEMORY_REGION, &mut region).expect("pool");
        machine.add_gic(1);
        if protected {
            machine.protect().expect("SET_PROTECTED_VM");
        }
        Self { machine, pool }
    }

    /// Has the guest make these calls; answers their x0.
    fn make(&self, calls: &[[u64; 8]]) -> Vec<u64> {
        for (index, call) in (0..).zip(calls) {
            for (register, value) in (0..).zip(call) {
                self.pool.write(index * CALL + 8 * register, *value);
            }
        }
        self.pool.clean(0, calls.len() as u64 * CALL);
        let mut vcpu = self.machine.boot_vcpu(&[POOL, calls.len() as u64]);
        assert_eq!(vcpu.report(), 0, "the guest made all calls");
        (0..calls.len() as u64).map(|index| self.pool.read(index * CALL)).collect()
    }
}

fn not_a_number(value: u64) -> bool {
    // Errors are small and negative, in 64 or in 32 bits.
    value.cast_signed().unsigned_abs() < 16
        || u32::try_from(value).is_ok_and(|low| low.cast_signed().unsigned_abs() < 16)
}

pub fn floods_of_random_calls() {
    let functions: Vec<u64> = (0x8600_0000..0x8600_0004)
        .chain(0xc600_0000..0xc600_0006)
        .chain([0xc600_0007, 0xc600_0009, 0xc600_000a, 0x8600_ff01, 0x8400_0050, 0x8400_0053])
        .chain([0xc400_0053, 0xc400_0003, 0xc400_0004, 0x8400_000a, 0x8000_0000, 0x8000_0001])
        .chain((0..20).map(|index| 0xfb00_1000 + index))
        .collect();
    let mut words = vec![0, 1, 2, 7, 64, 191, 192, 193, 4096, u64::MAX, 1 << 31, 1 << 40, 1 << 63];
    words.extend([RAM + 8, RAM + SIZE, RAM + SIZE - 1, POOL + (1 << 20), GIC_DIST, REPORT, !0xfff]);
    words.extend((8..32).map(|page| RAM + page * PAGE));
    for protected in [false, true] {
        let mut random = Random::new(u64::from(protected) + 77);
        let calls: Vec<[u64; 8]> = (0..4000)
            .map(|_| {
                let mut call = [(); 8].map(|()| words[random.below(words.len() as u64) as usize]);
                call[0] = functions[random.below(functions.len() as u64) as usize];
                if call[0] == 0xc400_0003 {
                    // There is no other vCPU to start, and itself is on.
                    call[1] = random.below(1 << 20);
                }
                call
            })
            .collect();
        let answers = Caller::new(protected).make(&calls);
        for (call, answer) in calls.iter().zip(answers) {
            let host_s = call[0] & 0xff00_0000 == 0xfb00_0000;
            assert!(!host_s || answer == u64::MAX, "a guest made the host's call {:#x}", call[0]);
        }
        attempt("flood of calls by a guest", Got::Nothing);
    }
}

pub fn sharing_of_what_is_not_the_guest_s() {
    let addresses =
        [0, 8, RAM + 8, RAM - PAGE, POOL + (1 << 20), GIC_DIST, REPORT, 1 << 40, !0xfff];
    let functions = [calls::MEM_SHARE, calls::MEM_UNSHARE, calls::MEM_RELINQUISH].map(u64::from);
    let bad: Vec<[u64; 8]> = functions
        .iter()
        .flat_map(|function| addresses.map(|address| [*function, address, 0, 0, 0, 0, 0, 0]))
        .chain([[functions[2], RAM + SIZE - PAGE, 1, 0, 0, 0, 0, 0]])
        .collect();
    let good = functions.map(|function| [function, RAM + SIZE - PAGE, 0, 0, 0, 0, 0, 0]);
    for protected in [false, true] {
        let name = "bad range in a guest's call";
        for (call, answer) in bad.iter().zip(Caller::new(protected).make(&bad)) {
            assert!(answer == 0 || not_a_number(answer), "{call:x?} answers {answer:#x}");
            attempt(name, Got::of_status(answer as i32));
        }
        for answer in Caller::new(protected).make(&good) {
            control(name, Got::of_status(answer as i32));
        }
    }
}

/// Runs a guest that is soon where nothing is, or goes round and round: then a signal ends it.
fn ends_nowhere(vcpu: &mut Vcpu, signal_after: Duration) {
    let target = signals::Target::this();
    let ended = std::thread::scope(|scope| {
        scope.spawn(move || target.signal_after(signal_after));
        vcpu.run()
    });
    assert!(
        matches!(ended, Ok(Exit::Exception(_) | Exit::Other(_)) | Err(libc::EINTR)),
        "{ended:?}"
    );
}

/// What the host then has to give, and takes, is never more than it has.
pub fn a_guest_that_gives_everything_back() {
    signals::handle(0);
    for protected in [false, true] {
        let machine = Machine::new(SIZE, hostile::give_everything_back());
        if protected {
            machine.protect().expect("SET_PROTECTED_VM");
        }
        let mut vcpu = machine.boot_vcpu(&[RAM, RAM + SIZE]);
        ends_nowhere(&mut vcpu, Duration::from_secs(2));
        attempt("relinquish of everything", Got::Nothing);
    }
}

/// A VM's end by what no VMM can emulate: an exit that says where, at most.
pub fn accesses_that_cannot_be_emulated() {
    let programs: [(&str, &[u8]); 6] = [
        ("stack in MMIO", hostile::push()),
        ("pair in MMIO", hostile::load_pair()),
        ("writeback in MMIO", hostile::store_and_step()),
        ("exclusive in MMIO", hostile::store_exclusive()),
        ("code in MMIO", hostile::jump()),
        ("tables in MMIO", hostile::walk()),
    ];
    for (name, program) in programs {
        for at in [0x0a00_0000, GIC_DIST + 0x100, RAM - PAGE, 0xff_ffff_f000] {
            let machine = Machine::new(SIZE, program);
            machine.add_gic(1);
            match machine.boot_vcpu(&[at, 1, 2]).run() {
                Ok(Exit::Exception(exception)) => {
                    assert_eq!(exception.fault_gpa & !0xfff, {
                        let first = if name == "stack in MMIO" { at - 16 } else { at };
                        first & !0xfff
                    });
                    attempt(name, Got::Refused(exception.error_code.cast_signed()));
                }
                // Described after all, or the guest got the fault itself.
                Ok(Exit::Write(_) | Exit::Read(_) | Exit::Other(_)) => attempt(name, Got::Nothing),
                other => panic!("{name} at {at:#x}: {other:?}"),
            }
        }
        // Neither code nor tables are in its memory: such a guest would be busy with itself for ever.
        if !["code in MMIO", "tables in MMIO"].contains(&name) {
            let machine = Machine::new(SIZE, program);
            let ended = machine.boot_vcpu(&[RAM + 2 * PAGE + 16, 1, 2]).run();
            let through = matches!(ended, Ok(Exit::Write(mmio)) if mmio.phys_addr == REPORT);
            control(name, Got::of_value(u64::from(through), 1));
        }
    }
}

/// Whatever the hypervisor makes of such a guest, its host and others live on.
pub fn a_guest_in_aarch32_state() {
    signals::handle(0);
    for protected in [false, true] {
        let machine = Machine::new(SIZE, hostile::enter_aarch32());
        if protected {
            machine.protect().expect("SET_PROTECTED_VM");
        }
        let mut vcpu = machine.boot_vcpu(&[]);
        for _ in 0..3 {
            ends_nowhere(&mut vcpu, Duration::from_millis(300));
        }
        attempt("AArch32 state", Got::Nothing);
    }
    let machine = Machine::new(SIZE, guest::count());
    assert_eq!(machine.boot_vcpu(&[7]).report(), 7);
}

pub fn cache_maintenance_anywhere() {
    for at in [RAM + 4 * PAGE, RAM + SIZE - PAGE] {
        let machine = Machine::new(SIZE, hostile::maintain());
        // DC ZVA on what the MMU does not describe as memory is the guest's own fault.
        let ended = machine.boot_vcpu(&[at]).run();
        assert!(matches!(ended, Ok(Exit::Write(_) | Exit::Exception(_))), "{ended:?}");
        attempt("cache maintenance", Got::Nothing);
    }
}

pub fn a_guarded_guest_does_not_reach_the_host() {
    const VECTORS: u64 = 2048;
    const UNGUARDED: u64 = 0x0b00_0000;
    for (guarded, protected) in [(true, false), (true, true), (false, false)] {
        let ram = Mapping::anonymous(SIZE);
        ram.load(VECTORS, hostile::vectors());
        let machine = Machine::with(ram, hostile::guard_itself());
        if protected {
            machine.protect().expect("SET_PROTECTED_VM");
        }
        let mut vcpu = machine.boot_vcpu(&[RAM + VECTORS, UNGUARDED, u64::from(guarded)]);
        let name = "unguarded access of a guarded guest";
        if !guarded {
            let through = matches!(vcpu.run(), Ok(Exit::Read(mmio)) if mmio.phys_addr == UNGUARDED);
            control(name, Got::of_value(u64::from(through), 1));
            continue;
        }
        for _ in 0..5 {
            let syndrome = vcpu.report();
            // Data abort without a change of exception level, synchronous external abort.
            attempt(name, Got::of_value(u64::from(syndrome & 0xfc00_003f != 0x9400_0010), 1));
        }
        assert_eq!(vcpu.report(), 0x600d, "the guest went on");
    }
}

/// The victim's physical address is no guest address of the attacker's.
pub fn another_vm_s_memory_by_its_physical_address() {
    let mut victim = Victim::new(true);
    let name = "load from another VM's physical address";
    let machine = Machine::new(SIZE, guest::poke());
    // The attacker's own memory must not lie there by chance.
    assert!(!(RAM..RAM + SIZE).contains(&victim.pa));
    let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
    vcpu.answer_next_read(victim.pa);
    match vcpu.run() {
        Ok(Exit::Read(mmio)) => {
            assert_eq!(mmio.phys_addr, victim.pa);
            attempt(name, Got::Nothing);
        }
        other => panic!("{other:?}"),
    }
    drop(vcpu);
    // At this address, where the driver put the victim's page, another VM would find it.
    let open = Victim::new(false);
    let size = open.machine.ram.size();
    let ram = Mapping::of_file(&open.file, 0, size);
    let machine = Machine::new(PAGE, guest::poke());
    sys::set_region(&machine.vm, 1, RAM + (64 << 20), size, ram.address()).expect("slot");
    let mut vcpu = machine.boot_vcpu(&[0, SECRET]);
    vcpu.answer_next_read(RAM + (64 << 20) + AT);
    control(name, Got::of_value(vcpu.report(), SECRET));
    assert!(victim.intact());
}
