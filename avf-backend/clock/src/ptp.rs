// SPDX-License-Identifier: Apache-2.0
//! The guest's two clocks: its own, and the host's behind `/dev/ptpN`.

use crate::agent::Clocks;
use crate::Sample;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// What the module calls the host's clock.
pub const NAME: &str = "GenieZone host";
/// The kernel refuses to compare clocks across its own tick; the next try is not.
const TRIES: usize = 20;
const NS_PER_SECOND: i64 = 1_000_000_000;

/// `struct ptp_clock_time` (include/uapi/linux/ptp_clock.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PtpTime {
    seconds: i64,
    nanoseconds: u32,
    reserved: u32,
}

/// `struct ptp_sys_offset_precise`: both clocks at the same counter value.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct PtpOffset {
    device: PtpTime,
    realtime: PtpTime,
    raw: PtpTime,
    reserved: [u32; 4],
}

#[allow(unsafe_code)]
mod ioctl {
    //! The request, as its header defines it.
    nix::ioctl_readwrite!(ptp_sys_offset_precise, b'=', 8, super::PtpOffset);
}

impl PtpTime {
    fn nanoseconds(self) -> io::Result<u64> {
        let seconds = u64::try_from(self.seconds).ok();
        let ns = seconds.and_then(|s| s.checked_mul(NS_PER_SECOND.unsigned_abs()));
        ns.and_then(|ns| ns.checked_add(u64::from(self.nanoseconds)))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a clock before 1970"))
    }
}

/// The host's clock, and this system's.
#[derive(Debug)]
pub struct PtpClocks {
    device: File,
}

impl PtpClocks {
    /// Finds the host's clock among the system's PTP devices.
    ///
    /// # Errors
    ///
    /// There is none, or it cannot be opened.
    pub fn open() -> io::Result<Self> {
        let name = find(Path::new("/sys/class/ptp"), NAME)?;
        Ok(Self { device: File::open(Path::new("/dev").join(name))? })
    }
}

/// The device among `class` whose clock has this name.
fn find(class: &Path, wanted: &str) -> io::Result<std::ffi::OsString> {
    for entry in fs::read_dir(class)? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("clock_name"));
        if name.is_ok_and(|name| name.trim_end() == wanted) {
            return Ok(entry.file_name());
        }
    }
    let why = format!("no clock named {wanted:?} in {}: load gzvm_ptp.ko", class.display());
    Err(io::Error::new(io::ErrorKind::NotFound, why))
}

impl Clocks for PtpClocks {
    #[allow(unsafe_code)]
    fn sample(&mut self) -> io::Result<Sample> {
        let mut offset = PtpOffset::default();
        for attempt in 1.. {
            // SAFETY: The structure is the ioctl's and lives through the call; the descriptor is
            // the open device's.
            match unsafe { ioctl::ptp_sys_offset_precise(self.device.as_raw_fd(), &mut offset) } {
                Ok(_) => break,
                Err(nix::errno::Errno::EINVAL) if attempt < TRIES => {}
                Err(e) => return Err(e.into()),
            }
        }
        let (guest_ns, host_ns) = (offset.realtime.nanoseconds()?, offset.device.nanoseconds()?);
        Ok(Sample { guest_ns, host_ns })
    }

    #[allow(unsafe_code)]
    fn shift(&mut self, ns: i64) -> io::Result<()> {
        // SAFETY: All bytes zero is a value of this structure of integers.
        let mut change: libc::timex = unsafe { std::mem::zeroed() };
        change.modes = libc::ADJ_SETOFFSET | libc::ADJ_NANO;
        // With ADJ_NANO the microseconds are nanoseconds, which must not be negative.
        change.time.tv_sec = ns.div_euclid(NS_PER_SECOND);
        change.time.tv_usec = ns.rem_euclid(NS_PER_SECOND);
        // SAFETY: The structure lives through the call.
        match unsafe { libc::adjtimex(&mut change) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!((size_of::<PtpTime>(), size_of::<PtpOffset>()), (16, 64));
    }

    #[test]
    fn times_are_checked() {
        let time = |seconds, nanoseconds| PtpTime { seconds, nanoseconds, reserved: 0 };
        assert_eq!(time(2, 5).nanoseconds().unwrap(), 2_000_000_005);
        assert!(time(-1, 0).nanoseconds().is_err());
        assert!(time(i64::MAX, 0).nanoseconds().is_err());
    }

    #[test]
    fn a_clock_is_found_by_its_name() {
        let class = std::env::temp_dir().join(format!("gzvm-clock-{}", std::process::id()));
        for (device, name) in [("ptp0", "other\n"), ("ptp1", "GenieZone host\n")] {
            fs::create_dir_all(class.join(device)).unwrap();
            fs::write(class.join(device).join("clock_name"), name).unwrap();
        }
        assert_eq!(find(&class, NAME).unwrap(), "ptp1");
        let error = find(&class, "third").unwrap_err().to_string();
        assert!(error.contains("gzvm_ptp.ko"), "{error}");
        fs::remove_dir_all(class).unwrap();
    }
}
