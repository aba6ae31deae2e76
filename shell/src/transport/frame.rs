//! Frames: what members send each other all the time.
//!
//! A frame is a value with kind and version ([`quorate_core::wire`]) and its length in front, four bytes big-endian.
//! The length is checked against [`FRAME_BYTES_MAX`] before any room is made for the frame, and room grows only as its
//! bytes arrive.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_core::raft::{Index, Message, NodeId};
use quorate_core::state::LeaseId;
use quorate_core::wire::{self, DecodeError, Kind};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of the largest frame, without the length in front.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Room for the beginning of a frame that is kept for the next one; more is given back.
const KEPT_BYTES: usize = 256 << 10;
/// Bytes of the length in front of a frame.
pub(super) const LENGTH_BYTES: usize = 4;

/// What members send each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Frame {
    /// A message of consensus.
    Raft(Message),
    /// A command of a client, for the leader to propose.
    Forward {
        /// The sender's number of the request.
        request: u64,
        /// How long the client still waits, in milliseconds.
        deadline_ms: u32,
        /// The encoded command.
        command: Bytes,
    },
    /// The answer to a forwarded command.
    ForwardAnswer {
        /// The number of the request.
        request: u64,
        /// What became of it.
        answer: ForwardResult,
    },
    /// What a member tells of itself, for status and metrics.
    Report(NodeReport),
    /// A question about leases, or a keep-alive, for the leader.
    Leases {
        /// The sender's number of the request.
        request: u64,
        /// Whether to keep them alive.
        renew: bool,
        /// The leases.
        leases: Vec<LeaseId>,
    },
    /// The answer to it.
    LeasesAnswer {
        /// The number of the request.
        request: u64,
        /// What came of it.
        answer: LeaseResult,
    },
}

/// What came of a question about leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseResult {
    /// How long each lasts from when the question came, in the order in which they were named; none for one that is gone.
    Times(Vec<Option<Duration>>),
    /// The receiver does not lead, or no more.
    NotLeader,
    /// The leader has too much to do.
    Busy,
}

/// What became of a forwarded command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardResult {
    /// It was applied; the encoded reply.
    Reply(Bytes),
    /// The receiver does not lead; nothing was appended.
    NotLeader {
        /// Who leads, when it is known.
        leader: Option<NodeId>,
    },
    /// The leader has too much to do; nothing was appended.
    Busy,
    /// It was appended and its fate is not known.
    Unknown,
    /// It was not accepted, and why.
    Refused(String),
}

/// What a member tells of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Share of the machine's processors in use, in percent.
    pub cpu_percent: f32,
    /// Share of the machine's memory in use, in percent.
    pub memory_percent: f32,
    /// The load average of one minute.
    pub load: f32,
    /// The version of Quorate.
    pub version: String,
    /// `host:port` where it takes connections of clients.
    pub client_address: String,
    /// The last index that it applied.
    pub applied: Index,
    /// The 99th percentile of its recent fdatasync calls, in microseconds.
    pub fsync_p99_us: u32,
    /// Where it reaches the members that it is connected to: `host:port` for other nodes.
    pub whereabouts: Vec<(NodeId, String)>,
}

impl Frame {
    /// Whether the frame travels with consensus, ahead of everything else.
    pub(super) fn is_consensus(&self) -> bool {
        matches!(self, Frame::Raft(_))
    }

    /// Appends length and frame to `output`; returns the length of the frame alone.
    pub(super) fn encode_into(&self, output: &mut Vec<u8>) -> usize {
        let start = output.len();
        output.extend_from_slice(&[0; LENGTH_BYTES]);
        match self {
            Frame::Raft(message) => wire::encode_into(Kind::Message, message, output),
            other => wire::encode_into(Kind::Frame, other, output),
        }
        let length = output.len() - start - LENGTH_BYTES;
        // A frame that the length cannot express is above the limit too, which the caller checks.
        let written = u32::try_from(length).unwrap_or(u32::MAX);
        output[start..start + LENGTH_BYTES].copy_from_slice(&written.to_be_bytes());
        length
    }

    /// Decodes a frame from exactly `input`, the bytes after its length.
    ///
    /// # Errors
    /// When `input` is no frame that this build knows.
    pub fn decode(input: &[u8]) -> Result<Frame, DecodeError> {
        if input.first() == Some(&(Kind::Message as u8)) {
            return Ok(Frame::Raft(wire::decode(Kind::Message, input)?));
        }
        match wire::decode(Kind::Frame, input)? {
            Frame::Raft(_) => Err(DecodeError::Malformed {
                kind: Kind::Frame,
                reason: "a message of consensus travels under its own kind".to_owned(),
            }),
            frame => Ok(frame),
        }
    }
}

/// Why what came over a stream is no sequence of frames.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A frame is announced that is larger than any node sends.
    #[error("a frame of {length} bytes is larger than the {FRAME_BYTES_MAX} allowed")]
    TooLarge {
        /// The announced length.
        length: usize,
    },
    /// A frame cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Cuts a stream of bytes into frames.
///
/// Bytes that hold whole frames are decoded where they are; only the beginning of a frame whose end has not arrived
/// is copied.
#[derive(Default)]
pub(super) struct FrameReader {
    /// The beginning of a frame. Empty, or shorter than the frame is.
    partial: BytesMut,
}

impl FrameReader {
    /// The next frame out of `input`, with the bytes that it took on the stream; none when more must arrive first,
    /// and then `input` is empty.
    pub(super) fn next(&mut self, input: &mut Bytes) -> Result<Option<(Frame, usize)>, FrameError> {
        if self.partial.is_empty() {
            let Some(length) = announced(input)? else {
                self.keep(input, input.len());
                return Ok(None);
            };
            let whole = LENGTH_BYTES + length;
            if input.len() < whole {
                self.keep(input, input.len());
                return Ok(None);
            }
            let frame = Frame::decode(&input[LENGTH_BYTES..whole])?;
            let _ = input.split_to(whole);
            return Ok(Some((frame, whole)));
        }
        if self.partial.len() < LENGTH_BYTES {
            self.keep(input, LENGTH_BYTES - self.partial.len());
        }
        let Some(length) = announced(&self.partial)? else {
            return Ok(None);
        };
        let whole = LENGTH_BYTES + length;
        self.keep(input, whole - self.partial.len());
        if self.partial.len() < whole {
            return Ok(None);
        }
        let frame = Frame::decode(&self.partial[LENGTH_BYTES..])?;
        self.partial.clear();
        if self.partial.capacity() > KEPT_BYTES {
            self.partial = BytesMut::new();
        }
        Ok(Some((frame, whole)))
    }

    fn keep(&mut self, input: &mut Bytes, at_most: usize) {
        let taken = input.split_to(at_most.min(input.len()));
        self.partial.extend_from_slice(&taken);
    }
}

/// The length of the frame that `bytes` begin with; none when even that is incomplete.
fn announced(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_be_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { length });
    }
    Ok(Some(length))
}

/// Reads arbitrary bytes as frames, in pieces as long as the first byte says.
pub(super) fn feed(input: &[u8]) {
    let size = 1 + usize::from(input.first().copied().unwrap_or_default());
    let mut reader = FrameReader::default();
    for piece in input.chunks(size) {
        let mut piece = Bytes::copy_from_slice(piece);
        loop {
            match reader.next(&mut piece) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::raft::{Body, Entry, Payload, Position, Term};
    use rand_chacha::ChaCha12Rng;
    use rand_chacha::rand_core::{Rng, SeedableRng};

    use super::*;

    fn samples() -> Vec<Frame> {
        let position = Position {
            term: Term(3),
            index: Index(9),
        };
        let entry = |length| Entry {
            position,
            payload: Payload::Command(Bytes::from(vec![7; length])),
        };
        vec![
            Frame::Raft(Message {
                term: Term(3),
                body: Body::Heartbeat {
                    commit: Index(8),
                    round: 77,
                    lease: None,
                },
            }),
            Frame::Raft(Message {
                term: Term(3),
                body: Body::Append {
                    previous: position,
                    entries: vec![entry(0), entry(300), entry(70_000)].into(),
                    commit: Index(8),
                },
            }),
            Frame::Forward {
                request: 5,
                deadline_ms: 1_000,
                command: Bytes::from_static(b"put"),
            },
            Frame::ForwardAnswer {
                request: 5,
                answer: ForwardResult::NotLeader {
                    leader: Some(NodeId(2)),
                },
            },
            Frame::Report(NodeReport {
                load: 0.5,
                version: "0.1.0".to_owned(),
                ..NodeReport::default()
            }),
            Frame::Leases {
                request: 6,
                renew: true,
                leases: LeaseId::new(9).into_iter().collect(),
            },
            Frame::LeasesAnswer {
                request: 6,
                answer: LeaseResult::Times(vec![Some(Duration::from_millis(10)), None]),
            },
        ]
    }

    fn drain(reader: &mut FrameReader, mut input: Bytes, frames: &mut Vec<Frame>) -> Result<(), FrameError> {
        while let Some((frame, _)) = reader.next(&mut input)? {
            frames.push(frame);
        }
        assert!(input.is_empty(), "a reader that wants more has taken everything");
        Ok(())
    }

    #[test]
    fn frames_survive_every_way_of_cutting_the_stream() {
        let mut stream = Vec::new();
        for frame in samples() {
            frame.encode_into(&mut stream);
        }
        for piece in [1, 2, 3, 4, 5, 7, 64, 1_000, 65_536, stream.len()] {
            let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
            for part in stream.chunks(piece) {
                drain(&mut reader, Bytes::copy_from_slice(part), &mut frames).unwrap();
            }
            assert_eq!(frames, samples(), "in pieces of {piece} bytes");
        }
    }

    #[test]
    fn oversize_frame_is_refused_by_its_length_alone() {
        let length = FRAME_BYTES_MAX + 1;
        let mut input = Bytes::copy_from_slice(&(length as u32).to_be_bytes());
        let mut reader = FrameReader::default();
        assert_eq!(reader.next(&mut input), Err(FrameError::TooLarge { length }));
        let mut byte_by_byte = FrameReader::default();
        let mut result = Ok(None);
        for byte in u32::MAX.to_be_bytes() {
            result = byte_by_byte.next(&mut Bytes::copy_from_slice(&[byte]));
        }
        assert_eq!(
            result,
            Err(FrameError::TooLarge {
                length: u32::MAX as usize
            })
        );
        assert!(byte_by_byte.partial.capacity() < 1_024, "no room was made for it");
    }

    #[test]
    fn random_and_damaged_bytes_give_errors_and_never_panic() {
        let mut rng = ChaCha12Rng::from_seed([42; 32]);
        let mut encoded: Vec<Vec<u8>> = Vec::new();
        for frame in samples() {
            let mut bytes = Vec::new();
            frame.encode_into(&mut bytes);
            encoded.push(bytes);
        }
        let mut refused = 0;
        for round in 0..20_000 {
            let mut bytes = if round % 2 == 0 {
                let mut bytes = vec![0; (rng.next_u32() % 200) as usize];
                rng.fill_bytes(&mut bytes);
                bytes
            } else {
                let mut bytes = encoded[round % encoded.len()].clone();
                for _ in 0..=rng.next_u32() % 3 {
                    let place = rng.next_u32() as usize % bytes.len().min(64);
                    bytes[place] = rng.next_u32() as u8;
                }
                bytes
            };
            refused += usize::from(Frame::decode(&bytes).is_err());
            let length = rng.next_u32() % 512;
            if let Some(head) = bytes.first_chunk_mut::<LENGTH_BYTES>() {
                *head = length.to_be_bytes();
            }
            let mut frames = Vec::new();
            let _ = drain_or_error(&mut FrameReader::default(), Bytes::from(bytes), &mut frames);
        }
        assert!(refused > 10_000, "most of it is no frame: {refused}");
    }

    fn drain_or_error(
        reader: &mut FrameReader,
        mut input: Bytes,
        frames: &mut Vec<Frame>,
    ) -> Result<(), FrameError> {
        while let Some((frame, _)) = reader.next(&mut input)? {
            frames.push(frame);
        }
        Ok(())
    }

    #[test]
    fn frame_of_a_newer_version_is_refused_and_not_skipped() {
        let mut bytes = Vec::new();
        samples()[2].encode_into(&mut bytes);
        bytes[LENGTH_BYTES + 1] = wire::VERSION + 1;
        assert!(matches!(
            Frame::decode(&bytes[LENGTH_BYTES..]),
            Err(DecodeError::Newer { .. })
        ));
    }

    #[test]
    fn consensus_message_hidden_in_another_kind_is_refused() {
        let hidden = wire::encode(Kind::Frame, &samples()[0]);
        assert!(matches!(
            Frame::decode(&hidden),
            Err(DecodeError::Malformed { .. })
        ));
    }
}
