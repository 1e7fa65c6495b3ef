// SPDX-License-Identifier: GPL-2.0

//! Misc devices whose files can reach their driver's data.
//!
//! C header: `include/linux/miscdevice.h`.

use core::marker::PhantomData;
use kernel::{
    container_of,
    fs::File,
    miscdevice::{
        MiscDevice,
        MiscDeviceOptions,
        MiscDeviceRegistration, //
    },
    prelude::*,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};

/// An open file of a misc device.
pub(crate) trait DeviceFile: Send + Sync + Sized + 'static {
    /// What the driver keeps for the device.
    type Data: Send + Sync + 'static;

    /// Opens the device.
    fn open(data: &Self::Data) -> Result<Arc<Self>>;

    /// Handles an ioctl.
    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: usize) -> Result<isize>;
}

/// Only this file can name the type, so every registration of it is inside a [`Device`].
struct Adapter<T>(PhantomData<T>);

/// A registered misc device with its driver's data.
#[pin_data]
pub(crate) struct Device<T: DeviceFile> {
    // Dropped before the data: no file can be opened then.
    #[pin]
    registration: MiscDeviceRegistration<Adapter<T>>,
    data: T::Data,
}

impl<T: DeviceFile> Device<T> {
    /// Registers a misc device of this name; from then on it can be opened.
    pub(crate) fn register(name: &'static CStr, data: T::Data) -> impl PinInit<Self, Error> {
        // The data is initialised first.
        try_pin_init!(Self {
            data,
            registration <- MiscDeviceRegistration::register(MiscDeviceOptions { name }),
        })
    }
}

#[vtable]
impl<T: DeviceFile> MiscDevice for Adapter<T> {
    type Ptr = Arc<T>;

    fn open(_file: &File, misc: &MiscDeviceRegistration<Self>) -> Result<Arc<T>> {
        // SAFETY: Registrations of `Self` exist only as the field `registration` of a `Device<T>`,
        // which is alive because its registration is, and whose data was initialised before.
        let device = unsafe { &*container_of!(core::ptr::from_ref(misc), Device<T>, registration) };
        T::open(&device.data)
    }

    fn ioctl(this: ArcBorrow<'_, T>, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        T::ioctl(this, cmd, arg)
    }
}
