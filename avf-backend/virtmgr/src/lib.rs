// SPDX-License-Identifier: Apache-2.0
//! AVF's virtmgr for systems that do not have it: `IVirtualizationService` for one client, which
//! started this process and shares a socket with it. Each VM is a process of the VMM, started with
//! the command line that AVF's own virtmgr writes; this process never opens `/dev/gzvm`.
#![forbid(unsafe_code)]

mod argv;
mod backend;
mod context;
mod control;
mod death;
mod disk;
mod errors;
mod files;
mod global;
mod idsig;
mod image;
mod instance;
mod launch;
mod machine;
mod overlay;
mod policy;
pub mod program;
mod pump;
mod ramdump;
mod raw;
mod service;
mod signals;
