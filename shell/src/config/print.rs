//! The effective configuration as a file: valid YAML, with the origin of every value in a comment.

use super::mistake::Origin;
use super::reader::Effective;
use super::settings::SETTINGS;

pub(super) fn print(effective: &[Effective]) -> String {
    let mut output = String::new();
    let mut open: Vec<&str> = Vec::new();
    for setting in SETTINGS {
        let Some(line) = effective.iter().find(|line| line.key == setting.key) else {
            continue;
        };
        let mut sections: Vec<&str> = setting.key.split('.').collect();
        let name = sections.pop().unwrap_or_default();
        let shared = open
            .iter()
            .zip(&sections)
            .take_while(|(left, right)| left == right)
            .count();
        for (depth, section) in sections.iter().enumerate().skip(shared) {
            output.push_str(&format!("{}{section}:\n", indent(depth)));
        }
        push_value(&mut output, sections.len(), name, line);
        open = sections;
    }
    output
}

fn push_value(output: &mut String, depth: usize, name: &str, line: &Effective) {
    let indent = indent(depth);
    let origin = shown(&line.origin);
    match line.value.strip_prefix('\n') {
        Some(items) => {
            output.push_str(&format!("{indent}{name}: # {origin}\n"));
            for item in items.lines() {
                output.push_str(&format!("{indent}  {item}\n"));
            }
        }
        None => {
            let value = format!("{indent}{name}: {}", line.value);
            output.push_str(&format!("{value:<44} # {origin}\n"));
        }
    }
}

/// The key stands on the line already, so a place in a file is shown without it.
fn shown(origin: &Origin) -> String {
    match origin {
        Origin::File { path, line, .. } => format!("{path}:{line}"),
        other => other.to_string(),
    }
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}
