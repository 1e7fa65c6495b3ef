// SPDX-License-Identifier: Apache-2.0
//! A VM's life as its client sees it: what can be done when, and what becomes of it without a client.

use super::*;
use rustix::process::{test_kill_process, Pid};
use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Waits for something that another process does.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_millis(PATIENCE.into());
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come");
        sleep(Duration::from_millis(10));
    }
}

/// A VM of a world whose script leaves its process id and waits.
fn machine(world: &World, calls: &mut Connection) -> u64 {
    let root = calls.root();
    let created = calls.call(root, CREATE_VM, &world.create(|config| world.raw(config, "~1.0")));
    Reader(&created).ok().binder()
}

fn state(calls: &mut Connection, machine: u64) -> i32 {
    Reader(&calls.call(machine, GET_STATE, &Writer::call(MACHINE))).ok().int()
}

/// What is refused has AVF's one number, and says why.
fn refused(calls: &mut Connection, machine: u64, code: u32, why: &str) {
    let reply = calls.call(machine, code, &Writer::call(MACHINE));
    let mut reader = Reader(&reply);
    assert_eq!(reader.int(), SERVICE_SPECIFIC, "{code}");
    let message = reader.string();
    assert!(message.contains(why), "{message}");
    assert_eq!((reader.int(), reader.int()), (0, -1));
}

fn pid(world: &World) -> Pid {
    let file = world.dir.path().join("pid");
    until("the VMM", || fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')));
    Pid::from_raw(fs::read_to_string(&file).unwrap().trim().parse().unwrap()).unwrap()
}

const WAITS: &str = "echo $$ > $(dirname $0)/pid; exec sleep 1000";

#[test]
fn a_vm_is_started_once_and_stopped_once() {
    let world = World::new(WAITS);
    let mut calls = Connection::founding(world.bootstrap());
    let machine = machine(&world, &mut calls);
    assert_eq!(state(&mut calls, machine), NOT_STARTED);
    refused(&mut calls, machine, STOP, "does not run");
    Reader(&calls.call(machine, START, &Writer::call(MACHINE))).ok();
    refused(&mut calls, machine, START, "started before");
    let vmm = pid(&world);
    Reader(&calls.call(machine, STOP, &Writer::call(MACHINE))).ok();
    // It has ended when the call returns.
    assert!(test_kill_process(vmm).is_err());
    assert_eq!(state(&mut calls, machine), DEAD);
    refused(&mut calls, machine, STOP, "does not run");
    refused(&mut calls, machine, START, "started before");
    // It is too late to be told anything, which is no error.
    let callback = Writer::call(MACHINE).binder(CALLBACK);
    Reader(&calls.call(machine, REGISTER_CALLBACK, &callback)).ok();
}

#[test]
fn a_vm_that_cannot_be_started_is_dead() {
    let world = World::new("");
    fs::remove_file(world.dir.path().join("gzvm_vmm")).unwrap();
    let mut calls = Connection::founding(world.bootstrap());
    let machine = machine(&world, &mut calls);
    refused(&mut calls, machine, START, "gzvm_vmm");
    assert_eq!(state(&mut calls, machine), DEAD);
    refused(&mut calls, machine, STOP, "does not run");
}

#[test]
fn a_vm_ends_with_its_last_reference() {
    let world = World::new(WAITS);
    let mut calls = Connection::founding(world.bootstrap());
    let machine = machine(&world, &mut calls);
    Reader(&calls.call(machine, START, &Writer::call(MACHINE))).ok();
    let vmm = pid(&world);
    assert!(test_kill_process(vmm).is_ok());
    calls.release(machine, 1);
    until("its end", || test_kill_process(vmm).is_err());
    // The others of the process are none the worse.
    let root = calls.root();
    until("the end of the list", || {
        let reply = calls.call(root, DEBUG_LIST_VMS, &Writer::call(SERVICE));
        Reader(&reply).ok().int() == 0
    });
}

#[test]
fn the_vmm_has_its_files_and_no_others() {
    let world = World::new("exec ls -l /proc/self/fd > $(dirname $0)/fds");
    let mut calls = Connection::founding(world.bootstrap());
    // One that is there meanwhile, with files of its own.
    let _other = machine(&world, &mut calls);
    let machine = machine(&world, &mut calls);
    Reader(&calls.call(machine, START, &Writer::call(MACHINE))).ok();
    until("the list", || state(&mut calls, machine) == DEAD);
    let read = |name: &str| fs::read_to_string(world.dir.path().join(name)).unwrap();
    let (args, list) = (read("args"), read("fds"));
    let numbers = args.split("/proc/self/fd/").skip(1);
    let named: BTreeSet<i32> = numbers
        .map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap())
        .collect();
    let open = list.lines().filter_map(|line| {
        let (rest, target) = line.split_once(" -> ")?;
        let number: i32 = rest.rsplit(' ').next()?.parse().ok()?;
        // Without the standard streams, and the directory that is listed.
        (number > 2 && !target.starts_with("/proc/")).then_some(number)
    });
    assert_eq!(open.collect::<BTreeSet<_>>(), named, "{list}");
    assert_eq!(named.len(), 5, "{args}");
}

/// As AVF's virtmgr treats VMs without a debug level.
#[test]
fn the_debug_policy_is_followed() {
    use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
    let policy = "hypervisor.virtualizationmanager.debug_policy.path=DIR/policy\n\
                  hypervisor.gzvm.ramdump_dir=DIR";
    let world = World::with(
        r#"for a; do case $a in *virtio-console,num=2) d=${a#*path=}; echo memory > ${d%%,*};; esac; done
        exit 33"#,
        policy,
    );
    let mut common = DeviceTreeNode::new_unchecked("common");
    for allowed in ["log", "ramdump"] {
        common.add_property(DeviceTreeProperty::new_unchecked(allowed, 1_u32));
    }
    let mut node = common;
    for name in ["guest", "avf", "__overlay__", "fragment@0"] {
        let mut parent = DeviceTreeNode::new_unchecked(name);
        parent.add_child(node);
        node = parent;
    }
    node.add_property(DeviceTreeProperty::new_unchecked("target-path", "/"));
    let mut tree = DeviceTree::new();
    tree.root.add_child(node);
    fs::write(world.dir.path().join("policy"), tree.to_dtb()).unwrap();

    let mut calls = Connection::founding(world.bootstrap());
    let root = calls.root();
    let policy = calls.call(root, GET_DEBUG_POLICY, &Writer::call(SERVICE));
    let expected = "DebugPolicy { log: true, ramdump: true, adb: false }";
    assert_eq!(Reader(&policy).ok().string(), expected);
    let machine = machine(&world, &mut calls);
    let cid = Reader(&calls.call(machine, GET_CID, &Writer::call(MACHINE))).ok().int();
    Reader(&calls.call(machine, START, &Writer::call(MACHINE))).ok();
    let dump = world.dir.path().join(format!("ramdump-{cid}"));
    until("the dump", || fs::read_to_string(&dump).is_ok_and(|text| text == "memory\n"));
    let args = fs::read_to_string(world.dir.path().join("args")).unwrap();
    // 17 MiB, and the pool of a protected VM.
    let params = "--params crashkernel=25M --params printk.devkmsg=on --params console=hvc0";
    assert!(args.contains(params), "{args}");
}
