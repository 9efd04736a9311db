//! What instances say: a file for each, of lines with their times.
//!
//! A file that has grown to [`MAX_BYTES`] is put aside as `.1`, in place of the one before.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::inotify;

/// Size at which a file is put aside.
const MAX_BYTES: u64 = 16 << 20;
/// Longest line that is kept together.
const MAX_LINE: usize = 64 << 10;
const SUFFIX: &str = ".log";

/// Writes what one instance says.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    size: u64,
    /// What has no end yet.
    line: Vec<u8>,
}

impl Writer {
    /// Goes on where the file ends.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(dir: &Path, instance: &str) -> io::Result<Writer> {
        let path = dir.join(format!("{instance}{SUFFIX}"));
        let file = File::options().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Writer { path, file, size, line: Vec::new() })
    }

    fn end_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let mut out = millis().to_string().into_bytes();
        out.push(b' ');
        out.extend(line.strip_suffix(b"\r").unwrap_or(&line));
        out.push(b'\n');
        if self.size + out.len() as u64 > MAX_BYTES {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = File::options().create(true).append(true).open(&self.path)?;
            self.size = 0;
        }
        self.file.write_all(&out)?;
        self.size += out.len() as u64;
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            if byte == b'\n' {
                self.end_line()?;
                continue;
            }
            self.line.push(byte);
            if self.line.len() >= MAX_LINE {
                self.end_line()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // There is no one left to tell.
            let _ = self.end_line();
        }
    }
}

/// Milliseconds since 1970.
pub fn millis() -> u64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// One line of one instance.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Milliseconds since 1970.
    pub time: u64,
    /// Who said it.
    pub instance: String,
    /// What.
    pub text: String,
}

/// Reads the logs of a fleet.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    /// The services or instances that are wanted; all if empty.
    wanted: Vec<String>,
    /// Where reading goes on, by instance.
    at: BTreeMap<String, u64>,
}

impl Reader {
    /// Of the directory that logs are in. An instance is wanted by its name or its service's.
    pub fn new(dir: &Path, wanted: &[String]) -> Reader {
        Reader { dir: dir.to_owned(), wanted: wanted.to_vec(), at: BTreeMap::new() }
    }

    /// The last `tail` lines of each instance, in the order of their times.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn tail(&mut self, tail: usize) -> io::Result<Vec<Line>> {
        let mut all = Vec::new();
        for instance in self.instances()? {
            let mut lines = Vec::new();
            let old = self.dir.join(format!("{instance}{SUFFIX}.1"));
            if old.exists() {
                read(&mut File::open(&old)?, &instance, &mut lines)?;
            }
            let mut file = self.file(&instance)?;
            let read = read(&mut file, &instance, &mut lines)?;
            self.at.insert(instance, read);
            all.extend(lines.split_off(lines.len().saturating_sub(tail)));
        }
        all.sort_by_key(|line: &Line| line.time);
        Ok(all)
    }

    /// What has come since the last call.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn more(&mut self) -> io::Result<Vec<Line>> {
        let mut all = Vec::new();
        for instance in self.instances()? {
            let mut file = self.file(&instance)?;
            let mut at = self.at.get(&instance).copied().unwrap_or(0);
            if file.metadata()?.len() < at {
                // It was put aside with what had not been read yet.
                let old = self.dir.join(format!("{instance}{SUFFIX}.1"));
                if let Ok(mut old) = File::open(old) {
                    old.seek(SeekFrom::Start(at))?;
                    read(&mut old, &instance, &mut all)?;
                }
                at = 0;
            }
            file.seek(SeekFrom::Start(at))?;
            at += read(&mut file, &instance, &mut all)?;
            self.at.insert(instance, at);
        }
        all.sort_by_key(|line: &Line| line.time);
        Ok(all)
    }

    fn file(&self, instance: &str) -> io::Result<File> {
        File::open(self.dir.join(format!("{instance}{SUFFIX}")))
    }

    fn instances(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let Some(name) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else {
                continue;
            };
            let service = name.rsplit_once('-').map_or(name, |(service, _)| service);
            let asked = |wanted: &String| wanted == name || wanted == service;
            if self.wanted.is_empty() || self.wanted.iter().any(asked) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }
}

/// Reads whole lines, and returns how many bytes they are.
fn read(file: &mut File, instance: &str, lines: &mut Vec<Line>) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut line, mut total) = (Vec::new(), 0);
    loop {
        line.clear();
        let limit = MAX_LINE as u64 + 64;
        let len = reader.by_ref().take(limit).read_until(b'\n', &mut line)?;
        if len == 0 || line.last() != Some(&b'\n') {
            return Ok(total);
        }
        total += len as u64;
        let text = String::from_utf8_lossy(&line[..len - 1]);
        let (time, text) = text.split_once(' ').unwrap_or(("0", &text));
        lines.push(Line {
            time: time.parse().unwrap_or(0),
            instance: instance.to_owned(),
            text: text.to_owned(),
        });
    }
}

/// Waits for something to change in a directory.
#[derive(Debug)]
pub struct Watch(std::os::fd::OwnedFd);

impl Watch {
    /// Watches from now on.
    ///
    /// # Errors
    /// If the system has no more watches.
    pub fn new(dir: &Path) -> io::Result<Watch> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC)?;
        let what = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_FROM;
        inotify::add_watch(&watch, dir, what)?;
        Ok(Watch(watch))
    }

    /// Returns when something has changed since the last call.
    ///
    /// # Errors
    /// If the watch cannot be read.
    pub fn wait(&self) -> io::Result<()> {
        // What has changed is found out by reading the logs.
        let mut events = [0; 4096];
        match rustix::io::read(&self.0, &mut events) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A time as RFC 3339 writes it.
pub fn rfc3339(millis: u64) -> String {
    let (seconds, rest) = (millis / 1000, millis % 1000);
    let (mut days, second) = (seconds / 86_400, seconds % 86_400);
    let leap =
        |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let (month, day, second) = (month + 1, days + 1, second % 60);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{rest:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_the_order_of_their_times_and_as_they_come() {
        let dir = tempfile::tempdir().unwrap();
        let mut web = Writer::open(dir.path(), "web-1").unwrap();
        let mut db = Writer::open(dir.path(), "db-1").unwrap();
        web.write_all(b"one\r\ntwo\nthr").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(3));
        db.write_all(b"started\n").unwrap();
        let mut all = Reader::new(dir.path(), &[]);
        let texts = |lines: Vec<Line>| -> Vec<(String, String)> {
            lines.into_iter().map(|line| (line.instance, line.text)).collect()
        };
        let pair = |instance: &str, text: &str| (instance.to_owned(), text.to_owned());
        assert_eq!(texts(all.tail(1).unwrap()), [pair("web-1", "two"), pair("db-1", "started")]);
        assert!(all.more().unwrap().is_empty());
        let watch = Watch::new(dir.path()).unwrap();
        web.write_all(b"ee\n").unwrap();
        watch.wait().unwrap();
        assert_eq!(texts(all.more().unwrap()), [pair("web-1", "three")]);
        let mut one = Reader::new(dir.path(), &["db".to_owned()]);
        assert_eq!(one.tail(10).unwrap().len(), 1);
        web.write_all(b"unended").unwrap();
        drop(web);
        assert_eq!(texts(all.more().unwrap()), [pair("web-1", "unended")]);
    }

    #[test]
    fn a_file_that_has_grown_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let mut web = Writer::open(dir.path(), "web-1").unwrap();
        let mut reader = Reader::new(dir.path(), &[]);
        let line = [b'x'; 60_000];
        let mut count = 0;
        for round in 0..300 {
            web.write_all(&line).unwrap();
            web.write_all(b"\n").unwrap();
            if round % 50 == 49 {
                count += reader.more().unwrap().len();
            }
        }
        assert_eq!(count, 300);
        assert!(dir.path().join("web-1.log.1").exists());
        assert!(dir.path().join("web-1.log").metadata().unwrap().len() < MAX_BYTES);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_827_696_789), "2000-02-29T12:34:56.789Z");
        assert_eq!(rfc3339(1_798_761_599_999), "2026-12-31T23:59:59.999Z");
    }
}
