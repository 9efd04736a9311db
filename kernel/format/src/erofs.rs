//! EROFS on-disk structures (Linux `fs/erofs/erofs_fs.h`, kernel documentation
//! `filesystems/erofs.rst`): plain parse and emit of the fixed-layout records,
//! used by the converter's writer and reader and by the kernel's reader.
