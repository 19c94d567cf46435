//! See `fuzzing::restore` of the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| opsctl::fuzzing::restore(bytes));
