//! virtio 1.x drivers, over PCI and memory-mapped transports. Legacy (pre-1.0) devices are refused.

pub mod queue;
