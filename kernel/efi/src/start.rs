//! The loader's flow.

use core::ffi::c_void;

use r_efi::efi::{Handle, Status, SystemTable};
use r_efi::protocols::loaded_image::{PROTOCOL_GUID, Protocol};

use crate::console::say;
use crate::disk::Part;
use crate::file::{Kernel, Sections};
use crate::handover::Handover;
use crate::memory::{self, Map, PAGE};

const BELOW: u64 = 1 << 32;

/// What the firmware calls. Returns only if the kernel cannot be started.
#[unsafe(no_mangle)]
extern "efiapi" fn efi_main(image: Handle, system: *mut SystemTable) -> Status {
    // SAFETY: the firmware's table, valid until the boot services end, which nothing here survives.
    let system = unsafe { &*system };
    let Err(why) = start(image, system);
    say(system, why);
    Status::LOAD_ERROR
}

fn start(image: Handle, system: &SystemTable) -> Result<core::convert::Infallible, &'static str> {
    // SAFETY: the firmware's table.
    let boot = unsafe { &*system.boot_services };
    let mut guid = PROTOCOL_GUID;
    let mut protocol = core::ptr::null_mut::<c_void>();
    // SAFETY: the firmware's service and our own handle; it writes to the place named last.
    let status = unsafe { (boot.handle_protocol)(image, &mut guid, &mut protocol) };
    if status != Status::SUCCESS || protocol.is_null() {
        return Err("the firmware does not say where it put this program");
    }
    // SAFETY: the protocol that we asked for.
    let (base, size) = unsafe {
        let loaded = &*protocol.cast::<Protocol>();
        (loaded.image_base as u64, loaded.image_size)
    };
    // SAFETY: the firmware has placed the image there, headers included.
    let bytes = unsafe { core::slice::from_raw_parts(base as *const u8, size as usize) };
    let sections = Sections::new(bytes);
    let kernel = sections.get(b".kernel\0").and_then(Kernel::parse);
    let kernel = kernel.ok_or("the kernel in this file is damaged")?;
    let record = sections.get(b".record\0").ok_or("there is no boot record in this file")?;

    // The kernel runs where it is linked. What the firmware has there now ends with it.
    let (first, end) = kernel.range();
    let end = end.next_multiple_of(PAGE);
    memory::reserve(boot, first, end);
    let apart = |start: u64, len: u64| start + len <= first || start >= end;
    if base + size > BELOW || !apart(base, size) {
        return Err("the firmware has put this program where the kernel goes");
    }
    let medium = sections.get(b".medium\0").map(Part::parse);
    let root_len = match &medium {
        Some(part) => part.as_ref().ok_or("this file is damaged")?.len,
        None => 0,
    };
    let module = memory::allocate(boot, root_len + record.len() as u64)?;
    if let Some(Some(part)) = medium {
        part.read(boot, module)?;
    }
    let (root_len, len) = (root_len as usize, root_len as usize + record.len());
    module[root_len..len].copy_from_slice(record);
    let module = &module[..len];
    let handover = memory::allocate(boot, size_of::<Handover>() as u64)?;
    if !apart(module.as_ptr() as u64, len as u64)
        || !apart(handover.as_ptr() as u64, handover.len() as u64)
    {
        return Err("there is too little memory beside the kernel");
    }
    // SAFETY: zeroed pages that are large enough, aligned, and nobody else's; all of the
    // structure's fields are plain numbers.
    let handover = unsafe { &mut *handover.as_mut_ptr().cast::<Handover>() };
    handover.prepare(&kernel, module, system);

    let mut map = Map::new(boot)?;
    map.read(boot)?;
    if !map.is_free(first, end) {
        return Err("the firmware keeps the memory where the kernel goes");
    }
    // The map may change while it is read; the firmware says so, and reading again helps.
    for _ in 0..4 {
        map.read(boot)?;
        // SAFETY: the firmware's service; nothing of it is used if it succeeds.
        if unsafe { (boot.exit_boot_services)(image, map.key) } == Status::SUCCESS {
            handover.go(&map, &kernel);
        }
    }
    Err("the firmware does not let go")
}
