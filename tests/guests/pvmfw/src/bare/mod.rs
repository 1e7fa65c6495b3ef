// SPDX-License-Identifier: Apache-2.0
//! The machine as the firmware wants it, and the jump into the payload.

mod jump;

use core::convert::Infallible;
use core::fmt::{self, Write};
use guest_bare::console::Console;
use guest_bare::page::Page;
use guest_bare::{exceptions, start};
use gzvm_guest::{Error, GenieZone, Hypervisor, SharedRange};
use pvmfw::{Board, Given, CONSOLE, FAILURE_PORT};

guest_bare::program!("pvmfw", main);

/// The page that is shared.
static PAGE: Page = Page::zeroed();

/// Runs with the device tree's address, the payload's and the payload's size.
fn main([dtb, payload, size]: [u64; 3]) -> ! {
    let mut board = Machine { console: None };
    let mut given = Given { window: start::window(dtb), payload, size };
    match pvmfw::run(&mut board, &mut given) {
        Ok(handover) => jump::jump(handover.entry, given.window),
        Err(refusal) => {
            if let Some(mut port) = Console::quiet(FAILURE_PORT) {
                let _ = write!(port, "{}|", refusal.name());
            }
            exceptions::reset()
        }
    }
}

struct Machine {
    console: Option<Console>,
}

/// Text with lines ended as a terminal wants them.
struct Lines<'a>(&'a mut Console);

impl Write for Lines<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (index, part) in text.split('\n').enumerate() {
            if index > 0 {
                self.0.put(b"\r\n");
            }
            self.0.put(part.as_bytes());
        }
        Ok(())
    }
}

impl Board for Machine {
    type Conduit = Hypervisor;

    fn hypervisor(&self) -> Hypervisor {
        Hypervisor
    }

    fn open_console(&mut self) {
        self.console = Console::new(CONSOLE);
    }

    fn print(&mut self, text: fmt::Arguments<'_>) {
        if let Some(console) = &mut self.console {
            let _ = Lines(console).write_fmt(text);
        }
    }

    fn read(&self, address: u64) -> u32 {
        start::read_register(address)
    }

    fn share<'a>(
        &self,
        geniezone: &'a GenieZone<Hypervisor>,
    ) -> Result<SharedRange<'a, Hypervisor>, Error> {
        PAGE.share(geniezone)
    }

    fn fill_page(&self, value: u64) {
        let filled: Result<(), Infallible> = PAGE.fill(|| Ok(value));
        // It cannot fail.
        let Ok(()) = filled;
    }

    fn page_is(&self, value: u64) -> bool {
        PAGE.words().all(|word| word == value)
    }
}
