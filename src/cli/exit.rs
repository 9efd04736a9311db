//! Exit statuses. They are part of the interface: scripts may rely on them.

/// Done.
pub const OK: u8 = 0;
/// Something that has no status of its own.
pub const FAILURE: u8 = 1;
/// The arguments are wrong (also what the argument parser uses).
pub const USAGE: u8 = 2;
/// The image, tag or file does not exist.
pub const NOT_FOUND: u8 = 3;
/// Credentials are missing or refused.
pub const AUTH: u8 = 4;
/// The registry cannot be reached, or fails.
pub const NETWORK: u8 = 5;
/// Content is damaged, truncated or hostile.
pub const CORRUPT: u8 = 6;
/// The image is sound but cannot be run: another architecture, a missing program or interpreter.
pub const UNSUPPORTED: u8 = 7;
/// A local file cannot be read or written; the disk is full.
pub const IO: u8 = 8;
/// The Dockerfile has an error, or a command of it failed.
pub const BUILD: u8 = 9;
/// The image was made, but did not do what it should when it was tried.
pub const UNVERIFIED: u8 = 10;
/// `fleet convert`: some were converted, and some were not.
pub const FLEET_SOME: u8 = 11;
/// `fleet convert`: none was converted.
pub const FLEET_NONE: u8 = 12;
/// A signature was asked for, and the image has none that is accepted.
pub const UNTRUSTED: u8 = 13;
/// `run`: dock2uni or the VM failed, not the application; as in `docker run`.
pub const VM: u8 = 125;
/// `run`: the application could not be started.
pub const NOT_STARTED: u8 = 126;
/// `run`: ended by a second interrupt.
pub const INTERRUPTED: u8 = 130;

/// The table, for the help text.
pub const HELP: &str = "\
Exit status:
  0    done
  1    failure of no other kind; `image diff`: the images differ
  2    wrong arguments
  3    the image, tag or file does not exist
  4    credentials are missing or refused
  5    the registry cannot be reached, or fails
  6    content is damaged, truncated or hostile
  7    the image cannot be run: architecture, program or interpreter missing;
       `inspect` found that it won't run
  8    a local file cannot be read or written, or the disk is full
  9    the Dockerfile has an error, or a command of it failed
  10   the image was made or traced, but did not answer when it was booted
  11   `fleet convert`: some images were converted, and some were not
  12   `fleet convert`: none was converted
  13   the image is not signed as was asked for
  130  a build was interrupted
`dock2uni run` exits with the application's own status (128 + N if it was killed
by signal N), or:
  125  dock2uni or the VM failed before or beside the application
  126  the application could not be started
  130  ended by a second interrupt";
