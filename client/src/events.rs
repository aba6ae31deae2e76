//! Server-sent events (HTML standard, section 9.2), read as they come.

use std::collections::VecDeque;

/// An event longer than this is none of a node.
const EVENT_BYTES_MAX: usize = 64 << 20;

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its kind; `message` when it names none.
    pub kind: String,
    /// Its own id, if it has one.
    pub id: Option<String>,
    /// Its data.
    pub data: String,
}

/// Takes a stream of server-sent events apart.
#[derive(Debug, Default)]
pub struct EventParser {
    /// The line that is not at its end yet.
    line: Vec<u8>,
    kind: String,
    id: Option<String>,
    data: String,
    /// Bytes since the last event ended.
    pending: usize,
    done: VecDeque<ServerEvent>,
}

/// An event that is longer than any that a node sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl EventParser {
    /// Takes in what came next.
    ///
    /// # Errors
    /// When an event becomes too long.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending += part.len();
            if self.pending > EVENT_BYTES_MAX {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            if self.line.pop_if(|byte| *byte == b'\n').is_some() {
                self.line.pop_if(|byte| *byte == b'\r');
                let line = std::mem::take(&mut self.line);
                self.end_line(&String::from_utf8_lossy(&line));
            }
        }
        Ok(())
    }

    /// The next event that is whole.
    pub fn next_event(&mut self) -> Option<ServerEvent> {
        self.done.pop_front()
    }

    fn end_line(&mut self, line: &str) {
        if line.is_empty() {
            self.end_event();
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "id" => self.id = Some(value.to_owned()),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            // A comment, or a field that this client does not use.
            _ => {}
        }
    }

    fn end_event(&mut self) {
        self.pending = 0;
        let (kind, id, mut data) = (
            std::mem::take(&mut self.kind),
            self.id.take(),
            std::mem::take(&mut self.data),
        );
        if data.pop().is_none() {
            return;
        }
        let kind = if kind.is_empty() {
            "message".to_owned()
        } else {
            kind
        };
        self.done.push_back(ServerEvent { kind, id, data });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, id: Option<&str>, data: &str) -> ServerEvent {
        ServerEvent {
            kind: kind.to_owned(),
            id: id.map(str::to_owned),
            data: data.to_owned(),
        }
    }

    #[test]
    fn events_are_whole_however_the_bytes_come() {
        let text = "retry: 500\nid: 4\nevent: open\ndata: {}\n\n: a comment\n\nid: 5\r\nevent: change\r\ndata: one\r\n\
                    data: two\r\n\r\ndata\n\ndata: plain\n\nevent: change\ndata: not at its end\n";
        let expected = [
            event("open", Some("4"), "{}"),
            event("change", Some("5"), "one\ntwo"),
            event("message", None, ""),
            event("message", None, "plain"),
        ];
        for size in 1..text.len() {
            let mut parser = EventParser::default();
            let mut found = Vec::new();
            for part in text.as_bytes().chunks(size) {
                parser.feed(part).unwrap();
                found.extend(std::iter::from_fn(|| parser.next_event()));
            }
            assert_eq!(found, expected, "in parts of {size} bytes");
        }
    }
}
