// SPDX-License-Identifier: Apache-2.0
//! QEMU's side: version 1 of its plugin interface (`include/qemu/qemu-plugin.h` of QEMU 7.2).

use crate::account::{is_hvc, Block, Class, Entry, Mark, Sums, RAM};
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void, CStr};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

type Id = u64;
type Callback = extern "C" fn(cpu: u32, data: *mut c_void);

/// Callbacks that look at no register.
const NO_REGS: c_int = 0;

extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, callback: extern "C" fn(Id, *mut c_void));
    fn qemu_plugin_tb_n_insns(block: *const c_void) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const c_void, index: usize) -> *mut c_void;
    fn qemu_plugin_insn_data(instruction: *const c_void) -> *const u32;
    fn qemu_plugin_insn_vaddr(instruction: *const c_void) -> u64;
    fn qemu_plugin_insn_haddr(instruction: *const c_void) -> *const c_void;
    fn qemu_plugin_register_vcpu_tb_exec_cb(
        block: *mut c_void,
        callback: Callback,
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut c_void,
        callback: Callback,
        flags: c_int,
        data: *mut c_void,
    );
}

/// The version of the interface that QEMU looks for.
#[no_mangle]
pub static qemu_plugin_version: c_int = 1;

static SUMS: Sums = Sums::new();
/// QEMU's address of RAM's first byte.
static RAM_HERE: AtomicU64 = AtomicU64::new(0);
static STATE: Mutex<Option<State>> = Mutex::new(None);

/// A block and the mark in it, if there is one.
struct Known {
    block: Block,
    mark: Option<Mark>,
}

/// What identifies a block.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    virt: u64,
    /// QEMU's own address of the first instruction.
    here: u64,
    count: usize,
    // Another program may come to the same place.
    hvc: bool,
    mark: Option<Mark>,
}

struct State {
    out: File,
    /// Addresses of the kernel's `mutex_lock` and `mutex_unlock`.
    mutex: [u64; 2],
    known: HashMap<Key, &'static Known>,
    /// In the order of their first translation, which is the same in each run.
    order: Vec<&'static Block>,
}

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// QEMU calls this once; arguments are `out=FILE`, and `lock=` and `unlock=` with the addresses of the
/// kernel's `mutex_lock` and `mutex_unlock` in decimal.
///
/// # Safety
///
/// `argv` must point to `argc` strings.
#[no_mangle]
pub unsafe extern "C" fn qemu_plugin_install(
    id: Id,
    _info: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let count = usize::try_from(argc).unwrap_or(0);
    let (mut path, mut mutex) = (None, [0; 2]);
    for index in 0..count {
        // SAFETY: the caller vouches for `argc` strings at `argv`.
        let argument = unsafe { CStr::from_ptr(*argv.add(index)) };
        match argument.to_str().ok().and_then(|text| text.split_once('=')) {
            Some(("out", value)) => path = Some(value.to_owned()),
            Some(("lock", value)) => mutex[0] = value.parse().unwrap_or(0),
            Some(("unlock", value)) => mutex[1] = value.parse().unwrap_or(0),
            _ => eprintln!("gzvm-bench-plugin: {argument:?} is no argument of this plugin"),
        }
    }
    let Some(out) = path.and_then(|path| File::create(path).ok()) else {
        eprintln!("gzvm-bench-plugin: out=FILE must name a file that can be written");
        return -1;
    };
    *state() = Some(State { out, mutex, known: HashMap::new(), order: Vec::new() });
    // SAFETY: `id` is QEMU's, and the callback has the type that the interface names.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

/// QEMU translated a block.
extern "C" fn translated(_: Id, block: *mut c_void) {
    // SAFETY: QEMU passes a block that is valid during this call.
    let count = unsafe { qemu_plugin_tb_n_insns(block) };
    // SAFETY: as above; a block has at least one instruction, and they are as valid as it is.
    let first = unsafe { qemu_plugin_tb_get_insn(block, 0) };
    // SAFETY: as above.
    let virt = unsafe { qemu_plugin_insn_vaddr(first) };
    // SAFETY: as above.
    let here = unsafe { qemu_plugin_insn_haddr(first) } as u64;
    let (mut hvc, mut marked) = (false, None);
    for index in 0..count {
        // SAFETY: as above; the data of an instruction of this architecture are four bytes.
        let (instruction, code) = unsafe {
            let instruction = qemu_plugin_tb_get_insn(block, index);
            (instruction, qemu_plugin_insn_data(instruction).read_unaligned())
        };
        hvc |= is_hvc(u32::from_le(code));
        if let Some(mark) = Mark::of(u32::from_le(code)) {
            marked = Some((instruction, mark));
        }
    }
    let known = know(Key { virt, here, count, hvc, mark: marked.map(|(_, mark)| mark) });
    let data = std::ptr::from_ref(known).cast_mut().cast();
    // SAFETY: the block is valid; `data` points to a value that is never freed.
    unsafe { qemu_plugin_register_vcpu_tb_exec_cb(block, executed, NO_REGS, data) };
    if let Some((instruction, _)) = marked {
        // SAFETY: as above.
        unsafe { qemu_plugin_register_vcpu_insn_exec_cb(instruction, on_mark, NO_REGS, data) };
    }
}

/// The one record of a block, however often it is translated.
fn know(key: Key) -> &'static Known {
    let Key { virt, here, count, hvc, mark } = key;
    // The machine starts with QEMU's loader at the start of RAM.
    if virt == RAM && RAM_HERE.load(Relaxed) == 0 {
        RAM_HERE.store(here, Relaxed);
    }
    let mut state = state();
    if let Some(known) = state.as_ref().and_then(|state| state.known.get(&key)) {
        return known;
    }
    let phys = here.wrapping_sub(RAM_HERE.load(Relaxed)).wrapping_add(RAM);
    let instructions = u64::try_from(count).unwrap_or(0);
    let class = Class::of(virt, phys);
    let mutex = state.as_ref().map_or([0; 2], |state| state.mutex);
    let entry = match virt {
        0 => Entry::None,
        at if at == mutex[0] => Entry::Lock,
        at if at == mutex[1] => Entry::Unlock,
        _ => Entry::None,
    };
    let block = Block { virt, instructions, class, hvc, entry, runs: AtomicU64::new(0) };
    let known: &'static Known = Box::leak(Box::new(Known { block, mark }));
    if let Some(state) = state.as_mut() {
        state.known.insert(key, known);
        state.order.push(&known.block);
    }
    known
}

/// # Safety
///
/// `data` must be what [`translated`] registered.
unsafe fn known(data: *mut c_void) -> &'static Known {
    // SAFETY: the caller vouches for it; the value is never freed.
    unsafe { &*data.cast::<Known>() }
}

extern "C" fn executed(cpu: u32, data: *mut c_void) {
    // SAFETY: registered by `translated` with its data.
    let known = unsafe { known(data) };
    SUMS.executed(cpu as usize, &known.block);
}

extern "C" fn on_mark(cpu: u32, data: *mut c_void) {
    // SAFETY: registered by `translated` with its data.
    let known = unsafe { known(data) };
    let Some(mark) = known.mark else { return };
    let mut state = state();
    let Some(state) = state.as_mut() else { return };
    if SUMS.marked(cpu as usize, mark, &known.block, &state.order) {
        let text = SUMS.report(&state.order);
        if let Err(error) = state.out.write_all(text.as_bytes()) {
            eprintln!("gzvm-bench-plugin: cannot write: {error}");
        }
    }
}
