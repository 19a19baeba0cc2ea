#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ruststrom_fuzz::run("h2_proxy", data));
