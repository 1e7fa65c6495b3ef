// SPDX-License-Identifier: Apache-2.0
//! Safe handles for /dev/gzvm.
