// SPDX-License-Identifier: Apache-2.0
//! The guest's end of the vsock tests: `vsock-peer connect PORT STREAMS BYTES` exchanges so many
//! streams with the host, `vsock-peer listen PORT BYTES` waits for one from it.

#![forbid(unsafe_code)]

use anyhow::{bail, Context, Result};
use gzvm_vmm_test::stream::{exchange, exchange_all, End};
use std::env;
use vsock::{VsockListener, VsockStream, VMADDR_CID_ANY, VMADDR_CID_HOST};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["connect", port, streams, size] => {
            let port = port.parse()?;
            let connect = |_| Ok(VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port)?);
            let streams: Result<Vec<_>> = (0..streams.parse::<u32>()?).map(connect).collect();
            exchange_all(streams.context("connect")?, End::Connector, size.parse()?)?;
        }
        ["listen", port, size] => {
            let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port.parse()?)?;
            println!("listening");
            let (stream, _) = listener.accept().context("accept")?;
            exchange((&stream, &stream), End::Acceptor, 0, size.parse()?)?;
        }
        _ => bail!("connect PORT STREAMS BYTES, or listen PORT BYTES"),
    }
    Ok(())
}
