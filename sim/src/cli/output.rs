//! Standard output. Whoever reads it may close it early, as `head` does: the command ends there without a word, with the
//! status of a tool that the signal for it has ended.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::process;

/// What a shell shows of a process that SIGPIPE has ended.
const CLOSED: i32 = 128 + 13;

/// Writes to standard output; use `out!` and `outln!`.
pub(super) fn write(text: fmt::Arguments<'_>) {
    let mut output = io::stdout().lock();
    match output.write_fmt(text).and_then(|()| output.flush()) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::BrokenPipe => process::exit(CLOSED),
        Err(error) => {
            eprintln!("error: cannot write to standard output: {error}");
            process::exit(2);
        }
    }
}

/// `print!` to an output that may be closed.
macro_rules! out {
    ($($text:tt)*) => { $crate::cli::output::write(format_args!($($text)*)) };
}

/// `println!` to an output that may be closed.
macro_rules! outln {
    ($($text:tt)*) => { $crate::cli::output::write(format_args!("{}\n", format_args!($($text)*))) };
}
