//! The target `client-requests`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| raftkv_fuzz::run_input(raftkv_fuzz::targets::client_requests::run, data));
