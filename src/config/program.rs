//! Finds the program that will run, and sees before any boot whether it can.

use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PT_INTERP};
use elf::{endian::LittleEndian, file::Class};

use super::{Error, Files, env};

/// Bytes of a file that are looked at: what Linux reads before it decides (BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// How many `#!` interpreters may name one another, as in Linux.
const MAX_SCRIPTS: usize = 4;
/// A PT_INTERP path longer than PATH_MAX is refused by Linux.
const PATH_MAX: u64 = 4096;

/// Checks that `argv[0]` can be executed: it is there, may be run, is for this architecture, and
/// so are its interpreters.
pub fn check(
    argv: &[Vec<u8>],
    environment: &[Vec<u8>],
    cwd: &[u8],
    files: &dyn Files,
) -> Result<(), Error> {
    let Some(name) = argv.first() else { return Err(Error::NoCommand) };
    let mut path = find(name, environment, cwd, files)?;
    for _ in 0..=MAX_SCRIPTS {
        let head = files.read(&path, 0, HEAD)?.unwrap_or_default();
        let Some(line) = head.strip_prefix(b"#!") else {
            return binary(&path, &head, cwd, files);
        };
        let interpreter = interpreter(line).ok_or_else(|| Error::NotAProgram(text(&path)))?;
        let interpreter = join(cwd, &interpreter);
        require(&interpreter, files, |what| Error::Interpreter {
            program: text(&path),
            interpreter: text(&interpreter),
            what,
        })?;
        path = interpreter;
    }
    Err(Error::TooManyInterpreters(text(&path)))
}

/// Resolves a program name as `execvp` does, and as Docker does before it starts a container.
fn find(
    name: &[u8],
    environment: &[Vec<u8>],
    cwd: &[u8],
    files: &dyn Files,
) -> Result<Vec<u8>, Error> {
    if name.contains(&b'/') {
        let path = join(cwd, name);
        let refuse = |what| Error::Program { program: text(name), what };
        require(&path, files, refuse)?;
        return Ok(path);
    }
    let search = env::get(environment, b"PATH").unwrap_or_default();
    for dir in search.split(|byte| *byte == b':').filter(|_| !name.is_empty()) {
        let path = join(&join(cwd, dir), name);
        if files.stat(&path)?.is_some_and(|stat| stat.is_file() && stat.mode & 0o111 != 0) {
            return Ok(path);
        }
    }
    Err(Error::NotInPath { program: text(name), search: text(search) })
}

fn require(
    path: &[u8],
    files: &dyn Files,
    refuse: impl FnOnce(&'static str) -> Error,
) -> Result<(), Error> {
    match files.stat(path)? {
        None => Err(refuse("is not in the image")),
        Some(stat) if stat.is_dir() => Err(refuse("is a directory")),
        Some(stat) if !stat.is_file() => Err(refuse("is not a regular file")),
        Some(stat) if stat.mode & 0o111 == 0 => Err(refuse("is not executable")),
        Some(_) => Ok(()),
    }
}

/// The interpreter of a `#!` line.
fn interpreter(line: &[u8]) -> Option<Vec<u8>> {
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let word = line.split(|byte| *byte == b' ' || *byte == b'\t').next()?;
    (!word.is_empty()).then(|| word.to_vec())
}

fn binary(path: &[u8], head: &[u8], cwd: &[u8], files: &dyn Files) -> Result<(), Error> {
    let Some(interpreter) = elf_interpreter(path, head, files)? else { return Ok(()) };
    let interpreter = join(cwd, &interpreter);
    require(&interpreter, files, |what| Error::Interpreter {
        program: text(path),
        interpreter: text(&interpreter),
        what,
    })?;
    let head = files.read(&interpreter, 0, HEAD)?.unwrap_or_default();
    elf_interpreter(&interpreter, &head, files).map(drop)
}

/// Checks an ELF header and returns the path in PT_INTERP, if there is one.
fn elf_interpreter(path: &[u8], head: &[u8], files: &dyn Files) -> Result<Option<Vec<u8>>, Error> {
    let not_a_program = || Error::NotAProgram(text(path));
    let malformed = |_| Error::MalformedElf(text(path));
    // The parser takes an identification of this length for granted.
    if !head.starts_with(b"\x7fELF") || head.len() < elf::abi::EI_NIDENT {
        return Err(not_a_program());
    }
    let ident = elf::file::parse_ident::<elf::endian::AnyEndian>(head).map_err(malformed)?;
    let tail = head.get(elf::abi::EI_NIDENT..).ok_or_else(not_a_program)?;
    let header = elf::file::FileHeader::parse_tail(ident, tail).map_err(malformed)?;
    if header.e_machine != EM_X86_64 || header.class != Class::ELF64 {
        let machine = elf::to_str::e_machine_to_human_str(header.e_machine)
            .map_or_else(|| format!("machine {}", header.e_machine), str::to_owned);
        let bits = if header.class == Class::ELF64 { 64 } else { 32 };
        return Err(Error::Machine {
            program: text(path),
            machine: format!("{machine}, {bits} bit"),
        });
    }
    if header.e_type != ET_EXEC && header.e_type != ET_DYN {
        return Err(not_a_program());
    }
    // Linux refuses program headers beyond one page as well.
    let len = usize::from(header.e_phnum) * usize::from(header.e_phentsize);
    if header.e_phentsize != 56 || len > 4096 {
        return Err(Error::MalformedElf(text(path)));
    }
    let table = files.read(path, header.e_phoff, len)?.unwrap_or_default();
    if table.len() < len {
        return Err(Error::MalformedElf(text(path)));
    }
    let headers = elf::segment::SegmentTable::new(LittleEndian, Class::ELF64, &table);
    let Some(found) = headers.iter().find(|header| header.p_type == PT_INTERP) else {
        return Ok(None);
    };
    if found.p_filesz < 2 || found.p_filesz > PATH_MAX {
        return Err(Error::MalformedElf(text(path)));
    }
    // At most PATH_MAX, so it fits a usize.
    let bytes = files.read(path, found.p_offset, found.p_filesz as usize)?.unwrap_or_default();
    Ok(bytes.split(|byte| *byte == 0).next().map(<[u8]>::to_vec))
}

fn join(dir: &[u8], path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") {
        return path.to_vec();
    }
    let mut joined = dir.to_vec();
    if !joined.ends_with(b"/") {
        joined.push(b'/');
    }
    joined.extend_from_slice(path);
    joined
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
