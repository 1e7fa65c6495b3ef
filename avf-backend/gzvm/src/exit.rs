// SPDX-License-Identifier: Apache-2.0
//! Why a vCPU stopped, decoded from the run structure into a type that cannot hold a bad value.

use gzvm_abi::run::{self, Event, Exception, FailEntry, Mmio, Run};
use std::fmt;
use std::mem::offset_of;
use zerocopy::IntoBytes;

/// Why a vCPU stopped.
#[derive(Debug, PartialEq, Eq)]
pub enum Exit<'a> {
    /// The guest reads `data.len()` (1, 2, 4 or 8) bytes at `gpa`; they are taken from `data` at
    /// the next run.
    MmioRead {
        /// Guest physical address.
        gpa: u64,
        /// Little-endian; to be filled in.
        data: &'a mut [u8],
    },
    /// The guest writes `data` (1, 2, 4 or 8 bytes) to `gpa`.
    MmioWrite {
        /// Guest physical address.
        gpa: u64,
        /// Little-endian.
        data: &'a [u8],
    },
    /// A hypercall that neither hypervisor nor driver answered: x0 to x7; the first four words are
    /// the guest's x0 to x3 at the next run.
    Hypercall(&'a mut [u64; 8]),
    /// A physical interrupt; run again.
    Irq,
    /// A signal or a kick ended the run; nothing happened in the guest that waits for an answer.
    Interrupted,
    /// An exception that the driver could not handle; a page fault that it could not serve has
    /// kind [`run::EXCEPTION_PAGE_FAULT`] and the guest physical address.
    Exception {
        /// `run::EXCEPTION_*`.
        kind: u32,
        /// The hypervisor's error code.
        error_code: u32,
        /// Guest physical address of a page fault.
        fault_gpa: u64,
    },
    /// A debug event.
    Debug,
    /// The vCPU could not be entered.
    FailEntry {
        /// The hypervisor's reason code.
        reason: u64,
        /// Physical CPU.
        cpu: u32,
    },
    /// An error inside the hypervisor.
    InternalError {
        /// The hypervisor's code.
        suberror: u32,
        /// Details, at most 16 words.
        data: &'a [u64],
    },
    /// The guest asked for a machine-wide action.
    SystemEvent {
        /// Which.
        event: SystemEvent,
        /// Details, at most 16 words.
        data: &'a [u64],
    },
    /// The VM is shutting down.
    Shutdown,
    /// Something that this crate does not know, or that contradicts itself.
    Unknown {
        /// The exit reason's number.
        reason: u32,
    },
}

/// A machine-wide action that a guest asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemEvent {
    /// Power off.
    Shutdown,
    /// Reset.
    Reset,
    /// The guest says that it crashed.
    Crash,
    /// Any other, by its number.
    Other(u32),
}

impl SystemEvent {
    fn new(kind: u32) -> Self {
        match kind {
            run::SYSTEM_EVENT_SHUTDOWN => Self::Shutdown,
            run::SYSTEM_EVENT_RESET => Self::Reset,
            run::SYSTEM_EVENT_CRASH => Self::Crash,
            other => Self::Other(other),
        }
    }
}

impl<'a> Exit<'a> {
    /// Decodes what RUN left in `run`.
    pub fn decode(run: &'a mut Run) -> Self {
        let reason = run.exit_reason;
        match reason {
            run::EXIT_MMIO => Self::mmio(run),
            run::EXIT_HYPERCALL => match run.payload.first_chunk_mut::<8>() {
                Some(args) => Self::Hypercall(args),
                None => Self::Unknown { reason },
            },
            run::EXIT_IRQ => Self::Irq,
            run::EXIT_EXCEPTION => {
                let e: Exception = run.payload();
                Self::Exception {
                    kind: e.exception,
                    error_code: e.error_code,
                    fault_gpa: e.fault_gpa,
                }
            }
            run::EXIT_DEBUG => Self::Debug,
            run::EXIT_FAIL_ENTRY => {
                let f: FailEntry = run.payload();
                Self::FailEntry { reason: f.hardware_entry_failure_reason, cpu: f.cpu }
            }
            run::EXIT_INTERNAL_ERROR => {
                let (suberror, data) = event(run);
                Self::InternalError { suberror, data }
            }
            run::EXIT_SYSTEM_EVENT => {
                let (kind, data) = event(run);
                Self::SystemEvent { event: SystemEvent::new(kind), data }
            }
            run::EXIT_SHUTDOWN => Self::Shutdown,
            _ => Self::Unknown { reason },
        }
    }

    fn mmio(run: &'a mut Run) -> Self {
        let reason = run.exit_reason;
        let access: Mmio = run.payload();
        let width = match access.size {
            1 => 1,
            2 => 2,
            4 => 4,
            8 => 8,
            _ => return Self::Unknown { reason },
        };
        const START: usize = offset_of!(Mmio, data);
        let data = &mut run.payload.as_mut_bytes()[START..START + width];
        match access.is_write {
            0 => Self::MmioRead { gpa: access.phys_addr, data },
            _ => Self::MmioWrite { gpa: access.phys_addr, data },
        }
    }
}

/// Kind and valid words of an [`Event`] payload.
fn event(run: &Run) -> (u32, &[u64]) {
    let event: Event = run.payload();
    const START: usize = offset_of!(Event, data) / 8;
    let words = usize::try_from(event.ndata).unwrap_or(usize::MAX).min(event.data.len());
    (event.kind, &run.payload[START..START + words])
}

impl fmt::Display for Exit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MmioRead { gpa, data } => write!(f, "read of {} bytes at {gpa:#x}", data.len()),
            Self::MmioWrite { gpa, data } => write!(f, "write of {} bytes at {gpa:#x}", data.len()),
            Self::Hypercall(args) => write!(f, "hypercall {:#x}", args[0]),
            Self::Irq => f.write_str("physical interrupt"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Exception { kind: run::EXCEPTION_PAGE_FAULT, error_code, fault_gpa } => write!(
                f,
                "page fault at guest address {fault_gpa:#x} that the driver could not serve \
                 (code {error_code:#x})"
            ),
            Self::Exception { kind, error_code, fault_gpa } => {
                write!(f, "exception {kind}, code {error_code:#x}, guest address {fault_gpa:#x}")
            }
            Self::Debug => f.write_str("debug event"),
            Self::FailEntry { reason, cpu } => {
                write!(f, "the vCPU could not be entered (reason {reason:#x}, CPU {cpu})")
            }
            Self::InternalError { suberror, data } => {
                write!(f, "hypervisor error {suberror:#x} {data:x?}")
            }
            Self::SystemEvent { event, data } => write!(f, "system event {event:?} {data:x?}"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::Unknown { reason } => write!(f, "unknown or malformed exit {reason:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gzvm_abi::run::Hypercall;
    use proptest::prelude::*;

    fn with<T: run::Payload>(exit_reason: u32, payload: &T) -> Run {
        let mut run = Run { exit_reason, ..Run::default() };
        run.set_payload(payload);
        run
    }

    #[test]
    fn a_read_is_completed_in_place() {
        let access = Mmio { phys_addr: 0x3f8, size: 4, reg_nr: 9, ..Mmio::default() };
        let mut run = with(run::EXIT_MMIO, &access);
        match Exit::decode(&mut run) {
            Exit::MmioRead { gpa: 0x3f8, data } => data.copy_from_slice(&[1, 2, 3, 4]),
            other => panic!("{other:?}"),
        }
        let done: Mmio = run.payload();
        assert_eq!(done.data, [1, 2, 3, 4, 0, 0, 0, 0]);
        assert_eq!(done.reg_nr, 9, "the hypervisor's note survives");
    }

    #[test]
    fn a_write_has_its_width() {
        let data = [1, 2, 3, 4, 5, 6, 7, 8];
        let access = Mmio { phys_addr: 8, data, size: 2, is_write: 1, ..Mmio::default() };
        let mut run = with(run::EXIT_MMIO, &access);
        assert_eq!(Exit::decode(&mut run), Exit::MmioWrite { gpa: 8, data: &[1, 2] });
    }

    #[test]
    fn absurd_widths_are_unknown() {
        for size in [0, 3, 9, u64::MAX] {
            let mut run = with(run::EXIT_MMIO, &Mmio { size, ..Mmio::default() });
            assert_eq!(Exit::decode(&mut run), Exit::Unknown { reason: run::EXIT_MMIO });
        }
    }

    #[test]
    fn hypercall_results_go_back() {
        let mut run = with(run::EXIT_HYPERCALL, &Hypercall { args: [5; 8] });
        match Exit::decode(&mut run) {
            Exit::Hypercall(args) => args[0] = u64::MAX,
            other => panic!("{other:?}"),
        }
        assert_eq!(run.payload::<Hypercall>().args, [u64::MAX, 5, 5, 5, 5, 5, 5, 5]);
    }

    #[test]
    fn event_words_are_bounded() {
        let mut run = with(
            run::EXIT_SYSTEM_EVENT,
            &Event { kind: run::SYSTEM_EVENT_RESET, ndata: u32::MAX, data: [3; 16] },
        );
        let expected = Exit::SystemEvent { event: SystemEvent::Reset, data: &[3; 16] };
        assert_eq!(Exit::decode(&mut run), expected);
    }

    proptest! {
        #[test]
        fn anything_decodes(reason in 0x9292_0000_u32..0x9292_0010, words: [u64; 32]) {
            let mut run = Run { exit_reason: reason, payload: words, ..Run::default() };
            prop_assert!(!Exit::decode(&mut run).to_string().is_empty());
        }
    }
}
