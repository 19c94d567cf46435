//! The `opsctl` binary: everything is in the library, see `lib.rs` for the map.

use std::process::ExitCode;

fn main() -> ExitCode {
    opsctl::main()
}
