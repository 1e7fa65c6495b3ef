// SPDX-License-Identifier: Apache-2.0
//! Waiting for a line on the console.

use crate::Platform;

/// Milliseconds between looks at the console. Each look is an exit to the VMM.
const INTERVAL: u64 = 20;

/// Sleeps until a line has come in, and drops it.
pub(crate) fn wait_for_line<P: Platform>(platform: &mut P) {
    loop {
        match platform.get() {
            Some(b'\n' | b'\r') => return,
            Some(_) => {}
            // Whether the interrupt came does not matter here: time has passed.
            None => _ = platform.sleep(INTERVAL),
        }
    }
}
