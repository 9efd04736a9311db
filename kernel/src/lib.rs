//! The dock2uni libOS.
#![cfg_attr(guest, no_std)]
extern crate alloc;
