use super::*;
use crate::errno::Errno;
use crate::event::PollTable;
use crate::fs::File;
use crate::fs::anon::AnonInode;
use crate::fs::inode::{Inode, mode::S_IFIFO};
use linux_raw_sys::general::{O_DIRECT, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};

fn write(file: &File, bytes: &[u8]) -> Result<usize> {
    file.ops.write(file, &mut IoSrc::kernel(bytes))
}

fn read(file: &File, len: usize) -> Result<Vec<u8>> {
    let mut buf = alloc::vec![0; len];
    let n = file.ops.read(file, &mut IoDst::kernel(&mut buf))?;
    buf.truncate(n);
    Ok(buf)
}

fn ready(file: &File) -> Events {
    file.ops.poll(file, &mut PollTable::query())
}

#[test]
fn bytes_come_out_in_order_across_the_wrap() {
    let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
    let mut next = 0u8;
    let mut expected = 0u8;
    for round in 0..300 {
        let chunk: Vec<u8> = (0..1000)
            .map(|_| {
                next = next.wrapping_add(1);
                next
            })
            .collect();
        assert_eq!(write(&w, &chunk), Ok(1000));
        let got = read(&r, 700 + round).unwrap();
        for byte in got {
            expected = expected.wrapping_add(1);
            assert_eq!(byte, expected);
        }
        if round > 200 {
            while let Ok(rest) = read(&r, 65536) {
                for byte in rest {
                    expected = expected.wrapping_add(1);
                    assert_eq!(byte, expected);
                }
            }
        }
    }
}

#[test]
fn small_writes_are_whole_and_large_ones_partial() {
    let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
    assert_eq!(write(&w, &[1; 100_000]), Ok(65536));
    assert!(!ready(&w).contains(Events::OUT));
    assert_eq!(read(&r, 100).unwrap().len(), 100);
    assert_eq!(write(&w, &[2; 101]), Err(Errno::EAGAIN));
    assert_eq!(write(&w, &[2; 100]), Ok(100));
    assert_eq!(write(&w, &[2; 5000]), Err(Errno::EAGAIN));
}

#[test]
fn ends_that_are_gone_show() {
    let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
    assert_eq!(read(&r, 1), Err(Errno::EAGAIN));
    write(&w, b"x").unwrap();
    drop(w);
    assert_eq!(ready(&r), Events::IN | Events::RDNORM | Events::HUP);
    assert_eq!(read(&r, 10).unwrap(), b"x");
    assert_eq!(read(&r, 10).unwrap(), b"");
    let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
    drop(r);
    assert!(ready(&w).contains(Events::ERR));
    assert_eq!(write(&w, b"x"), Err(Errno::EPIPE));
}

#[test]
fn capacity_can_be_set_but_not_below_the_contents() {
    let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
    let end = w.downcast::<PipeEnd>().unwrap();
    let common = Holder { uid: 0, resource: false, exempt: false };
    assert_eq!(end.pipe.set_capacity(5000, &common), Ok(8192));
    assert_eq!(write(&w, &[0; 10000]), Ok(8192));
    assert_eq!(end.pipe.set_capacity(4096, &common), Err(Errno::EBUSY));
    assert_eq!(end.pipe.set_capacity(2 << 20, &common), Err(Errno::EPERM));
    assert_eq!(end.pipe.set_capacity(2 << 20, &hooks::pipe_holder()), Ok(2 << 20));
    assert_eq!(read(&r, 9000).unwrap().len(), 8192);
}

#[test]
fn fifos_without_readers_refuse_nonblocking_writers() {
    let fifo = Fifo::default();
    let inode: Arc<dyn Inode> = AnonInode::new(S_IFIFO | 0o600);
    let open = |flags| fifo.open(inode.clone(), flags);
    assert_eq!(open(O_WRONLY | O_NONBLOCK).err(), Some(Errno::ENXIO));
    let reader = open(O_RDONLY | O_NONBLOCK).unwrap();
    let writer = open(O_WRONLY).unwrap();
    drop((reader, writer));
    assert!(open(O_RDWR).is_ok());
}

#[test]
fn a_pipe_can_be_opened_again_by_its_descriptor_link() {
    let (r, w) = pipe(O_NONBLOCK, 7, 7).unwrap();
    let place = crate::fs::anon::place(w.inode());
    let open =
        |flags| crate::fs::ops::open_found(&crate::fs::perm::Kernel, place.clone(), flags, false);
    let again = open(O_WRONLY).unwrap();
    drop(w);
    write(&again, b"still").unwrap();
    assert_eq!(read(&r, 10).unwrap(), b"still");
    assert_eq!(read(&r, 10), Err(Errno::EAGAIN));
    drop(again);
    assert_eq!(read(&r, 10).unwrap(), b"");
    drop(r);
    assert_eq!(open(O_RDONLY).err(), Some(Errno::ENXIO));
}

#[test]
fn bytes_put_back_come_out_first() {
    let (r, w) = pipe(O_NONBLOCK, 0, 0).unwrap();
    let end = r.downcast::<PipeEnd>().unwrap();
    write(&w, b"abcdef").unwrap();
    assert_eq!(read(&r, 4).unwrap(), b"abcd");
    end.pipe.unread(b"cd").unwrap();
    assert_eq!(end.pipe.peek(3).unwrap(), b"cde");
    assert_eq!(read(&r, 10).unwrap(), b"cdef");
    end.pipe.unread(b"xyz").unwrap();
    assert_eq!(read(&r, 10).unwrap(), b"xyz");
}

#[test]
fn packets_end_reads_and_lose_what_was_not_taken() {
    let (r, w) = pipe(O_NONBLOCK | O_DIRECT, 0, 0).unwrap();
    write(&w, b"first").unwrap();
    write(&w, b"second").unwrap();
    assert_eq!(read(&r, 100).unwrap(), b"first");
    assert_eq!(read(&r, 2).unwrap(), b"se");
    assert_eq!(read(&r, 100), Err(Errno::EAGAIN));
    assert_eq!(write(&w, &[1; 5000]), Ok(5000));
    assert_eq!(read(&r, 9000).unwrap().len(), 4096);
    assert_eq!(read(&r, 9000).unwrap().len(), 904);
    w.update_flags(O_DIRECT, 0);
    write(&w, b"plain").unwrap();
    write(&w, b"bytes").unwrap();
    assert_eq!(read(&r, 100).unwrap(), b"plainbytes");
}
