// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The C header for user space says what this crate says, no more and no less: a C compiler
//! compares all numbers, sizes and offsets, and no name is in one of the two only.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use gzvm_abi::{cap, ext, guest, reg, run, uapi};

const HEADER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../include/uapi/linux/gzvm.h");
/// The sources whose names user space may use.
const SOURCES: [(&str, &str); 5] = [
    ("uapi", include_str!("../src/uapi.rs")),
    ("run", include_str!("../src/run.rs")),
    ("cap", include_str!("../src/cap.rs")),
    ("reg", include_str!("../src/reg.rs")),
    ("ext", include_str!("../src/ext.rs")),
];

/// Names that are between driver and hypervisor, or mean nothing in C.
const NOT_FOR_USERS: [&str; 26] = [
    "uapi::DEVICE_PATH",
    "uapi::V13_MAX_MEM_REGIONS",
    "uapi::DEFAULT_MAX_VCPUS",
    "uapi::DEFAULT_MAX_SPIS",
    "uapi::DEFAULT_IPA_BITS",
    "run::PAYLOAD_SIZE",
    "run::MAX_LIST_REGISTERS",
    "run::VCPU_BUFFER_SIZE",
    "run::HwState",
    "ext::MAGIC",
    "ext::TEST",
    "ext::UNMAP_RANGE",
    "ext::REMOVE_REGION",
    "ext::QUERY_RANGE_STATE",
    "ext::RANGE_ABSENT",
    "ext::RANGE_PRIVATE",
    "ext::RANGE_SHARED",
    "ext::IRQ_KIND_PULSE",
    "ext::IRQ_KIND_SPI_LEVEL",
    "ext::IRQ_KIND_PPI_LEVEL",
    "ext::IRQ_KIND_REPORT_END",
    "ext::TEST_AUDIT",
    "ext::TEST_FAULT",
    "ext::TEST_FAULT_REFUSE",
    "ext::TEST_FAULT_LIE",
    "ext::TEST_FAULT_DELAY",
];

/// The ioctls, each of which has a section in the documentation.
const IOCTLS: [&str; 14] = [
    "GZVM_CREATE_VM",
    "GZVM_CHECK_EXTENSION",
    "GZVM_CREATE_VCPU",
    "GZVM_SET_USER_MEMORY_REGION",
    "GZVM_IRQ_LINE",
    "GZVM_IRQFD",
    "GZVM_IOEVENTFD",
    "GZVM_RUN",
    "GZVM_ENABLE_CAP",
    "GZVM_GET_ONE_REG",
    "GZVM_SET_ONE_REG",
    "GZVM_CREATE_DEVICE",
    "GZVM_GET_RANGE_STATE",
    "GZVM_SET_DTB_CONFIG",
];

/// Everything in both: names here and in C, and lines of C that hold if they mean the same.
#[derive(Default)]
struct Pairs {
    ours: BTreeSet<String>,
    theirs: BTreeSet<String>,
    claims: Vec<String>,
}

impl Pairs {
    fn constant(&mut self, ours: &str, theirs: &str, value: u64) {
        self.ours.insert(ours.to_owned());
        self.posted(theirs, value);
    }

    /// A constant of the header that has no name here.
    fn posted(&mut self, theirs: &str, value: u64) {
        self.theirs.insert(theirs.to_owned());
        self.claims.push(format!("_Static_assert({theirs} == {value:#x}ULL, \"{theirs}\");"));
    }

    fn structure(&mut self, ours: &str, theirs: &str, size: usize) {
        self.ours.insert(ours.to_owned());
        self.theirs.insert(format!("struct {theirs}"));
        self.claims
            .push(format!("_Static_assert(sizeof(struct {theirs}) == {size}, \"{theirs}\");"));
    }

    fn field(&mut self, structure: &str, field: &str, (offset, size): (usize, usize)) {
        let what = format!("{structure}.{field}");
        self.claims.push(format!(
            "_Static_assert(offsetof(struct {structure}, {field}) == {offset}, \"{what}\");\n\
             _Static_assert(sizeof(((struct {structure} *)0)->{field}) == {size}, \"{what}\");"
        ));
    }
}

macro_rules! constants {
    ($pairs:expr; $($module:ident :: $name:ident = $c:ident,)*) => {
        // CAST: unsigned types of at most 64 bits.
        $($pairs.constant(
            concat!(stringify!($module), "::", stringify!($name)),
            stringify!($c),
            $module::$name as u64,
        );)*
    };
}

macro_rules! structures {
    ($pairs:expr; $($module:ident :: $name:ident = $c:ident {
        $($field:ident $(= $c_field:ident)?),* $(,)?
    })*) => {$(
        $pairs.structure(
            concat!(stringify!($module), "::", stringify!($name)),
            stringify!($c),
            size_of::<$module::$name>(),
        );
        // All fields are named, so that a new one does not go unnoticed.
        #[allow(unused)]
        fn $c(value: &$module::$name) {
            let $module::$name { $($field),* } = value;
        }
        $({
            fn size<T>(_: fn(&$module::$name) -> &T) -> usize {
                size_of::<T>()
            }
            let place = core::mem::offset_of!($module::$name, $field);
            let c_field = [$(stringify!($c_field),)? stringify!($field)][0];
            let c_field = c_field.trim_start_matches("r#");
            $pairs.field(stringify!($c), c_field, (place, size(|value| &value.$field)));
        })*
    )*};
}

fn pairs() -> Pairs {
    let mut pairs = Pairs::default();
    ioctls(&mut pairs);
    flags(&mut pairs);
    registers(&mut pairs);
    exits(&mut pairs);
    arguments(&mut pairs);
    posted(&mut pairs);
    pairs
}

fn ioctls(pairs: &mut Pairs) {
    constants! { pairs;
        uapi::MAGIC = GZVM_IOC_MAGIC,
        uapi::CREATE_VM = GZVM_CREATE_VM,
        uapi::CHECK_EXTENSION = GZVM_CHECK_EXTENSION,
        uapi::CREATE_VCPU = GZVM_CREATE_VCPU,
        uapi::SET_USER_MEMORY_REGION = GZVM_SET_USER_MEMORY_REGION,
        uapi::IRQ_LINE = GZVM_IRQ_LINE,
        uapi::IRQFD = GZVM_IRQFD,
        uapi::IOEVENTFD = GZVM_IOEVENTFD,
        uapi::RUN = GZVM_RUN,
        uapi::ENABLE_CAP = GZVM_ENABLE_CAP,
        uapi::GET_ONE_REG = GZVM_GET_ONE_REG,
        uapi::SET_ONE_REG = GZVM_SET_ONE_REG,
        uapi::CREATE_DEVICE = GZVM_CREATE_DEVICE,
        uapi::GET_RANGE_STATE = GZVM_GET_RANGE_STATE,
        uapi::SET_DTB_CONFIG = GZVM_SET_DTB_CONFIG,
    }
}

fn flags(pairs: &mut Pairs) {
    constants! { pairs;
        cap::VM_GPA_SIZE = GZVM_CAP_VM_GPA_SIZE,
        cap::SYNC_MMU = GZVM_CAP_SYNC_MMU,
        cap::PROTECTED_VM = GZVM_CAP_PROTECTED_VM,
        cap::PVM_SET_PVMFW_GPA = GZVM_CAP_PVM_SET_PVMFW_GPA,
        cap::PVM_GET_PVMFW_SIZE = GZVM_CAP_PVM_GET_PVMFW_SIZE,
        cap::PVM_SET_PROTECTED_VM = GZVM_CAP_PVM_SET_PROTECTED_VM,
        cap::ENABLE_IDLE = GZVM_CAP_ENABLE_IDLE,
        cap::BLOCK_BASED_DEMAND_PAGING = GZVM_CAP_BLOCK_BASED_DEMAND_PAGING,
        cap::ENABLE_DEMAND_PAGING = GZVM_CAP_ENABLE_DEMAND_PAGING,
        cap::QUERY_HYP_BATCH_PAGES = GZVM_CAP_QUERY_HYP_BATCH_PAGES,
        cap::QUERY_DESTROY_BATCH_PAGES = GZVM_CAP_QUERY_DESTROY_BATCH_PAGES,
        ext::DISCOVER = GZVM_CAP_EXTENSIONS,
        ext::QUERY_LIMITS = GZVM_CAP_LIMITS,
        ext::WAKE_MASK = GZVM_EXT_WAKE_MASK,
        ext::UNMAP = GZVM_EXT_UNMAP,
        ext::IRQ_KIND = GZVM_EXT_IRQ_KIND,
        ext::GET_REG = GZVM_EXT_GET_REG,
        ext::LIMITS = GZVM_EXT_LIMITS,
        ext::RANGE_STATE = GZVM_EXT_RANGE_STATE,
        uapi::MEM_MAX_NR_PAGES = GZVM_MEM_MAX_NR_PAGES,
        uapi::MEM_REGION_OTHER = GZVM_USER_MEM_REGION_OTHER,
        uapi::MEM_REGION_GUEST_MEM = GZVM_USER_MEM_REGION_GUEST_MEM,
        uapi::MEM_REGION_PROTECT_FW = GZVM_USER_MEM_REGION_PROTECT_FW,
        uapi::MEM_REGION_STATIC_SWIOTLB = GZVM_USER_MEM_REGION_STATIC_SWIOTLB,
        uapi::MEM_REGION_READONLY = GZVM_USER_MEM_REGION_READONLY,
        uapi::IRQ_NUMBER_SHIFT = GZVM_IRQ_NUM_SHIFT,
        uapi::IRQ_NUMBER_MASK = GZVM_IRQ_NUM_MASK,
        uapi::IRQ_VCPU_SHIFT = GZVM_IRQ_VCPU_SHIFT,
        uapi::IRQ_VCPU_MASK = GZVM_IRQ_VCPU_MASK,
        uapi::IRQ_TYPE_SHIFT = GZVM_IRQ_TYPE_SHIFT,
        uapi::IRQ_TYPE_MASK = GZVM_IRQ_TYPE_MASK,
        uapi::IRQ_VCPU2_SHIFT = GZVM_IRQ_VCPU2_SHIFT,
        uapi::IRQ_VCPU2_MASK = GZVM_IRQ_VCPU2_MASK,
        uapi::IRQ_TYPE_CPU = GZVM_IRQ_TYPE_CPU,
        uapi::IRQ_TYPE_SPI = GZVM_IRQ_TYPE_SPI,
        uapi::IRQ_TYPE_PPI = GZVM_IRQ_TYPE_PPI,
        uapi::IRQFD_FLAG_DEASSIGN = GZVM_IRQFD_FLAG_DEASSIGN,
        uapi::IRQFD_FLAG_RESAMPLE = GZVM_IRQFD_FLAG_RESAMPLE,
        uapi::IOEVENTFD_FLAG_DATAMATCH = GZVM_IOEVENTFD_FLAG_DATAMATCH,
        uapi::IOEVENTFD_FLAG_PIO = GZVM_IOEVENTFD_FLAG_PIO,
        uapi::IOEVENTFD_FLAG_DEASSIGN = GZVM_IOEVENTFD_FLAG_DEASSIGN,
        uapi::DEV_TYPE_VGIC_V3_DIST = GZVM_DEV_TYPE_ARM_VGIC_V3_DIST,
        uapi::DEV_TYPE_VGIC_V3_REDIST = GZVM_DEV_TYPE_ARM_VGIC_V3_REDIST,
        uapi::VGIC_DIST_SIZE = GZVM_VGIC_V3_DIST_SIZE,
        uapi::VGIC_REDIST_SIZE = GZVM_VGIC_V3_REDIST_SIZE,
        uapi::RANGE_STATE_ABSENT = GZVM_RANGE_STATE_ABSENT,
        uapi::RANGE_STATE_PRIVATE = GZVM_RANGE_STATE_PRIVATE,
        uapi::RANGE_STATE_SHARED = GZVM_RANGE_STATE_SHARED,
        uapi::RANGE_STATE_UNPINNED = GZVM_RANGE_STATE_UNPINNED,
    }
}

fn registers(pairs: &mut Pairs) {
    constants! { pairs;
        reg::ARCH_ARM64 = GZVM_REG_ARM64,
        reg::ARCH_MASK = GZVM_REG_ARCH_MASK,
        reg::SIZE_SHIFT = GZVM_REG_SIZE_SHIFT,
        reg::SIZE_MASK = GZVM_REG_SIZE_MASK,
        reg::SIZE_U64 = GZVM_REG_SIZE_U64,
        reg::CLASS_SHIFT = GZVM_REG_CLASS_SHIFT,
        reg::CLASS_MASK = GZVM_REG_CLASS_MASK,
        reg::CLASS_CORE = GZVM_REG_CLASS_CORE,
        reg::CLASS_SYSREG = GZVM_REG_CLASS_SYSREG,
        reg::INDEX_MASK = GZVM_REG_INDEX_MASK,
        reg::PC = GZVM_REG_PC,
        reg::PSTATE = GZVM_REG_PSTATE,
        reg::SP_EL0 = GZVM_REG_SP_EL0,
        reg::SP_EL1 = GZVM_REG_SP_EL1,
        reg::ELR_EL1 = GZVM_REG_ELR_EL1,
        reg::SPSR_EL1 = GZVM_REG_SPSR_EL1,
    }
    pairs.constant("reg::x", "GZVM_REG_X0", reg::x(0));
    assert_eq!(reg::x(30), reg::x(0) + 2 * 30, "what the header says about Xn");
}

fn exits(pairs: &mut Pairs) {
    constants! { pairs;
        run::EXIT_UNKNOWN = GZVM_EXIT_UNKNOWN,
        run::EXIT_MMIO = GZVM_EXIT_MMIO,
        run::EXIT_HYPERCALL = GZVM_EXIT_HYPERCALL,
        run::EXIT_IRQ = GZVM_EXIT_IRQ,
        run::EXIT_EXCEPTION = GZVM_EXIT_EXCEPTION,
        run::EXIT_DEBUG = GZVM_EXIT_DEBUG,
        run::EXIT_FAIL_ENTRY = GZVM_EXIT_FAIL_ENTRY,
        run::EXIT_INTERNAL_ERROR = GZVM_EXIT_INTERNAL_ERROR,
        run::EXIT_SYSTEM_EVENT = GZVM_EXIT_SYSTEM_EVENT,
        run::EXIT_SHUTDOWN = GZVM_EXIT_SHUTDOWN,
        run::EXIT_GZ = GZVM_EXIT_GZ,
        run::EXIT_IDLE = GZVM_EXIT_IDLE,
        run::EXIT_RESERVED_C = GZVM_EXIT_RESERVED_C,
        run::EXIT_IPI = GZVM_EXIT_IPI,
        run::EXCEPTION_UNKNOWN = GZVM_EXCEPTION_UNKNOWN,
        run::EXCEPTION_PAGE_FAULT = GZVM_EXCEPTION_PAGE_FAULT,
        run::SYSTEM_EVENT_SHUTDOWN = GZVM_SYSTEM_EVENT_SHUTDOWN,
        run::SYSTEM_EVENT_RESET = GZVM_SYSTEM_EVENT_RESET,
        run::SYSTEM_EVENT_CRASH = GZVM_SYSTEM_EVENT_CRASH,
        run::SYSTEM_EVENT_WAKEUP = GZVM_SYSTEM_EVENT_WAKEUP,
        run::SYSTEM_EVENT_SUSPEND = GZVM_SYSTEM_EVENT_SUSPEND,
        run::SYSTEM_EVENT_SEV_TERM = GZVM_SYSTEM_EVENT_SEV_TERM,
        run::SYSTEM_EVENT_S2IDLE = GZVM_SYSTEM_EVENT_S2IDLE,
    }
    structures! { pairs;
        run::Run = gzvm_vcpu_run { exit_reason, immediate_exit, padding1, payload = padding }
        run::Mmio = gzvm_exit_mmio { phys_addr, data, size, reg_nr, is_write, padding }
        run::FailEntry = gzvm_exit_fail_entry { hardware_entry_failure_reason, cpu, padding }
        run::Exception = gzvm_exit_exception { exception, error_code, fault_gpa, reserved }
        run::Hypercall = gzvm_exit_hypercall { args }
        run::Event = gzvm_exit_event { kind = r#type, ndata, data }
    }
    for member in ["mmio", "fail_entry", "exception", "hypercall", "internal", "system_event"] {
        let payload = core::mem::offset_of!(run::Run, payload);
        pairs.claims.push(format!(
            "_Static_assert(offsetof(struct gzvm_vcpu_run, {member}) == {payload}, \"{member}\");"
        ));
    }
}

/// Names of the posted header that nothing here is called by: clients were written against them.
fn posted(pairs: &mut Pairs) {
    for (name, value) in [
        ("GZVM_REG_GENERIC", 0),
        ("GZVM_REG_ARCH_ARM64", 0x60 << 56),
        ("GZVM_REG_SIZE_U8", 0),
        ("GZVM_REG_SIZE_U16", 0x10 << 48),
        ("GZVM_REG_SIZE_U32", 0x20 << 48),
        ("GZVM_REG_SIZE_U128", 0x40 << 48),
        ("GZVM_REG_SIZE_U256", 0x50 << 48),
        ("GZVM_REG_SIZE_U512", 0x60 << 48),
        ("GZVM_REG_SIZE_U1024", 0x70 << 48),
        ("GZVM_REG_SIZE_U2048", 0x80 << 48),
        ("GZVM_REG_TYPE_GENERAL2", 0x10 << 16),
        ("GZVM_IRQ_LINE_VCPU2", 0xf000_0000),
        ("GZVM_IRQ_LINE_TYPE", 0x0f00_0000),
        ("GZVM_IRQ_LINE_VCPU", 0x00ff_0000),
        ("GZVM_IRQ_LINE_NUM", 0x0000_ffff),
        ("GZVM_IOEVENTFD_VALID_FLAG_MASK", 0x7),
        ("GZVM_DEV_TYPE_MAX", 2),
        ("GZVM_HVC_PTP", u64::from(guest::PTP)),
        ("GZVM_HVC_MEM_RELINQUISH", u64::from(guest::MEM_RELINQUISH)),
    ] {
        pairs.posted(name, value);
    }
    // As clients take a register id apart.
    pairs.claims.push(
        "_Static_assert((GZVM_REG_PC & GZVM_REG_SIZE_MASK) >> GZVM_REG_SIZE_SHIFT == 3, \"size\");"
            .to_owned(),
    );
    // The other name of the event's structure, and of an interrupt's word.
    pairs.theirs.insert("struct gzvm_exit_internal".to_owned());
    for (field, offset) in [("suberror", 0), ("ndata", 4), ("data", 8)] {
        let size = if field == "data" { 128 } else { 4 };
        pairs.field("gzvm_exit_internal", field, (offset, size));
    }
    pairs.field("gzvm_irq_level", "status", (0, 4));
}

fn arguments(pairs: &mut Pairs) {
    structures! { pairs;
        uapi::UserspaceMemoryRegion = gzvm_userspace_memory_region {
            slot, flags, guest_phys_addr, memory_size, userspace_addr,
        }
        uapi::IrqLevel = gzvm_irq_level { irq, level }
        uapi::Irqfd = gzvm_irqfd { fd, gsi, flags, resamplefd, pad }
        uapi::Ioeventfd = gzvm_ioeventfd { datamatch, addr, len, fd, flags, pad }
        uapi::EnableCap = gzvm_enable_cap { cap, args }
        uapi::OneReg = gzvm_one_reg { id, addr }
        uapi::CreateDevice = gzvm_create_device {
            dev_type, id, flags, dev_addr, dev_reg_size, attr_addr, attr_size,
        }
        uapi::DtbConfig = gzvm_dtb_config { dtb_addr, dtb_size }
        uapi::RangeState = gzvm_range_state { guest_phys_addr, size, state, flags, pad }
    }
}

/// Runs the C compiler on a text; answers what it printed, or its messages.
fn compile(arguments: &[&str], text: &str) -> Result<String, String> {
    let mut command = Command::new("cc");
    command.args(["-x", "c", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]);
    command.args(arguments).arg("-").stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a C compiler, which Rust's linker is too");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(text.as_bytes()).expect("the compiler reads");
    drop(input);
    let output = child.wait_with_output().expect("the compiler ends");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    output.status.success().then(|| text(&output.stdout)).ok_or_else(|| text(&output.stderr))
}

/// The compiler's opinion of the claims about a header.
fn check(header: &str, pairs: &Pairs) -> Result<String, String> {
    let claims = pairs.claims.join("\n");
    compile(&["-fsyntax-only"], &format!("{header}\n#include <stddef.h>\n{claims}\nint unused;\n"))
}

/// `GZVM_*` macros and `struct gzvm_*` of a header, but its guard.
fn names(header: &str) -> BTreeSet<String> {
    let macros = compile(&["-dM", "-E"], header).expect("the header can be read");
    let defined =
        macros.lines().filter_map(|line| line.strip_prefix("#define ")?.split(' ').next());
    let structs = header.lines().filter_map(|line| line.strip_suffix(" {"));
    let structs = structs.filter(|line| line.starts_with("struct gzvm_"));
    defined.filter(|name| name.starts_with("GZVM_")).chain(structs).map(str::to_owned).collect()
}

/// Public constants and structures of the sources.
fn public() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (module, text) in SOURCES {
        for line in text.lines() {
            let rest = ["pub const fn ", "pub const ", "pub struct "];
            let Some(rest) = rest.iter().find_map(|start| line.strip_prefix(start)) else {
                continue;
            };
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
            names.insert(format!("{module}::{}", &rest[..end]));
        }
    }
    names
}

fn header() -> String {
    std::fs::read_to_string(HEADER).expect("the header")
}

#[test]
fn w43_the_c_header_has_the_same_values() {
    check(&header(), &pairs()).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn w43_the_c_header_has_the_same_names() {
    let pairs = pairs();
    assert_eq!(names(&header()), pairs.theirs, "the header's names, and those that are compared");
    let mut ours = pairs.ours;
    ours.extend(NOT_FOR_USERS.map(str::to_owned));
    assert_eq!(public(), ours, "the crate's names, and those that are compared");
}

/// The words of a text that look like names of the header.
fn mentioned(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '*'));
    // `GZVM_EXT_*` and `GZVM_IRQ_*_SHIFT` speak of many; an underscore behind a name is a link.
    let names = words.filter(|word| word.starts_with("GZVM_") && !word.contains('*'));
    names.map(|name| name.trim_end_matches('_')).collect()
}

#[test]
fn the_documentation_is_about_this_header() {
    let names = names(&header());
    let read = |name: &str| {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../Documentation/virt/geniezone");
        std::fs::read_to_string(format!("{dir}/{name}.rst")).expect(name)
    };
    let api = read("api");
    for text in [&api, &read("overview"), &read("extensions"), &read("operation")] {
        for name in mentioned(text) {
            assert!(names.contains(name), "the header has no {name}");
        }
    }
    let known = mentioned(&api);
    for ioctl in pairs().theirs.iter().filter(|name| IOCTLS.contains(&name.as_str())) {
        let heading = format!("\n{ioctl}\n{}\n", "-".repeat(ioctl.len()));
        assert!(api.contains(&heading), "no section on {ioctl}");
    }
    for name in names.iter().filter(|name| !IOCTLS.contains(&name.as_str())) {
        let documented = ["GZVM_CAP_", "GZVM_RANGE_STATE_", "GZVM_USER_MEM_", "GZVM_DEV_TYPE_"];
        if documented.iter().any(|start| name.starts_with(start)) {
            assert!(known.contains(name.as_str()), "nothing is said of {name}");
        }
    }
    for bit in names.iter().filter(|name| name.starts_with("GZVM_EXT_")) {
        assert!(read("extensions").contains(&format!("``{bit}``")), "nothing is said of {bit}");
    }
}

#[test]
fn differences_are_noticed() {
    let (pairs, good) = (pairs(), header());
    for (from, to) in [
        ("0x40209246", "0x40209247"),
        ("__u64 fault_gpa;", "__u32 fault_gpa;"),
        ("__u8 padding1[3];", "__u8 padding1[2];"),
        ("GZVM_IRQ_TYPE_PPI\t\t2", "GZVM_IRQ_TYPE_PPI\t\tBIT(1)"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = check(&good.replace(from, to), &pairs).expect_err(to);
        assert!(error.contains("static assertion failed") || error.contains("BIT"), "{error}");
    }
    let more = good.replace("#define GZVM_RUN\t", "#define GZVM_WALK 1\n#define GZVM_RUN\t");
    assert_ne!(names(&more), pairs.theirs);
    let fewer = good.replace("#define GZVM_EXIT_IPI\t", "#define NO_EXIT_IPI\t");
    assert_ne!(names(&fewer), pairs.theirs);
}
