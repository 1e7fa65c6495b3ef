// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! What each exit of a vCPU means for the driver, and what of the VMM's answer goes back in.

use crate::abi::run::Run;
use crate::abi::{guest, run};

/// What to do about an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Enter the guest again.
    Again,
    /// A page fault: back the page and enter again.
    PageFault {
        /// The guest physical address, not necessarily aligned.
        gpa: u64,
    },
    /// A write that an ioeventfd may want; else the VMM's.
    Write(run::Mmio),
    /// The guest gave a page back; the hypervisor has unmapped and wiped it.
    Relinquish {
        /// Its guest physical address.
        gpa: u64,
    },
    /// The guest asks for the time.
    Ptp {
        /// Which counter it wants the time related to.
        counter: u64,
    },
    /// The vCPU waits for an interrupt.
    Idle,
    /// The vCPU interrupted others that may be asleep in the host.
    Ipi {
        /// Their mask, meaningful with extension WAKE_MASK.
        targets: u64,
    },
    /// The VMM's business.
    User(Completion),
    /// Nothing that a VMM could understand: an error.
    Unknown,
}

/// What the VMM's next RUN brings along for the exit it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Nothing.
    None,
    /// The data of an MMIO read.
    MmioRead,
    /// Results of a hypercall.
    Hypercall,
}

impl Completion {
    /// Copies what the VMM may answer into the structure that the hypervisor reads, and nothing
    /// else: the rest stays as the hypervisor wrote it.
    pub fn apply(self, answer: &Run, shared: &mut Run) {
        match self {
            Self::None => {}
            Self::MmioRead => {
                let mut mmio: run::Mmio = shared.payload();
                mmio.data = answer.payload::<run::Mmio>().data;
                shared.set_payload(&mmio);
            }
            Self::Hypercall => shared.set_payload(&answer.payload::<run::Hypercall>()),
        }
    }
}

/// Decodes an exit. `reason` is RUN's x1, of which 32 bits count; `shared` is a private copy of the
/// run structure that the hypervisor filled.
pub fn decode(reason: u64, shared: &Run) -> Exit {
    // CAST: truncation is the ABI: the reason is a 32-bit value.
    match reason as u32 {
        run::EXIT_MMIO => mmio(shared.payload()),
        run::EXIT_HYPERCALL => hypercall(&shared.payload()),
        run::EXIT_EXCEPTION => exception(&shared.payload()),
        run::EXIT_IRQ | run::EXIT_GZ => Exit::Again,
        run::EXIT_IDLE => Exit::Idle,
        run::EXIT_IPI => Exit::Ipi { targets: shared.payload[0] },
        run::EXIT_DEBUG
        | run::EXIT_FAIL_ENTRY
        | run::EXIT_INTERNAL_ERROR
        | run::EXIT_SYSTEM_EVENT
        | run::EXIT_SHUTDOWN => Exit::User(Completion::None),
        _ => Exit::Unknown,
    }
}

fn mmio(mmio: run::Mmio) -> Exit {
    match (mmio.size, mmio.is_write) {
        (1 | 2 | 4 | 8, 0) => Exit::User(Completion::MmioRead),
        (1 | 2 | 4 | 8, _) => Exit::Write(mmio),
        _ => Exit::Unknown,
    }
}

fn hypercall(call: &run::Hypercall) -> Exit {
    // CAST: truncation is SMCCC: the function id is in w0.
    match call.args[0] as u32 {
        guest::MEM_RELINQUISH => Exit::Relinquish { gpa: call.args[1] },
        guest::PTP => Exit::Ptp { counter: call.args[1] },
        _ => Exit::User(Completion::Hypercall),
    }
}

fn exception(exception: &run::Exception) -> Exit {
    if exception.exception == run::EXCEPTION_PAGE_FAULT
        && exception.reserved.iter().all(|word| *word == 0)
    {
        Exit::PageFault { gpa: exception.fault_gpa }
    } else {
        Exit::User(Completion::None)
    }
}

/// Names of the exit reasons, in the order of [`index`], for statistics.
pub const NAMES: [&str; 15] = [
    "unknown",
    "mmio",
    "hypercall",
    "irq",
    "exception",
    "debug",
    "fail_entry",
    "internal_error",
    "system_event",
    "shutdown",
    "gz",
    "idle",
    "reserved_c",
    "ipi",
    "other",
];

/// Where to count an exit reason: an index into [`NAMES`].
pub fn index(reason: u64) -> usize {
    // CAST: truncation is the ABI, as in `decode`.
    let offset = (reason as u32).wrapping_sub(run::EXIT_UNKNOWN);
    usize::try_from(offset).unwrap_or(usize::MAX).min(NAMES.len() - 1)
}

#[cfg_attr(CONFIG_RUST, ::kernel::macros::kunit_tests(gzvm_exit))]
#[cfg_attr(not(CONFIG_RUST), cfg(test))]
mod tests {
    use super::*;

    fn with<T: run::Payload>(payload: T) -> Run {
        let mut run = Run::default();
        run.set_payload(&payload);
        run
    }

    #[test]
    fn only_understandable_exits_reach_the_vmm() {
        let run = Run::default();
        assert_eq!(decode(u64::from(run::EXIT_UNKNOWN), &run), Exit::Unknown);
        assert_eq!(decode(u64::from(run::EXIT_RESERVED_C), &run), Exit::Unknown);
        assert_eq!(decode(0, &run), Exit::Unknown);
        assert_eq!(decode(u64::MAX, &run), Exit::Unknown);
        assert_eq!(decode(u64::from(run::EXIT_GZ), &run), Exit::Again);
        assert_eq!(decode(u64::from(run::EXIT_IRQ) | 1 << 32, &run), Exit::Again);
        assert_eq!(decode(u64::from(run::EXIT_SYSTEM_EVENT), &run), Exit::User(Completion::None));
    }

    #[test]
    fn page_faults_with_reserved_words_set_are_not_served() {
        let mut exception = run::Exception {
            exception: run::EXCEPTION_PAGE_FAULT,
            error_code: 0,
            fault_gpa: 0x8000_0123,
            reserved: [0; 30],
        };
        let reason = u64::from(run::EXIT_EXCEPTION);
        assert_eq!(decode(reason, &with(exception)), Exit::PageFault { gpa: 0x8000_0123 });
        exception.reserved[29] = 1;
        assert_eq!(decode(reason, &with(exception)), Exit::User(Completion::None));
    }

    #[test]
    fn mmio_of_odd_sizes_is_nonsense() {
        let mut mmio = run::Mmio { size: 3, ..Default::default() };
        let reason = u64::from(run::EXIT_MMIO);
        assert_eq!(decode(reason, &with(mmio)), Exit::Unknown);
        mmio.size = 8;
        assert_eq!(decode(reason, &with(mmio)), Exit::User(Completion::MmioRead));
        mmio.is_write = 1;
        assert_eq!(decode(reason, &with(mmio)), Exit::Write(mmio));
    }

    #[test]
    fn a_read_takes_only_the_data_from_the_vmm() {
        let mut shared =
            with(run::Mmio { phys_addr: 0x1000, size: 4, reg_nr: 9, ..Default::default() });
        let answer = with(run::Mmio { data: [7; 8], reg_nr: 1, size: 8, ..Default::default() });
        Completion::MmioRead.apply(&answer, &mut shared);
        let mmio: run::Mmio = shared.payload();
        assert_eq!((mmio.data, mmio.reg_nr, mmio.size), ([7; 8], 9, 4));
    }

    #[test]
    fn every_reason_is_counted_somewhere() {
        assert_eq!(NAMES[index(u64::from(run::EXIT_IPI))], "ipi");
        assert_eq!(NAMES[index(u64::from(run::EXIT_UNKNOWN))], "unknown");
        assert_eq!(NAMES[index(0)], "other");
        assert_eq!(NAMES[index(u64::from(run::EXIT_IPI) + 1)], "other");
    }
}
