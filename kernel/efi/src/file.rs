//! The loader's own file as the firmware has placed it, and the kernel in it.

/// Sections of our own file, which starts with its headers in memory as well.
pub struct Sections {
    image: &'static [u8],
}

impl Sections {
    /// Over the loaded image.
    pub fn new(image: &'static [u8]) -> Sections {
        Sections { image }
    }

    /// The bytes of the section with a name of eight bytes.
    pub fn get(&self, name: &[u8; 8]) -> Option<&'static [u8]> {
        let start = u32_at(self.image, 60)? as usize;
        let count = u16_at(self.image, start + 6)?;
        let headers = start + 24 + usize::from(u16_at(self.image, start + 20)?);
        for index in 0..usize::from(count) {
            let header = self.image.get(headers + index * 40..)?.get(..40)?;
            if header.starts_with(name) {
                let (len, address) = (u32_at(header, 8)? as usize, u32_at(header, 12)? as usize);
                return self.image.get(address..)?.get(..len);
            }
        }
        None
    }
}

/// A segment to load, all below 4 GiB.
#[derive(Clone, Copy, Default)]
pub struct Segment {
    /// Physical address.
    pub address: u32,
    /// Where its bytes are now.
    pub bytes: &'static [u8],
    /// Zeros after them.
    pub zeros: u32,
}

/// A kernel in memory.
#[derive(Default)]
pub struct Kernel {
    /// 32-bit entry.
    pub entry: u32,
    segments: [Segment; 8],
    count: usize,
}

impl Kernel {
    /// Reads an ELF file.
    pub fn parse(file: &'static [u8]) -> Option<Kernel> {
        const LOAD: u32 = 1;
        if !file.starts_with(b"\x7fELF\x02\x01") {
            return None;
        }
        let mut kernel = Kernel { entry: u64_at(file, 24)?.try_into().ok()?, ..Kernel::default() };
        let headers = usize::try_from(u64_at(file, 32)?).ok()?;
        for index in 0..usize::from(u16_at(file, 56)?) {
            let header = file.get(headers + index * 56..)?.get(..56)?;
            if u32_at(header, 0)? != LOAD {
                continue;
            }
            let number = |at| u64_at(header, at).and_then(|value| u32::try_from(value).ok());
            let (offset, len, memory) = (number(8)? as usize, number(32)? as usize, number(40)?);
            let bytes = file.get(offset..)?.get(..len)?;
            let segment =
                Segment { address: number(24)?, bytes, zeros: memory.checked_sub(len as u32)? };
            segment.address.checked_add(memory)?;
            *kernel.segments.get_mut(kernel.count)? = segment;
            kernel.count += 1;
        }
        (kernel.count > 0).then_some(kernel)
    }

    /// What is to be loaded.
    pub fn segments(&self) -> &[Segment] {
        &self.segments[..self.count]
    }

    /// First byte and end of the memory that it takes.
    pub fn range(&self) -> (u64, u64) {
        let start = self.segments().iter().map(|segment| u64::from(segment.address)).min();
        let end = self.segments().iter().map(|segment| {
            u64::from(segment.address) + segment.bytes.len() as u64 + u64::from(segment.zeros)
        });
        (start.unwrap_or(0), end.max().unwrap_or(0))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Eight bytes at `at`.
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
