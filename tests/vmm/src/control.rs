// SPDX-License-Identifier: Apache-2.0
//! The VMM's control socket, as virtmgr uses it: a packet of JSON each way.

use anyhow::{bail, ensure, Context, Result};
use nix::sys::socket::{
    connect, recv, send, setsockopt, socket, sockopt, AddressFamily, MsgFlags, SockFlag, SockType,
    UnixAddr,
};
use nix::sys::time::TimeVal;
use serde_json::{json, Value};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Bytes of the largest answer.
const PACKET: usize = 4096;
/// Seconds that an answer may take.
const PATIENCE: i64 = 60;

/// Sends a request; returns the answer.
pub fn ask(path: &Path, request: &Value) -> Result<Value> {
    let client = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&client, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE, 0))?;
    connect(client.as_raw_fd(), &UnixAddr::new(path)?)
        .with_context(|| path.display().to_string())?;
    send(client.as_raw_fd(), request.to_string().as_bytes(), MsgFlags::MSG_NOSIGNAL)?;
    let mut answer = [0; PACKET];
    let len = recv(client.as_raw_fd(), &mut answer, MsgFlags::empty()).context("no answer")?;
    Ok(serde_json::from_slice(&answer[..len])?)
}

/// Asks for a balloon of so many bytes, and waits for it.
pub fn adjust_balloon(path: &Path, bytes: u64) -> Result<()> {
    let answer = ask(path, &adjust(bytes))?;
    ensure!(answer == "Ok", "adjusting the balloon: {answer}");
    Ok(())
}

/// Asks for a balloon where there is none, or none that works; returns why.
pub fn refused_balloon(path: &Path, bytes: u64) -> Result<String> {
    match ask(path, &adjust(bytes))? {
        Value::Object(answer) if answer.contains_key("ErrString") => {
            Ok(answer["ErrString"].as_str().unwrap_or_default().to_owned())
        }
        answer => bail!("the balloon is adjusted: {answer}"),
    }
}

fn adjust(bytes: u64) -> Value {
    json!({"BalloonCommand": {"Adjust": {"num_bytes": bytes, "wait_for_success": true}}})
}

/// The balloon's size in bytes, and the guest's statistics.
pub fn balloon_stats(path: &Path) -> Result<(u64, Value)> {
    let answer = ask(path, &json!({"BalloonCommand": {"Stats": {}}}))?;
    let stats = &answer["BalloonStats"];
    let actual = stats["balloon_actual"].as_u64();
    Ok((actual.with_context(|| answer.to_string())?, stats["stats"].clone()))
}
