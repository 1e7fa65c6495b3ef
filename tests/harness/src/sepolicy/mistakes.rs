// SPDX-License-Identifier: Apache-2.0
//! Rules that would break a neverallow: the compiler has to refuse each, for that reason.

use super::policy::Build;

/// A rule that must not compile.
pub struct Mistake {
    /// The number of the neverallow in `sepolicy/tests/neverallow.te` that it breaks.
    pub breaks: u32,
    /// The rule.
    pub rule: &'static str,
    /// Where it is one.
    pub build: Build,
}

const fn mistake(breaks: u32, rule: &'static str) -> Mistake {
    Mistake { breaks, rule, build: Build::Userdebug }
}

/// For each neverallow at least one.
pub const MISTAKES: [Mistake; 12] = [
    mistake(1, "allow dumpstate gzvm_device:chr_file getattr;"),
    mistake(1, "allow shell gzvm_device:chr_file open;"),
    mistake(1, "allow virtualizationmanager kvm_device:chr_file { open read };"),
    mistake(1, "allow untrusted_app gzvm_device:chr_file rw_file_perms;"),
    mistake(2, "allow crosvm virtualizationservice_data_file:file open;"),
    mistake(2, "allow crosvm app_data_file:file r_file_perms;"),
    mistake(3, "allow crosvm system_app_data_file:file read;"),
    mistake(4, "allow crosvm vendor_file:file read;"),
    mistake(5, "domain_auto_trans(shell, crosvm_exec, crosvm)"),
    Mistake {
        breaks: 6,
        rule: "allow dumpstate debugfs_gzvm:file { open read };",
        build: Build::User,
    },
    mistake(7, "allow hal_example_default gzvm_device:chr_file { open ioctl };"),
    mistake(8, "allow hal_example_default sysfs_gzvm:file write;"),
];
