// SPDX-License-Identifier: Apache-2.0
//! What a client of another make sends is understood: each call that `vm` makes is encoded here by
//! libbinder's rules, without the library that the service uses.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

mod life;
mod parcel;
mod session;

use command_fds::CommandFdExt;
use nix::poll::poll;
use parcel::{Reader, Writer};
use session::{Connection, ONEWAY, TRANSACT, VERSION};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use tempfile::TempDir;

const SERVICE: &str = "android.system.virtualizationservice.IVirtualizationService";
const MACHINE: &str = "android.system.virtualizationservice.IVirtualMachine";

/// Codes are the first call's number and the method's place.
const FIRST: u32 = 1;
const CREATE_VM: u32 = FIRST;
const INITIALIZE_WRITABLE_PARTITION: u32 = FIRST + 2;
const CREATE_OR_UPDATE_IDSIG_FILE: u32 = FIRST + 3;
const DEBUG_LIST_VMS: u32 = FIRST + 4;
const GET_ASSIGNABLE_DEVICES: u32 = FIRST + 5;
const GET_SUPPORTED_OS_LIST: u32 = FIRST + 6;
const GET_DEBUG_POLICY: u32 = FIRST + 7;
const ENABLE_TEST_ATTESTATION: u32 = FIRST + 9;
const GET_CID: u32 = FIRST;
const GET_STATE: u32 = FIRST + 1;
const REGISTER_CALLBACK: u32 = FIRST + 2;
const START: u32 = FIRST + 3;
const STOP: u32 = FIRST + 4;
const SET_HOST_CONSOLE_NAME: u32 = FIRST + 9;
const ON_DIED: u32 = FIRST + 4;

/// What every object has: the name of its interface, and a sign of life.
const INTERFACE: u32 = u32::from_be_bytes(*b"_NTF");
const PING: u32 = u32::from_be_bytes(*b"_PNG");

const NOT_STARTED: i32 = 0;
const STARTING: i32 = 1;
const DEAD: i32 = 6;
const REBOOT: i32 = 5;
const SERVICE_SPECIFIC: i32 = -8;
const UNSUPPORTED_OPERATION: i32 = -7;

/// Connections for callbacks that Android's Java library makes; its tool makes 2.
const CALLBACKS: usize = 16;

/// How long a slow machine may take for a callback, in milliseconds.
const PATIENCE: u16 = 60_000;

/// A binder of ours: the first one, of the end that connected.
const CALLBACK: u64 = 1 << 32 | 0x0000_0001;

/// virtmgr, with a script in the VMM's place.
struct World {
    virtmgr: Child,
    bootstrap: Option<UnixStream>,
    dir: TempDir,
}

impl World {
    fn new(script: &str) -> Self {
        Self::with(script, "")
    }

    /// With properties, where `DIR` is the directory.
    fn with(script: &str, props: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let props = props.replace("DIR", &dir.path().display().to_string());
        let file = dir.path().join("props");
        fs::write(&file, props).unwrap();
        let vmm = dir.path().join("gzvm_vmm");
        let path = dir.path().display();
        fs::write(&vmm, format!("#!/bin/sh\necho \"$0 $@\" > {path}/args\n{script}\n")).unwrap();
        fs::set_permissions(&vmm, fs::Permissions::from_mode(0o755)).unwrap();
        let (bootstrap, theirs) = UnixStream::pair().unwrap();
        let (ready, theirs_ready) = UnixStream::pair().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gzvm_virtmgr"));
        let number = |socket: &UnixStream| socket.as_raw_fd().to_string();
        command.args(["--rpc-server-fd", &number(&theirs), "--ready-fd", &number(&theirs_ready)]);
        // Clients have files that they keep open by mistake: it must not pass them on.
        let mistake = File::open("/dev/null").unwrap().into();
        let theirs = [theirs, theirs_ready].map(OwnedFd::from).into_iter();
        command.preserved_fds(theirs.chain([mistake]).collect());
        command.env("GZVM_VMM", vmm).env("TMPDIR", dir.path()).env("GZVM_PROPS", file);
        let virtmgr = command.spawn().unwrap();
        drop(command);
        let mut byte = String::new();
        (&ready).read_to_string(&mut byte).unwrap();
        assert_eq!(byte, "o");
        Self { virtmgr, bootstrap: Some(bootstrap), dir }
    }

    fn bootstrap(&self) -> &UnixStream {
        self.bootstrap.as_ref().unwrap()
    }

    fn file(&self, name: &str, contents: &str) -> File {
        let path = self.dir.path().join(name);
        fs::write(&path, contents).unwrap();
        File::options().read(true).write(true).open(path).unwrap()
    }

    /// The arguments of `createVm`.
    fn create(&self, config: impl FnOnce(Writer) -> Writer) -> Writer {
        let call = Writer::call(SERVICE).union(1, |raw| raw.parcelable(config));
        // Console out and in, log, device tree.
        let console = self.file("console", "");
        call.fd(console).null().fd(self.file("log", "")).null()
    }

    fn raw(&self, writer: Writer, platform_version: &str) -> Writer {
        let writer = writer.string("wire").bytes(&[0; 64]);
        let writer = writer.fd(self.file("kernel", "the kernel")).null();
        // Parameters, bootloader, disks, shared paths, protected, memory, pool.
        let writer = writer.string("quiet").null().int(0).int(0).bool(true).int(96).int(0);
        let writer = writer.parcelable(|cpus| cpus.union(0, |count| count.int(3)));
        let writer = writer.string(platform_version).int(0).bool(true);
        // No devices, display, input devices, GPU, network, audio.
        let writer = writer.union(0, |devices| devices.int(0)).null().int(0).null();
        let writer = writer.bool(false).null().string("ttyS0").null();
        // Boost, balloon, TEE services, Gunyah's method, memory of files.
        writer.bool(false).bool(true).int(0).bool(false).int(0)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.bootstrap = None;
        assert!(self.virtmgr.wait().unwrap().success(), "it ends with its client");
        assert!(fs::read_dir(self.dir.path())
            .unwrap()
            .flatten()
            .all(|entry| { !entry.file_name().to_string_lossy().starts_with("gzvm-virtmgr-") }));
    }
}

#[test]
fn a_vm_from_creation_to_its_end() {
    let world = World::new("read x < $(dirname $0)/go; exit 32");
    nix::unistd::mkfifo(&world.dir.path().join("go"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut calls = Connection::founding(world.bootstrap());
    let root = calls.root();
    let mut callbacks = Connection::incoming(world.bootstrap(), &calls.session_id());

    let created = calls.call(root, CREATE_VM, &world.create(|config| world.raw(config, "~1.0")));
    let machine = Reader(&created).ok().binder();
    let reply = calls.call(machine, GET_CID, &Writer::call(MACHINE));
    let cid = Reader(&reply).ok().int();
    assert!((2048..=65_535).contains(&cid));
    let callback = Writer::call(MACHINE).binder(CALLBACK);
    Reader(&calls.call(machine, REGISTER_CALLBACK, &callback)).ok();
    let console = Writer::call(MACHINE).string("/dev/pts/7");
    Reader(&calls.call(machine, SET_HOST_CONSOLE_NAME, &console)).ok();
    Reader(&calls.call(machine, START, &Writer::call(MACHINE))).ok();
    let reply = calls.call(machine, GET_STATE, &Writer::call(MACHINE));
    assert_eq!(Reader(&reply).ok().int(), STARTING);
    let again = calls.call(machine, START, &Writer::call(MACHINE));
    let mut again = Reader(&again);
    assert_eq!(again.int(), SERVICE_SPECIFIC);
    assert!(again.string().contains("started before"));

    fs::write(world.dir.path().join("go"), "\n").unwrap();
    let died = callbacks.receive();
    assert_eq!(died.command, TRANSACT);
    let word = |at: usize| u32::from_le_bytes(died.body[at..at + 4].try_into().unwrap());
    assert_eq!(died.body[..8], CALLBACK.to_le_bytes());
    assert_eq!((word(8), word(12) & ONEWAY), (ON_DIED, ONEWAY));
    let mut parcel = Reader(&died.body[40..]);
    assert_eq!(parcel.string(), MACHINE.to_owned() + "Callback");
    assert_eq!((parcel.int(), parcel.int()), (cid, REBOOT));

    let args = fs::read_to_string(world.dir.path().join("args")).unwrap();
    for part in [
        &format!("--name crosvm_wire --disable-sandbox --cid {cid} --no-balloon"),
        "--protected-vm --swiotlb 8",
        "--mem 104 --cpus 3,sve=[auto=true]",
        "--params quiet /proc/self/fd/",
        "--hugepages",
    ] {
        assert!(args.contains(part), "no {part}: {args}");
    }
}

#[test]
fn what_is_refused_has_its_exception() {
    let world = World::new("exit 0");
    let mut calls = Connection::founding(world.bootstrap());
    let root = calls.root();
    let reply = calls.call(root, CREATE_VM, &world.create(|config| world.raw(config, "~2.0")));
    let mut reader = Reader(&reply);
    assert_eq!(reader.int(), SERVICE_SPECIFIC);
    let message = reader.string();
    assert!(message.contains("2.0 is asked for"), "{message}");
    // No stack, then the interface's own number.
    assert_eq!((reader.int(), reader.int()), (0, -1));
    let idsig = Writer::call(SERVICE).fd(world.file("apk", "PK")).fd(world.file("idsig", ""));
    let reply = calls.call(root, CREATE_OR_UPDATE_IDSIG_FILE, &idsig);
    let mut reader = Reader(&reply);
    assert_eq!(reader.int(), SERVICE_SPECIFIC);
    assert!(reader.string().starts_with("inputFd: not an APK"));
    let reply = calls.call(root, ENABLE_TEST_ATTESTATION, &Writer::call(SERVICE));
    assert_eq!(Reader(&reply).int(), UNSUPPORTED_OPERATION);
}

#[test]
fn what_the_other_subcommands_ask() {
    let world = World::new("exit 0");
    let mut calls = Connection::founding(world.bootstrap());
    let root = calls.root();
    for code in [DEBUG_LIST_VMS, GET_ASSIGNABLE_DEVICES, GET_SUPPORTED_OS_LIST] {
        let reply = calls.call(root, code, &Writer::call(SERVICE));
        assert_eq!(Reader(&reply).ok().int(), 0, "an empty list");
    }
    let reply = calls.call(root, GET_DEBUG_POLICY, &Writer::call(SERVICE));
    assert!(Reader(&reply).ok().string().starts_with("DebugPolicy { log: false"));
    let image = world.file("image", "x");
    let raw = Writer::call(SERVICE).fd(image.try_clone().unwrap()).long(8192).int(1);
    Reader(&calls.call(root, INITIALIZE_WRITABLE_PARTITION, &raw)).ok();
    let contents = fs::read(world.dir.path().join("image")).unwrap();
    assert!(contents.starts_with(b"Android-VM-instance\x01\0") && contents.len() == 8192);
}

/// libbinder's client opens as many connections as the server takes, and asks each object for its
/// interface's name before it is used.
#[test]
fn a_session_as_libbinder_sets_it_up() {
    let world = World::new("exit 0");
    let mut first = Connection::founding(world.bootstrap());
    let threads = first.max_threads();
    assert!(threads >= 1, "{threads}");
    let id = first.session_id();
    let more = (1..threads).map(|_| Connection::outgoing(world.bootstrap(), &id));
    let mut more: Vec<_> = more.collect();
    let mut callbacks = [(); CALLBACKS].map(|()| Connection::incoming(world.bootstrap(), &id));
    let root = first.root();
    assert_eq!(Reader(&first.call(root, INTERFACE, &Writer::default())).string(), SERVICE);
    first.call(root, PING, &Writer::default());
    let created = first.call(root, CREATE_VM, &world.create(|config| world.raw(config, "~1.0")));
    let machine = Reader(&created).ok().binder();
    for calls in &mut more {
        let reply = calls.call(machine, INTERFACE, &Writer::default());
        assert_eq!(Reader(&reply).string(), MACHINE);
    }
    let callback = Writer::call(MACHINE).binder(CALLBACK);
    Reader(&first.call(machine, REGISTER_CALLBACK, &callback)).ok();
    Reader(&first.call(machine, START, &Writer::call(MACHINE))).ok();
    // Whichever connection is free has it.
    let mut ready = callbacks.each_ref().map(Connection::poll);
    assert_ne!(poll(&mut ready, PATIENCE).unwrap(), 0, "nothing comes");
    let index = ready.iter().position(|socket| socket.any() == Some(true)).unwrap();
    let died = callbacks[index].receive();
    assert_eq!(u32::from_le_bytes(died.body[8..12].try_into().unwrap()), ON_DIED);
}

/// Both ends speak the older one's version; a newer client's is none of ours.
#[test]
fn clients_of_every_version_are_understood() {
    let world = World::new("exit 0");
    // The last is what development builds of Android offer.
    for newest in [0, 1, 2, 3, 0xf000_0000] {
        let mut calls = Connection::offering(world.bootstrap(), newest);
        assert_eq!(calls.version(), newest.min(VERSION));
        let root = calls.root();
        let policy = calls.call(root, GET_DEBUG_POLICY, &Writer::call(SERVICE));
        assert!(Reader(&policy).ok().string().starts_with("DebugPolicy"));
    }
}
