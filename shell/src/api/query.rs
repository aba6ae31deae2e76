//! Parameters after the `?`, read strictly: what is unknown, repeated or malformed is named in the answer.

use std::borrow::Cow;
use std::str::FromStr;

use percent_encoding::percent_decode;
use quorate_api::Consistency;
use quorate_core::state::Revision;

use super::answer::Failure;
use crate::config::nearest;

/// The parameters of one request.
pub(super) struct Query<'a> {
    parameters: Vec<(Cow<'a, str>, Cow<'a, [u8]>)>,
}

impl<'a> Query<'a> {
    /// Takes apart the text after the `?`, if any.
    ///
    /// # Errors
    /// When there is a parameter that is not `known`, or one twice.
    pub(super) fn parse(text: Option<&'a str>, known: &[&str]) -> Result<Query<'a>, Failure> {
        let mut parameters: Vec<(Cow<str>, Cow<[u8]>)> = Vec::new();
        for part in text
            .unwrap_or_default()
            .split('&')
            .filter(|part| !part.is_empty())
        {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = String::from_utf8_lossy(&decode(name)).into_owned();
            if !known.contains(&name.as_str()) {
                let action = match nearest(&name, known.iter().copied()) {
                    Some(other) => format!("did you mean `{other}`?"),
                    None if known.is_empty() => "there are no parameters here".to_owned(),
                    None => format!("there are {}", known.join(", ")),
                };
                return Err(Failure::bad_request(
                    format!("unknown parameter `{name}`"),
                    action,
                ));
            }
            if parameters.iter().any(|(other, _)| *other == name) {
                let detail = format!("the parameter `{name}` is given twice");
                return Err(Failure::bad_request(detail, "leave one out"));
            }
            parameters.push((Cow::Owned(name), decode(value)));
        }
        Ok(Query { parameters })
    }

    /// The bytes of a parameter.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        let found = self.parameters.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| &**value)
    }

    /// A parameter read as a `T`.
    ///
    /// # Errors
    /// When it is there and no `T`; the answer names it and what was expected.
    pub(super) fn value<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, Failure> {
        let Some(bytes) = self.bytes(name) else {
            return Ok(None);
        };
        let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
        parsed.map(Some).ok_or_else(|| {
            let found = String::from_utf8_lossy(bytes).into_owned();
            Failure::bad_request(
                format!("the parameter `{name}` is `{found}`"),
                format!("expected {expected}"),
            )
        })
    }

    /// A switch: true or false, and true when it stands there without a value.
    pub(super) fn switch(&self, name: &str) -> Result<bool, Failure> {
        if self.bytes(name) == Some(b"") {
            return Ok(true);
        }
        Ok(self.value(name, "true or false")?.unwrap_or(false))
    }

    /// The parameter `consistency`.
    pub(super) fn consistency(&self) -> Result<Consistency, Failure> {
        let expected = "linearizable, lease or serializable";
        Ok(self.value("consistency", expected)?.unwrap_or_default())
    }

    /// A parameter that names a revision.
    pub(super) fn revision(&self, name: &str) -> Result<Option<Revision>, Failure> {
        Ok(self.value(name, "the number of a revision")?.map(Revision))
    }

    /// A number of entries from 1 to `most`.
    pub(super) fn limit(&self, default: usize, most: usize) -> Result<usize, Failure> {
        let expected = format!("a number from 1 to {most}");
        let limit = self.value("limit", &expected)?.unwrap_or(default);
        if (1..=most).contains(&limit) {
            Ok(limit)
        } else {
            let detail = format!("the parameter `limit` is {limit}");
            Err(Failure::bad_request(detail, format!("expected {expected}")))
        }
    }
}

/// Percent-decodes, with `+` for a space, as forms write it.
fn decode(text: &str) -> Cow<'_, [u8]> {
    if text.contains('+') {
        let spaced = text.replace('+', " ");
        Cow::Owned(percent_decode(spaced.as_bytes()).collect())
    } else {
        percent_decode(text.as_bytes()).into()
    }
}
