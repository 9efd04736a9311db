//! Layers in eStargz (stargz-snapshotter, `docs/estargz.md`): every file's contents are gzip members of
//! their own, and a table of contents says where.

use std::io::Write as _;

use dock2uni::source::image::Digest;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use super::layout::tar;

/// Contents above this are cut into several chunks.
const CHUNK: usize = 100_000;

/// A blob in eStargz, and what the manifest and the configuration say of it.
pub struct Stargz {
    /// The blob.
    pub blob: Vec<u8>,
    /// Digest of the inflated stream.
    pub diff_id: Digest,
    /// Digest of the table.
    pub toc: Digest,
    /// The table.
    pub table: Value,
}

fn member(out: &mut Vec<u8>, bytes: &[u8]) -> usize {
    let at = out.len();
    let mut gzip = GzBuilder::new().write(&mut *out, Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap();
    at
}

/// Makes a layer of regular files. The table's entries go through `change` first.
pub fn stargz(files: &[(&str, &[u8])], change: impl FnOnce(&mut Value)) -> Stargz {
    let (mut blob, mut plain, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for (name, content) in files {
        let archive = tar(&[(name, content)]);
        let (header, rest) = archive.split_at(512);
        member(&mut blob, header);
        let mut entry = json!({
            "name": name, "type": "reg", "size": content.len(), "mode": 0o755,
            "modtime": "2024-01-01T00:00:00Z", "digest": Digest::of(content).to_string(),
        });
        for (number, chunk) in content.chunks(CHUNK).enumerate() {
            let at = member(&mut blob, chunk);
            let digest = Digest::of(chunk).to_string();
            if number > 0 {
                entries.push(entry);
                entry = json!({ "name": name, "type": "chunk", "chunkOffset": number * CHUNK });
            }
            entry["offset"] = json!(at);
            entry["chunkDigest"] = json!(digest);
            if content.len() > CHUNK {
                entry["chunkSize"] = json!(chunk.len());
            }
        }
        entries.push(entry);
        let padding = content.len().next_multiple_of(512) - content.len();
        member(&mut blob, &rest[content.len()..content.len() + padding]);
        plain.extend_from_slice(&archive[..512 + content.len() + padding]);
    }
    let mut table = json!({ "version": 1, "entries": entries });
    change(&mut table);
    let text = table.to_string().into_bytes();
    // The table is a file of the archive, too, and the archive's last one.
    let last = tar(&[("stargz.index.json", &text)]);
    let toc_at = member(&mut blob, &last);
    plain.extend_from_slice(&last);
    let extra = format!("SG\u{16}\0{toc_at:016x}STARGZ").into_bytes();
    let footer_at = blob.len();
    let gzip = GzBuilder::new().extra(extra).write(&mut blob, Compression::none());
    gzip.finish().unwrap();
    assert_eq!(blob.len() - footer_at, 51);
    Stargz { blob, diff_id: Digest::of(&plain), toc: Digest::of(&text), table }
}
