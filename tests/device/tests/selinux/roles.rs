// SPDX-License-Identifier: Apache-2.0
//! What a copy of this program does in the domain that its label gives it. Each says where it is and how
//! what it tried went.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use gzvm_abi::uapi;
use gzvm_device_test::sys;

/// First arguments that are roles.
pub const ROLES: [&str; 7] = ["open", "stat", "exec", "as", "hand", "hand-as", "reopen"];
/// Number under which a file is handed over.
const HANDED: i32 = 9;

/// Plays a role; answers the exit status.
pub fn play(role: &str, arguments: &[String]) -> i32 {
    let domain = fs::read_to_string("/proc/self/attr/current").expect("SELinux says where we are");
    // The VMM's own output is what matters where it is started.
    if role != "hand-as" {
        println!("domain {}", domain.trim_end_matches(['\0', '\n']));
    }
    match role {
        "open" => open(),
        "stat" => stat(),
        "exec" => become_program(&arguments[0], &arguments[1..]),
        "as" => {
            next_context(&arguments[0]);
            become_program(&arguments[1], &arguments[2..])
        }
        "hand" => hand(HANDED, &arguments[0], &arguments[1], &arguments[2..]),
        "hand-as" => {
            let number = arguments[0].parse().expect("a descriptor's number");
            hand(number, &arguments[1], &arguments[2], &arguments[3..])
        }
        _ => reopen(),
    }
    0
}

fn open() {
    match sys::open_device() {
        Ok(device) => match sys::ioctl_fd(&device, uapi::CREATE_VM, 0) {
            Ok(_) => println!("open: a VM"),
            Err(errno) => println!("open: no VM, errno {errno}"),
        },
        Err(error) => println!("open: {error}"),
    }
}

fn stat() {
    match fs::metadata(uapi::DEVICE_PATH) {
        Ok(found) if found.file_type().is_char_device() => println!("stat: a device"),
        Ok(_) => println!("stat: no device"),
        Err(error) => println!("stat: {error}"),
    }
}

/// The context of the next program that this process becomes.
fn next_context(context: &str) {
    let file = File::options().write(true).open("/proc/self/attr/exec");
    let done = file.and_then(|mut file| file.write_all(context.as_bytes()));
    done.unwrap_or_else(|error| panic!("the context {context}: {error}"));
}

fn become_program(program: &str, arguments: &[String]) {
    let error = Command::new(program).args(arguments).exec();
    println!("exec: {error}");
}

/// Opens a file, and becomes a program that has it under the number `as_fd`.
fn hand(as_fd: i32, path: &str, program: &str, arguments: &[String]) {
    let file = File::options().read(true).write(!path.ends_with(".bin")).open(path);
    let file = file.unwrap_or_else(|error| panic!("{path}: {error}"));
    // SAFETY: both numbers are descriptors of this process, whose copy of `as_fd` nobody uses; the new
    // one is not closed by exec.
    let answer = unsafe { libc::dup2(file.as_raw_fd(), as_fd) };
    assert_eq!(answer, as_fd);
    become_program(program, arguments);
}

fn reopen() {
    // SAFETY: whoever started us left this descriptor to us.
    let mut handed = unsafe { File::from_raw_fd(HANDED) };
    let mut text = [0; 4];
    let read = handed.read_exact(&mut text);
    println!(
        "read: {}",
        read.map_or_else(|e| e.to_string(), |()| String::from_utf8_lossy(&text).into())
    );
    println!("write: {}", handed.write(b"more").map_or_else(|e| e.to_string(), |n| n.to_string()));
    let again = handed.try_clone().and_then(|mut copy| {
        copy.rewind()?;
        copy.read_exact(&mut text)
    });
    println!(
        "duplicate: {}",
        again.map_or_else(|e| e.to_string(), |()| String::from_utf8_lossy(&text).into())
    );
    match File::open(format!("/proc/self/fd/{HANDED}")) {
        Ok(_) => println!("open again: opened"),
        Err(error) => println!("open again: {error}"),
    }
}
