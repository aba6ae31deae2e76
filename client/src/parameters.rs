//! The parameters after a path.

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};

/// A path with parameters.
pub(crate) struct Parameters {
    text: String,
    mark: char,
}

impl Parameters {
    /// A path without any.
    pub(crate) fn of(path: String) -> Parameters {
        Parameters {
            text: path,
            mark: '?',
        }
    }

    /// Adds one whose value needs no encoding.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.text.push(self.mark);
        self.text.push_str(name);
        self.text.push('=');
        self.text.push_str(value);
        self.mark = '&';
    }

    pub(crate) fn add_number(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.add(name, &number.to_string());
        }
    }

    pub(crate) fn add_switch(&mut self, name: &str, on: bool) {
        if on {
            self.add(name, "true");
        }
    }

    pub(crate) fn add_bytes(&mut self, name: &str, bytes: &[u8]) {
        self.add(name, &percent_encode(bytes, NON_ALPHANUMERIC).to_string());
    }
}

impl From<Parameters> for String {
    fn from(parameters: Parameters) -> String {
        parameters.text
    }
}
