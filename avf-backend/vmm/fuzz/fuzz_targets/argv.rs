// SPDX-License-Identifier: Apache-2.0
//! Command lines: arguments are separated by line ends.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(error) = gzvm_vmm::cli::parse(["gzvm_vmm"].into_iter().chain(text.lines())) {
        assert!(error.message.ends_with('\n'));
    }
});
