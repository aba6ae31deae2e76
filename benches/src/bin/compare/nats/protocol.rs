//! What a NATS server sends: lines of text, of which two kinds announce so many bytes that follow.
//!
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>

use bytes::{Buf as _, Bytes, BytesMut};

/// The longest line that a server sends; it says of itself within this much, in `INFO`.
const LINE_BYTES_MAX: usize = 64 << 10;
const END_OF_LINE: &[u8] = b"\r\n";

/// One thing that a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// It wants to hear `PONG`.
    Ping,
    /// It has read everything before the `PING`.
    Pong,
    /// A message of a subscription; the headers are empty when it has none.
    Message { headers: Bytes, payload: Bytes },
    /// It refuses something.
    Error(String),
    /// Something that needs no answer: `INFO`, `+OK`.
    Other,
}

/// Takes the first frame off `buffer`; none while it is not whole.
pub(super) fn take(buffer: &mut BytesMut) -> Result<Option<Frame>, String> {
    let Some(length) = buffer
        .windows(END_OF_LINE.len())
        .position(|pair| pair == END_OF_LINE)
    else {
        return if buffer.len() > LINE_BYTES_MAX {
            Err(format!("a line is longer than {LINE_BYTES_MAX} bytes"))
        } else {
            Ok(None)
        };
    };
    let line =
        std::str::from_utf8(&buffer[..length]).map_err(|error| format!("a line is no text: {error}"))?;
    let mut words = line.split_ascii_whitespace();
    let frame = match words.next() {
        Some("MSG") => return message(buffer, length, false),
        Some("HMSG") => return message(buffer, length, true),
        Some("PING") => Frame::Ping,
        Some("PONG") => Frame::Pong,
        Some("-ERR") => Frame::Error(line.to_owned()),
        _ => Frame::Other,
    };
    buffer.advance(length + END_OF_LINE.len());
    Ok(Some(frame))
}

/// `MSG subject id [reply] bytes`, or `HMSG subject id [reply] bytes-of-headers bytes-of-all`, and then those bytes.
fn message(buffer: &mut BytesMut, line_bytes: usize, with_headers: bool) -> Result<Option<Frame>, String> {
    let line = String::from_utf8_lossy(&buffer[..line_bytes]);
    let mut numbers = line.rsplit(' ').map(str::parse::<usize>);
    let mut number = || match numbers.next() {
        Some(Ok(number)) => Ok(number),
        _ => Err(format!("cannot read `{line}`")),
    };
    let total = number()?;
    let headers = if with_headers { number()? } else { 0 };
    if headers > total {
        return Err(format!("cannot read `{line}`"));
    }
    let begin = line_bytes + END_OF_LINE.len();
    if buffer.len() < begin + total + END_OF_LINE.len() {
        return Ok(None);
    }
    buffer.advance(begin);
    let headers_part = buffer.split_to(headers).freeze();
    let payload = buffer.split_to(total - headers).freeze();
    buffer.advance(END_OF_LINE.len());
    Ok(Some(Frame::Message {
        headers: headers_part,
        payload,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(text: &str) -> Result<Vec<Frame>, String> {
        let mut buffer = BytesMut::from(text);
        let mut frames = Vec::new();
        while let Some(frame) = take(&mut buffer)? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn message(headers: &'static str, payload: &'static str) -> Frame {
        Frame::Message {
            headers: headers.into(),
            payload: payload.into(),
        }
    }

    #[test]
    fn frames_are_told_apart() {
        let text = "INFO {\"version\":\"2.9.10\"}\r\nPING\r\nPONG\r\n+OK\r\n-ERR 'Stale Connection'\r\n";
        let error = Frame::Error("-ERR 'Stale Connection'".to_owned());
        let expected = vec![Frame::Other, Frame::Ping, Frame::Pong, Frame::Other, error];
        assert_eq!(frames(text), Ok(expected));
    }

    #[test]
    fn a_payload_may_hold_ends_of_lines_and_be_empty() {
        let text = "MSG inbox 1 6\r\nab\r\ncd\r\nMSG inbox 1 reply 0\r\n\r\nPING\r\n";
        let expected = vec![message("", "ab\r\ncd"), message("", ""), Frame::Ping];
        assert_eq!(frames(text), Ok(expected));
    }

    #[test]
    fn headers_are_no_part_of_the_payload() {
        let text = "HMSG inbox 1 16 18\r\nNATS/1.0 503\r\n\r\nok\r\n";
        assert_eq!(frames(text), Ok(vec![message("NATS/1.0 503\r\n\r\n", "ok")]));
    }

    #[test]
    fn a_frame_that_is_not_whole_is_waited_for() {
        let text = "MSG inbox 1 6\r\nabcdef\r\n";
        for length in 0..text.len() {
            let mut buffer = BytesMut::from(&text[..length]);
            assert_eq!(take(&mut buffer), Ok(None), "{length} bytes");
            buffer.extend_from_slice(&text.as_bytes()[length..]);
            assert_eq!(
                take(&mut buffer),
                Ok(Some(message("", "abcdef"))),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(frames("MSG inbox 1 many\r\n").is_err());
        assert!(frames("HMSG inbox 1 9 3\r\nabc\r\n").is_err());
        assert!(frames(&"x".repeat(LINE_BYTES_MAX + 1)).is_err());
    }
}
