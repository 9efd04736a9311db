//! COPY and ADD as instructions: sources of every kind, the cache, the layer.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ast::{Copy, Lines, Source};
use super::cache::{self, Key};
use super::copy::{Change, Chosen, Placing, choose, fingerprint};
use super::error::Error;
use super::exec::{Fail, Origin, Worker};
use super::image::absolute;
use super::index::{Index, Kind, Meta};
use super::layer;
use super::mode::Chmod;
use super::pattern::Rules;
use super::remote;
use super::tree::{Data, NodeId, Tree};
use super::words;
use crate::source::digest::Hasher;
use crate::source::{Compression, Layer};

/// Most bytes that an archive of ADD may hold.
const MAX_ARCHIVE: u64 = 256 << 30;

/// A tree that sources are in, and what they are there.
struct Offer {
    tree: Arc<Tree>,
    /// What was written.
    text: String,
    /// What is taken: a name or pattern, or one node.
    take: Take,
    /// Whether owners count: not those of the build context.
    unpacked: bool,
}

enum Take {
    Named(String),
    Node(NodeId, String),
}

impl Worker<'_, '_> {
    /// `COPY` and `ADD`.
    pub fn copy(&mut self, copy: &Copy, add: bool, text: &str, lines: &Lines) -> Result<(), Fail> {
        let title = self.title(text);
        let step = self.builder.log.step(&title);
        let done = self.copy_step(copy, add, text, lines);
        match &done {
            Ok(true) => step.cached(),
            Ok(false) => step.done(),
            Err(fail) => step.failed(&describe(fail)),
        }
        done.map(drop)
    }

    /// Whether it was in the cache.
    fn copy_step(
        &mut self,
        copy: &Copy,
        add: bool,
        text: &str,
        lines: &Lines,
    ) -> Result<bool, Fail> {
        let dest = self.destination(copy)?;
        let chown = copy.chown.as_deref().map(|text| self.expand(text)).transpose()?;
        let chmod = copy.chmod.as_deref().map(|text| self.expand(text)).transpose()?;
        let mode = chmod.as_deref().map(Chmod::parse).transpose()?;
        let mut exclude = Vec::new();
        for pattern in &copy.exclude {
            exclude.push(self.expand(pattern)?);
        }
        let rules = Rules::new(exclude.iter().map(String::as_str))?;
        let offers = self.offers(copy, add, lines)?;
        let mut chosen = Vec::new();
        for offer in &offers {
            match &offer.take {
                Take::Named(name) => chosen.extend(choose(&offer.tree, name, copy.parents)?),
                Take::Node(node, name) => chosen.push(Chosen {
                    tree: &offer.tree,
                    node: *node,
                    name: name.clone().into_bytes(),
                    parents: Vec::new(),
                    unpacked: offer.unpacked,
                }),
            }
        }
        let unpack = copy.unpack.unwrap_or(add);
        let mut archives = Vec::new();
        if unpack && add {
            for (at, one) in chosen.iter().enumerate() {
                let remote = offers.iter().any(|offer| {
                    std::ptr::eq(offer.tree.as_ref(), one.tree) && remote::is_remote(&offer.text)
                });
                if (!remote || copy.unpack == Some(true))
                    && let Some(tree) = self.unpack(one)?
                {
                    archives.push((at, tree));
                }
            }
        }
        for (at, tree) in &archives {
            let name = std::mem::take(&mut chosen[*at].name);
            chosen[*at] =
                Chosen { tree, node: Tree::ROOT, name, parents: Vec::new(), unpacked: true };
        }

        let mut key = Key::new("copy");
        if !copy.link {
            key.layers(self.layers.iter().map(Arc::as_ref));
        } else if let Some(chown) = &chown
            && chown.contains(|c: char| c.is_ascii_alphabetic())
        {
            // Names mean what the layers below say.
            let (uid, gid) = self.owner(chown)?;
            key.text(&format!("{uid}:{gid}"));
        }
        key.texts([
            dest.as_str(),
            chown.as_deref().unwrap_or("-"),
            chmod.as_deref().unwrap_or("-"),
        ]);
        key.text(&self.builder.options.epoch.to_string());
        for one in &chosen {
            key.text(if one.unpacked { "unpacked" } else { "copied" });
            fingerprint(one, &rules, key.hasher())?;
        }
        let key = key.finish();
        if let Some(layer) = self.cached(&key) {
            self.push(layer, text)?;
            return Ok(true);
        }
        let owner = chown.map(|text| self.owner(&text)).transpose()?;
        let change = Change { chown: owner, chmod: mode, time: (self.builder.options.epoch, 0) };
        let tree = if copy.link { None } else { Some(self.tree()?) };
        let mut placing = Placing::new(tree.as_deref(), change);
        for one in &chosen {
            placing.copy(one, &dest, &rules)?;
        }
        let layer = layer::write(self.builder.store, &placing.into_items())?;
        cache::remember(&self.builder.shop, &key, &layer)?;
        self.push(layer, text)?;
        Ok(false)
    }

    /// The absolute destination, a slash at its end if it is to be a directory.
    fn destination(&self, copy: &Copy) -> Result<String, Fail> {
        let dest = self.expand(&copy.dest)?;
        let directory =
            dest.is_empty() || dest == "." || dest.ends_with('/') || dest.ends_with("/.");
        let mut path = absolute(&self.config.workdir(), &dest);
        if directory && path != "/" {
            path.push('/');
        }
        if copy.sources.len() > 1 && !path.ends_with('/') {
            return Err(Fail::Words(format!(
                "several sources need a directory to go to: write `{dest}/`"
            )));
        }
        Ok(path)
    }

    /// Finds where each source is.
    fn offers(&mut self, copy: &Copy, add: bool, lines: &Lines) -> Result<Vec<Offer>, Fail> {
        let origin = match &copy.from {
            None => Origin::Context,
            Some(name) => {
                let origin = self.builder.origin(name, self.index);
                self.check_origin(name, &origin)?;
                origin
            }
        };
        let single = copy.sources.len() == 1;
        let mut offers = Vec::new();
        let mut inline = Vec::new();
        for source in &copy.sources {
            let path = match source {
                Source::Heredoc(heredoc) => {
                    let content = if heredoc.expand {
                        words::expand_text(&heredoc.content, self)?
                    } else {
                        heredoc.content.clone()
                    };
                    let name = self.expand(&heredoc.name)?;
                    inline.push(single_file(
                        &name,
                        Meta::file(0o644, content.len() as u64, (self.builder.options.epoch, 0)),
                        Data::Bytes(content.into_bytes().into()),
                    )?);
                    continue;
                }
                Source::Path(path) => self.expand(path)?,
            };
            if path.is_empty() {
                return Err(Fail::Words("a source is empty".into()));
            }
            if !remote::is_remote(&path) {
                if copy.checksum.is_some() {
                    return Err(Fail::Words("`--checksum` is for addresses".into()));
                }
                let place = || self.place(lines);
                let tree = self.builder.tree(&origin, &place)?;
                let take = Take::Named(path.clone());
                offers.push(Offer { tree, text: path, take, unpacked: false });
                continue;
            }
            if !add {
                return Err(Fail::Hinted(
                    format!("COPY takes no addresses: `{path}`"),
                    "use ADD".into(),
                ));
            }
            if copy.checksum.is_some() && !single {
                return Err(Fail::Words("`--checksum` is for a single source".into()));
            }
            let checksum = copy.checksum.as_deref().map(|text| self.expand(text)).transpose()?;
            offers.push(self.fetch(path, checksum.as_deref(), copy)?);
        }
        offers.extend(inline);
        Ok(offers)
    }

    /// Brings in what an address names.
    fn fetch(&self, path: String, checksum: Option<&str>, copy: &Copy) -> Result<Offer, Fail> {
        if remote::is_git(&path) {
            let tree = remote::git(self.builder, &path, checksum, copy.keep_git_dir)?;
            let take = Take::Node(Tree::ROOT, String::new());
            return Ok(Offer { tree: Arc::new(tree), text: path, take, unpacked: false });
        }
        let file = remote::download(self.builder, &path, checksum)?;
        let mut offer = single_file(&file.name, file.meta, file.data)?;
        offer.text = path;
        Ok(offer)
    }

    /// A stage may be named by number, and then it must be there.
    pub fn check_origin(&self, name: &str, origin: &Origin) -> Result<(), Fail> {
        let own = self.builder.file.stages[self.index].name.as_deref();
        let itself = own.is_some_and(|own| own.eq_ignore_ascii_case(name));
        if matches!(origin, Origin::Image(_)) && (itself || name.parse::<usize>().is_ok()) {
            return Err(Fail::Hinted(
                format!("there is no stage `{name}` before this one"),
                "name one of the stages above, or an image".into(),
            ));
        }
        Ok(())
    }

    /// The files of an archive; `None` if it is none.
    fn unpack(&self, chosen: &Chosen<'_>) -> Result<Option<Tree>, Fail> {
        let file = chosen.tree.file(chosen.node);
        if file.meta.kind != Kind::File || file.meta.size == 0 {
            return Ok(None);
        }
        // Data of layers is brought to a file first; it is rare that ADD reads any.
        let (host, shown): (File, PathBuf) = match &file.data {
            Data::Host { root, name, path } => {
                use std::os::unix::ffi::OsStrExt;
                let shown = name.join(Path::new(std::ffi::OsStr::from_bytes(path)));
                let opened = layer::open_beneath(root, path);
                (opened.map_err(|error| Error::io("open", &shown, error))?, shown)
            }
            _ => return Ok(None),
        };
        let fail = |error| Error::io("unpack", &shown, error);
        let Some(mut plain) = decompressed(host).map_err(fail)? else { return Ok(None) };
        if !is_tar(&mut plain).map_err(fail)? {
            return Ok(None);
        }
        let path = self.builder.shop.fresh("archive");
        let mut out = File::create(&path).map_err(|error| Error::io("create", &path, error))?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            self.builder.cancel.check()?;
            let got = match plain.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(fail(error).into()),
            };
            hasher.update(&buffer[..got]);
            if hasher.len() > MAX_ARCHIVE {
                return Err(Fail::Words(format!(
                    "the archive holds more than {MAX_ARCHIVE} bytes"
                )));
            }
            out.write_all(&buffer[..got]).map_err(|error| Error::io("write", &path, error))?;
        }
        let size = hasher.len();
        let digest = hasher.finish();
        let compression = Compression::None;
        let layer = Arc::new(Layer { digest, size, diff_id: digest, compression, path });
        let archive = Index::read(&layer)?;
        let mut tree = Tree::default();
        tree.apply(&archive, &layer).map_err(|(path, fault)| {
            Fail::Words(format!(
                "the archive `{}` holds `{}`: {fault}",
                shown.display(),
                crate::rootfs::error::show(&path)
            ))
        })?;
        Ok(Some(tree))
    }
}

/// What a failure says, for the progress.
pub fn describe(fail: &Fail) -> String {
    match fail {
        Fail::Words(words) | Fail::Hinted(words, _) => words.clone(),
        Fail::Whole(error) => error.to_string(),
    }
}

/// A tree of one file.
fn single_file(name: &str, meta: Meta, data: Data) -> Result<Offer, Fail> {
    if name.is_empty() || name.contains('/') || matches!(name, "." | "..") || name.len() > 255 {
        return Err(Fail::Words(format!("`{name}` can't be the name of a file")));
    }
    let mut tree = Tree::default();
    let node = tree.put(Tree::ROOT, name.as_bytes(), meta, data);
    let take = Take::Node(node, name.to_owned());
    Ok(Offer { tree: Arc::new(tree), text: name.to_owned(), take, unpacked: false })
}

/// The stream without its compression, whichever of those that ADD knows; `None` never, unless
/// the stream ends in its first bytes.
fn decompressed(file: File) -> io::Result<Option<BufReader<Box<dyn Read>>>> {
    let mut file = BufReader::with_capacity(64 << 10, file);
    let head = file.fill_buf()?.to_vec();
    let reader: Box<dyn Read> = if head.starts_with(b"BZh") {
        Box::new(bzip2::bufread::MultiBzDecoder::new(file))
    } else if head.starts_with(b"\xfd7zXZ\0") {
        Box::new(lzma_rust2::XzReader::new(file, true))
    } else {
        match Compression::detect(&head) {
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
            Compression::None => Box::new(file),
        }
    };
    Ok(Some(BufReader::with_capacity(64 << 10, reader)))
}

/// Whether a stream starts with the header of a tar archive.
fn is_tar(reader: &mut BufReader<Box<dyn Read>>) -> io::Result<bool> {
    let mut head = Vec::new();
    match reader.by_ref().take(512).read_to_end(&mut head) {
        Ok(_) => {}
        // What only looks compressed is copied as it is.
        Err(error) if error.kind() != io::ErrorKind::Interrupted => return Ok(false),
        Err(error) => return Err(error),
    }
    let valid = head.len() == 512 && {
        let header = tar::Header::from_byte_slice(&head);
        let mut bytes = *header.as_bytes();
        bytes[148..156].fill(b' ');
        let sum: u32 = bytes.iter().map(|&b| u32::from(b)).sum();
        header.cksum().is_ok_and(|stored| stored == sum) && bytes[0] != 0
    };
    // The bytes go back in front.
    let rest = std::mem::replace(reader, BufReader::new(Box::new(io::empty())));
    *reader = BufReader::with_capacity(64 << 10, Box::new(io::Cursor::new(head).chain(rest)));
    Ok(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            File::open(path).unwrap()
        };
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(1);
        header.set_mode(0o644);
        builder.append_data(&mut header, "x", &b"y"[..]).unwrap();
        let tar = builder.into_inner().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        bz.write_all(&tar).unwrap();
        let found = |file| {
            let mut plain = decompressed(file).unwrap().unwrap();
            let is = is_tar(&mut plain).unwrap();
            let mut all = Vec::new();
            // A broken stream has no more.
            let _ = plain.read_to_end(&mut all);
            (is, all)
        };
        assert_eq!(found(write("a", &tar)), (true, tar.clone()));
        assert_eq!(found(write("b", &gzip.finish().unwrap())), (true, tar.clone()));
        assert_eq!(found(write("c", &bz.finish().unwrap())), (true, tar.clone()));
        assert_eq!(found(write("d", &zstd::encode_all(&tar[..], 1).unwrap())), (true, tar.clone()));
        assert!(!found(write("e", b"plain text")).0);
        assert!(!found(write("f", b"\x1f\x8bnot really")).0);
        assert!(!found(write("g", &[0; 1024])).0);
    }
}
