//! The binary: everything is in the library, in `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    watrunk::cli::main()
}
