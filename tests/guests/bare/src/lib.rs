// SPDX-License-Identifier: Apache-2.0
//! What bare-metal guests have in common: the way from the first instruction to `main`, a page
//! table that maps each address to itself, a console, and what happens when something goes wrong.
//!
//! On other targets there is only what programs' tests need: [`page`].

#![no_std]

#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod console;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod exceptions;
pub mod page;
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub mod start;

#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub use aarch64_rt;

/// Waits for ever; used where the hypervisor did not do as it was told.
#[cfg(all(target_arch = "aarch64", target_os = "none"))]
pub fn stop() -> ! {
    loop {
        // SAFETY: The instruction waits for an interrupt and touches nothing.
        unsafe { core::arch::asm!("wfi", options(nomem, nostack, preserves_flags)) }
    }
}

/// Makes a program named `$name`, whose `$main` is called with what was in x0, x1 and x2.
///
/// Provides the arm64 Image's header (Documentation/arch/arm64/booting.rst), the entry point, the
/// exception vectors and the panic handler. The linker script places `.init.head` first and
/// defines `image_size`, `bss_begin`, `bss_end` and `boot_stack_end`. The program is linked for
/// one address, so its text_offset is 0.
#[macro_export]
macro_rules! program {
    ($name:literal, $main:path) => {
        $crate::aarch64_rt::initial_pagetable!($crate::start::PAGE_TABLE);

        core::arch::global_asm!(
            ".pushsection .init.head, \"ax\"",
            ".global image_header",
            "image_header:",
            "b entry",
            ".long 0",
            ".quad 0",          // text_offset
            ".quad image_size", // from the linker script
            ".quad 1 << 1",     // little-endian, 4 KiB pages
            ".quad 0, 0, 0",
            ".ascii \"ARM\\x64\"",
            ".long 0",
            ".popsection",
        );

        $crate::aarch64_rt::entry!(rust_main, 16);

        /// Called by the entry code with what x0 to x3 held.
        fn rust_main(x0: u64, x1: u64, x2: u64, _: u64) -> ! {
            $main([x0, x1, x2])
        }

        $crate::aarch64_rt::exception_handlers!(Exceptions);

        /// Handlers of exceptions taken at EL1. Interrupts stay masked: who waits for them takes
        /// them from the GIC itself.
        struct Exceptions;

        impl $crate::aarch64_rt::ExceptionHandlers for Exceptions {
            extern "C" fn sync_current(state: $crate::aarch64_rt::RegisterStateRef<'_>) {
                $crate::exceptions::synchronous(state.elr)
            }

            extern "C" fn serror_current(state: $crate::aarch64_rt::RegisterStateRef<'_>) {
                $crate::exceptions::serror(state.elr)
            }
        }

        #[panic_handler]
        fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
            $crate::exceptions::die($name, info)
        }
    };
}
