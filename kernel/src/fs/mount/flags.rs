//! Flags of mounts and of what they show (mount(2)).

bitflags::bitflags! {
    /// Mount flags with the values of mount(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Flags: u32 {
        /// `MS_RDONLY`
        const RDONLY = 1;
        /// `MS_NOSUID`
        const NOSUID = 2;
        /// `MS_NODEV`
        const NODEV = 4;
        /// `MS_NOEXEC`
        const NOEXEC = 8;
        /// `MS_SYNCHRONOUS`, of a filesystem
        const SYNCHRONOUS = 16;
        /// `MS_MANDLOCK`, of a filesystem
        const MANDLOCK = 64;
        /// `MS_DIRSYNC`, of a filesystem
        const DIRSYNC = 128;
        /// `MS_NOSYMFOLLOW`
        const NOSYMFOLLOW = 256;
        /// `MS_NOATIME`
        const NOATIME = 1024;
        /// `MS_NODIRATIME`
        const NODIRATIME = 2048;
        /// `MS_RELATIME`
        const RELATIME = 1 << 21;
        /// `MS_LAZYTIME`, of a filesystem
        const LAZYTIME = 1 << 25;
    }
}

impl Flags {
    /// Those of a filesystem, whatever shows it.
    pub const WHOLE: Flags = Flags::RDONLY
        .union(Flags::SYNCHRONOUS)
        .union(Flags::MANDLOCK)
        .union(Flags::DIRSYNC)
        .union(Flags::LAZYTIME);
    /// Those of a mount.
    pub const OWN: Flags = Flags::RDONLY
        .union(Flags::NOSUID)
        .union(Flags::NODEV)
        .union(Flags::NOEXEC)
        .union(Flags::NOSYMFOLLOW)
        .union(Flags::TIMES);
    /// Those about the times of accesses.
    pub const TIMES: Flags = Flags::NOATIME.union(Flags::NODIRATIME).union(Flags::RELATIME);
}
