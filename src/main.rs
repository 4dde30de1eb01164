//! Picks the front door and exits with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    kiln::sandbox::child_main_if_requested();
    kiln::cli::main()
}
