//! Tables of contents of layers: which files a layer has, and where in the blob their contents are.
//!
//! eStargz has its table in a gzip member at the blob's end, whose place a footer tells
//! (stargz-snapshotter, `docs/estargz.md`); zstd:chunked in a skippable frame, whose place the
//! manifest tells (containers/storage, `pkg/chunked`). The tables are one format in two dialects. Both
//! are named by a digest in the layer's annotations, so that the manifest vouches for the table, and
//! the table for each chunk of a file. A table that nothing vouches for, or that contradicts itself, is
//! none: then the whole layer is read.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use base64::Engine as _;
use serde::Deserialize;

use super::digest::Digest;

const STARGZ_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
/// What the annotations of zstd:chunked begin with: now, and until 2023.
const ZSTD: [&str; 2] = ["io.github.containers.zstd-chunked.", "io.containers.zstd-chunked."];

/// Length of the footer of eStargz: a gzip member with nothing in it.
pub(super) const FOOTER: u64 = 51;
/// Name of the table in the archive that it comes in.
const STARGZ_NAME: &str = "stargz.index.json";
/// Largest table that is read, compressed and as text.
const MAX_TABLE: u64 = 16 << 20;
const MAX_TEXT: u64 = 64 << 20;
/// Largest chunk, compressed or not.
const MAX_CHUNK: u64 = 64 << 20;

/// What a layer's annotations say about its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// eStargz: the digest of the table's text.
    Stargz(Digest),
    /// zstd:chunked: the digest of the compressed table, and from where to where in the blob it is.
    Zstd(Digest, u64, u64),
}

impl Hint {
    /// Reads a layer's annotations. `size` is the blob's.
    pub(super) fn of(annotations: &HashMap<String, String>, size: u64) -> Option<Hint> {
        if let Some(digest) = annotations.get(STARGZ_DIGEST) {
            return Some(Hint::Stargz(digest.parse().ok().filter(|_| size > FOOTER)?));
        }
        let of = |key| ZSTD.iter().find_map(|start| annotations.get(&format!("{start}{key}")));
        let digest = of("manifest-checksum")?.parse().ok()?;
        let mut numbers = of("manifest-position")?.split(':').map(|n| n.parse::<u64>().ok());
        let mut number = || numbers.next().flatten();
        let (from, len, text, kind) = (number()?, number()?, number()?, number()?);
        let end = from.checked_add(len).filter(|end| *end <= size)?;
        // Type 1 is the only one there is.
        (kind == 1 && len <= MAX_TABLE && text <= MAX_TEXT).then_some(Hint::Zstd(digest, from, end))
    }
}

/// A layer's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// In the archive's order.
    pub entries: Vec<Listed>,
    /// Whether chunks are Zstandard frames, not gzip members.
    pub zstd: bool,
}

impl Table {
    /// Files and chunks.
    pub fn len(&self) -> usize {
        self.entries.iter().map(|file| 1 + file.chunks.len()).sum()
    }
}

/// A file in a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub path: String,
    pub kind: ListedKind,
    /// Target of a link.
    pub link: String,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Length of a regular file in bytes.
    pub size: u64,
    pub dev: (u32, u32),
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// The contents of a regular file, all of them and in order.
    pub chunks: Vec<Chunk>,
}

/// What a file in a layer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ListedKind {
    #[default]
    Reg,
    Dir,
    Symlink,
    Hardlink,
    Char,
    Block,
    Fifo,
}

/// A part of a file's contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Its length in bytes.
    pub len: u64,
    /// Where in the blob it is compressed, from and to.
    pub from: u64,
    pub to: u64,
    /// Bytes to skip of what that unpacks to.
    pub skip: u64,
    /// What it must be; `None` for zeros, which are not in the blob.
    pub digest: Option<Digest>,
}

impl Chunk {
    /// Unpacks and checks the chunk; `bytes` are those of the blob from `from` on.
    ///
    /// # Errors
    /// If it is not what the table says.
    pub(crate) fn unpack(&self, zstd: bool, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain: Box<dyn Read + '_> = if zstd {
            Box::new(zstd::stream::read::Decoder::with_buffer(bytes)?.single_frame())
        } else {
            Box::new(flate2::bufread::GzDecoder::new(bytes))
        };
        io::copy(&mut (&mut plain).take(self.skip), &mut io::sink())?;
        let mut out = Vec::new();
        plain.take(self.len).read_to_end(&mut out)?;
        if out.len() as u64 != self.len || self.digest.is_some_and(|d| d != Digest::of(&out)) {
            return Err(io::Error::other("a part of it is not what its table of contents says"));
        }
        Ok(out)
    }
}

/// Where the table of an eStargz layer of `size` bytes starts, by its footer.
pub(super) fn stargz_place(footer: &[u8], size: u64) -> Option<u64> {
    // Header with extra data: its length, the subfield's name and length; an empty block and the
    // trailer follow.
    let is_ours = footer.len() as u64 == FOOTER
        && footer.starts_with(&[0x1f, 0x8b, 8, 4])
        && footer[12..16] == [b'S', b'G', 22, 0]
        && footer[32..38] == *b"STARGZ";
    let digits = std::str::from_utf8(footer.get(16..32)?).ok().filter(|_| is_ours)?;
    let at = u64::from_str_radix(digits, 16).ok()?;
    let end = size.checked_sub(FOOTER)?;
    (at < end && end - at <= MAX_TABLE).then_some(at)
}

/// Reads a table out of the bytes that hold it. `None` if it is not the one that the hint means, or
/// cannot be relied on for a blob of `size` bytes.
pub(super) fn read(hint: &Hint, bytes: &[u8], size: u64) -> Option<Table> {
    match hint {
        Hint::Stargz(digest) => {
            let plain = flate2::bufread::GzDecoder::new(bytes).take(MAX_TEXT);
            let mut archive = tar::Archive::new(plain);
            let mut entry = archive.entries().ok()?.next()?.ok()?;
            if entry.path().ok()?.as_os_str() != STARGZ_NAME {
                return None;
            }
            let mut text = Vec::new();
            entry.read_to_end(&mut text).ok()?;
            (Digest::of(&text) == *digest).then(|| parse(&text, false, size)).flatten()
        }
        Hint::Zstd(digest, ..) => {
            if Digest::of(bytes) != *digest {
                return None;
            }
            let plain = zstd::stream::read::Decoder::with_buffer(bytes).ok()?;
            let mut text = Vec::new();
            plain.take(MAX_TEXT).read_to_end(&mut text).ok()?;
            parse(&text, true, size)
        }
    }
}

#[derive(Deserialize)]
struct RawTable {
    version: u32,
    entries: Vec<Raw>,
}

/// An entry as it is written: a file, or a further chunk of the one before it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    r#type: String,
    name: String,
    link_name: String,
    mode: u64,
    uid: u32,
    gid: u32,
    size: u64,
    dev_major: u32,
    dev_minor: u32,
    xattrs: BTreeMap<String, String>,
    digest: String,
    offset: u64,
    end_offset: u64,
    inner_offset: u64,
    chunk_offset: u64,
    chunk_size: u64,
    chunk_digest: String,
    chunk_type: String,
}

/// Reads a table's text; `None` if anything in it cannot be relied on.
pub(crate) fn parse(text: &[u8], zstd: bool, size: u64) -> Option<Table> {
    let raw: RawTable = serde_json::from_slice(text).ok()?;
    if raw.version != 1 {
        return None;
    }
    // A chunk goes on to where the next thing in the blob begins.
    let mut starts: Vec<u64> =
        raw.entries.iter().flat_map(|e| [e.offset, e.end_offset]).chain([size]).collect();
    starts.sort_unstable();
    starts.dedup();
    let after = |at: u64| starts.get(starts.partition_point(|start| *start <= at)).copied();
    let mut table = Table { entries: Vec::new(), zstd };
    // Bytes of the last file that its chunks have so far.
    let mut have = 0;
    for entry in &raw.entries {
        if entry.r#type != "chunk" {
            if table.entries.last().is_some_and(|file| file.size != have) {
                return None;
            }
            table.entries.push(listed(entry)?);
            have = 0;
        }
        let file = table.entries.last_mut()?;
        if have == file.size {
            // Nothing has no chunk; one too many is a contradiction.
            if entry.r#type == "chunk" {
                return None;
            }
            continue;
        }
        let left = file.size.checked_sub(have)?;
        let len = if entry.chunk_size == 0 { left } else { entry.chunk_size };
        let in_order = entry.chunk_offset == have && len <= left;
        let zeros = entry.chunk_type == "zeros";
        let whole = len == file.size;
        let digest = match (zeros, entry.chunk_digest.as_str(), entry.digest.as_str()) {
            (true, ..) => None,
            (_, "", all) if whole => Some(all.parse().ok()?),
            (_, chunk, _) => Some(chunk.parse().ok()?),
        };
        let (from, to) = if zeros { (0, 0) } else { (entry.offset, after(entry.offset)?) };
        let fits = to <= size && to - from <= MAX_CHUNK && (zeros || len <= MAX_CHUNK);
        if !in_order || !fits || entry.inner_offset > MAX_CHUNK {
            return None;
        }
        file.chunks.push(Chunk { len, from, to, skip: entry.inner_offset, digest });
        have += len;
    }
    table.entries.last().is_none_or(|file| file.size == have).then_some(table)
}

fn listed(raw: &Raw) -> Option<Listed> {
    let kind = ListedKind::deserialize(
        serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&raw.r#type),
    )
    .ok()?;
    let decode = |value: &String| base64::engine::general_purpose::STANDARD.decode(value).ok();
    let xattrs = raw.xattrs.iter().map(|(name, value)| Some((name.clone(), decode(value)?)));
    let xattrs = xattrs.collect::<Option<Vec<_>>>()?;
    if raw.name.contains('\0') || raw.link_name.contains('\0') {
        return None;
    }
    Some(Listed {
        path: raw.name.clone(),
        kind,
        link: raw.link_name.clone(),
        // Twelve bits.
        mode: (raw.mode & 0o7777) as u16,
        uid: raw.uid,
        gid: raw.gid,
        size: if kind == ListedKind::Reg { raw.size } else { 0 },
        dev: (raw.dev_major, raw.dev_minor),
        xattrs,
        chunks: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &str) -> Option<Table> {
        parse(format!(r#"{{"version":1,"entries":[{entries}]}}"#).as_bytes(), false, 10_000)
    }

    #[test]
    fn files_have_all_their_chunks_or_the_table_is_none() {
        let digest = Digest::of(b"x");
        let good = format!(
            r#"{{"type":"dir","name":"a/","mode":493}},
            {{"type":"reg","name":"a/b","size":9,"mode":33261,"offset":100,"chunkSize":5,
              "chunkDigest":"{digest}","xattrs":{{"user.k":"AAE="}}}},
            {{"type":"chunk","name":"a/b","offset":200,"chunkOffset":5,"chunkSize":4,
              "chunkDigest":"{digest}"}},
            {{"type":"reg","name":"empty","size":0}},
            {{"type":"reg","name":"c","size":3,"offset":300,"digest":"{digest}"}},
            {{"type":"symlink","name":"l","linkName":"c","size":77}}"#
        );
        let read = table(&good).unwrap();
        let chunk = |len, from, to| Chunk { len, from, to, skip: 0, digest: Some(digest) };
        assert_eq!(read.entries[1].chunks, [chunk(5, 100, 200), chunk(4, 200, 300)]);
        assert_eq!(read.entries[1].xattrs, [("user.k".to_owned(), vec![0, 1])]);
        assert_eq!(read.entries[1].mode, 0o755);
        assert_eq!(read.entries[3].chunks, [chunk(3, 300, 10_000)]);
        assert_eq!((read.entries[4].size, read.entries[4].link.as_str()), (0, "c"));
        for (what, wrong) in [
            ("\"chunkOffset\":5", "\"chunkOffset\":4"),
            ("\"chunkSize\":4", "\"chunkSize\":5"),
            ("\"chunkSize\":4", "\"chunkSize\":3"),
            ("\"offset\":300", "\"offset\":10000"),
            ("\"size\":0", "\"size\":1"),
            ("\"type\":\"dir\"", "\"type\":\"door\""),
            ("AAE=", "?"),
            (&format!("\"digest\":\"{digest}\""), "\"digest\":\"\""),
        ] {
            assert!(good.contains(what));
            assert_eq!(table(&good.replacen(what, wrong, 1)), None, "{what} {wrong}");
        }
    }

    #[test]
    fn annotations_name_tables() {
        let digest = Digest::of(b"x");
        let hint = |pairs: &[(&str, String)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
            Hint::of(&pairs.collect(), 1000)
        };
        assert_eq!(hint(&[(STARGZ_DIGEST, digest.to_string())]), Some(Hint::Stargz(digest)));
        let at = |place: &str| {
            let keys = ZSTD.map(|start| format!("{start}manifest-checksum"));
            hint(&[
                (&keys[place.len() % 2], digest.to_string()),
                (&format!("{}manifest-position", ZSTD[0]), place.to_owned()),
            ])
        };
        assert_eq!(at("100:50:900:1"), Some(Hint::Zstd(digest, 100, 150)));
        for wrong in ["100:950:9000:1", "100:50:900:2", "100:50", "18446744073709551615:1:1:1"] {
            assert_eq!(at(wrong), None, "{wrong}");
        }
        assert_eq!(hint(&[(STARGZ_DIGEST, "sha256:1".to_owned())]), None);
    }

    #[test]
    fn footers_name_places() {
        let mut footer = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x1a\0SG\x16\0".to_vec();
        footer.extend_from_slice(b"00000000000001f4STARGZ\x01\0\0\xff\xff\0\0\0\0\0\0\0\0");
        assert_eq!(footer.len() as u64, FOOTER);
        assert_eq!(stargz_place(&footer, 1000), Some(500));
        assert_eq!(stargz_place(&footer, 540), None);
        assert_eq!(stargz_place(&footer[1..], 1000), None);
        footer[20] = b'g';
        assert_eq!(stargz_place(&footer, 1000), None);
    }

    #[test]
    fn chunks_are_checked() {
        let zipped = zstd::encode_all(&b"skipcontents and more"[..], 3).unwrap();
        let digest = Some(Digest::of(b"contents"));
        let chunk = Chunk { len: 8, from: 0, to: 0, skip: 4, digest };
        assert_eq!(chunk.unpack(true, &zipped).unwrap(), b"contents");
        assert!(chunk.unpack(false, &zipped).is_err());
        assert!(Chunk { skip: 5, ..chunk }.unpack(true, &zipped).is_err());
        assert!(Chunk { len: 50, ..chunk }.unpack(true, &zipped).is_err());
    }
}
