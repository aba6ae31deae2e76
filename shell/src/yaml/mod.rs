//! YAML as a tree that knows the line of everything in it.
//!
//! Only what a configuration needs: one document, mappings with plain keys, lists and scalars. Anchors and aliases are
//! refused, so a small text cannot become a large tree, and so are tags; nesting is bounded.

pub(crate) mod json;

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// A value and the line, counted from 1, on which it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing: an empty value, `null` or `~`.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A word, a number or a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Whether it stands without quotes, so that it may be more than a text.
    pub(crate) plain: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// Why a text is not the YAML that a configuration may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    pub(crate) line: usize,
    pub(crate) message: String,
}

impl SyntaxError {
    fn at(span: Span, message: impl Into<String>) -> SyntaxError {
        SyntaxError {
            line: span.start.line(),
            message: message.into(),
        }
    }
}

const DEPTH_MAX: usize = 64;

/// The tree of `text`; an empty document is [`Value::Null`].
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut events = Events {
        parser: Parser::new_from_str(text),
    };
    let mut root = None;
    loop {
        let (event, span) = events.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => break,
            _ if root.is_some() => {
                return Err(SyntaxError::at(span, "a second document: one file holds one"));
            }
            _ => root = Some(events.node(event, span, 0)?),
        }
    }
    Ok(root.unwrap_or(Node {
        line: 1,
        value: Value::Null,
    }))
}

struct Events<'input> {
    parser: Parser<'input, saphyr_parser::StrInput<'input>>,
}

impl<'input> Events<'input> {
    fn next(&mut self) -> Result<(Event<'input>, Span), SyntaxError> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(SyntaxError {
                line: error.marker().line(),
                message: error.info().to_owned(),
            }),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'input>, span: Span, depth: usize) -> Result<Node, SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(SyntaxError::at(
                span,
                format!("nested more than {DEPTH_MAX} deep"),
            ));
        }
        let value = match event {
            Event::Scalar(.., Some(_))
            | Event::SequenceStart(.., Some(_))
            | Event::MappingStart(.., Some(_)) => {
                return Err(SyntaxError::at(span, "tags (`!name`) are not taken here"));
            }
            Event::Scalar(text, style, ..) => scalar(&text, style),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            Event::Alias(_) => return Err(SyntaxError::at(span, "aliases (`*name`) are not taken here")),
            _ => return Err(SyntaxError::at(span, "expected a value")),
        };
        Ok(Node {
            line: span.start.line(),
            value,
        })
    }

    fn list(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::List(items));
            }
            items.push(self.node(event, span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, SyntaxError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut lines: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            let text = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(SyntaxError::at(span, "a key must be a plain word")),
            };
            let key = Key {
                line: span.start.line(),
                text,
            };
            if let Some(first) = lines.insert(key.text.clone(), key.line) {
                let message = format!("`{}` is given twice, first on line {first}", key.text);
                return Err(SyntaxError::at(span, message));
            }
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            entries.push((key, node));
        }
    }
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(text, "" | "~" | "null" | "Null" | "NULL") {
        Value::Null
    } else {
        let text = text.to_owned();
        Value::Scalar(Scalar { text, plain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(text: &str, plain: bool) -> Value {
        let text = text.to_owned();
        Value::Scalar(Scalar { text, plain })
    }

    #[test]
    fn everything_knows_its_line() {
        let tree = parse("# comment\na:\n  b: 1\n  c:\n    - x\n    - y: 'null'\nd:\n").unwrap();
        let Value::Map(top) = tree.value else {
            panic!("expected a map");
        };
        assert_eq!((top[0].0.text.as_str(), top[0].0.line), ("a", 2));
        assert_eq!((top[1].0.line, &top[1].1.value), (7, &Value::Null));
        let Value::Map(a) = &top[0].1.value else {
            panic!("expected a map");
        };
        assert_eq!((a[0].1.line, &a[0].1.value), (3, &word("1", true)));
        let Value::List(c) = &a[1].1.value else {
            panic!("expected a list");
        };
        assert_eq!((c[0].line, c[1].line), (5, 6));
        let Value::Map(y) = &c[1].value else {
            panic!("expected a map");
        };
        assert_eq!(y[0].1.value, word("null", false), "quoted, so a word");
    }

    #[test]
    fn a_broken_file_names_the_line() {
        assert_eq!(parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err().line, 3);
        assert_eq!(
            parse("a: 1\na: 2\n").unwrap_err().message,
            "`a` is given twice, first on line 1"
        );
        assert_eq!(parse("a: &x 1\nb: *x\n").unwrap_err().line, 2);
        assert_eq!(parse("a: 1\nb: !x 2\n").unwrap_err().line, 2);
        assert_eq!(parse("a: 1\n---\nb: 2\n").unwrap_err().line, 3);
        assert!(parse(&"[".repeat(100)).is_err());
    }

    #[test]
    fn an_empty_file_is_nothing() {
        assert_eq!(parse("").unwrap().value, Value::Null);
        assert_eq!(parse("# only a comment\n").unwrap().value, Value::Null);
    }
}
