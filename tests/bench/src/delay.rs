// SPDX-License-Identifier: Apache-2.0
//! For how long nothing else gets the CPU: a real-time thread wakes again and again, and sees how
//! late it is.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often it wakes: a stretch is found to be shorter than it is by this much at most.
const PERIOD_NS: i64 = 20_000;
/// Of the real-time priorities, one in the middle.
const PRIORITY: i32 = 50;

fn now() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is live.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn sleep_until(at: i64) {
    let time = libc::timespec { tv_sec: at / 1_000_000_000, tv_nsec: at % 1_000_000_000 };
    // SAFETY: the structure is live; what is left of the time is not asked for.
    unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &time,
            std::ptr::null_mut(),
        )
    };
}

/// The thread, until it is told to end; answers by how many nanoseconds it was late at most.
fn watch(ready: &AtomicBool, over: &AtomicBool) -> i64 {
    let param = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the structure is live.
    let answer = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &param) };
    assert_eq!(answer, 0, "SCHED_FIFO: {}", io::Error::last_os_error());
    let (mut longest, mut next) = (0, now());
    while !over.load(Ordering::Relaxed) {
        next += PERIOD_NS;
        sleep_until(next);
        let late = now() - next;
        longest = longest.max(late);
        ready.store(true, Ordering::Relaxed);
        next += late.max(0) / PERIOD_NS * PERIOD_NS;
    }
    longest
}

/// Does `f` while the thread wakes on the same CPU; answers for how many nanoseconds it did not get
/// the CPU at most.
pub fn longest<T>(f: impl FnOnce() -> T) -> (u64, T) {
    let (ready, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| watch(&ready, &over));
        while !ready.load(Ordering::Relaxed) {
            std::thread::yield_now();
        }
        let result = f();
        over.store(true, Ordering::Relaxed);
        let longest = thread.join().expect("a thread that only watches");
        (u64::try_from(longest).unwrap_or(0), result)
    })
}
