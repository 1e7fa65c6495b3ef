// SPDX-License-Identifier: GPL-2.0

//! A module with one platform driver and a value that all its probes share.
//!
//! The value outlives an unbinding of the device, so that binding it again finds what is still in
//! use by open files; it goes with the module.

use crate::device::{
    Gzvm,
    GzvmDriver, //
};
use kernel::{
    driver,
    platform,
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};

global_lock! {
    // SAFETY: `PlatformModule::init` initialises it before it registers the driver, and nothing but
    // the driver's probe and the module's drop uses it.
    unsafe(uninit) static SHARED: Mutex<Option<Arc<Gzvm>>> = None;
}

/// The value that an earlier probe made, or a new one by `make`. To be called in probes only.
pub(crate) fn shared(make: impl FnOnce() -> Result<Arc<Gzvm>>) -> Result<Arc<Gzvm>> {
    let mut shared = SHARED.lock();
    match &*shared {
        Some(value) => Ok(value.clone()),
        None => Ok(shared.insert(make()?).clone()),
    }
}

/// Forgets the shared value at the drop.
struct Forget;

impl Drop for Forget {
    fn drop(&mut self) {
        let value = SHARED.lock().take();
        drop(value);
    }
}

/// The module. Fields are dropped in order: the driver is gone before the value.
#[pin_data]
pub(crate) struct PlatformModule {
    #[pin]
    driver: driver::Registration<platform::Adapter<GzvmDriver>>,
    forget: Forget,
}

impl kernel::InPlaceModule for PlatformModule {
    fn init(module: &'static ThisModule) -> impl PinInit<Self, Error> {
        // SAFETY: The kernel calls this once, when the module is loaded, before anything else of
        // it.
        unsafe { SHARED.init() };
        try_pin_init!(Self {
            forget: Forget,
            driver <- driver::Registration::new(
                <crate::LocalModule as kernel::ModuleMetadata>::NAME,
                module,
            ),
        })
    }
}
