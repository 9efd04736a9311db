//! QEMU's command line.

use std::ffi::OsString;
use std::path::Path;

use super::{Accel, Attachment, Boot, Config, Disk, Drive, Firmware, Machine, Share, usernet};

/// Descriptors of the channels that [`super::run`] holds the other ends of.
#[derive(Clone, Copy, Debug)]
pub struct Channels {
    /// Monitor (QMP).
    pub monitor: i32,
    /// Status lines of the kernel.
    pub status: i32,
    /// Ethernet frames, if the machine is on a link.
    pub link: Option<i32>,
}

/// Makes the arguments; without `channels`, a command that a user can start by hand.
pub fn build(config: &Config, channels: Option<Channels>) -> Vec<OsString> {
    let mut args = Arguments::default();
    // Nothing but what is named here: no default devices, no configuration files.
    for word in ["-nodefaults", "-no-user-config", "-no-reboot"] {
        args.word(word);
    }
    if config.confined {
        let denied = "obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
        args.pair("-sandbox", format!("on,{denied}"));
    }
    args.pair("-display", "none");
    args.pair("-machine", machine(config));
    if config.machine == Machine::Microvm {
        args.pair("-global", "virtio-mmio.force-legacy=false");
    }
    match config.accel {
        Accel::Kvm => args.pair("-accel", "kvm").pair("-cpu", "host"),
        Accel::Tcg => args.pair("-accel", "tcg,thread=multi").pair("-cpu", "max"),
    };
    args.pair("-smp", config.cpus.to_string());
    args.pair("-m", format!("{}M", config.memory_mib));

    args.pair("-chardev", "stdio,id=console,signal=off");
    args.pair("-serial", "chardev:console");
    if let Some(Channels { monitor, status, .. }) = channels {
        args.pair("-chardev", format!("socket,id=monitor,fd={monitor}"));
        args.pair("-mon", "chardev=monitor,mode=control");
        args.pair("-chardev", format!("socket,id=status,fd={status}"));
        args.pair("-device", device(config.machine, "virtio-serial", ",max_ports=1"));
        args.pair("-device", "virtconsole,chardev=status");
    }

    network(&mut args, config, channels.and_then(|channels| channels.link));
    args.pair("-object", "rng-builtin,id=rng");
    args.pair("-device", device(config.machine, "virtio-rng", ",rng=rng"));
    // After the root, which stays the first disk.
    boot(&mut args, config);
    for (index, disk) in config.volumes.iter().enumerate() {
        volume(&mut args, config.machine, index, disk);
    }
    for (index, share) in config.shares.iter().enumerate() {
        shared(&mut args, config.machine, index, share);
    }
    args.0
}

fn network(args: &mut Arguments, config: &Config, link: Option<i32>) {
    let user = || {
        let restricted = if config.confined { ",restrict=on" } else { "" };
        usernet::netdev(&config.net, &config.forwards) + restricted
    };
    let (netdev, mac) = match &config.attachment {
        Attachment::User => (user(), None),
        // Without the caller's end, as in a command to start by hand, only the user network is left.
        Attachment::Link(mac) => (link.map_or_else(user, linked), Some(mac)),
        Attachment::Tap(tap) => (tap.netdev(), Some(&tap.mac)),
    };
    args.pair("-netdev", netdev);
    let mut options = ",netdev=net".to_owned();
    if config.machine == Machine::Q35 {
        options += ",romfile=";
    }
    if let Some([a, b, c, d, e, f]) = mac {
        options += &format!(",mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    }
    if let Attachment::Tap(tap) = &config.attachment
        && tap.queues > 1
    {
        options += ",mq=on";
        if config.machine == Machine::Q35 {
            // One for each queue, and for the control queue and changes of the configuration.
            options += &format!(",vectors={}", 2 * tap.queues + 2);
        }
    }
    args.pair("-device", device(config.machine, "virtio-net", &options));
}

fn boot(args: &mut Arguments, config: &Config) {
    let direct = match &config.boot {
        Boot::Direct { kernel, module, disk } => {
            root(args, config.machine, disk, false);
            Some((kernel, module))
        }
        Boot::Ram { kernel, module } => Some((kernel, module)),
        Boot::Disk { disk, firmware } => {
            if let Some(firmware) = firmware {
                flash(args, firmware);
            }
            root(args, config.machine, disk, true);
            None
        }
    };
    if let Some((kernel, module)) = direct {
        args.pair("-kernel", kernel.as_os_str()).pair("-initrd", module.as_os_str());
        if !config.kernel_args.is_empty() {
            args.pair("-append", config.kernel_args.join(" "));
        }
    }
}

/// The disk is never written to, so any number of machines may share it.
fn root(args: &mut Arguments, machine: Machine, disk: &Drive, boot: bool) {
    let mut drive = OsString::from(format!("if=none,id=root,format={},", disk.format));
    drive.push(if disk.cd { "media=cdrom," } else { "" });
    drive.push("readonly=on,file.locking=off,file=");
    drive.push(escape(&disk.file));
    args.pair("-drive", drive);
    let more = if boot { ",bootindex=0" } else { "" };
    if disk.cd {
        args.pair("-device", format!("ide-cd,bus=ide.0,drive=root{more}"));
    } else {
        args.pair("-device", device(machine, "virtio-blk", &format!(",drive=root{more}")));
    }
}

/// A flush of the guest is one of the host: QEMU's write-back cache does that.
fn volume(args: &mut Arguments, machine: Machine, index: usize, disk: &Disk) {
    let options = if disk.read_only { "readonly=on," } else { "discard=unmap," };
    let mut drive = OsString::from(format!(
        "if=none,id=volume{index},format=raw,cache=writeback,{options}file="
    ));
    drive.push(escape(&disk.path));
    args.pair("-drive", drive);
    args.pair("-device", device(machine, "virtio-blk", &format!(",drive=volume{index}")));
}

/// Files have the owners that they have on the host; new ones too if QEMU may set them.
fn shared(args: &mut Arguments, machine: Machine, index: usize, share: &Share) {
    let mut fsdev = OsString::from(format!(
        "local,id=share{index},security_model=none,multidevs=remap,{}path=",
        if share.read_only { "readonly=on," } else { "" }
    ));
    fsdev.push(escape(&share.path));
    args.pair("-fsdev", fsdev);
    let options = format!(",fsdev=share{index},mount_tag={}", share.tag);
    args.pair("-device", device(machine, "virtio-9p", &options));
}

/// Two flash chips: the code, and variables of which QEMU keeps the changes to itself.
fn flash(args: &mut Arguments, firmware: &Firmware) {
    let mut code = OsString::from("if=pflash,unit=0,format=raw,readonly=on,file.locking=off,file=");
    code.push(escape(&firmware.code));
    args.pair("-drive", code);
    if let Some(file) = &firmware.vars {
        let mut vars = OsString::from("if=pflash,unit=1,format=raw,snapshot=on,file.locking=off,");
        vars.push("file=");
        vars.push(escape(file));
        args.pair("-drive", vars);
    }
    if firmware.smm {
        args.pair("-global", "driver=cfi.pflash01,property=secure,value=on");
        // Waking up would bypass what the firmware protects.
        args.pair("-global", "ICH9-LPC.disable_s3=1");
    }
}

fn machine(config: &Config) -> &'static str {
    let (mut cd, mut smm) = (false, false);
    if let Boot::Disk { disk, firmware } = &config.boot {
        cd = disk.cd;
        smm = firmware.as_ref().is_some_and(|firmware| firmware.smm);
    }
    match config.machine {
        Machine::Microvm => "microvm",
        // Controllers that nobody has a use for only take time to set up.
        Machine::Q35 if cd && smm => "q35,usb=off,smbus=off,vmport=off,smm=on",
        Machine::Q35 if cd => "q35,usb=off,smbus=off,vmport=off",
        Machine::Q35 if smm => "q35,usb=off,sata=off,smbus=off,vmport=off,smm=on",
        Machine::Q35 => "q35,usb=off,sata=off,smbus=off,vmport=off",
    }
}

fn device(machine: Machine, kind: &str, options: &str) -> String {
    match machine {
        Machine::Q35 => format!("{kind}-pci,disable-legacy=on{options}"),
        Machine::Microvm => format!("{kind}-device{options}"),
    }
}

/// Frames in a stream, each after its length in four bytes (QEMU's `-netdev stream`, from 7.2).
fn linked(descriptor: i32) -> String {
    format!("stream,id=net,server=off,addr.type=fd,addr.str={descriptor}")
}

/// QEMU's option syntax doubles commas.
fn escape(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::new();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    OsString::from_vec(bytes)
}

/// Quotes a command for a shell, for people to copy.
pub fn shell(words: impl IntoIterator<Item = OsString>) -> String {
    let quoted: Vec<String> = words
        .into_iter()
        .map(|word| {
            let word = word.to_string_lossy().into_owned();
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
            if !word.is_empty() && word.chars().all(plain) {
                word
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        })
        .collect();
    quoted.join(" ")
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn word(&mut self, word: &str) {
        self.0.push(word.into());
    }

    fn pair(&mut self, option: &str, value: impl Into<OsString>) -> &mut Arguments {
        self.0.extend([option.into(), value.into()]);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::{Error, Forward, Tap};
    use dock2uni_format::record::Net;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn config(machine: Machine, accel: Accel, boot: Boot) -> Config {
        Config {
            qemu: "qemu".into(),
            machine,
            accel,
            memory_mib: 128,
            cpus: 2,
            boot,
            volumes: vec![Disk { path: "/v".into(), read_only: false }],
            shares: vec![Share { path: "/s".into(), tag: "share0".into(), read_only: true }],
            net: Net::default(),
            forwards: vec![Forward { ip: Ipv4Addr::LOCALHOST, host: 8080, guest: 80, udp: false }],
            attachment: Attachment::User,
            confined: false,
            kernel_args: vec!["trace".into(), "a b".into()],
            interactive: false,
            tty: false,
            grace: Duration::from_secs(10),
            launcher: Vec::new(),
        }
    }

    fn drive(file: &str) -> Drive {
        Drive { file: file.into(), format: "raw", cd: false }
    }

    fn disk(disk: Drive, firmware: Option<Firmware>) -> Boot {
        Boot::Disk { disk, firmware }
    }

    #[test]
    fn firmware_goes_to_flash_and_cds_to_a_drive() {
        let firmware = Firmware { code: "/code".into(), vars: Some("/vars".into()), smm: true };
        let cd = Drive { cd: true, ..drive("/x.iso") };
        let config = config(Machine::Q35, Accel::Tcg, disk(cd, Some(firmware)));
        let line = shell(build(&config, None));
        for needle in [
            "-machine q35,usb=off,smbus=off,vmport=off,smm=on ",
            "-drive if=pflash,unit=0,format=raw,readonly=on,file.locking=off,file=/code ",
            "-drive if=pflash,unit=1,format=raw,snapshot=on,file.locking=off,file=/vars ",
            "-drive if=none,id=root,format=raw,media=cdrom,readonly=on,file.locking=off,file=/x.iso",
            "-device ide-cd,bus=ide.0,drive=root,bootindex=0",
        ] {
            assert!(line.contains(needle), "{needle} in {line}");
        }
    }

    #[test]
    fn a_tap_device_takes_the_place_of_the_user_network() {
        let boot = Boot::Ram { kernel: "/k".into(), module: "/r".into() };
        let tap = Tap { name: "tap0".into(), mac: [2, 0, 0, 0, 0, 10], queues: 4, vhost: true };
        let mut config = config(Machine::Q35, Accel::Kvm, boot);
        config.attachment = Attachment::Tap(tap);
        assert!(matches!(config.check(), Err(Error::ForwardsPastUserNetwork)));
        config.forwards.clear();
        let line = shell(build(&config, None));
        for needle in [
            " -netdev tap,id=net,ifname=tap0,script=no,downscript=no,queues=4,vhost=on ",
            ",netdev=net,romfile=,mac=02:00:00:00:00:0a,mq=on,vectors=10 ",
        ] {
            assert!(line.contains(needle), "{needle} in {line}");
        }
        config.machine = Machine::Microvm;
        assert!(shell(build(&config, None)).contains(",mac=02:00:00:00:00:0a,mq=on "));
    }

    #[test]
    fn direct_boot_of_a_microvm() {
        let disk = drive("/a,b.img");
        let boot = Boot::Direct { kernel: "/k".into(), module: "/r".into(), disk };
        let config = config(Machine::Microvm, Accel::Tcg, boot);
        assert_eq!(
            shell(build(&config, Some(Channels { monitor: 5, status: 7, link: None }))),
            "-nodefaults -no-user-config -no-reboot -display none -machine microvm \
             -global virtio-mmio.force-legacy=false -accel tcg,thread=multi -cpu max -smp 2 \
             -m 128M -chardev stdio,id=console,signal=off -serial chardev:console \
             -chardev socket,id=monitor,fd=5 -mon chardev=monitor,mode=control \
             -chardev socket,id=status,fd=7 -device virtio-serial-device,max_ports=1 \
             -device virtconsole,chardev=status \
             -netdev user,id=net,hostfwd=tcp:127.0.0.1:8080-:80 \
             -device virtio-net-device,netdev=net -object rng-builtin,id=rng \
             -device virtio-rng-device,rng=rng \
             -drive if=none,id=root,format=raw,readonly=on,file.locking=off,file=/a,,b.img \
             -device virtio-blk-device,drive=root -kernel /k -initrd /r -append 'trace a b' \
             -drive if=none,id=volume0,format=raw,cache=writeback,discard=unmap,file=/v \
             -device virtio-blk-device,drive=volume0 -fsdev local,id=share0,\
             security_model=none,multidevs=remap,readonly=on,path=/s \
             -device virtio-9p-device,fsdev=share0,mount_tag=share0"
        );
    }

    #[test]
    fn disk_boot_of_a_pc_names_no_kernel() {
        let config = config(Machine::Q35, Accel::Kvm, disk(drive("/d.img"), None));
        let line = shell(build(&config, None));
        assert!(!line.contains("-kernel") && !line.contains("fd="), "{line}");
        assert!(line.contains("virtio-blk-pci,disable-legacy=on,drive=root,bootindex=0"), "{line}");
        assert!(line.contains("-accel kvm -cpu host"), "{line}");
    }

    #[test]
    fn what_is_confined_reaches_nothing() {
        let disk = disk(drive("/d.img"), None);
        let config = Config { confined: true, ..config(Machine::Q35, Accel::Tcg, disk) };
        let line = shell(build(&config, None));
        assert!(line.contains("hostfwd=tcp:127.0.0.1:8080-:80,restrict=on "), "{line}");
        assert!(line.contains(" -sandbox on,") && line.contains("spawn=deny"), "{line}");
    }

    #[test]
    fn a_microvm_does_not_boot_from_disk() {
        let config = config(Machine::Microvm, Accel::Tcg, disk(drive("/d"), None));
        assert!(config.check().is_err());
    }

    #[test]
    fn shell_quotes_what_needs_it() {
        let words = ["a", "b c", "", "it's"].map(OsString::from);
        assert_eq!(shell(words), r"a 'b c' '' 'it'\''s'");
    }
}
