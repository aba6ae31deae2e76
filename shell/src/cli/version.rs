//! `quorate version`

use super::error::CliError;
use super::output::print;

pub(super) fn run() -> Result<(), CliError> {
    print(&format!("quorate {}\n", env!("CARGO_PKG_VERSION")))
}
