//! How to name the program and its files so that a line can be pasted into the shell from which `dev` was started.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The program: its name when PATH leads to it, its path otherwise.
pub(super) fn invocation() -> String {
    const NAME: &str = "quorate";
    let Ok(program) = env::current_exe() else {
        return NAME.to_owned();
    };
    let found = env::var_os("PATH").and_then(|path| {
        env::split_paths(&path)
            .map(|directory| directory.join(NAME))
            .find(|file| file.is_file())
    });
    let is_found = found.is_some_and(|file| fs::canonicalize(file).is_ok_and(|file| file == program));
    if is_found {
        NAME.to_owned()
    } else {
        quoted(&from_here(&program))
    }
}

/// `path` as seen from the working directory, when it lies below it.
pub(super) fn from_here(path: &Path) -> PathBuf {
    let here = env::current_dir().and_then(fs::canonicalize);
    match here.as_deref().map(|here| path.strip_prefix(here)) {
        Ok(Ok(below)) => Path::new(".").join(below),
        _ => path.to_owned(),
    }
}

/// `path` as one word of a shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._-+".contains(character);
    if text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_and_quotes_is_one_word() {
        assert_eq!(quoted(Path::new("./target/quorate")), "./target/quorate");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }

    #[test]
    fn what_lies_below_the_working_directory_is_named_from_there() {
        let here = fs::canonicalize(env::current_dir().unwrap()).unwrap();
        assert_eq!(from_here(&here.join("a/b")), Path::new("./a/b"));
        assert_eq!(from_here(Path::new("/elsewhere")), Path::new("/elsewhere"));
    }
}
