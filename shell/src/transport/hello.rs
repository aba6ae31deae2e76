//! What two nodes say to each other before anything else, and the questions that need no membership.
//!
//! The node that dials sends a [`Hello`] on the first stream of its connection; the other answers with a
//! [`HelloAnswer`]. Nothing else is read from a connection before both sides are satisfied. A refusal always carries a
//! code for the program and a sentence for the operator, which both sides log.

use std::fmt;

use bytes::Bytes;
use quorate_core::raft::{DirectoryId, Lineage, Member, Membership, NodeId, Outline};
use quorate_core::wire::{self, DecodeError, Kind};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The versions of the conversation between nodes that a build speaks, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocols {
    /// The oldest version.
    pub oldest: u16,
    /// The newest version.
    pub newest: u16,
}

impl Protocols {
    /// What this build speaks.
    pub const CURRENT: Protocols = Protocols { oldest: 1, newest: 1 };

    /// The newest version that both speak.
    pub fn common(self, other: Protocols) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}", self.oldest, self.newest)
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// The one connection of two members for consensus and everything small.
    Peer,
    /// One big transfer between two members.
    Bulk,
    /// One question, which any node of the cluster may ask, member or not.
    Ask,
}

/// Who a node is and what it wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The versions that it speaks.
    pub protocols: Protocols,
    /// The name of its cluster.
    pub cluster: String,
    /// The history it belongs to; none on a blank node.
    pub lineage: Option<Lineage>,
    /// Its consensus id; none on a blank node.
    pub id: Option<NodeId>,
    /// Its name.
    pub name: String,
    /// Its data directory.
    pub directory: DirectoryId,
    /// `host:port` where it takes connections of other nodes.
    pub cluster_address: String,
    /// `host:port` where it takes connections of clients.
    pub client_address: String,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// Why a node will not talk to another. The numbers are part of the protocol and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum RefusalCode {
    /// The other's certificate leads to no trust anchor: it was made from another secret.
    Secret = 1,
    /// The certificate is out of date: the clock of one node is far off.
    Clock = 2,
    /// The nodes have no version of the protocol in common.
    Version = 3,
    /// The other belongs to another cluster.
    Cluster = 4,
    /// Another node answers at that address, or two nodes have the same name.
    Name = 5,
    /// The certificate was issued to another node than the one that the other claims to be.
    Certificate = 6,
    /// The other belongs to another history of the cluster.
    Lineage = 7,
    /// The other is no member.
    NotMember = 8,
    /// The other has the name of a member, and another id or data directory: its data was lost or swapped.
    Identity = 9,
    /// The other belongs to no history yet, so it can take part in nothing.
    Blank = 10,
    /// The other sent what no node sends.
    Malformed = 11,
    /// Too many connections at once.
    Busy = 12,
    /// TLS failed in another way.
    Tls = 13,
    /// The other was a member and was removed.
    Removed = 14,
}

impl RefusalCode {
    /// Every code, in the order of their numbers.
    const ALL: [RefusalCode; 14] = [
        RefusalCode::Secret,
        RefusalCode::Clock,
        RefusalCode::Version,
        RefusalCode::Cluster,
        RefusalCode::Name,
        RefusalCode::Certificate,
        RefusalCode::Lineage,
        RefusalCode::NotMember,
        RefusalCode::Identity,
        RefusalCode::Blank,
        RefusalCode::Malformed,
        RefusalCode::Busy,
        RefusalCode::Tls,
        RefusalCode::Removed,
    ];

    pub(super) fn from_number(number: u64) -> Option<RefusalCode> {
        RefusalCode::ALL
            .into_iter()
            .find(|code| u64::from(*code as u8) == number)
    }
}

/// What a node without data must know to come back: the history of its cluster, and whom to ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// The history of the cluster.
    pub lineage: Lineage,
    /// Name and cluster address of every member.
    pub members: Vec<(String, String)>,
}

/// A refusal, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for the program.
    pub code: RefusalCode,
    /// Who, what was wrong and what to do, for the operator of either node.
    pub message: String,
    /// Who refuses.
    pub hello: Hello,
    /// How the refused node can come back, when it is one without its data.
    pub invitation: Option<Invitation>,
}

/// The answer to a [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HelloAnswer {
    /// The connection is good; this is who answers.
    Welcome(Hello),
    /// The connection ends here.
    Refused(Box<Refused>),
}

/// A question to any node of the cluster, asked by address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// "Who are you, who are the members, who leads?"
    WhoAreYou,
    /// "Join us": answered like [`Ask::WhoAreYou`].
    Invite {
        /// Whether it is to stay a learner.
        learner: bool,
    },
    /// "Take me in."
    Join {
        /// The node that wants in.
        member: Member,
    },
    /// "Let this member go": members that do not lead ask the leader.
    Remove {
        /// The member.
        id: NodeId,
    },
    /// "Found the cluster with us": the first membership, and which of its ids is yours.
    Form {
        /// The first membership.
        membership: Membership,
        /// The id of the node that is asked.
        id: NodeId,
    },
    /// "How does your log look?": asked by a node that may have what the cluster lacks.
    History,
}

/// The answer to an [`Ask`]. The node decides it; the transport carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::WhoAreYou`].
    Identity {
        /// Who answers.
        hello: Hello,
        /// Name and cluster address of every member it knows.
        members: Vec<(String, String)>,
        /// The name of the leader, when it knows one.
        leader_name: Option<String>,
        /// Where the leader takes connections of other nodes.
        leader_cluster_address: Option<String>,
    },
    /// To [`Ask::Join`]: the node is a member now.
    Joined {
        /// Its id.
        id: NodeId,
        /// The membership that contains it.
        membership: Membership,
    },
    /// To [`Ask::Join`]: only the leader can do that.
    TryLeader {
        /// The leader's name.
        name: String,
        /// Where it takes connections of other nodes.
        cluster_address: String,
    },
    /// To [`Ask::Form`]: it is done.
    Formed,
    /// To [`Ask::Remove`]: it is no member any more.
    Removed,
    /// To [`Ask::Remove`]: nothing was done, as the node does not lead, or is busy; ask again.
    Again,
    /// Not now.
    Refused {
        /// What is wrong and what to do.
        message: String,
    },
    /// To [`Ask::Join`]: not before an operator has done something.
    KeptOut {
        /// What is wrong and what to do.
        message: String,
    },
    /// To [`Ask::History`].
    History {
        /// The membership in force, which knows the lineages that the node's own descends from.
        membership: Membership,
        /// The terms of its log.
        log: Outline,
    },
}

/// Bytes of the longest greeting, question or answer: a membership of thousands of nodes fits.
pub(super) const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of the longest name of a cluster or node.
pub(super) const NAME_BYTES_MAX: usize = 253;

/// Why a greeting, question or answer did not arrive.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum MessageError {
    /// The connection or stream ended first.
    #[error("the connection ended: {0}")]
    Ended(String),
    /// It is longer than any that a node sends.
    #[error("a message of {length} bytes is longer than the {limit} allowed")]
    TooLong {
        /// The announced length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Writes one message with its length in front.
pub(super) async fn write_message<T: Serialize>(
    stream: &mut quinn::SendStream,
    message: &T,
) -> Result<(), MessageError> {
    let mut bytes = vec![0; 4];
    wire::encode_into(Kind::Frame, message, &mut bytes);
    let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    stream
        .write_chunk(Bytes::from(bytes))
        .await
        .map_err(|error| MessageError::Ended(error.to_string()))
}

/// Reads one message with its length in front.
pub(super) async fn read_message<T: DeserializeOwned>(
    stream: &mut quinn::RecvStream,
) -> Result<T, MessageError> {
    let bytes = read_bytes(stream, MESSAGE_BYTES_MAX).await?;
    Ok(wire::decode(Kind::Frame, &bytes)?)
}

/// Reads bytes with their length in front; the length is checked before room is made for them.
pub(super) async fn read_bytes(
    stream: &mut quinn::RecvStream,
    limit: usize,
) -> Result<Vec<u8>, MessageError> {
    let ended = |error: quinn::ReadExactError| MessageError::Ended(error.to_string());
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(ended)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > limit {
        return Err(MessageError::TooLong { length, limit });
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.map_err(ended)?;
    Ok(bytes)
}

/// Decodes arbitrary bytes as what is said when a connection begins.
pub(super) fn feed(input: &[u8]) {
    let _ = wire::decode::<Hello>(Kind::Frame, input);
    let _ = wire::decode::<HelloAnswer>(Kind::Frame, input);
    let _ = wire::decode::<Ask>(Kind::Frame, input);
    let _ = wire::decode::<Answer>(Kind::Frame, input);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_version_is_the_newest_that_both_speak() {
        let range = |oldest, newest| Protocols { oldest, newest };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(2, 5).common(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).common(range(1, 1)), Some(1));
        assert_eq!(range(1, 2).common(range(3, 4)), None);
        assert_eq!(range(3, 4).common(range(1, 2)), None);
    }

    #[test]
    fn random_bytes_give_errors_and_never_panic() {
        use rand_chacha::rand_core::{Rng, SeedableRng};
        let mut random = rand_chacha::ChaCha12Rng::from_seed([3; 32]);
        let mut refused = 0;
        for _ in 0..20_000 {
            let mut bytes = vec![0; random.next_u32() as usize % 120];
            random.fill_bytes(&mut bytes);
            if let Some(head) = bytes.first_chunk_mut::<2>() {
                *head = [Kind::Frame as u8, wire::VERSION];
            }
            refused += usize::from(wire::decode::<Hello>(Kind::Frame, &bytes).is_err());
            refused += usize::from(wire::decode::<HelloAnswer>(Kind::Frame, &bytes).is_err());
            refused += usize::from(wire::decode::<Ask>(Kind::Frame, &bytes).is_err());
            refused += usize::from(wire::decode::<Answer>(Kind::Frame, &bytes).is_err());
        }
        assert!(refused > 70_000, "most of it means nothing: {refused}");
    }

    #[test]
    fn numbers_of_refusals_lead_back_to_their_codes() {
        for (place, code) in RefusalCode::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, place + 1);
            assert_eq!(RefusalCode::from_number(place as u64 + 1), Some(code));
        }
        assert_eq!(RefusalCode::from_number(0), None);
        assert_eq!(RefusalCode::from_number(256), None);
    }
}
