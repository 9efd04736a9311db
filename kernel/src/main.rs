#![cfg_attr(guest, no_std, no_main)]
fn main() {}
