//! Starting guests under QEMU, both in the same way.

use crate::net::{GUEST, HOST, Network};
use dock2uni::config::{Interface, Overrides};
use dock2uni::convert;
use dock2uni::disk::medium::Cursor;
use dock2uni::disk::{Disk, Part};
use dock2uni::source::{self, Image, Options, Reference, Store};
use dock2uni_format::record::{Record, trailer};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How the guests' instructions are executed.
pub const ACCEL: &str = "tcg";

/// What they run on: all that the translator has, but for the claim that bytes are moved fast (ERMS),
/// which Linux believes and which slows it down.
const CPU: &str = "max,-erms";

/// Units of CPU time in /proc for a second (`USER_HZ`).
const TICKS: f64 = 100.0;

/// What a guest's clock counts.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Clock {
    /// Time.
    #[default]
    Time,
    /// Instructions that the guest executes, as nanoseconds: the same in every run, whatever else
    /// the machine does. One CPU only.
    Instructions,
}

impl Clock {
    /// By its name on the command line.
    pub fn parse(name: &str) -> Result<Clock, String> {
        match name {
            "time" => Ok(Clock::Time),
            "instructions" => Ok(Clock::Instructions),
            _ => Err(format!("clock `{name}` is not time or instructions")),
        }
    }

    fn qemu(self) -> &'static [&'static str] {
        match self {
            Clock::Time => &["-accel", ACCEL],
            Clock::Instructions => &["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"],
        }
    }
}

/// QEMU machine types that both kernels boot on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// A PC with PCI Express.
    Q35,
    /// Virtio over MMIO, no PCI.
    Microvm,
}

impl Machine {
    /// By its QEMU name.
    pub fn parse(name: &str) -> Result<Machine, String> {
        match name {
            "q35" => Ok(Machine::Q35),
            "microvm" => Ok(Machine::Microvm),
            _ => Err(format!("machine `{name}` is not q35 or microvm")),
        }
    }

    /// Its QEMU name.
    pub fn name(self) -> &'static str {
        match self {
            Machine::Q35 => "q35",
            Machine::Microvm => "microvm",
        }
    }

    /// What `-M` gets: microvm with the clock hardware that the Linux kernel insists on.
    fn qemu(self) -> &'static str {
        match self {
            Machine::Q35 => "q35",
            Machine::Microvm => "microvm,pit=on,pic=on,rtc=on",
        }
    }

    fn device(self, kind: &str) -> String {
        match self {
            Machine::Q35 => format!("virtio-{kind}-pci"),
            Machine::Microvm => format!("virtio-{kind}-device"),
        }
    }
}

/// A bootable system: kernel, initial module and root disk.
pub struct Guest {
    /// What the table calls it.
    pub name: &'static str,
    /// Kernel.
    pub kernel: PathBuf,
    /// Boot record or initramfs.
    pub module: PathBuf,
    /// Root filesystem.
    pub root: PathBuf,
    /// Kernel command line.
    pub cmdline: &'static str,
    /// What is added to it on microvm.
    pub microvm_cmdline: String,
    /// The port that it serves on.
    pub port: u16,
    /// How it is reached.
    pub network: Network,
    /// What the image wants to run.
    pub record: Record,
}

impl Guest {
    /// Bytes beyond the application's own files.
    pub fn kernel_bytes(&self) -> u64 {
        [&self.kernel, &self.module]
            .iter()
            .filter_map(|path| path.metadata().ok())
            .map(|meta| meta.len())
            .sum()
    }
}

/// Where the benchmark keeps what it makes.
pub fn work_dir() -> Result<PathBuf, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench-vm");
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    dir.canonicalize().map_err(|error| error.to_string())
}

/// Where the console of the guest that was started last goes.
pub fn console_log() -> Result<PathBuf, String> {
    Ok(work_dir()?.join("console.log"))
}

/// Runs a command and fails with its own words.
pub fn sh(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Brings in the image that a reference names.
pub fn image(reference: &str) -> Result<Image, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let store = Store::open_default().map_err(|error| text(&error))?;
    let reference = Reference::detect(reference).map_err(|error| text(&error))?;
    let image = source::resolve(&reference, &Options::from_env(), &store, &source::Quiet);
    image.map_err(|error| text(&error))
}

/// Converts the image and takes it apart for direct boot, as `dock2uni run` does. It is booted with
/// the kernel of this file, or with the one in the tool.
pub fn prepare(
    image: &Image,
    env: &[String],
    kernel_file: Option<&str>,
    network: Network,
) -> Result<Guest, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let dir = work_dir()?;
    let path = dir.join("image.img");
    let mut overrides = Overrides { env: env.to_vec(), ..Overrides::default() };
    if network == Network::Tap {
        // As the init of the Linux guest has it; no DHCP server is there.
        overrides.network.addresses = vec![Interface { addr: GUEST.into(), prefix: 24 }];
        overrides.network.gateways = vec![HOST.into()];
    }
    let made = convert::disk_image(image, &overrides, &path, &|_| {});
    let made = made.map_err(|error| text(&error))?;
    let (record, verity) = (made.record, made.verity);
    let disk = Disk::open(&path).map_err(|error| text(&error))?;
    let (kernel, root, module) = (dir.join("kernel"), dir.join("root.img"), dir.join("record.img"));
    let copy = || -> std::io::Result<()> {
        let extent = disk.extent(Part::Root);
        let medium = disk.medium();
        let mut from = Cursor::new(&medium);
        from.seek(SeekFrom::Start(extent.start))?;
        std::io::copy(&mut from.take(extent.len), &mut File::create(&root)?)?;
        std::fs::write(&module, trailer(&record, 0, Some(verity)))
    };
    copy().map_err(|error| format!("{}: {error}", dir.display()))?;
    let bytes = match kernel_file {
        Some(path) => std::fs::read(path).map_err(|error| format!("{path}: {error}"))?,
        None => dock2uni::guest::kernel().map_err(|error| text(&error))?.to_vec(),
    };
    std::fs::write(&kernel, bytes).map_err(|error| text(&error))?;
    let microvm_cmdline = String::new();
    Ok(Guest {
        name: "dock2uni",
        record,
        kernel,
        module,
        root,
        cmdline: "",
        microvm_cmdline,
        port: 80,
        network,
    })
}

/// A running guest; killed when dropped.
pub struct Vm {
    child: Child,
    /// Where the guest's port is reached.
    pub address: SocketAddr,
}

impl Vm {
    /// Starts a guest with `mib` MiB of memory.
    pub fn start(guest: &Guest, machine: Machine, mib: u32, cpus: u32) -> Result<Vm, String> {
        Vm::start_by(Clock::Time, guest, machine, mib, cpus)
    }

    /// The same with a clock.
    pub fn start_by(
        clock: Clock,
        guest: &Guest,
        machine: Machine,
        mib: u32,
        cpus: u32,
    ) -> Result<Vm, String> {
        let (address, netdev) = guest.network.attach(guest.port)?;
        let added = if machine == Machine::Microvm { guest.microvm_cmdline.as_str() } else { "" };
        let cmdline = format!("{} {added}", guest.cmdline);
        let log = File::create(console_log()?).map_err(|error| error.to_string())?;
        let child = Command::new("qemu-system-x86_64")
            .args([
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
                "-serial",
                "stdio",
            ])
            .args(clock.qemu())
            .args(["-cpu", CPU, "-M", machine.qemu()])
            .args(["-global", "virtio-mmio.force-legacy=false"])
            .args(["-m", &mib.to_string(), "-smp", &cpus.to_string()])
            .arg("-kernel")
            .arg(&guest.kernel)
            .arg("-initrd")
            .arg(&guest.module)
            .args(["-append", &cmdline])
            .arg("-drive")
            .arg(format!("if=none,id=root,format=raw,readonly=on,file={}", guest.root.display()))
            .args(["-device", &format!("{},drive=root", machine.device("blk"))])
            .args(["-netdev", &netdev])
            .args(["-device", &format!("{},netdev=net", machine.device("net"))])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|error| format!("qemu-system-x86_64: {error}"))?;
        let vm = Vm { child, address };
        guest.network.wait_for(address, Duration::from_secs(300))?;
        Ok(vm)
    }

    /// Waits until it has gone off by itself.
    pub fn wait(&mut self, limit: Duration) -> Result<(), String> {
        let start = Instant::now();
        while self.child.try_wait().map_err(|error| error.to_string())?.is_none() {
            if start.elapsed() > limit {
                return Err(format!("still running after {} s", limit.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// CPU time that the VM has taken so far, emulator included, in seconds.
    fn cpu_seconds(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        // The name, in parentheses, is field 2; user and system time are fields 14 and 15.
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11);
        let ticks: Vec<f64> = fields.take(2).filter_map(|field| field.parse().ok()).collect();
        match ticks[..] {
            [user, system] => Ok((user + system) / TICKS),
            _ => Err(format!("{path} has no CPU times")),
        }
    }

    /// The rate that a client reports, by the second and by the second of CPU time that the VM took
    /// meanwhile. The latter hardly depends on what else the machine does.
    pub fn rate(&self, client: impl FnOnce() -> Result<f64, String>) -> Result<[f64; 2], String> {
        let (start, before) = (Instant::now(), self.cpu_seconds()?);
        let rate = client()?;
        let taken = self.cpu_seconds()? - before;
        Ok([rate, rate * start.elapsed().as_secs_f64() / taken])
    }

    /// Memory of the host that the VM takes, emulator included.
    pub fn resident_mib(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: f64 =
            line.trim().trim_end_matches(" kB").parse().map_err(|_| "VmRSS is not a number")?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
