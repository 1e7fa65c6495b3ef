// SPDX-License-Identifier: Apache-2.0
//! A bare-metal guest on virtio-drivers that serves requests over vsock as AOSP's rialto does: with
//! 16 MiB of memory, protected and not, with and without firmware.

#![forbid(unsafe_code)]

use anyhow::{ensure, Context, Result};
use gzvm_vmm_test::vmm::{Setup, Vmm};
use gzvm_vmm_test::{tests, GUESTS, PATIENCE};
use std::io::Write;
use virtio_guest::message::{Request, Response, ToProcess, PORT, PORT_STRICT};
use vsock::{VsockListener, VsockStream, VMADDR_CID_ANY};

const CID: u32 = 4500;
/// Bytes of the largest request: more than the guest lets be under way.
const LARGE: usize = 20_000;

/// Has the guest serve requests, and checks all answers.
fn serves(args: &str, port: u32) -> Result<()> {
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
    let mut setup = Setup::new()?;
    let mut console = setup.console("hardware=serial,num=1")?;
    let kernel = setup.open(&format!("{GUESTS}/virtio.bin"))?;
    setup.args(&format!("--mem 16 --cid {CID} --no-balloon {args}")).arg(&kernel);
    let mut vmm = setup.start()?;
    console
        .expect(&format!("virtio: connected to port {port}"), PATIENCE)
        .with_context(|| vmm.said())?;
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let served = exchange(&mut stream, &mut vmm);
    served.with_context(|| format!("{}\n{}", console.quote(), vmm.said()))?;
    console.expect("virtio: 4 requests answered", PATIENCE)?;
    console.expect("virtio: done", PATIENCE)?;
    vmm.wait()?.check(0, "")
}

fn exchange(stream: &mut VsockStream, vmm: &mut Vmm) -> Result<()> {
    for bytes in [b"abc".to_vec(), Vec::new(), vec![0; 1], bytes(LARGE)] {
        let mut packet = Vec::new();
        let request = Request::Process(ToProcess::Reverse(bytes.clone()));
        ciborium::into_writer(&request, &mut packet)?;
        stream.write_all(&packet)?;
        let Response::Reverse(answer) = ciborium::from_reader(&mut *stream)?;
        ensure!(answer.iter().rev().eq(&bytes), "{} bytes came back wrong", bytes.len());
    }
    ensure!(vmm.runs(), "it has ended");
    let mut packet = Vec::new();
    ciborium::into_writer(&Request::Shutdown, &mut packet)?;
    Ok(stream.write_all(&packet)?)
}

/// Bytes no two of which can be taken for each other where they lie.
fn bytes(count: usize) -> Vec<u8> {
    // CAST: the low byte is meant.
    (0..count).map(|index| (index ^ index >> 8) as u8).collect()
}

fn requests_are_served_unprotected() -> Result<()> {
    serves("", PORT)
}

fn requests_are_served_protected() -> Result<()> {
    serves("--protected-vm-without-firmware --swiotlb 2", PORT)
}

/// As `vm run` starts AOSP's: behind firmware, which asks for a strict boot.
fn requests_are_served_behind_firmware() -> Result<()> {
    serves("--protected-vm --swiotlb 2", PORT_STRICT)
}

fn main() {
    tests![
        requests_are_served_unprotected,
        requests_are_served_protected,
        requests_are_served_behind_firmware,
    ]
}
