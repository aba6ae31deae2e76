//! YAML that says what JSON says.
//!
//! What is written can be read again and is the same then: a text that YAML could take for something else stands in quotes.

use serde_json::{Map, Number, Value};

use super::{Node, Scalar, SyntaxError, Value as Tree};

/// Words that some readers of YAML take for something else than a text.
const TAKEN: [&str; 12] = [
    "true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf", "infinity",
];

/// Reads YAML.
pub(crate) fn from_yaml(text: &str) -> Result<Value, SyntaxError> {
    value_of(super::parse(text)?)
}

fn value_of(node: Node) -> Result<Value, SyntaxError> {
    let line = node.line;
    Ok(match node.value {
        Tree::Null => Value::Null,
        Tree::Scalar(Scalar { text, plain: false }) => Value::String(text),
        Tree::Scalar(Scalar { text, plain: true }) => {
            plain(text).map_err(|message| SyntaxError { line, message })?
        }
        Tree::List(items) => Value::Array(items.into_iter().map(value_of).collect::<Result<_, _>>()?),
        Tree::Map(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                map.insert(key.text, value_of(value)?);
            }
            Value::Object(map)
        }
    })
}

/// What a scalar without quotes means, by the core schema of YAML 1.2 (section 10.3).
fn plain(text: String) -> Result<Value, String> {
    match text.as_str() {
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(&text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text.as_str(), ".nan" | ".NaN" | ".NAN") {
        return Err(format!("`{text}` is no number of JSON"));
    }
    let too_large = || format!("the number {text} is too large");
    let based = |digits: &str, base| u64::from_str_radix(digits, base).map(Value::from);
    if let Some(digits) = text.strip_prefix("0x")
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    {
        return based(digits, 16).map_err(|_| too_large());
    }
    if let Some(digits) = text.strip_prefix("0o")
        && !digits.is_empty()
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'))
    {
        return based(digits, 8).map_err(|_| too_large());
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let number = text.strip_prefix('+').unwrap_or(&text);
        let whole = number.parse::<u64>().map(Value::from);
        return whole
            .or_else(|_| number.parse::<i64>().map(Value::from))
            .map_err(|_| too_large());
    }
    if is_float(unsigned) {
        let number = text.parse().ok().and_then(Number::from_f64);
        return number.map(Value::Number).ok_or_else(too_large);
    }
    Ok(Value::String(text))
}

/// `(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (
            mantissa,
            Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
        ),
        None => (text, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

/// Writes YAML, a line for everything that has no parts.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Writes a value: one that has parts on lines of its own, anything else where it stands.
fn write(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                text.push_str(&" ".repeat(indent));
                text.push_str(&word(key));
                text.push(':');
                if has_parts(value) {
                    text.push('\n');
                    write(value, indent + 2, text);
                } else {
                    text.push(' ');
                    write(value, indent, text);
                    text.push('\n');
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut part = String::new();
                write(item, indent + 2, &mut part);
                text.push_str(&" ".repeat(indent));
                text.push_str("- ");
                // The first line of what has parts stands behind the dash.
                text.push_str(part.trim_start_matches(' '));
                if !has_parts(item) {
                    text.push('\n');
                }
            }
        }
        Value::String(content) => text.push_str(&word(content)),
        other => text.push_str(&other.to_string()),
    }
}

fn has_parts(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// A text, in quotes unless nothing could take it for something else.
fn word(text: &str) -> String {
    let is_safe = |character: char| character.is_ascii_alphanumeric() || "_-./".contains(character);
    let begins = text.starts_with(|character: char| character.is_ascii_alphabetic() || character == '_');
    let taken = TAKEN.contains(&text.to_ascii_lowercase().as_str());
    if begins && text.chars().all(is_safe) && !taken {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            // What is not shown, or ends a line in the eyes of some.
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{a0}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        from_yaml(text).expect("YAML")
    }

    #[test]
    fn what_is_written_as_yaml_is_read_as_the_same() {
        let texts = [
            "", " ", "a", "a b", "true", "Yes", "1", "1.5", "0x1f", "1e3", "~", "null", "-", "- a", "a: b",
            "#", "a #b", "\n", "a\nb\n", "\t", "\"", "\\", "'", "ä", "\u{85}", "\u{2028}", "\u{feff}",
            "\u{0}", "😀", "*a", "&a", "!a", "{", "[", "%", "@", "`", "|", ">", "?", "a:", ":", "...", "---",
            "=", "<<", ".inf", "NaN", "1_000", "12:30",
        ];
        let strings: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
        let keys: Map<String, Value> = texts
            .iter()
            .map(|text| ((*text).to_owned(), json!(text)))
            .collect();
        let document = json!({
            "strings": strings,
            "keys": keys,
            "numbers": [0, -1, 1.5, -2.5e-7, 1e300, u64::MAX, i64::MIN],
            "nested": [[[], {}], {"a": [{"b": {"c": null}}, [1, [2]]], "d": true}, null, false],
            "empty": {},
        });
        let text = to_yaml(&document);
        assert_eq!(read(&text), document, "{text}");
        for scalar in [json!(null), json!("text"), json!(7), json!([]), json!({})] {
            assert_eq!(read(&to_yaml(&scalar)), scalar);
        }
    }

    #[test]
    fn yaml_is_written_as_people_would() {
        let document =
            json!({"links": {"docs": {"url": "https://example.com", "tags": ["a", {"b": 1, "c": 2}]}}});
        let expected = "links:\n  docs:\n    tags:\n      - a\n      - b: 1\n        c: 2\n    url: \"https://example.com\"\n";
        assert_eq!(to_yaml(&document), expected);
    }

    #[test]
    fn scalars_mean_what_yaml_says() {
        let expected = json!({
            "a": 1, "b": -7, "c": 31, "d": 8, "e": 1.5, "f": 1000.0, "g": true, "h": "true", "i": "1.2.3", "j": "0x", "k": null,
            "l": "yes", "m": "+", "n": 3, "o": "-",
        });
        let text = "a: 1\nb: -7\nc: 0x1f\nd: 0o10\ne: 1.5\nf: 1e3\ng: True\nh: 'true'\ni: 1.2.3\nj: 0x\nk:\nl: yes\nm: +\nn: +3\no: '-'\n";
        assert_eq!(read(text), expected);
    }

    #[test]
    fn yaml_that_json_cannot_say_is_refused_with_its_line() {
        for text in [
            "a: 1\nb: .inf\n",
            "a: 1\nb: 1e999\n",
            "a: 1\nb: 99999999999999999999\n",
            "a: &x 1\nb: *x\n",
        ] {
            assert_eq!(from_yaml(text).map_err(|error| error.line), Err(2), "{text}");
        }
    }
}
