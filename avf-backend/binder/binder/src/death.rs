// SPDX-License-Identifier: Apache-2.0
//! Learning that the process behind a binder is gone.

use rsbinder::{SIBinder, StatusCode, WIBinder};
use std::fmt;
use std::sync::Arc;

/// Something to be done when a binder's process is gone. Dropping it withdraws the wish.
pub struct DeathRecipient(Arc<Action>);

struct Action(Box<dyn Fn() + Send + Sync>);

impl rsbinder::DeathRecipient for Action {
    fn binder_died(&self, _who: &WIBinder) {
        (self.0)();
    }
}

impl DeathRecipient {
    /// Calls `action`, on a thread of binder's.
    pub fn new(action: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Action(Box::new(action))))
    }
}

impl fmt::Debug for DeathRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeathRecipient")
    }
}

/// What a reference to a remote object can do besides its interface.
pub trait IBinder {
    /// Has `recipient` told when the object's process is gone; at once an error if it is already.
    fn link_to_death(&mut self, recipient: &mut DeathRecipient) -> Result<(), StatusCode>;

    /// Asks the process for a sign of life.
    fn ping_binder(&mut self) -> Result<(), StatusCode>;
}

impl IBinder for SIBinder {
    fn link_to_death(&mut self, recipient: &mut DeathRecipient) -> Result<(), StatusCode> {
        self.link_to_death_arc(&recipient.0)
    }

    fn ping_binder(&mut self) -> Result<(), StatusCode> {
        rsbinder::IBinder::ping_binder(&**self)
    }
}
