#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dock2uni::fuzz::webhook(data));
