// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The driver's decisions as pure code.
