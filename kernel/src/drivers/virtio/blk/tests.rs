use super::*;
use crate::drivers::virtio::queue::model::Device;
use crate::sync::SpinLock;

/// A transport whose device answers when asked.
struct Model {
    config: Vec<u8>,
    status: SpinLock<u8>,
    device: SpinLock<Option<Device>>,
}

impl Transport for Model {
    fn device_type(&self) -> u32 {
        2
    }
    fn device_features(&self) -> u64 {
        feature::VERSION_1 | feature::INDIRECT | feature::EVENT_IDX | SEG_MAX | FLUSH
    }
    fn set_driver_features(&self, _features: u64) {}
    fn status(&self) -> u8 {
        *self.status.lock()
    }
    fn set_status(&self, status: u8) {
        *self.status.lock() = status;
    }
    fn queue_max(&self, queue: u16) -> u16 {
        if queue == 0 { 4 } else { 0 }
    }
    fn start_queue(
        &self,
        _queue: u16,
        size: u16,
        addresses: [usize; 3],
        _handler: Option<Handler>,
    ) -> Result<Doorbell> {
        *self.device.lock() = Some(Device::new(size, addresses));
        Ok(Doorbell::None)
    }
    fn config_u8(&self, offset: usize) -> u8 {
        self.config[offset]
    }
}

fn disk(sectors: u64, answer: fn(u64) -> u8) -> Arc<VirtioBlk> {
    let mut config = alloc::vec![0; 64];
    config[..8].copy_from_slice(&sectors.to_le_bytes());
    config[12] = 8;
    let model = Arc::new(Model { config, status: SpinLock::new(0), device: SpinLock::new(None) });
    let disk = start(model.clone(), "vda").unwrap();
    // Serves as long as the test process lives; the memory stays valid because the disk is leaked.
    std::thread::spawn(move || {
        loop {
            let mut device = model.device.lock();
            // Started above.
            let device = device.as_mut().unwrap();
            while let Some(chain) = device.take() {
                let header = device.read(&chain);
                let sector = u64::from_le_bytes(header[8..16].try_into().unwrap());
                let len: usize = chain.writable.iter().map(|&(_, len)| len).sum();
                let mut bytes: Vec<u8> =
                    (0..len - 1).map(|at| (sector + at as u64 / 512) as u8).collect();
                bytes.push(answer(sector));
                let written = device.write(&chain, &bytes);
                device.finish(&chain, written);
            }
            std::thread::yield_now();
        }
    });
    disk
}

#[test]
fn reads_of_many_pages_come_back_in_place() {
    let disk = disk(1003, |_| 0);
    assert_eq!(disk.capacity(), 1003 * 512);
    let pages: Vec<_> = (0..40).map(|_| PageRef::alloc(false).unwrap()).collect();
    disk.read_pages(16 * 512, &pages).unwrap();
    for (at, page) in pages.iter().enumerate() {
        let mut byte = [0];
        page.read(4095, &mut byte);
        assert_eq!(byte[0], (16 + at * 8 + 7) as u8);
    }
    let mut bytes = [0; 1000];
    disk.read_bytes(700, &mut bytes).unwrap();
    assert_eq!((bytes[0], bytes[323], bytes[324], bytes[999]), (1, 1, 2, 3));
    assert_eq!(disk.read_bytes(1003 * 512 - 1, &mut [0; 2]), Err(Errno::EINVAL));
    // The last page reaches past the end.
    disk.read_pages(1000 * 512, &pages[..1]).unwrap();
    let mut tail = [1; 2];
    pages[0].read(3 * 512 - 1, &mut tail);
    assert_eq!(tail, [1002u64 as u8, 0]);
    disk.flush().unwrap();
}

#[test]
fn device_errors_are_reported() {
    let disk = disk(1000, |sector| u8::from(sector >= 64));
    let pages: Vec<_> = (0..16).map(|_| PageRef::alloc(false).unwrap()).collect();
    assert_eq!(disk.read_pages(0, &pages[..8]), Ok(()));
    assert_eq!(disk.read_pages(0, &pages), Err(Errno::EIO));
}
