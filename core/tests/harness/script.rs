//! Reads a script, runs it, and compares what it shows with what it says.

use std::fmt::Write as _;
use std::path::Path;

use super::commands;
use super::world::World;

enum Block {
    /// A comment or a blank line.
    Prose(String),
    Command {
        line: usize,
        text: String,
        expected: Vec<String>,
    },
}

fn parse(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if let Some(command) = line.strip_prefix("> ") {
            blocks.push(Block::Command {
                line: number + 1,
                text: command.trim().to_owned(),
                expected: Vec::new(),
            });
            open = true;
        } else if line.is_empty() || line.starts_with('#') {
            blocks.push(Block::Prose(line.to_owned()));
            open = false;
        } else {
            match blocks.last_mut() {
                Some(Block::Command { expected, .. }) if open => expected.push(line.to_owned()),
                _ => panic!(
                    "line {}: neither a command, a comment, nor under a command: {line}",
                    number + 1
                ),
            }
        }
    }
    blocks
}

/// Runs the script at `path`.
///
/// # Panics
/// When it does not show what it says, with the difference; or when a command does not exist or a safety rule is
/// broken, with the line. With `UPDATE_SCENARIOS=1` the file is rewritten instead of compared.
pub(crate) fn run(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some_and(|value| value == "1");
    let mut world = World::default();
    let (mut rewritten, mut differences) = (String::new(), String::new());
    for block in parse(&text) {
        match block {
            Block::Prose(line) => writeln!(rewritten, "{line}").unwrap(),
            Block::Command { line, text, expected } => {
                let _place = Place {
                    path,
                    line,
                    text: &text,
                };
                commands::run(&mut world, &text);
                let shown = std::mem::take(&mut world.told);
                writeln!(rewritten, "> {text}").unwrap();
                for line in &shown {
                    writeln!(rewritten, "{line}").unwrap();
                }
                if shown != expected {
                    writeln!(differences, "\n{}:{line}\n  > {text}", path.display()).unwrap();
                    differences += &difference(&expected, &shown);
                }
            }
        }
    }
    if update {
        if rewritten != text {
            std::fs::write(path, rewritten).unwrap();
        }
        return;
    }
    assert!(
        differences.is_empty(),
        "\nThe script shows (+) something else than it says (-):\n{differences}\n\
         UPDATE_SCENARIOS=1 rewrites it, for review.\n"
    );
}

/// Names the line at which a command panicked.
struct Place<'a> {
    path: &'a Path,
    line: usize,
    text: &'a str,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {}:{}: > {}", self.path.display(), self.line, self.text);
        }
    }
}

/// The lines of both, those of one alone marked, by their longest common part.
fn difference(expected: &[String], shown: &[String]) -> String {
    let (rows, columns) = (expected.len(), shown.len());
    let mut common = vec![vec![0usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = if expected[row] == shown[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut text = String::new();
    while row < rows || column < columns {
        let (mark, line) = if row < rows && column < columns && expected[row] == shown[column] {
            row += 1;
            column += 1;
            (' ', &shown[column - 1])
        } else if column == columns || (row < rows && common[row + 1][column] >= common[row][column + 1]) {
            row += 1;
            ('-', &expected[row - 1])
        } else {
            column += 1;
            ('+', &shown[column - 1])
        };
        writeln!(text, "  {mark} {line}").unwrap();
    }
    text
}
