//! `dock2uni run`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dock2uni_format::record::{Record, Root, Syscalls, trailer};
use dock2uni_format::verity::Verity;
use rustix::fs::{MemfdFlags, memfd_create};
use sha2::Digest as _;

use super::args::{AUTO, BootType, MachineArgs, RunArgs, SourceArgs};
use super::progress::Display;
use super::target::{self, Target};
use super::{Failure, exit, mounts, roots};
use crate::config::Overrides;
use crate::convert::{self, DiskOptions, Output, RootOptions, Rootfs};
use crate::disk::medium::{Cursor, Medium, Raw};
use crate::disk::{self, Disk, Extent, Format, Part};
use crate::erofs::{Reader, verity};
use crate::source::{Digest, Image, Store};
use crate::vmm::run::{Notice, Outcome};
use crate::vmm::{self, Attachment, Boot, Config, Drive, Tap, accel, arguments, ports, qemu};
use crate::{config, guest, syscalls};

pub fn run(args: &RunArgs) -> Result<u8, Failure> {
    // What fails before the application runs is told apart from its own status, as in Docker.
    let Prepared { config, recording, files: _files } =
        prepare(args).map_err(Failure::before_run)?;
    if args.machine.dry_run {
        let words = [config.qemu.clone().into_os_string()];
        let words = words.into_iter().chain(arguments::build(&config, None));
        println!("{}", arguments::shell(words));
        return Ok(exit::OK);
    }
    let mut made = None;
    let mut notice = |notice| {
        if let Notice::Syscalls(set) = notice {
            made = Some(set);
            return;
        }
        if args.quiet {
            return;
        }
        match notice {
            Notice::Stopping => eprintln!("stopping (again to end the VM at once)"),
            Notice::Health(health) => eprintln!("health: {health}"),
            Notice::CheckFailed(text) => eprintln!("health check failed: {text}"),
            _ => {}
        }
    };
    let outcome = vmm::run::run(&config, &mut notice)?;
    if let (Some(path), Some(made)) = (&recording, &made) {
        syscalls::add(path, made)?;
    }
    if outcome == Outcome::Exited(NOT_FOUND) && !args.quiet {
        eprintln!("{NOT_FOUND_HINT}");
    }
    Ok(outcome.code())
}

/// What dynamic loaders and shells exit with when something to run or to load isn't there.
const NOT_FOUND: u8 = 127;
const NOT_FOUND_HINT: &str = "hint: status 127 is how a dynamic loader or a shell says that a \
    library or a command is missing: add what it names above to the image";

/// What is ready to start.
struct Prepared {
    config: Config,
    /// Where the system calls that are made go.
    recording: Option<PathBuf>,
    /// What `config` names.
    files: Files,
}

/// Everything up to the start.
fn prepare(args: &RunArgs) -> Result<Prepared, Failure> {
    let overrides = args.container.overrides()?;
    let qemu = qemu::find(args.machine.qemu.as_deref())?;
    let memory = Store::open_default()?.root().join("kvm");
    let accel = accel::choose(&qemu, args.machine.accel.map(Into::into), Some(&memory))?;
    let (mut subject, recording) = subject(args, overrides)?;
    let mut files = Files::new(args.machine.dry_run)?;
    let mounted = mounts::prepare(args, &mut subject.record)?;
    files.open.extend(mounted.held);
    let grace = Duration::from_secs(subject.record.stop_grace_secs.into());
    let (tty, interactive) = (subject.record.tty, subject.record.stdin);
    let net = subject.record.net.clone();
    let boot = boot(&args.machine, subject, &mut files)?;
    let attachment = match &args.tap {
        Some(name) => Attachment::Tap(Tap::open(name, args.mac_address, args.machine.cpus, accel)?),
        None => Attachment::User,
    };
    let config = Config {
        machine: args.machine.machine.into(),
        accel,
        qemu,
        memory_mib: args.machine.memory,
        cpus: args.machine.cpus,
        boot,
        volumes: mounted.volumes,
        shares: mounted.shares,
        net,
        forwards: forwards(args)?,
        attachment,
        confined: false,
        kernel_args: args.machine.kernel_arg.clone(),
        interactive,
        tty,
        grace,
        launcher: launcher(),
    };
    config.check()?;
    Ok(Prepared { config, recording, files })
}

/// What is to be booted.
struct Subject {
    record: Record,
    /// A disk image or a bare root image.
    file: PathBuf,
    /// The disk in the file.
    medium: Arc<dyn Medium>,
    /// How the file holds it.
    format: Format,
    /// The root's place on the disk, in bytes.
    root: Extent,
    /// What vouches for the root.
    verity: Option<Verity>,
    /// Whether it is a whole disk.
    bootable: bool,
}

/// The subject, and where the calls that it makes are recorded.
fn subject(
    args: &RunArgs,
    mut overrides: Overrides,
) -> Result<(Subject, Option<PathBuf>), Failure> {
    let mut recording = args.record_syscalls.clone();
    let by_image = recording.as_deref() == Some(Path::new(AUTO));
    let target = Target::detect(&args.reference, &args.build)?;
    let is_image = matches!(target, Target::Reference(_) | Target::Context(_));
    if !is_image && (by_image || args.container.locks_by_recording()) {
        return Err(syscalls::Error::NoImage.into());
    }
    if recording.is_some() {
        overrides.syscalls = Syscalls::Record;
    }
    let subject = match target {
        Target::Disk(path) => disk_with(args, &path, &overrides),
        Target::Root(path) => root_subject(path, &overrides, br#"{"config":{}}"#, "localhost"),
        target @ (Target::Reference(_) | Target::Context(_)) => {
            let store = Store::open_default()?;
            let display = Display::new(args.quiet);
            let image = target::image(&target, &args.build, &args.source, &store, &display)?;
            args.container.complete(&mut overrides, &store, &image)?;
            if by_image {
                let config = image.config_digest.hex();
                recording = Some(syscalls::recording(store.root(), &config));
            }
            let subject = if from_disk(args) {
                image_disk(&image, &overrides, &args.source, &store, &display)
            } else {
                image_root(&image, &overrides, &args.source, &store, &display)
            };
            display.clear();
            subject
        }
    };
    Ok((subject?, recording))
}

/// A disk image with what may still be chosen: where its input comes from, and what is noted.
fn disk_with(args: &RunArgs, path: &Path, overrides: &Overrides) -> Result<Subject, Failure> {
    let mut subject = disk_subject(path, overrides)?;
    let record = &mut subject.record;
    let before = record.clone();
    record.tty |= overrides.tty;
    record.stdin |= overrides.stdin;
    if overrides.syscalls == Syscalls::Record {
        record.syscalls = Syscalls::Record;
    }
    if from_disk(args) && *record != before {
        return Err(settled(path));
    }
    Ok(subject)
}

/// Whether the machine reads its boot record from the disk, as it was made.
fn from_disk(args: &RunArgs) -> bool {
    matches!(args.machine.boot, BootType::Disk | BootType::Uefi)
}

fn settled(path: &Path) -> Failure {
    Failure::new(
        exit::USAGE,
        format!("`{}` is a disk image: what it runs was settled at its conversion", path.display()),
        Some("give these options to `dock2uni convert`, or run the container image"),
    )
}

/// A disk image runs as it was made: its record is complete. Where its input comes from is a matter
/// of running it.
fn disk_subject(path: &Path, overrides: &Overrides) -> Result<Subject, Failure> {
    let Overrides { ports, tty, stdin, syscalls, .. } = overrides.clone();
    let same = Overrides { ports, tty, stdin, syscalls, ..Overrides::default() };
    if *overrides != same || matches!(same.syscalls, Syscalls::Only(_)) {
        return Err(settled(path));
    }
    let disk = Disk::open(path)?;
    let (mut record, footer) = disk.boot()?;
    // The boot code may load the root; QEMU need not.
    let uuid = disk.root().map_err(convert::Error::from)?.superblock().uuid;
    record.root = Root::Disk { uuid };
    let (medium, root, format) = (disk.medium(), disk.extent(Part::Root), disk.format);
    let (file, verity) = (path.to_owned(), footer.verity);
    Ok(Subject { record, file, medium, format, root, verity, bootable: true })
}

/// A bare root, with a configuration from elsewhere.
fn root_subject(
    path: PathBuf,
    overrides: &Overrides,
    config_json: &[u8],
    id: &str,
) -> Result<Subject, Failure> {
    let failed = |error| Failure::io(format!("cannot read `{}`", path.display()), error);
    let file = File::open(&path).map_err(failed)?;
    let medium: Arc<dyn Medium> = Arc::new(Raw::new(file).map_err(failed)?);
    let root = Extent { start: 0, len: medium.size() };
    let reader = Reader::open(medium.clone(), 0).map_err(convert::Error::from)?;
    let mut record = config::plan(config_json, id, overrides, &Rootfs(&reader))?;
    record.root = Root::Disk { uuid: reader.superblock().uuid };
    let verity = verity::find(&medium, 0, root.len).map_err(failed)?;
    let format = Format::Raw;
    Ok(Subject { record, file: path, medium, format, root, verity, bootable: false })
}

/// A container image's root, from the store or made now. The options change the record alone, so
/// one root serves all of them.
fn image_root(
    image: &Image,
    overrides: &Overrides,
    source: &SourceArgs,
    store: &Store,
    display: &Display,
) -> Result<Subject, Failure> {
    let path = roots::of(image, source, store, display)?;
    root_subject(path, overrides, &image.config_json, &image.config_digest.hex())
}

/// A container image's disk image, from the store or made now.
fn image_disk(
    image: &Image,
    overrides: &Overrides,
    source: &SourceArgs,
    store: &Store,
    display: &Display,
) -> Result<Subject, Failure> {
    let kernel = guest::kernel().map_err(convert::Error::from)?;
    // Serialising a structure of texts and numbers does not fail.
    let options = serde_json::to_vec(overrides).unwrap_or_default();
    let path = roots::cached(store, "images", "img", |key| {
        key.update(image.manifest.0);
        key.update(Digest::of(kernel).0);
        key.update(Digest::of(guest::STAGE2).0);
        key.update(Digest::of(guest::EFI).0);
        key.update(&options);
    })?;
    if !path.exists() {
        let bar = display.layers(image.layers.iter().map(|layer| layer.size).sum());
        let outputs = [Output { format: Format::Raw, path: path.clone() }];
        let root = RootOptions { limits: target::limits(source), ..RootOptions::default() };
        let options = DiskOptions { root, ..DiskOptions::default() };
        convert::disk_images(image, overrides, &outputs, &options, &|bytes| bar.inc(bytes))
            .map_err(|error| target::conversion_failed(error, image, store))?;
    }
    disk_subject(&path, &Overrides::default())
}

/// Makes what QEMU is to load.
fn boot(args: &MachineArgs, subject: Subject, files: &mut Files) -> Result<Boot, Failure> {
    if matches!(args.boot, BootType::Disk | BootType::Uefi) {
        if !subject.bootable {
            return Err(Failure::new(
                exit::USAGE,
                format!("`{}` is a bare root, not a disk", subject.file.display()),
                Some("use `--boot direct`"),
            ));
        }
        let firmware = match args.boot {
            BootType::Uefi => {
                let (code, vars) = (args.firmware.as_deref(), args.firmware_vars.as_deref());
                Some(vmm::firmware::find(code, vars)?)
            }
            _ => None,
        };
        let mut disk = drive(&subject, files)?;
        disk.cd = subject.file.extension().is_some_and(|extension| extension == "iso");
        return Ok(Boot::Disk { disk, firmware });
    }
    let mut record = subject.record.clone();
    let mut kernel = files.create("kernel.elf")?;
    kernel.write_all(guest::kernel().map_err(convert::Error::from)?).map_err(Files::failed)?;
    let mut module = files.create("module")?;
    let disk = if args.boot == BootType::Direct {
        // The record alone; the root stays where it is.
        module.write_all(&trailer(&record, 0, subject.verity)).map_err(Files::failed)?;
        Some(drive(&subject, files)?)
    } else {
        record.root = Root::Here;
        let mut root = Cursor::new(&subject.medium);
        root.seek(SeekFrom::Start(subject.root.start)).map_err(Files::failed)?;
        let mut root = root.take(subject.root.len);
        convert::write_module(&mut root, &record, subject.verity, &mut module)
            .map_err(Files::failed)?;
        None
    };
    let (kernel, module) = (files.keep(kernel, "kernel.elf"), files.keep(module, "module"));
    Ok(match disk {
        Some(disk) => Boot::Direct { kernel, module, disk },
        None => Boot::Ram { kernel, module },
    })
}

/// The disk as QEMU takes it; what it cannot read is unpacked.
fn drive(subject: &Subject, files: &mut Files) -> Result<Drive, Failure> {
    if let Some(format) = subject.format.qemu() {
        return Ok(Drive { file: subject.file.clone(), format, cd: false });
    }
    let file = files.create("disk.img")?;
    disk::format::write(Format::Raw, &subject.medium, &file).map_err(Files::failed)?;
    Ok(Drive { file: files.keep(file, "disk.img"), format: "raw", cd: false })
}

/// Files for QEMU to load. They have no names and leave nothing behind, however this process ends;
/// for a command that the user will start they are in a directory.
#[derive(Default)]
struct Files {
    open: Vec<File>,
    dir: Option<PathBuf>,
}

impl Files {
    fn new(named: bool) -> Result<Files, Failure> {
        let mut files = Files::default();
        if named {
            let dir = tempfile::Builder::new().prefix("dock2uni-").tempdir();
            files.dir = Some(dir.map_err(Files::failed)?.keep());
        }
        Ok(files)
    }

    fn create(&self, name: &str) -> Result<File, Failure> {
        match &self.dir {
            Some(dir) => File::create_new(dir.join(name)),
            // Not closed on exec: QEMU opens it by its number.
            None => memfd_create(name, MemfdFlags::empty()).map(File::from).map_err(Into::into),
        }
        .map_err(Files::failed)
    }

    /// Keeps a file that was created by `name`, and says by which path QEMU finds it.
    fn keep(&mut self, file: File, name: &str) -> PathBuf {
        let path = match &self.dir {
            Some(dir) => dir.join(name),
            None => format!("/proc/self/fd/{}", file.as_raw_fd()).into(),
        };
        self.open.push(file);
        path
    }

    fn failed(error: std::io::Error) -> Failure {
        Failure::io("cannot write the files that the VM boots from".into(), error)
    }
}

/// Host ports, and a word about those that were chosen here.
fn forwards(args: &RunArgs) -> Result<Vec<vmm::Forward>, Failure> {
    let published = args.container.published();
    let forwards = ports::assign(&published)?;
    for (publish, forward) in published.iter().zip(&forwards) {
        if publish.host.is_none() && !args.quiet {
            let (ip, host, guest) = (forward.ip, forward.host, forward.guest);
            eprintln!("forwarding {ip}:{host} to port {guest}");
        }
    }
    Ok(forwards)
}

/// This program again, to tie QEMU's life to ours.
pub fn launcher() -> Vec<PathBuf> {
    match std::env::current_exe() {
        Ok(exe) => vec![exe, "__with-parent".into()],
        // Without it QEMU is started directly, and survives us only if we are killed.
        Err(_) => Vec::new(),
    }
}
