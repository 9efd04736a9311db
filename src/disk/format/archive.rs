//! Archives with a disk in them: Google's `disk.raw` in a tar.gz, and OVA.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;

use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use super::vmdk::Vmdk;
use super::{Fault, identity, vmdk};
use crate::disk::medium::{Medium, Raw, for_each_block, is_zero};
use crate::rootfs::tar::{Entry, Kind, Reader};

const BLOCK: u64 = 512;
/// Data are looked for and left out in pieces of this size.
const PIECE: u64 = 64 << 10;
/// Segments of a sparse file that are read at most.
const MAX_SEGMENTS: usize = 1 << 20;
/// Bytes that are unpacked from an archive at most, and the size of the disk in it.
const MAX_UNPACKED: u64 = 64 << 30;
const MAX_SIZE: u64 = 1 << 46;
/// What Google's import wants to find.
const GCE_NAME: &str = "disk.raw";

/// Writes `disk.raw` as a sparse file in an archive of GNU's old format, compressed by gzip, as
/// Google's documentation asks for ("Manually import boot disks").
pub fn write_gce(disk: &dyn Medium, out: &File) -> io::Result<u64> {
    let mut segments: Vec<(u64, u64)> = Vec::new();
    for_each_block(disk, PIECE as usize, |index, bytes| {
        if !is_zero(bytes) {
            let (at, len) = (index * PIECE, bytes.len() as u64);
            match segments.last_mut() {
                Some(last) if last.0 + last.1 == at => last.1 += len,
                _ => segments.push((at, len)),
            }
        }
        Ok(())
    })?;
    let stored: u64 = segments.iter().map(|segment| segment.1).sum();
    // The end of the file is a segment of its own if it is a hole.
    if segments.last().is_none_or(|last| last.0 + last.1 < disk.size()) {
        segments.push((disk.size(), 0));
    }
    let gzip = GzBuilder::new().mtime(0).operating_system(255);
    let mut out = gzip.write(BufWriter::new(out), Compression::new(6));

    let mut header = header(GCE_NAME, stored, b'S');
    header[257..265].copy_from_slice(b"ustar  \0");
    let (first, rest) = segments.split_at(segments.len().min(4));
    put_segments(&mut header[386..482], first);
    header[482] = u8::from(!rest.is_empty());
    number(&mut header[483..495], disk.size());
    seal(&mut header);
    out.write_all(&header)?;
    let mut left = rest;
    while !left.is_empty() {
        let (some, more) = left.split_at(left.len().min(21));
        let mut block = [0; BLOCK as usize];
        put_segments(&mut block[..504], some);
        block[504] = u8::from(!more.is_empty());
        out.write_all(&block)?;
        left = more;
    }
    let mut buffer = vec![0; PIECE as usize];
    for (at, len) in segments {
        let mut done = 0;
        while done < len {
            let step = (len - done).min(PIECE) as usize;
            disk.read_exact_at(&mut buffer[..step], at + done)?;
            out.write_all(&buffer[..step])?;
            done += step as u64;
        }
    }
    let padding = stored.next_multiple_of(BLOCK) - stored;
    // Less than a block, and the two zero blocks at the end.
    out.write_all(&vec![0; padding as usize + 2 * BLOCK as usize])?;
    out.finish()?.into_inner().map_err(|error| error.into_error())?.metadata().map(|m| m.len())
}

/// Unpacks the disk into a file without a name; there is no other way to read it at a position.
pub fn open_gce(file: File) -> Result<Raw, Fault> {
    let stream = flate2::bufread::MultiGzDecoder::new(BufReader::new(file));
    let mut reader = Reader::new(BufReader::new(stream.take(MAX_UNPACKED)), MAX_SEGMENTS);
    let mut entry = Entry::default();
    while reader.next(&mut entry).map_err(tar_fault)? {
        if entry.kind != Some(Kind::File) || entry.path != GCE_NAME.as_bytes() {
            continue;
        }
        if entry.size > MAX_SIZE {
            return Err(Fault::Damaged("the size of its disk makes no sense"));
        }
        let out = tempfile::tempfile()?;
        out.set_len(entry.size)?;
        let whole = [crate::rootfs::tar::Segment { offset: 0, len: entry.size }];
        for segment in entry.sparse.as_deref().unwrap_or(&whole) {
            let mut done = 0;
            while done < segment.len {
                let bytes = reader.data(segment.len - done).map_err(tar_fault)?;
                if bytes.is_empty() {
                    return Err(Fault::Damaged("its disk is cut off"));
                }
                let len = bytes.len().min(PIECE as usize);
                if !is_zero(&bytes[..len]) {
                    out.write_all_at(&bytes[..len], segment.offset + done)?;
                }
                reader.consume(len);
                done += len as u64;
            }
        }
        return Ok(Raw::part(out, 0, entry.size));
    }
    Err(Fault::Damaged("there is no `disk.raw` in it"))
}

fn tar_fault(fault: crate::rootfs::tar::Fault) -> Fault {
    match fault {
        crate::rootfs::tar::Fault::Io(error) if error.kind() != io::ErrorKind::InvalidInput => {
            Fault::Io(error)
        }
        _ => Fault::Damaged("the archive in it is damaged"),
    }
}

/// Writes an OVF package (DMTF DSP0243): descriptor, manifest, disk.
pub fn write_ova(disk: &dyn Medium, out: &File) -> io::Result<u64> {
    let extent = tempfile::tempfile()?;
    let len = vmdk::write(disk, &extent)?;
    let descriptor = descriptor(disk, len)?;
    let mut digest = Sha256::new();
    let mut chunk = vec![0; PIECE as usize];
    copy(&extent, len, &mut chunk, |bytes| {
        digest.update(bytes);
        Ok(())
    })?;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let manifest = format!(
        "SHA256(disk.ovf)= {}\nSHA256(disk.vmdk)= {}\n",
        hex(&Sha256::digest(descriptor.as_bytes())),
        hex(&digest.finalize())
    );
    let mut out = BufWriter::new(out);
    for (name, text) in [("disk.ovf", &descriptor), ("disk.mf", &manifest)] {
        start(&mut out, name, text.len() as u64, 0o644, 0)?;
        out.write_all(text.as_bytes())?;
        end(&mut out, text.len() as u64)?;
    }
    start(&mut out, "disk.vmdk", len, 0o644, 0)?;
    copy(&extent, len, &mut chunk, |bytes| out.write_all(bytes))?;
    end(&mut out, len)?;
    finish(&mut out)?;
    out.into_inner().map_err(|error| error.into_error())?.metadata().map(|m| m.len())
}

/// Finds the disk in an OVA.
pub fn open_ova(file: File) -> Result<Vmdk, Fault> {
    let mut reader = Reader::new(BufReader::new(file.try_clone()?), MAX_SEGMENTS);
    let mut entry = Entry::default();
    while reader.next(&mut entry).map_err(tar_fault)? {
        if entry.kind == Some(Kind::File) && entry.path.ends_with(b".vmdk") {
            if entry.sparse.is_some() {
                return Err(Fault::Unsupported("its disk as a sparse file"));
            }
            return Vmdk::open(file, reader.offset(), entry.size);
        }
    }
    Err(Fault::Damaged("there is no `.vmdk` in it"))
}

fn copy(
    file: &File,
    len: u64,
    chunk: &mut [u8],
    mut each: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        // At most the chunk's length.
        let step = (len - at).min(chunk.len() as u64) as usize;
        file.read_exact_at(&mut chunk[..step], at)?;
        each(&chunk[..step])?;
        at += step as u64;
    }
    Ok(())
}

/// Begins a file of a ustar archive; `owner` is user and group.
pub(crate) fn start(
    out: &mut impl Write,
    name: &str,
    len: u64,
    mode: u32,
    owner: u32,
) -> io::Result<()> {
    ustar(out, name, len, b'0', mode, owner)
}

/// A directory, and no more than that.
pub(crate) fn directory(out: &mut impl Write, name: &str, mode: u32) -> io::Result<()> {
    ustar(out, &format!("{name}/"), 0, b'5', mode, 0)
}

/// Fills a file's last block up.
pub(crate) fn end(out: &mut impl Write, len: u64) -> io::Result<()> {
    // Less than a block.
    out.write_all(&vec![0; (len.next_multiple_of(BLOCK) - len) as usize])
}

/// The two blocks of zeros that end an archive.
pub(crate) fn finish(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK as usize])
}

fn ustar(
    out: &mut impl Write,
    name: &str,
    len: u64,
    kind: u8,
    mode: u32,
    owner: u32,
) -> io::Result<()> {
    let mut header = header(name, len, kind);
    number(&mut header[100..108], mode.into());
    number(&mut header[108..116], owner.into());
    number(&mut header[116..124], owner.into());
    header[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut header);
    out.write_all(&header)
}

fn header(name: &str, len: u64, kind: u8) -> [u8; BLOCK as usize] {
    let mut header = [0; BLOCK as usize];
    // Names are ours, and short.
    header[..name.len()].copy_from_slice(name.as_bytes());
    let fields = [(100, 8, 0o644), (108, 8, 0), (116, 8, 0), (124, 12, len), (136, 12, 0)];
    for (at, width, value) in fields {
        number(&mut header[at..at + width], value);
    }
    header[156] = kind;
    header
}

/// Octal digits, or GNU's binary form for what needs more of them than there is room for.
fn number(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    if value >> (3 * digits as u32) == 0 {
        field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
        field[digits] = 0;
    } else {
        field.fill(0);
        let at = field.len() - 8;
        field[at..].copy_from_slice(&value.to_be_bytes());
        field[0] = 0x80;
    }
}

fn put_segments(fields: &mut [u8], segments: &[(u64, u64)]) {
    for (field, (at, len)) in fields.chunks_exact_mut(24).zip(segments) {
        number(&mut field[..12], *at);
        number(&mut field[12..], *len);
    }
}

fn seal(header: &mut [u8; BLOCK as usize]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    header[154..156].copy_from_slice(b"\0 ");
}

/// A VM with one processor, 512 MiB, the disk, and one network card.
fn descriptor(disk: &dyn Medium, len: u64) -> io::Result<String> {
    let id = uuid::Uuid::from_bytes(identity(disk)?);
    let size = disk.size();
    let template = include_str!("disk.ovf");
    Ok(template
        .replace("{{file_size}}", &len.to_string())
        .replace("{{capacity}}", &size.to_string())
        .replace("{{uuid}}", &id.to_string()))
}
