//! Finds the disk or CD that we came from, and reads a part of it.

use core::ffi::c_void;

use r_efi::efi::{BY_PROTOCOL, BootServices, Handle, Status};
use r_efi::protocols::block_io::{PROTOCOL_GUID, Protocol};

use crate::file::u64_at;
use crate::memory::allocate;

/// Bytes that are read at once: some drivers have bounds on it.
const STEP: u64 = 1 << 20;
/// Where the partition table's header has the disk's identifier, in bytes.
const TABLE: usize = 512;
const DISK_GUID: usize = TABLE + 56;

/// What the section `.medium` says.
pub struct Part {
    disk: [u8; 16],
    start: u64,
    /// Bytes.
    pub len: u64,
}

impl Part {
    /// Reads the section.
    pub fn parse(bytes: &[u8]) -> Option<Part> {
        let disk = bytes.get(..16)?.try_into().ok()?;
        Some(Part { disk, start: u64_at(bytes, 16)?, len: u64_at(bytes, 24)? })
    }

    /// Reads the part into the start of `out`, which has room for whole sectors.
    pub fn read(&self, boot: &BootServices, out: &mut [u8]) -> Result<(), &'static str> {
        let buffer = allocate(boot, STEP)?;
        let (mut count, mut handles) = (0usize, core::ptr::null_mut::<Handle>());
        let mut guid = PROTOCOL_GUID;
        let (none, many) = (core::ptr::null_mut(), BY_PROTOCOL);
        // SAFETY: the firmware's service; it writes to the two places named last.
        let status =
            unsafe { (boot.locate_handle_buffer)(many, &mut guid, none, &mut count, &mut handles) };
        if status != Status::SUCCESS || handles.is_null() {
            return Err("the firmware knows no disks");
        }
        // SAFETY: the firmware has allocated so many handles.
        for handle in unsafe { core::slice::from_raw_parts(handles, count) } {
            let mut protocol = core::ptr::null_mut::<c_void>();
            // SAFETY: the firmware's service and handle; it writes to the place named last.
            let status = unsafe { (boot.handle_protocol)(*handle, &mut guid, &mut protocol) };
            if status != Status::SUCCESS || protocol.is_null() {
                continue;
            }
            let disk = protocol.cast::<Protocol>();
            // SAFETY: the protocol of this GUID, from the firmware.
            let block = unsafe {
                let media = (*disk).media;
                if media.is_null() || !(*media).media_present {
                    continue;
                }
                u64::from((*media).block_size)
            };
            if !matches!(block, 512..=4096) || !block.is_power_of_two() {
                continue;
            }
            if read(disk, block, 0, &mut buffer[..4096]).is_err() {
                continue;
            }
            let ours = buffer[TABLE..].starts_with(b"EFI PART")
                && buffer[DISK_GUID..].starts_with(&self.disk);
            if ours {
                return self.copy(disk, block, buffer, out);
            }
        }
        Err("the disk with the root filesystem is not among the firmware's")
    }

    fn copy(
        &self,
        disk: *mut Protocol,
        block: u64,
        buffer: &mut [u8],
        out: &mut [u8],
    ) -> Result<(), &'static str> {
        if self.start % block != 0 {
            return Err("the root filesystem does not start at one of the disk's sectors");
        }
        let mut done = 0;
        while done < self.len {
            let len = (self.len - done).min(STEP);
            let whole = len.next_multiple_of(block) as usize;
            read(disk, block, self.start + done, &mut buffer[..whole])?;
            let place = out.get_mut(done as usize..).and_then(|rest| rest.get_mut(..len as usize));
            place
                .ok_or("the root filesystem is too long")?
                .copy_from_slice(&buffer[..len as usize]);
            done += len;
        }
        Ok(())
    }
}

/// Reads whole sectors.
fn read(disk: *mut Protocol, block: u64, at: u64, out: &mut [u8]) -> Result<(), &'static str> {
    // SAFETY: the caller got the protocol from the firmware; the buffer is as long as it says and
    // page-aligned, which is what any device asks for at most.
    let status = unsafe {
        let id = (*(*disk).media).media_id;
        ((*disk).read_blocks)(disk, id, at / block, out.len(), out.as_mut_ptr().cast())
    };
    (status == Status::SUCCESS).then_some(()).ok_or("the disk cannot be read")
}
