// SPDX-License-Identifier: Apache-2.0
//! The virtual machine monitor: memory, device tree, clock, devices.
