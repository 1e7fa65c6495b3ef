// SPDX-License-Identifier: Apache-2.0
//! `IVirtualMachine`: a client's reference to a VM. The VM ends with the last one.

use crate::errors::{failed, illegal_argument, illegal_state, unsupported};
use crate::instance::VmInstance;
use anyhow::anyhow;
use avf_aidl::aidl::virtualizationservice::{
    IVirtualMachine::IVirtualMachine, IVirtualMachineCallback::IVirtualMachineCallback,
    VirtualMachineState::VirtualMachineState,
};
use binder::{Interface, ParcelFileDescriptor, SpIBinder, Strong};
use std::os::fd::AsFd;
use std::sync::Arc;
use vsock::VsockStream;

/// Ports below are for privileged services.
const FIRST_PORT: u32 = 1024;

/// The object behind a client's references.
pub struct VirtualMachine(pub Arc<VmInstance>);

impl Interface for VirtualMachine {}

impl Drop for VirtualMachine {
    fn drop(&mut self) {
        if self.0.pid().is_ok() {
            log::info!("VM {}: nobody refers to it any more", self.0.context().cid());
            self.0.end();
        }
    }
}

impl IVirtualMachine for VirtualMachine {
    fn getCid(&self) -> binder::Result<i32> {
        i32::try_from(self.0.context().cid()).map_err(illegal_state)
    }

    fn getState(&self) -> binder::Result<VirtualMachineState> {
        Ok(self.0.state())
    }

    fn registerCallback(
        &self,
        callback: &Strong<dyn IVirtualMachineCallback>,
    ) -> binder::Result<()> {
        self.0.add_callback(callback);
        Ok(())
    }

    fn start(&self) -> binder::Result<()> {
        self.0.start().map_err(|e| failed(&e))
    }

    fn stop(&self) -> binder::Result<()> {
        self.0.stop().map_err(|e| failed(&e))
    }

    fn getMemoryBalloon(&self) -> binder::Result<i64> {
        let bytes = self.0.control().and_then(|control| control.balloon());
        let bytes = bytes.map_err(|e| failed(&e))?;
        i64::try_from(bytes).map_err(illegal_state)
    }

    fn setMemoryBalloon(&self, num_bytes: i64) -> binder::Result<()> {
        let bytes = u64::try_from(num_bytes)
            .map_err(|_| illegal_argument(format!("num_bytes: {num_bytes} bytes cannot be")))?;
        self.0.control().and_then(|control| control.set_balloon(bytes)).map_err(|e| failed(&e))
    }

    fn connectVsock(&self, port: i32) -> binder::Result<ParcelFileDescriptor> {
        self.0.pid().map_err(|e| failed(&e))?;
        let port = u32::try_from(port)
            .ok()
            .filter(|&port| port >= FIRST_PORT)
            .ok_or_else(|| failed(&anyhow!("port: {port} is below {FIRST_PORT}")))?;
        let cid = self.0.context().cid();
        let stream = VsockStream::connect_with_cid_port(cid, port).map_err(|e| {
            failed(&anyhow::Error::new(e).context(format!("nothing listens on port {port}")))
        })?;
        let copy = stream.as_fd().try_clone_to_owned();
        Ok(ParcelFileDescriptor::new(copy.map_err(|e| failed(&e.into()))?))
    }

    fn createAccessorBinder(&self, _instance: &str, _port: i32) -> binder::Result<SpIBinder> {
        Err(unsupported("accessors are made for Android's service manager"))
    }

    fn setHostConsoleName(&self, pathname: &str) -> binder::Result<()> {
        self.0.context().set_host_console_name(pathname)
    }

    fn suspend(&self) -> binder::Result<()> {
        self.0.control().and_then(|control| control.suspend()).map_err(|e| failed(&e))
    }

    fn resume(&self) -> binder::Result<()> {
        self.0.control().and_then(|control| control.resume()).map_err(|e| failed(&e))
    }
}
