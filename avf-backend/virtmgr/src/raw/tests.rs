// SPDX-License-Identifier: Apache-2.0
//! Wrong configurations, with the exception and the words that each is refused with.

use super::*;
use avf_aidl::aidl::virtualizationservice::{
    AudioConfig::AudioConfig,
    CpuOptions::CpuOptions,
    CustomMemoryBackingFile::CustomMemoryBackingFile,
    DiskImage::DiskImage,
    DisplayConfig::DisplayConfig,
    GpuConfig::GpuConfig,
    InputDevice::{InputDevice, Mouse::Mouse},
    Partition::Partition,
    SharedPath::SharedPath,
    UsbConfig::UsbConfig,
};
use binder::{Exceptions, ParcelFileDescriptor};
use gzvm_host::props::Firmware;

const NONE: &str = "";

fn fd() -> ParcelFileDescriptor {
    ParcelFileDescriptor::new(tempfile::tempfile().unwrap())
}

fn full() -> ParcelFileDescriptor {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "contents").unwrap();
    ParcelFileDescriptor::new(file.into_file())
}

/// One that is right.
fn right() -> RawConfig {
    RawConfig {
        name: "vm".into(),
        kernel: Some(fd()),
        platformVersion: "~1.0".into(),
        ..Default::default()
    }
}

fn props(text: &str) -> Props {
    Props::parse(text)
}

/// What becomes of it: a request, or an exception.
fn outcome(config: &RawConfig, text: &str) -> binder::Result<Request> {
    check(config, &props(text))?;
    request(config, &props(text), 2048, Streams::default(), &mut Files::default())
}

/// What is wrong, how it is refused, and a part of the words.
type Wrong = (fn(&mut RawConfig), &'static str, ExceptionCode, &'static str);

/// Texts, files and numbers that cannot be.
const ILLEGAL: &[Wrong] = &[
    (|c| c.name = "a\0b".into(), NONE, ExceptionCode::ILLEGAL_ARGUMENT, "zero character"),
    (|c| c.params = Some("a\0".into()), NONE, ExceptionCode::ILLEGAL_ARGUMENT, "zero character"),
    (|c| c.platformVersion = "one".into(), NONE, ExceptionCode::BadParcelable, "\"one\""),
    (|c| c.platformVersion.clear(), NONE, ExceptionCode::BadParcelable, "platformVersion \"\""),
    (|c| c.platformVersion = "~2".into(), NONE, ExceptionCode::SERVICE_SPECIFIC, "this is 1.0.0"),
    (|c| c.platformVersion = "<1".into(), NONE, ExceptionCode::SERVICE_SPECIFIC, "<1"),
    (|c| c.kernel = None, NONE, ExceptionCode::SERVICE_SPECIFIC, "kernel or a bootloader"),
    (|c| c.bootloader = Some(fd()), NONE, ExceptionCode::SERVICE_SPECIFIC, "kernel and bootloader"),
    (
        |c| (c.bootloader, c.initrd) = (c.kernel.take(), Some(fd())),
        NONE,
        ExceptionCode::SERVICE_SPECIFIC,
        "initrd and bootloader",
    ),
    (|c| c.cpuOptions = cpus(0), NONE, ExceptionCode::ILLEGAL_ARGUMENT, "0 vCPUs"),
    (|c| c.cpuOptions = cpus(-3), NONE, ExceptionCode::ILLEGAL_ARGUMENT, "-3 vCPUs"),
    (
        |c| c.consoleInputDevice = Some("hvc1".into()),
        NONE,
        ExceptionCode::ILLEGAL_ARGUMENT,
        "\"hvc1\"",
    ),
    (|c| c.disks = vec![DiskImage::default()], NONE, ExceptionCode::ILLEGAL_ARGUMENT, "needs an"),
    (
        |c| {
            let partitions = vec![Partition { image: Some(full()), ..Default::default() }];
            c.disks = vec![DiskImage { image: Some(fd()), partitions, ..Default::default() }];
        },
        NONE,
        ExceptionCode::ILLEGAL_ARGUMENT,
        "not both",
    ),
    (|c| c.disks = disk(None, false, None), NONE, ExceptionCode::ILLEGAL_ARGUMENT, "no image"),
    (|c| c.disks = disk(Some(fd()), false, None), NONE, ExceptionCode::ILLEGAL_ARGUMENT, "empty"),
    (
        |c| c.disks = disk(Some(full()), true, None),
        NONE,
        ExceptionCode::ILLEGAL_ARGUMENT,
        "its disk",
    ),
    (
        |c| c.disks = disk(Some(full()), false, Some("7")),
        NONE,
        ExceptionCode::ILLEGAL_ARGUMENT,
        "partition \"p\"",
    ),
    (|c| c.devices = AssignedDevices::Dtbo(None), NONE, ExceptionCode::ILLEGAL_ARGUMENT, "no dtbo"),
];

/// What such VMs do not have.
const ABSENT: &[Wrong] = &[
    (
        |c| c.devices = AssignedDevices::Devices(vec!["/sys/x".into()]),
        NONE,
        ExceptionCode::UNSUPPORTED_OPERATION,
        "devices:",
    ),
    (|c| c.networkSupported = true, NONE, ExceptionCode::UNSUPPORTED_OPERATION, "no network"),
    (
        |c| c.usbConfig = Some(UsbConfig { controller: true }),
        NONE,
        ExceptionCode::UNSUPPORTED_OPERATION,
        "no USB",
    ),
    (
        |c| c.displayConfig = Some(DisplayConfig::default()),
        NONE,
        ExceptionCode::UNSUPPORTED_OPERATION,
        "no display",
    ),
    (
        |c| c.gpuConfig = Some(GpuConfig::default()),
        NONE,
        ExceptionCode::UNSUPPORTED_OPERATION,
        "GPU",
    ),
    (
        |c| c.audioConfig = Some(AudioConfig::default()),
        NONE,
        ExceptionCode::UNSUPPORTED_OPERATION,
        "no sound",
    ),
    (
        |c| c.inputDevices = vec![InputDevice::Mouse(Mouse { pfd: Some(fd()) })],
        NONE,
        ExceptionCode::UNSUPPORTED_OPERATION,
        "no input",
    ),
    (
        |c| c.sharedPaths = vec![SharedPath::default()],
        NONE,
        ExceptionCode::UNSUPPORTED_OPERATION,
        "no directories",
    ),
    (|c| c.teeServices = vec!["x".into()], NONE, ExceptionCode::UNSUPPORTED_OPERATION, "no TEE"),
    (
        |c| c.customMemoryBackingFiles = vec![CustomMemoryBackingFile::default()],
        NONE,
        ExceptionCode::UNSUPPORTED_OPERATION,
        "customMemory",
    ),
    (
        |c| c.enableHypervisorSpecificAuthMethod = true,
        NONE,
        ExceptionCode::UNSUPPORTED_OPERATION,
        "Gunyah",
    ),
    (|c| c.gdbPort = 1234, NONE, ExceptionCode::UNSUPPORTED_OPERATION, "registers"),
    (
        |c| (c.gdbPort, c.protectedVm) = (1234, true),
        NONE,
        ExceptionCode::SECURITY,
        "cannot be debugged",
    ),
    (
        |c| c.protectedVm = true,
        "ro.boot.hypervisor.protected_vm.supported=0",
        ExceptionCode::UNSUPPORTED_OPERATION,
        "no protected VMs",
    ),
    (
        |c| c.protectedVm = false,
        "ro.boot.hypervisor.vm.supported=false",
        ExceptionCode::UNSUPPORTED_OPERATION,
        "not protected",
    ),
];

fn cpus(count: i32) -> CpuOptions {
    CpuOptions { cpuTopology: CpuTopology::CpuCount(count) }
}

/// A read-only disk of one partition.
fn disk(image: Option<ParcelFileDescriptor>, writable: bool, guid: Option<&str>) -> Vec<DiskImage> {
    let guid = guid.map(str::to_owned);
    let partitions = vec![Partition { label: "p".into(), image, writable, guid }];
    vec![DiskImage { partitions, ..Default::default() }]
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    assert!(outcome(&right(), NONE).is_ok());
    for (index, (spoil, props, exception, words)) in ILLEGAL.iter().chain(ABSENT).enumerate() {
        let mut config = right();
        spoil(&mut config);
        let Err(status) = outcome(&config, props) else {
            panic!("{index} (\"{words}\") is accepted");
        };
        assert_eq!(status.exception_code(), *exception, "{index}: {status}");
        assert!(status.message().is_some_and(|text| text.contains(words)), "{index}: {status}");
        if *exception == ExceptionCode::SERVICE_SPECIFIC {
            assert_eq!(status.service_specific_error(), -1, "{index}");
        }
    }
}

#[test]
fn numbers_of_no_meaning_are_defaults() {
    let config = RawConfig { memoryMib: -1, swiotlbMib: -1, ..right() };
    let request = outcome(&config, NONE).unwrap();
    assert_eq!((request.memory_mib, request.swiotlb_mib), (DEFAULT_MEMORY_MIB, None));
    let config = RawConfig { memoryMib: 300, swiotlbMib: 64, protectedVm: true, ..right() };
    let request = outcome(&config, "hypervisor.pvmfw.path=none").unwrap();
    assert_eq!((request.memory_mib, request.swiotlb_mib), (300, Some(64)));
    assert_eq!(request.protected, Some(Firmware::None));
}

#[test]
fn a_balloon_needs_the_wish_and_the_property() {
    for (wish, text, expected) in [
        (true, "hypervisor.memory_reclaim.supported=true", true),
        (true, NONE, false),
        (false, "hypervisor.memory_reclaim.supported=true", false),
    ] {
        let config = RawConfig { balloon: wish, ..right() };
        assert_eq!(outcome(&config, text).unwrap().balloon, expected);
    }
}

#[test]
fn an_identity_and_a_tree_are_laid_over_the_device_tree() {
    assert!(outcome(&right(), NONE).unwrap().overlays.is_empty());
    let devices = AssignedDevices::Dtbo(Some(fd()));
    let config = RawConfig { instanceId: [7; 64], devices, ..right() };
    assert_eq!(outcome(&config, NONE).unwrap().overlays.len(), 2);
}
