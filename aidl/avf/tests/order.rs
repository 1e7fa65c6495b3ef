// SPDX-License-Identifier: Apache-2.0
//! Method order is the transaction code and field order is the wire format: both are Android 16's.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/avf_aidl.rs"));

/// Interfaces, with their methods in order.
const METHODS: &[(&str, &str)] = &[
    (
        "IVirtualizationService",
        "createVm allocateInstanceId initializeWritablePartition createOrUpdateIdsigFile \
         debugListVms getAssignableDevices getSupportedOSList getDebugPolicy isFeatureEnabled \
         enableTestAttestation isRemoteAttestationSupported isUpdatableVmSupported \
         removeVmInstance claimVmInstance",
    ),
    (
        "IVirtualMachine",
        "getCid getState registerCallback start stop getMemoryBalloon setMemoryBalloon \
         connectVsock createAccessorBinder setHostConsoleName suspend resume",
    ),
    ("IVirtualMachineCallback", "onPayloadStarted onPayloadReady onPayloadFinished onError onDied"),
    (
        "IVirtualizationServiceInternal",
        "removeMemlockRlimit allocateGlobalVmContext atomVmBooted atomVmCreationRequested \
         atomVmExited debugListVms requestAttestation enableTestAttestation \
         isRemoteAttestationSupported getAssignableDevices bindDevicesToVfioDriver getDtboFile \
         allocateInstanceId removeVmInstance claimVmInstance setDisplayService \
         clearDisplayService waitDisplayService createTapInterface deleteTapInterface",
    ),
    ("IGlobalVmContext", "getCid getTemporaryDirectory setHostConsoleName"),
];

/// Parcelables with their fields, unions with their variants and enums with their values, in order.
const FIELDS: &[(&str, &str)] = &[
    (
        "struct VirtualMachineRawConfig",
        "name instanceId kernel initrd params bootloader disks sharedPaths protectedVm memoryMib \
         swiotlbMib cpuOptions platformVersion gdbPort hugePages devices displayConfig \
         inputDevices gpuConfig networkSupported audioConfig consoleInputDevice usbConfig \
         boostUclamp balloon teeServices enableHypervisorSpecificAuthMethod \
         customMemoryBackingFiles",
    ),
    (
        "struct VirtualMachineAppConfig",
        "name instanceId apk idsig extraIdsigs instanceImage encryptedStorageImage payload osName \
         debugLevel protectedVm memoryMib cpuOptions customConfig hugePages boostUclamp",
    ),
    ("struct DiskImage", "image writable partitions"),
    ("struct Partition", "label image writable guid"),
    (
        "struct VirtualMachineDebugInfo",
        "cid temporaryDirectory requesterUid requesterPid hostConsoleName",
    ),
    ("struct CustomMemoryBackingFile", "file rangeStart size"),
    (
        "struct SharedPath",
        "sharedPath hostUid hostGid guestUid guestGid mask tag socketPath socketFd appDomain",
    ),
    (
        "struct AtomVmCreationRequested",
        "uid vmIdentifier isProtected creationSucceeded binderExceptionCode configType numCpus \
         memoryMib apexes",
    ),
    ("struct AtomVmBooted", "uid vmIdentifier elapsedTimeMillis"),
    (
        "struct AtomVmExited",
        "uid vmIdentifier deathReason exitSignal elapsedTimeMillis guestTimeMillis rssVmKb \
         rssCrosvmKb",
    ),
];

/// What stands between the first `start` behind `after` and the closing brace of that block.
fn block<'a>(after: &str, start: &str) -> &'a str {
    let rest = &GENERATED[GENERATED.find(after).unwrap_or_else(|| panic!("no {after}"))..];
    let rest = &rest[rest.find(start).unwrap()..];
    &rest[..rest.find("\n                }").unwrap()]
}

fn names(block: &str, prefix: &str) -> String {
    let name = |line: &str| Some(line.trim().strip_prefix(prefix)?.split(':').next()?.to_owned());
    block.lines().filter_map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn methods_have_their_codes() {
    for (interface, expected) in METHODS {
        let block = block(&format!("pub trait {interface}:"), "mod transactions {");
        let names = names(block, "pub(crate) const r#");
        assert_eq!(&names, expected, "{interface}");
        for (code, line) in block.lines().skip(1).enumerate() {
            assert!(line.ends_with(&format!("FIRST_CALL_TRANSACTION + {code};")), "{line}");
        }
    }
}

#[test]
fn fields_are_in_order() {
    for (parcelable, expected) in FIELDS {
        let block = block(&format!("pub {parcelable} {{"), "{");
        assert_eq!(&names(block, "pub r#"), expected, "{parcelable}");
    }
}

#[test]
fn unions_and_enums_have_their_numbers() {
    use avf_aidl::aidl::android::system::virtualizationcommon::DeathReason::DeathReason;
    use avf_aidl::aidl::android::system::virtualizationservice::{
        PartitionType::PartitionType, VirtualMachineState::VirtualMachineState,
    };
    assert_eq!((DeathReason::INFRASTRUCTURE_ERROR.0, DeathReason::CRASH.0), (0, 6));
    assert_eq!((DeathReason::HANGUP.0, DeathReason::WATCHDOG_REBOOT.0), (16, 17));
    assert_eq!((VirtualMachineState::FINISHED.0, VirtualMachineState::DEAD.0), (4, 6));
    assert_eq!(PartitionType::ENCRYPTEDSTORE.0, 2);
    for (union, first) in
        [("VirtualMachineConfig", "r#AppConfig"), ("AssignedDevices", "r#Devices")]
    {
        let block = block(&format!("pub enum r#{union} {{"), "{");
        assert!(block.lines().nth(1).unwrap().trim().starts_with(first), "{block}");
    }
}
