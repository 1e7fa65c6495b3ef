// SPDX-License-Identifier: GPL-2.0

//! Eventfds that inject interrupts.
//!
//! An injection is a pulse. With a resample eventfd the interrupt is level-triggered for the VMM:
//! when the guest has ended it, the resample eventfd is signalled, and the VMM signals again if its
//! device still wants attention. With extension IRQ_KIND the line is high from the injection to the
//! end, which the hypervisor reports. Without it nobody knows the end: the injection is a pulse,
//! and the resample eventfd is signalled at the next exit, when the guest has had its chance.

use crate::{
    abi::uapi,
    kx::{
        eventfd::EventFd,
        eventfd_listener::{
            Listen,
            Listener, //
        }, //
    },
    machine::Machine,
    model::{
        irq::{
            self,
            Call, //
        },
        irqfd::{
            self,
            Request, //
        },
        refusal::{
            Errno,
            Refusal, //
        }, //
    }, //
};
use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full, //
        },
        Arc,
        Mutex, //
    }, //
};

/// What an eventfd does when it is signalled.
struct Injector {
    machine: Arc<Machine>,
    spi: u16,
    resample: Option<Resample>,
}

struct Resample {
    eventfd: EventFd,
    /// Was there an injection since the eventfd was signalled last?
    due: Atomic<bool>,
}

impl Listen for Injector {
    fn signalled(&self) {
        // A refusal has nobody to go to, and is logged.
        let _ = match &self.resample {
            Some(_) if self.machine.has_levels() => {
                self.machine.inject(&Call::reported(self.spi, true))
            }
            Some(resample) => {
                // Noted before the injection's wake-up, so that the exit after it finds the note.
                resample.due.store(true, kernel::sync::atomic::Release);
                self.machine.want_resample();
                self.machine.inject(&Call::pulse(self.spi))
            }
            None => self.machine.inject(&Call::pulse(self.spi)),
        };
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        // Nobody would lower the line any more.
        if self.resample.is_some() && self.machine.has_levels() && !self.machine.vm().is_gone() {
            let _ = self.machine.inject(&Call::reported(self.spi, false));
        }
    }
}

/// A VM's irqfds.
#[pin_data]
pub(crate) struct Irqfds {
    #[pin]
    list: Mutex<KVec<Pin<KBox<Listener<Injector>>>>>,
}

impl Irqfds {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { list <- new_mutex!(KVec::new(), "gzvm_irqfds") })
    }

    /// IRQFD.
    pub(crate) fn set(&self, machine: &Arc<Machine>, argument: &uapi::Irqfd) -> Result {
        let request = irqfd::parse(argument)?;
        let fd = i32::try_from(argument.fd).map_err(|_| EBADF)?;
        let spi = irq::spi(argument.gsi, machine.gzvm().limits.spis);
        match (request, spi) {
            (Request::Assign { resample }, spi) => self.assign(machine, fd, spi?, resample),
            (Request::Deassign, Ok(spi)) => self.deassign(machine, fd, spi),
            // Nothing can be connected to it.
            (Request::Deassign, Err(_)) => EventFd::from_fd(fd).map(drop),
        }
    }

    fn assign(&self, machine: &Arc<Machine>, fd: i32, spi: u16, resample: Option<u32>) -> Result {
        let eventfd = EventFd::from_fd(fd)?;
        let resample = match resample {
            Some(fd) => {
                let eventfd = EventFd::from_fd(i32::try_from(fd).map_err(|_| EBADF)?)?;
                Some(Resample { eventfd, due: Atomic::new(false) })
            }
            None => None,
        };
        let mut list = self.list.lock();
        // Eventfds that were closed without being disconnected.
        list.retain(|listener| !listener.is_closed());
        if list.iter().any(|listener| listener.eventfd().same(&eventfd)) {
            let why = "the eventfd is connected to an interrupt of this VM already";
            return Err(Refusal::new(Errno::Busy, why).into());
        }
        list.reserve(1, GFP_KERNEL_ACCOUNT)?;
        let injector = Injector { machine: machine.clone(), spi, resample };
        list.push(Listener::new(fd, injector)?, GFP_KERNEL_ACCOUNT)?;
        Ok(())
    }

    /// Like the C driver, says nothing if nothing matches.
    fn deassign(&self, machine: &Machine, fd: i32, spi: u16) -> Result {
        let eventfd = EventFd::from_fd(fd)?;
        let matches = |listener: &Pin<KBox<Listener<Injector>>>| {
            listener.eventfd().same(&eventfd) && listener.listen().spi == spi
        };
        self.list.lock().retain(|listener| !listener.is_closed() && !matches(listener));
        // Others on the same line, which is low now, raise it again if they have to.
        if machine.has_levels() {
            self.signal_resample(spi);
        }
        Ok(())
    }

    /// The guest has ended an interrupt: its line falls, and who drives it is asked whether it is
    /// to rise again.
    pub(crate) fn ended(&self, machine: &Machine, spi: u16) {
        // In this order: an answer that comes at once must not be undone.
        let _ = machine.inject(&Call::reported(spi, false));
        self.signal_resample(spi);
    }

    fn signal_resample(&self, spi: u16) {
        for listener in self.list.lock().iter().filter(|listener| listener.listen().spi == spi) {
            if let Some(resample) = &listener.listen().resample {
                resample.eventfd.signal();
            }
        }
    }

    /// Signals the resample eventfds whose interrupt was injected as a pulse. To be called after an
    /// exit.
    pub(crate) fn resample(&self) {
        for listener in self.list.lock().iter() {
            if let Some(resample) = &listener.listen().resample {
                if resample.due.xchg(false, Full) {
                    resample.eventfd.signal();
                }
            }
        }
    }
}
