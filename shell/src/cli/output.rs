//! Output for people and for programs, and what is read from standard input.

use std::io::{self, ErrorKind, Read, Write};

use clap::ValueEnum;
use serde::Serialize;

use super::error::CliError;
use crate::logging::wants_colours;

/// How a command shows its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Writes to standard output. Whoever reads may go away at any time (`| head`).
pub(super) fn print(text: &str) -> Result<(), CliError> {
    print_bytes(text.as_bytes())
}

pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut output = io::stdout().lock();
    let result = output.write_all(bytes).and_then(|()| output.flush());
    result.map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => CliError::BrokenPipe,
        _ => CliError::io("write to standard output", error),
    })
}

/// All of standard input.
pub(super) fn read_input() -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let result = io::stdin().lock().read_to_end(&mut bytes);
    result.map_err(|error| CliError::io("read standard input", error))?;
    Ok(bytes)
}

pub(super) fn print_json(value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::Other(format!("the answer cannot be written as JSON: {error}")))?;
    text.push('\n');
    print(&text)
}

/// Writes an error to standard error. When nobody reads that either, there is nobody left to tell.
pub(super) fn complain(message: &str) {
    let prefix = if wants_colours(&io::stderr()) {
        "\u{1b}[1;31merror:\u{1b}[0m"
    } else {
        "error:"
    };
    let _ = writeln!(io::stderr(), "{prefix} {message}");
}

/// Writes a warning to standard error.
pub(super) fn warn(message: &str) {
    let prefix = if wants_colours(&io::stderr()) {
        "\u{1b}[1;33mwarning:\u{1b}[0m"
    } else {
        "warning:"
    };
    let _ = writeln!(io::stderr(), "{prefix} {message}");
}

/// How a text stands out on a terminal.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Bold,
    Good,
    Bad,
    Warn,
}

/// `text` in a style, if standard output is a terminal.
pub(super) fn styled(text: &str, style: Style) -> String {
    if !wants_colours(&io::stdout()) {
        return text.to_owned();
    }
    let code = match style {
        Style::Bold => "1",
        Style::Good => "32",
        Style::Bad => "31",
        Style::Warn => "33",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// Rows with aligned columns, the first row being the heads.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut output = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        output.push_str(line.trim_end());
        output.push('\n');
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_blanks_at_their_end() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&[row(["NODE", "ROLE"]), row(["node10", "leader"]), row(["ä", ""])]);
        assert_eq!(text, "NODE    ROLE\nnode10  leader\nä\n");
    }
}
