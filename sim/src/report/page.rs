//! A page of one file: style, scripts and data are in it, and nothing is fetched.

use std::fmt::Write as _;

use serde::Serialize;

const FRAME: &str = include_str!("frame.html");
const STYLE: &str = include_str!("style.css");
const COMMON: &str = include_str!("common.js");

/// What makes one page another than the next.
pub(super) struct Page<'a, D> {
    pub(super) title: &'a str,
    /// Trusted: it is part of the sources.
    pub(super) body: &'static str,
    /// Trusted as well; they run in this order, after what pages have in common.
    pub(super) scripts: &'static [&'static str],
    /// Whatever it holds, it cannot leave its place.
    pub(super) data: &'a D,
}

impl<D: Serialize> Page<'_, D> {
    /// The whole file.
    pub(super) fn text(&self) -> serde_json::Result<String> {
        // In a script of JSON only `<` can end or change the script, and it occurs in strings alone.
        let data = serde_json::to_string(self.data)?.replace('<', "\\u003c");
        let mut text = String::with_capacity(data.len() + (64 << 10));
        let mut rest = FRAME;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) = after.split_once("}}").unwrap_or((after, ""));
            text.push_str(before);
            match name {
                "title" => text.push_str(&escaped(self.title)),
                "style" => text.push_str(STYLE),
                "body" => text.push_str(self.body),
                "data" => text.push_str(&data),
                _ => {
                    for script in [COMMON].iter().chain(self.scripts) {
                        // Writing to a string cannot fail.
                        let _ = writeln!(text, "{script}");
                    }
                }
            }
            rest = after;
        }
        text.push_str(rest);
        Ok(text)
    }
}

/// A text between tags, or in an attribute.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_title_or_the_data_is_read_as_markup() {
        let hostile = "</script><img src=x onerror=alert(1)>{{script}}";
        let page = Page {
            title: hostile,
            body: "",
            scripts: &[],
            data: &vec![hostile],
        };
        let text = page.text().expect("it is JSON");
        assert!(!text.contains("<img"), "{text}");
        assert_eq!(
            text.matches("</script>").count(),
            FRAME.matches("</script>").count()
        );
    }
}
