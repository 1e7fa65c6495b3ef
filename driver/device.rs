// SPDX-License-Identifier: GPL-2.0

//! The platform device: finds the hypervisor, asks what it can do, and offers `/dev/gzvm`.

#[cfg(CONFIG_PM_SLEEP)]
use crate::kx::notifier::Sleep;
use crate::{
    abi::{
        cap,
        ext,
        hvc,
        uapi, //
    },
    hyp,
    kx::{
        arch,
        misc,
        misc::DeviceFile,
        mmu_interval,
        module,
        notifier::{
            Notifier,
            Reboot, //
        },
        sysfs, //
    },
    model::{
        caps::{
            self,
            Features,
            Limits, //
        },
        version::Version, //
    },
    registry::Registry,
    tunables,
    uio,
    vm, //
};
use kernel::{
    debugfs::Dir,
    device::Core,
    of,
    page::PAGE_SIZE,
    platform,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        Arc,
        ArcBorrow, //
    }, //
};

/// The machine's hypervisor. VMs keep a reference, so it outlives the platform device's binding.
#[pin_data]
pub(crate) struct Gzvm {
    /// What PROBE answered.
    pub(crate) version: Version,
    /// The extensions in use.
    pub(crate) features: Features,
    /// What a VM may have.
    pub(crate) limits: Limits,
    /// Frequency of the counter in Hz.
    pub(crate) counter_hz: u32,
    /// Pages per MAP_GUEST_BLOCK; a divisor of 512.
    pub(crate) demand_batch: Atomic<u32>,
    /// Pages per DESTROY_VM; a power of two.
    pub(crate) destroy_batch: Atomic<u32>,
    /// `gzvm` in debugfs.
    pub(crate) debugfs: Dir,
    /// Is there a device that the driver is bound to?
    bound: Atomic<bool>,
    /// Its VMs.
    pub(crate) registry: Arc<Registry>,
    #[pin]
    reboot: Notifier<Reboot, Arc<Registry>>,
    #[cfg(CONFIG_PM_SLEEP)]
    #[pin]
    sleep: Notifier<Sleep, Arc<Registry>>,
}

impl Gzvm {
    /// Finds the hypervisor.
    fn find() -> Result<Arc<Self>> {
        if PAGE_SIZE != hyp::PAGE {
            pr_err!("needs a kernel with 4 KiB pages: the hypervisor's ABI counts in them\n");
            return Err(ENODEV);
        }
        if arch::at_el2() {
            pr_err!("this kernel runs at EL2, so there is no hypervisor below it\n");
            return Err(ENODEV);
        }
        let version = hyp::probe().map_err(|error| {
            pr_err!(
                "no GenieZone: the hypervisor call PROBE ({:#x}) was answered with {}\n",
                hvc::PROBE,
                error.status()
            );
            ENODEV
        })?;
        let features = match Self::features() {
            features if version.layout_known() => features,
            features => features.without_hardware_state(),
        };
        let limits = Self::limits(features);
        let registry = Registry::new()?;
        let gzvm = Arc::pin_init(
            try_pin_init!(Self {
                version,
                features,
                limits,
                counter_hz: arch::counter_hz(),
                demand_batch: Atomic::new(Self::demand_batch()),
                destroy_batch: Atomic::new(Self::destroy_batch()),
                debugfs: Dir::new(c"gzvm"),
                bound: Atomic::new(false),
                reboot <- Notifier::register(registry.clone()),
                #[cfg(CONFIG_PM_SLEEP)]
                sleep <- Notifier::register(registry.clone()),
                registry,
            }? Error),
            GFP_KERNEL,
        )?;
        gzvm.announce();
        Ok(gzvm)
    }

    fn announce(&self) {
        let Version { major, minor, sub } = self.version;
        pr_info!(
            "GenieZone {major}.{minor}.{sub}, extensions {:#x}, {} vCPUs, {} bit guest addresses\n",
            self.features.bits(),
            self.limits.vcpus,
            self.limits.ipa_bits
        );
        if !self.version.layout_known() {
            pr_warn!(
                "hypervisor version {major} is unexpected (known: {}): going without idle exits, \
                 virtual-counter time and ends of interrupts\n",
                hvc::VERSION_MAJOR
            );
        }
    }

    fn features() -> Features {
        match hyp::machine_capability(ext::DISCOVER) {
            Ok([features, magic, _]) => Features::from_answer(features, magic),
            Err(_) => Features::default(),
        }
    }

    fn limits(features: Features) -> Limits {
        let asked = features.has(ext::LIMITS).then(|| hyp::machine_capability(ext::QUERY_LIMITS));
        match asked {
            Some(Ok([limits, ..])) => Limits::from_answer(limits),
            _ => Limits::default(),
        }
    }

    /// A hypervisor that does not answer, or answers nonsense, gets the default.
    fn demand_batch() -> u32 {
        let answer = hyp::machine_capability(cap::QUERY_HYP_BATCH_PAGES);
        let usable = answer.ok().and_then(|[pages, ..]| caps::demand_batch(pages));
        usable.or(caps::demand_batch(hvc::DEFAULT_DEMAND_BATCH_PAGES)).unwrap_or(1)
    }

    fn destroy_batch() -> u32 {
        let answer = hyp::machine_capability(cap::QUERY_DESTROY_BATCH_PAGES);
        let usable = answer.ok().and_then(|[pages, ..]| caps::destroy_batch(pages));
        usable.or(caps::destroy_batch(hvc::DEFAULT_DESTROY_BATCH_PAGES)).unwrap_or(1)
    }

    /// Pages per DESTROY_VM right now.
    pub(crate) fn destroy_pages(&self) -> u32 {
        self.destroy_batch.load(Relaxed)
    }

    /// Pages per MAP_GUEST_BLOCK right now.
    pub(crate) fn demand_pages(&self) -> u32 {
        self.demand_batch.load(Relaxed)
    }

    /// Can pages that an owner replaces be taken from its guest, unless that is protected?
    pub(crate) fn can_follow_owners(&self) -> bool {
        mmu_interval::AVAILABLE && self.features.has(ext::UNMAP)
    }

    /// CHECK_EXTENSION. What is not known leaves the user's memory as it is.
    pub(crate) fn check_extension(&self, address: usize, sync_mmu: bool) -> Result<isize> {
        let capability = uio::read::<u64>(address)?;
        let value = caps::check_extension(capability, &self.limits, self.features, sync_mmu)?;
        uio::write(address, &value)?;
        Ok(0)
    }
}

/// An open `/dev/gzvm`.
struct ControlFile {
    gzvm: Arc<Gzvm>,
}

impl DeviceFile for ControlFile {
    type Data = Arc<Gzvm>;

    fn open(gzvm: &Arc<Gzvm>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { gzvm: gzvm.clone() }, GFP_KERNEL)?)
    }

    fn ioctl(this: ArcBorrow<'_, Self>, cmd: u32, arg: usize) -> Result<isize> {
        match cmd {
            uapi::CREATE_VM => vm::create(&this.gzvm, arg),
            // As the posted driver answers here, though not for VMs.
            uapi::CHECK_EXTENSION if arg == 0 => Err(EINVAL),
            uapi::CHECK_EXTENSION => {
                this.gzvm.check_extension(arg, this.gzvm.can_follow_owners())
            }
            _ => Err(ENOTTY),
        }
    }
}

/// The platform driver.
pub(crate) struct GzvmDriver;

/// The driver is bound to a device, and to no other: there is one hypervisor, however many nodes of
/// the device tree say so.
struct Binding(Arc<Gzvm>);

impl Binding {
    /// -EBUSY if there is a binding.
    fn new(gzvm: &Arc<Gzvm>) -> Result<Self> {
        if gzvm.bound.xchg(true, Full) {
            pr_err!("the hypervisor has a device already: remove the other node from the tree\n");
            return Err(EBUSY);
        }
        Ok(Self(gzvm.clone()))
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        self.0.bound.store(false, Release);
    }
}

/// What exists while the driver is bound. Fields are dropped in order: first nobody can come in.
#[pin_data]
pub(crate) struct Bound {
    #[pin]
    device: misc::Device<ControlFile>,
    tunables: sysfs::Directory<Gzvm>,
    binding: Binding,
}

kernel::of_device_table!(
    OF_TABLE,
    <GzvmDriver as platform::Driver>::IdInfo,
    [
        (of::DeviceId::new(c"mediatek,geniezone"), ()),
        // The name up to v10 of the binding.
        (of::DeviceId::new(c"mediatek,geniezone-hyp"), ()),
    ]
);

impl platform::Driver for GzvmDriver {
    type IdInfo = ();
    type Data<'bound> = Bound;
    const OF_ID_TABLE: Option<of::IdTable<Self::IdInfo>> = Some(&OF_TABLE);

    fn probe<'bound>(
        _device: &'bound platform::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Bound, Error> + 'bound {
        pin_init::pin_init_scope(|| {
            let gzvm = module::shared(Gzvm::find)?;
            let binding = Binding::new(&gzvm)?;
            let tunables = sysfs::Directory::new(c"gzvm", &gzvm, &tunables::ATTRIBUTES)?;
            // /dev/gzvm comes last: whoever opens it finds everything ready.
            Ok(try_pin_init!(Bound {
                binding,
                tunables,
                device <- misc::Device::register(c"gzvm", gzvm),
            }? Error))
        })
    }
}
