//! System calls.

pub mod fs_attr;
pub mod fs_control;
pub mod fs_dir;
pub mod fs_io;
pub mod fs_mount;
pub mod fs_open;
pub mod fs_path;
pub mod fs_space;
pub mod fs_stat;
