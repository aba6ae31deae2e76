//! Names of nodes.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name an operator gave a node: 1 to 64 letters, digits, dots, dashes and underscores.
///
/// In JSON a name that is a number in its shortest decimal form is a number (`1`), every other name is a string
/// (`"node1"`, `"01"`). Both forms are read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(String);

/// Why a text is no name of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError(String);

impl fmt::Display for NameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "`{}` is no name for a node: 1 to {NAME_LENGTH_MAX} letters, digits, dots, dashes and underscores",
            self.0
        )
    }
}

impl std::error::Error for NameError {}

pub(crate) const NAME_LENGTH_MAX: usize = 64;

impl NodeName {
    /// Checks `name`.
    ///
    /// # Errors
    /// When it is empty, too long, or has a character that a name must not have.
    pub fn new(name: impl Into<String>) -> Result<NodeName, NameError> {
        let name = name.into();
        let fits = (1..=NAME_LENGTH_MAX).contains(&name.len());
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if fits && name.bytes().all(plain) {
            Ok(NodeName(name))
        } else {
            let shown = name.chars().take(NAME_LENGTH_MAX).collect();
            Err(NameError(shown))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, when the name is one in its shortest decimal form.
    pub fn as_number(&self) -> Option<u64> {
        let number: u64 = self.0.parse().ok()?;
        (number.to_string() == self.0).then_some(number)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<NodeName, NameError> {
        NodeName::new(text)
    }
}

impl Serialize for NodeName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.as_number() {
            Some(number) => serializer.serialize_u64(number),
            None => serializer.serialize_str(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for NodeName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NodeName, D::Error> {
        deserializer.deserialize_any(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = NodeName;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a node, as a string or a number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<NodeName, E> {
        Ok(NodeName(number.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<NodeName, E> {
        let number =
            u64::try_from(number).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))?;
        self.visit_u64(number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<NodeName, E> {
        NodeName::new(text).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_as_a_number_and_anything_else_as_a_string() {
        let json = |name: &str| serde_json::to_string(&NodeName::new(name).unwrap()).unwrap();
        assert_eq!(json("1"), "1");
        assert_eq!(json("node1"), "\"node1\"");
        assert_eq!(json("01"), "\"01\"");
        assert_eq!(json("99999999999999999999999"), "\"99999999999999999999999\"");
    }

    #[test]
    fn both_forms_are_read() {
        let read = |json: &str| serde_json::from_str::<NodeName>(json);
        assert_eq!(read("7").unwrap().as_str(), "7");
        assert_eq!(read("\"7\"").unwrap().as_str(), "7");
        assert_eq!(read("\"node-7\"").unwrap().as_str(), "node-7");
        assert!(read("-7").is_err());
        assert!(read("\"\"").is_err());
        assert!(read("\"a b\"").is_err());
    }
}
