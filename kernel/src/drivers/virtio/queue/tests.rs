use super::model::Device;
use super::*;
use alloc::vec;

fn pair(size: u16, event_idx: bool, indirect: bool) -> (Queue<Vec<u8>>, Device) {
    let queue = Queue::new(size, event_idx, indirect).unwrap();
    let device = Device::new(size, queue.addresses());
    (queue, device)
}

#[test]
fn requests_of_several_segments_arrive_and_return() {
    for indirect in [false, true] {
        let (mut queue, mut device) = pair(8, true, indirect);
        for round in 0..100u8 {
            let (head, body, answer) = (vec![round; 3], vec![round + 1; 5], vec![0u8; 4]);
            let readable = [Segment::of(&head), Segment::of(&body)];
            let writable = [Segment::of(&answer)];
            queue.push(&readable, &writable, answer).unwrap();
            let chain = device.take().unwrap();
            assert_eq!(device.read(&chain), [vec![round; 3], vec![round + 1; 5]].concat());
            let n = device.write(&chain, &[9, 8, 7, 6, 5]);
            device.finish(&chain, n);
            let (answer, written) = queue.pop().unwrap().unwrap();
            assert_eq!((answer.as_slice(), written), (&[9u8, 8, 7, 6][..], 4));
            assert_eq!(queue.free(), 8);
        }
    }
}

#[test]
fn out_of_order_completion_keeps_the_free_list_whole() {
    let (mut queue, mut device) = pair(8, false, false);
    let buf = vec![0u8; 1];
    let seg = Segment::of(&buf);
    for _ in 0..50 {
        for tag in 0..4 {
            queue.push(&[seg], &[seg], vec![tag]).unwrap();
        }
        assert_eq!(queue.push(&[seg], &[], vec![99]), Err(vec![99]));
        let chains: Vec<_> = core::iter::from_fn(|| device.take()).collect();
        for at in [2, 0, 3, 1] {
            device.finish(&chains[at], 0);
            assert_eq!(queue.pop().unwrap().unwrap().0, vec![at as u8]);
        }
        assert_eq!(queue.free(), 8);
    }
}

#[test]
fn a_device_that_lies_stops_the_queue() {
    let buf = vec![0u8; 1];
    let seg = Segment::of(&buf);
    // An id never handed out, one out of range, one twice, and more entries than requests.
    for lie in [3, 8, 0xffff_ffff] {
        let (mut queue, mut device) = pair(8, false, false);
        queue.push(&[seg], &[], vec![]).unwrap();
        device.finish_raw(lie, 0);
        assert_eq!(queue.pop().unwrap_err(), Errno::EIO);
        assert!(queue.broken() && queue.push(&[seg], &[], vec![]).is_err());
    }
    let (mut queue, mut device) = pair(8, false, false);
    queue.push(&[seg], &[], vec![]).unwrap();
    device.finish_raw(0, 0);
    device.finish_raw(0, 0);
    assert!(queue.pop().is_err());
}

#[test]
fn a_length_beyond_the_buffer_is_cut() {
    let (mut queue, mut device) = pair(8, false, false);
    let buf = vec![0u8; 10];
    queue.push(&[], &[Segment::of(&buf)], buf).unwrap();
    let chain = device.take().unwrap();
    device.finish(&chain, 4000);
    assert_eq!(queue.pop().unwrap().unwrap().1, 10);
}

#[test]
fn notifications_follow_the_event_index() {
    let (mut queue, mut device) = pair(16, true, false);
    let buf = vec![0u8; 1];
    let seg = Segment::of(&buf);
    assert!(!queue.should_notify());
    queue.push(&[seg], &[], vec![]).unwrap();
    assert!(queue.should_notify(), "the device waits for index 0");
    queue.push(&[seg], &[], vec![]).unwrap();
    assert!(!queue.should_notify(), "it hasn't asked again");
    device.set_avail_event(2);
    queue.push(&[seg], &[], vec![]).unwrap();
    assert!(queue.should_notify());
    assert!(!queue.enable_interrupts(1));
    assert_eq!(device.used_event(), 0);
    let chain = device.take().unwrap();
    device.finish(&chain, 0);
    assert!(queue.enable_interrupts(1), "an entry slipped in before");
    assert!(queue.pop().unwrap().is_some());
    queue.enable_interrupts(4);
    assert_eq!(device.used_event(), 4);
}
