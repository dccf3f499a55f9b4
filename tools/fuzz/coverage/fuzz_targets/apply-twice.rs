//! The target `apply-twice`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raftkv_fuzz::run_input(raftkv_fuzz::targets::apply_twice::run, data));
