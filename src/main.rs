//! `scale-lnd`: the command line is in `cli`; the adapters of a master are built in `master`.

use std::process::ExitCode;

fn main() -> ExitCode {
    scale_lnd::cli::main()
}
