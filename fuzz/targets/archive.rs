//! See `fuzzing::archive` of the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| opsctl::fuzzing::archive(bytes));
