// SPDX-License-Identifier: Apache-2.0
//! Exceptions of the host.

use super::machine::hypervisor;
use super::sysreg::{hcr, read};
use super::{smc, stretch, world};
use refhyp::context::Regs;
use refhyp::esr::{self, fault_ipa, Esr};
use refhyp::hostcall::{self, Answer};
use refhyp::hw::Hardware;
use refhyp::idregs::{self, Reader};
use refhyp::inject::Exception;
use refhyp::memory::{HostAccess, HostFault};

/// SMCCC's "not supported".
const NOT_SUPPORTED: u64 = u64::MAX;
/// Field of the mode in a processor state: EL0 is 0.
const EXCEPTION_LEVEL: u64 = 0b1100;

/// HCR_EL2 while the host runs. Reads of feature registers trap only where something must be
/// hidden, as they are slower then.
pub fn hcr() -> u64 {
    let hidden = |register: u64, fields: u64| register & fields != 0;
    // SVE; memory tagging and SME.
    let hide = hidden(read!("id_aa64pfr0_el1"), 0xf << 32)
        || hidden(read!("id_aa64pfr1_el1"), 0xf << 8 | 0xf << 24);
    hcr::HOST | if hide { hcr::TID3 } else { 0 }
}

/// An exception from EL1 or EL0 of the host, with its registers; `kind` is the vector's.
pub extern "C" fn exception(regs: &mut Regs, kind: u64) {
    stretch::begin();
    // Interrupts are the host's own and do not come here.
    assert!(kind == 0, "exception {kind} of the host");
    let esr = Esr(read!("esr_el2"));
    match esr.class() {
        esr::EC_HVC => return call(regs),
        esr::EC_SMC => {
            regs.pc += 4;
            let [x0, x1, x2, x3, ..] = regs.x;
            let results = smc::relay([x0, x1, x2, x3]);
            answer(regs, results);
        }
        esr::EC_DABT_LOW | esr::EC_IABT_LOW => abort(regs, esr),
        esr::EC_SYSREG => {
            let access = esr.sysreg();
            if access.read && access.is_id_group_3() {
                let raw = hypervisor().hw.id_register(access.crm_op2());
                access.answer(&mut regs.x, idregs::visible(Reader::Host, access.crm_op2(), raw));
                regs.pc += 4;
            } else {
                world::inject(regs, Exception::Undefined);
            }
        }
        _ => world::inject(regs, Exception::Undefined),
    }
    stretch::end(stretch::OTHERS);
}

fn answer(regs: &mut Regs, results: [u64; 4]) {
    regs.x.iter_mut().zip(results).for_each(|(x, result)| *x = result);
}

fn call(regs: &mut Regs) {
    let Some(call) = hostcall::decode(&regs.x) else {
        answer(regs, [NOT_SUPPORTED, 0, 0, 0]);
        return;
    };
    #[cfg(feature = "test-hooks")]
    if let Some(ticks) = stretch::query(&call) {
        return answer(regs, [0, ticks, 0, 0]);
    }
    match hypervisor().host_call(&call) {
        Answer::Done(results) => answer(regs, results),
        Answer::Run { ids, instead } => {
            let mut results = world::run(ids);
            while results.is_none() && instead.is_some() {
                // A lie is told of a call that was done to its end.
                results = world::run(ids);
            }
            match results {
                Some(results) => answer(regs, instead.unwrap_or(results)),
                None => {
                    hypervisor().made_again(&call);
                    regs.pc -= 4;
                }
            }
        }
        // The host makes the same call again, after its interrupts.
        Answer::Again => regs.pc -= 4,
    }
    if let Some(kind) = stretch::kind(&call) {
        stretch::end(kind);
    }
}

fn abort(regs: &mut Regs, esr: Esr) {
    let far = read!("far_el2");
    let ipa = fault_ipa(read!("hpfar_el2"), if esr.table_walk() { 0 } else { far });
    let fetch = esr.class() == esr::EC_IABT_LOW;
    let access = HostAccess {
        ipa,
        user: regs.pstate & EXCEPTION_LEVEL == 0 && !esr.table_walk(),
        fetch: fetch && !esr.table_walk(),
    };
    // An external abort is the machine's answer, not stage 2's.
    let fault = if esr.external_abort() {
        HostFault::Abort
    } else {
        let hypervisor = hypervisor();
        hypervisor.memory.lock().host_fault(&hypervisor.hw, access)
    };
    match fault {
        HostFault::Retry => (),
        HostFault::Abort if fetch => world::inject(regs, Exception::FetchAbort(far)),
        HostFault::Abort => world::inject(regs, Exception::DataAbort(far)),
    }
}
