// SPDX-License-Identifier: Apache-2.0
//! Where the programs log: Android's log on Android, standard error elsewhere. Each program calls
//! one of these functions once, before it does anything else.
//!
//! A filter is a list of levels, for all or for a module: `info`, `warn,gzvm_vmm::fdt=debug`.

#![forbid(unsafe_code)]

/// Names a filter, in place of the program's own.
const VARIABLE: &str = "RUST_LOG";

/// Logs what the environment variable `RUST_LOG` lets through, or without it `default`. `tag` is
/// the program's name in Android's log.
pub fn init(tag: &str, default: &str) {
    let filter = std::env::var(VARIABLE);
    init_with(tag, filter.as_deref().unwrap_or(default));
}

/// Logs what `filter` lets through. `tag` is the program's name in Android's log.
pub fn init_with(tag: &str, filter: &str) {
    target::init(tag, filter);
}

#[cfg(target_os = "android")]
mod target {
    //! Android's log, which filters by tag and level once more.
    use android_logger::{Config, FilterBuilder};

    pub fn init(tag: &str, filter: &str) {
        let filter = FilterBuilder::new().parse(filter).build();
        let level = filter.filter();
        let config = Config::default().with_tag(tag).with_max_level(level).with_filter(filter);
        android_logger::init_once(config);
    }
}

#[cfg(not(target_os = "android"))]
mod target {
    //! Standard error, without times: who collects it adds them.
    use env_logger::Builder;

    pub fn init(_tag: &str, filter: &str) {
        // A second logger is refused; the first one stays.
        let _ = Builder::new().parse_filters(filter).format_timestamp(None).try_init();
    }
}
