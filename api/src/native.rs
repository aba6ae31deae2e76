//! The native protocol: requests and answers of the HTTP API over QUIC, many at a time on one stream.
//!
//! A client opens bidirectional streams, each of which begins with a byte that says what it carries. On a pipeline
//! ([`PIPELINE`]) requests follow each other without waiting for answers; each has an id of the client's choice, and answers
//! come with these ids in any order. On an exchange ([`EXCHANGE`]) there is one request: the frame has no body, which
//! follows to the end of the stream, and so does the body of the answer. That is for what is long or has no end, such as a
//! watch. All numbers are big-endian:
//!
//! ```text
//! request: u32 length of the rest | u64 id | u8 length, method | u16 length, path with its parameters | headers | body
//! answer:  u32 length of the rest | u64 id | u16 status | headers | body
//! headers: u8 count | for each: u8 length, name in lower case | u16 length, value
//! ```
//!
//! When the server has ended its side of a pipeline, requests on it that have no answer were not carried out.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The application protocol of TLS (RFC 7301).
pub const ALPN: &[u8] = b"quorate-client/1";
/// The first byte of a stream on which requests follow each other.
pub const PIPELINE: u8 = 0;
/// The first byte of a stream with one request.
pub const EXCHANGE: u8 = 1;
/// The longest frame of a request, in bytes; what is longer takes an exchange.
pub const REQUEST_BYTES_MAX: usize = 128 << 10;
/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;

/// Why a connection or a stream is closed: QUIC's application error codes.
pub mod close {
    /// There is nothing more to say.
    pub const DONE: u32 = 0;
    /// The node stops. A request on a stream that is refused so was not carried out.
    pub const STOPPING: u32 = 1;
    /// Bytes that make no sense.
    pub const MALFORMED: u32 = 2;
    /// Nothing was asked for long.
    pub const IDLE: u32 = 3;
    /// An answer or a request broke off.
    pub const BROKEN: u32 = 4;
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// Names and values.
pub type Headers = Vec<(Bytes, Bytes)>;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's choice; 0 on an exchange.
    pub id: u64,
    /// `GET`, for example.
    pub method: Bytes,
    /// With its parameters.
    pub path: Bytes,
    /// What else is to be said.
    pub headers: Headers,
    /// Empty on an exchange, where it follows.
    pub body: Bytes,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// That of the request.
    pub id: u64,
    /// As of HTTP.
    pub status: u16,
    /// What else is said.
    pub headers: Headers,
    /// Empty on an exchange, where it follows.
    pub body: Bytes,
}

/// Takes the next frame out of what has come, without its length; none when it is not whole.
///
/// # Errors
/// When it is longer than `bytes_max`.
pub fn take_frame(unread: &mut BytesMut, bytes_max: usize) -> Result<Option<Bytes>, Malformed> {
    let Some(length) = unread.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > bytes_max {
        return Err(Malformed("a frame is too long"));
    }
    if unread.len() < LENGTH_BYTES + length {
        return Ok(None);
    }
    unread.advance(LENGTH_BYTES);
    Ok(Some(unread.split_to(length).freeze()))
}

impl Request {
    /// Writes the frame. What does not fit its length is cut; see [`Request::fits`].
    pub fn encode(&self, into: &mut BytesMut) {
        let begin = begin_frame(into, self.id);
        put_short(into, &self.method);
        put_long(into, &self.path);
        put_headers(into, &self.headers);
        into.put_slice(&self.body);
        end_frame(into, begin);
    }

    /// Whether a frame can hold it.
    pub fn fits(&self) -> bool {
        let headers = self
            .headers
            .iter()
            .all(|(name, value)| name.len() <= usize::from(u8::MAX) && value.len() <= usize::from(u16::MAX));
        headers
            && self.headers.len() <= usize::from(u8::MAX)
            && self.method.len() <= usize::from(u8::MAX)
            && self.path.len() <= usize::from(u16::MAX)
            && self.length() <= REQUEST_BYTES_MAX
    }

    /// Bytes of its frame, about.
    pub fn length(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| 3 + name.len() + value.len())
            .sum();
        16 + self.method.len() + self.path.len() + headers + self.body.len()
    }

    /// Reads a frame without its length.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(mut frame: Bytes) -> Result<Request, Malformed> {
        Ok(Request {
            id: number(&mut frame)?,
            method: take_short(&mut frame)?,
            path: take_long(&mut frame)?,
            headers: take_headers(&mut frame)?,
            body: frame,
        })
    }
}

impl Answer {
    /// Writes the frame.
    pub fn encode(&self, into: &mut BytesMut) {
        let begin = begin_frame(into, self.id);
        into.put_u16(self.status);
        put_headers(into, &self.headers);
        into.put_slice(&self.body);
        end_frame(into, begin);
    }

    /// Reads a frame without its length.
    ///
    /// # Errors
    /// When it is none.
    pub fn decode(mut frame: Bytes) -> Result<Answer, Malformed> {
        Ok(Answer {
            id: number(&mut frame)?,
            status: frame.try_get_u16().map_err(|_| SHORT)?,
            headers: take_headers(&mut frame)?,
            body: frame,
        })
    }

    /// The value of a header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        let found = self.headers.iter().find(|(other, _)| other == name.as_bytes());
        found.map(|(_, value)| value)
    }
}

const SHORT: Malformed = Malformed("a frame is shorter than what it should hold");

fn begin_frame(into: &mut BytesMut, id: u64) -> usize {
    let begin = into.len();
    into.put_u32(0);
    into.put_u64(id);
    begin
}

/// Writes the length, which is known by now.
fn end_frame(into: &mut BytesMut, begin: usize) {
    let length = into.len() - begin - LENGTH_BYTES;
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    into[begin..begin + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

fn put_short(into: &mut BytesMut, bytes: &[u8]) {
    let length = u8::try_from(bytes.len()).unwrap_or(u8::MAX);
    into.put_u8(length);
    into.put_slice(&bytes[..usize::from(length)]);
}

fn put_long(into: &mut BytesMut, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    into.put_u16(length);
    into.put_slice(&bytes[..usize::from(length)]);
}

fn put_headers(into: &mut BytesMut, headers: &Headers) {
    let count = u8::try_from(headers.len()).unwrap_or(u8::MAX);
    into.put_u8(count);
    for (name, value) in headers.iter().take(usize::from(count)) {
        put_short(into, name);
        put_long(into, value);
    }
}

fn number(frame: &mut Bytes) -> Result<u64, Malformed> {
    frame.try_get_u64().map_err(|_| SHORT)
}

fn take(frame: &mut Bytes, length: usize) -> Result<Bytes, Malformed> {
    if frame.len() < length {
        return Err(SHORT);
    }
    Ok(frame.split_to(length))
}

fn take_short(frame: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = frame.try_get_u8().map_err(|_| SHORT)?;
    take(frame, usize::from(length))
}

fn take_long(frame: &mut Bytes) -> Result<Bytes, Malformed> {
    let length = frame.try_get_u16().map_err(|_| SHORT)?;
    take(frame, usize::from(length))
}

fn take_headers(frame: &mut Bytes) -> Result<Headers, Malformed> {
    let count = frame.try_get_u8().map_err(|_| SHORT)?;
    (0..count)
        .map(|_| Ok((take_short(frame)?, take_long(frame)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            id: 7,
            method: "PUT".into(),
            path: "/v1/kv/a?previous=true".into(),
            headers: vec![("idempotency-key".into(), "k".into())],
            body: "value".into(),
        }
    }

    fn answer() -> Answer {
        Answer {
            id: u64::MAX,
            status: 200,
            headers: vec![("content-type".into(), "application/json".into())],
            body: "{}".into(),
        }
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_bytes_come() {
        let mut bytes = BytesMut::new();
        request().encode(&mut bytes);
        answer().encode(&mut bytes);
        let (mut unread, mut frames) = (BytesMut::new(), Vec::new());
        for byte in bytes {
            unread.put_u8(byte);
            frames.extend(take_frame(&mut unread, 1_000).unwrap());
        }
        assert!(unread.is_empty());
        let [first, second] = <[Bytes; 2]>::try_from(frames).unwrap();
        assert_eq!(Request::decode(first), Ok(request()));
        assert_eq!(Answer::decode(second), Ok(answer()));
    }

    #[test]
    fn a_request_looks_on_the_wire_as_it_is_described() {
        let mut bytes = BytesMut::new();
        request().encode(&mut bytes);
        let mut expected = vec![0, 0, 0, 61, 0, 0, 0, 0, 0, 0, 0, 7, 3];
        expected.extend(b"PUT\x00\x16/v1/kv/a?previous=true\x01\x0fidempotency-key\x00\x01kvalue");
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_frame_cut_anywhere_before_its_body_is_malformed() {
        let mut bytes = BytesMut::new();
        request().encode(&mut bytes);
        let frame = bytes.freeze().slice(LENGTH_BYTES..);
        for length in 0..frame.len() - request().body.len() {
            assert_eq!(
                Request::decode(frame.slice(..length)),
                Err(SHORT),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_by_its_length_alone() {
        let mut unread = BytesMut::from([0, 0, 0, 9].as_slice());
        assert!(take_frame(&mut unread, 8).is_err());
        assert_eq!(take_frame(&mut unread, 9), Ok(None));
    }
}
