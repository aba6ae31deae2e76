//! Which machine is at the other end of a connection, by its certificate, and which member its messages count as from.
//!
//! A node tells as whom it judged the other end of each connection, and what certificate that has shown. The name is
//! read from the certificate here once more, in another way than nodes do: from the subject, which is there for people.

use std::collections::{BTreeMap, BTreeSet};

use quorate_core::raft::NodeId;

use crate::consensus::checker::{Verdict, demand};

/// What nodes have told of their connections.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// By node and member: the names in the certificates of whoever was taken for that member.
    shown: BTreeMap<(NodeId, NodeId), BTreeSet<String>>,
    /// The ids that machines were members under, by the names of the machines.
    called: BTreeSet<(String, NodeId)>,
}

impl Links {
    /// A machine takes part as this member.
    pub(super) fn is_called(&mut self, machine: NodeId, id: NodeId) {
        self.called.insert((machine.0.to_string(), id));
    }

    /// A node has taken whoever showed `certificate` for `member`.
    pub(super) fn linked(&mut self, node: NodeId, member: NodeId, certificate: &[u8]) {
        let name = common_name(certificate).unwrap_or_default();
        self.shown.entry((node, member)).or_default().insert(name);
    }

    /// A node takes in a message of a member.
    pub(super) fn carried(&self, node: NodeId, member: NodeId) -> Verdict {
        let shown = self.shown.get(&(node, member));
        demand(shown.is_some(), CHECKER, || {
            format!("node {node} takes in a message of member {member}, to which it has no connection")
        })?;
        shown
            .into_iter()
            .flatten()
            .try_for_each(|name| self.is_right(node, member, name))
    }

    /// Judges also the connections over which no message of consensus came.
    pub(super) fn judge(&self) -> Verdict {
        let all = self
            .shown
            .iter()
            .flat_map(|(who, names)| names.iter().map(move |name| (*who, name)));
        all.into_iter()
            .try_for_each(|((node, member), name)| self.is_right(node, member, name))
    }

    fn is_right(&self, node: NodeId, member: NodeId, name: &str) -> Verdict {
        let right = self.called.contains(&(name.to_owned(), member));
        demand(right, CHECKER, || {
            format!("node {node} takes for member {member} whoever shows the certificate of node `{name}`")
        })
    }
}

const CHECKER: &str = "members are who their certificates say";

/// The common name of a certificate's subject: the last one in it, as the issuer's comes before.
fn common_name(certificate: &[u8]) -> Option<String> {
    /// The attribute's type, 2.5.4.3, and the tag of the UTF-8 text that follows (X.690; RFC 5280, appendix A).
    const COMMON_NAME: [u8; 6] = [0x06, 0x03, 0x55, 0x04, 0x03, 0x0c];
    let at = certificate
        .windows(COMMON_NAME.len())
        .rposition(|window| window == COMMON_NAME)?;
    let (length, text) = certificate[at + COMMON_NAME.len()..].split_first()?;
    let text = text.get(..usize::from(*length))?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_comes_after_the_issuer() {
        let text = |name: &[u8]| {
            let mut der = vec![0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, name.len() as u8];
            der.extend(name);
            der
        };
        let both = [text(b"authority"), vec![0x30], text(b"3"), vec![0x31, 0x00]].concat();
        assert_eq!(common_name(&both).as_deref(), Some("3"));
        assert_eq!(common_name(&both[..20]).as_deref(), Some("authority"));
        assert_eq!(common_name(b"no certificate"), None);
        assert_eq!(common_name(&text(b"cut")[..9]), None);
    }

    #[test]
    fn who_is_taken_for_another_is_noticed() {
        let mut links = Links::default();
        let certificate = [0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 1, b'2'];
        let (one, two, three) = (NodeId(1), NodeId(2), NodeId(3));
        assert!(links.carried(one, two).is_err(), "there is no connection");
        links.is_called(two, two);
        links.is_called(three, three);
        links.linked(one, two, &certificate);
        assert!(links.carried(one, two).is_ok() && links.judge().is_ok());
        links.linked(one, three, &certificate);
        assert!(links.carried(one, two).is_ok(), "that is another connection");
        assert!(links.carried(one, three).is_err() && links.judge().is_err());
    }
}
