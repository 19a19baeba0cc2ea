#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ruststrom_fuzz::run("restore", data));
