// SPDX-License-Identifier: Apache-2.0
//! A `vm` tool for tests of the demo: its guests are this process, so nothing protects them.

use anyhow::{Context, Result};
use nix::sys::memfd::{memfd_create, MemFdCreateFlag};
use nix::sys::mman::{mmap, MapFlags, ProtFlags};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;

/// Bytes of guest memory.
const SIZE: usize = 16 << 20;
/// Where the secret is in it.
const OFFSET: u64 = 0x4_1000;

fn main() -> Result<()> {
    let config = std::env::args().nth(2).context("usage: vm run CONFIG")?;
    if config.contains("secret") {
        keep_a_secret()?;
    }
    println!("VM ended: Shutdown");
    Ok(())
}

/// What the payload does in its mode `secret`.
fn keep_a_secret() -> Result<()> {
    let memory = File::from(memfd_create(c"crosvm_guest", MemFdCreateFlag::MFD_CLOEXEC)?);
    memory.set_len(SIZE as u64)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let size = NonZeroUsize::new(SIZE).context("no memory")?;
    // SAFETY: The kernel chooses an unused address, and nothing here refers to the mapping.
    unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, &memory, 0) }?;
    let mut secret = [0; 4096];
    File::open("/dev/urandom")?.read_exact_at(&mut secret, 0)?;
    memory.write_all_at(&secret, OFFSET)?;
    let hash = Sha256::digest(secret);
    println!("secret: hash {} at IPA {:#x} size 4096\r", hex(&hash), 0x8000_0000 + OFFSET);
    println!("secret: send a line to have it revealed\r");
    std::io::stdin().read_line(&mut String::new())?;
    memory.read_exact_at(&mut secret, OFFSET)?;
    println!("secret: reveal {}\r", hex(&secret));
    let intact = Sha256::digest(secret) == hash;
    println!("secret: own copy {}\r", if intact { "intact" } else { "CHANGED" });
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
