//! Where the other members can be reached, when that is not what the membership says.
//!
//! A member that was restarted at another address greets with it wherever it still reaches somebody, and is believed,
//! as name, id and data directory prove who it is. Others hear of it in the reports of those it is connected to. Until
//! the leader has recorded the address in the membership, members dial every address that they know, in turn.
//!
//! Invariants: only a member is remembered; while a member is connected, what it said on that connection counts and
//! nothing else; an address that others tell is only ever dialled, where the greeting proves who answers, and recorded
//! by nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_core::Instant;
use quorate_core::raft::{Change, Member, Membership, NodeId};

use crate::config::{Config, Formation};
use crate::transport::{Hello, Peer, Purpose};

/// Where a member says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Addresses {
    cluster: String,
    client: String,
}

/// What a greeting told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// Nothing new.
    Known,
    /// A member is elsewhere.
    Moved,
    /// A node belongs to the cluster that was taken in after the membership that this node knows.
    Newcomer,
    /// A member is where it was a moment ago, and was elsewhere in between: two processes have its data directory.
    Twice {
        /// Its name.
        name: String,
        /// Where it was in between.
        other: String,
    },
}

/// A member that is where it was so shortly before runs twice.
const TWICE: Duration = Duration::from_secs(60);

/// What a member said of itself.
struct Said {
    now: Addresses,
    /// What it said before, and until when.
    before: Option<(Addresses, Instant)>,
}

impl Addresses {
    fn are_of(&self, member: &Member) -> bool {
        (&*self.cluster, &*self.client) == (&*member.cluster_address, &*member.client_address)
    }
}

/// What is known of the addresses of members besides the membership.
pub(super) struct Whereabouts {
    own: Addresses,
    /// By name, from a list of nodes in the configuration.
    listed: BTreeMap<String, String>,
    /// Addresses in the configuration that have no name.
    unnamed: Vec<String>,
    /// What members said of themselves last.
    said: BTreeMap<NodeId, Said>,
    /// What other members said of them last: cluster addresses.
    heard: BTreeMap<NodeId, String>,
    /// Nodes that were taken in after the membership that this node knows. One of them may lead, and then only it can
    /// tell this node of itself.
    newcomers: BTreeMap<NodeId, Peer>,
}

/// How many newcomers are remembered.
const NEWCOMERS_MAX: usize = 16;

impl Whereabouts {
    pub(super) fn new(config: &Config) -> Whereabouts {
        let own = Addresses {
            cluster: config.cluster_address.clone(),
            client: config.client_address.clone(),
        };
        let (mut listed, mut unnamed) = (BTreeMap::new(), Vec::new());
        match &config.formation {
            Formation::Static(nodes) => {
                for node in nodes {
                    listed.insert(node.name.as_str().to_owned(), node.cluster_address.clone());
                }
            }
            Formation::Join(addresses) => unnamed.clone_from(addresses),
            Formation::First => {}
        }
        unnamed.retain(|address| *address != own.cluster);
        Whereabouts {
            own,
            listed,
            unnamed,
            said: BTreeMap::new(),
            heard: BTreeMap::new(),
            newcomers: BTreeMap::new(),
        }
    }

    /// Takes note of a greeting.
    pub(super) fn met(
        &mut self,
        membership: &Membership,
        hello: &Hello,
        is_connected: impl Fn(NodeId) -> bool,
        at: Instant,
    ) -> Met {
        let Some(id) = hello.id.filter(|_| hello.lineage == Some(membership.lineage())) else {
            return Met::Known;
        };
        if id >= membership.next_id() {
            return self.met_newcomer(id, hello);
        }
        let known = membership.members().get(&id);
        let proven =
            known.is_some_and(|known| known.name == hello.name && known.directory == hello.directory);
        if !proven || hello.cluster_address.is_empty() {
            return Met::Known;
        }
        if hello.purpose != Purpose::Peer && is_connected(id) {
            return Met::Known;
        }
        let addresses = Addresses {
            cluster: hello.cluster_address.clone(),
            client: hello.client_address.clone(),
        };
        let Some(said) = self.said.get_mut(&id) else {
            let said = Said {
                now: addresses,
                before: None,
            };
            self.said.insert(id, said);
            return Met::Moved;
        };
        if said.now == addresses {
            return Met::Known;
        }
        let back = said
            .before
            .as_ref()
            .is_some_and(|(before, until)| *before == addresses && at.since(*until) < TWICE);
        let other = std::mem::replace(&mut said.now, addresses);
        said.before = Some((other.clone(), at));
        if back {
            Met::Twice {
                name: hello.name.clone(),
                other: other.cluster,
            }
        } else {
            Met::Moved
        }
    }

    fn met_newcomer(&mut self, id: NodeId, hello: &Hello) -> Met {
        let peer = Peer {
            id,
            name: hello.name.clone(),
            directory: hello.directory,
            cluster_address: hello.cluster_address.clone(),
        };
        let full = self.newcomers.len() >= NEWCOMERS_MAX && !self.newcomers.contains_key(&id);
        if full || peer.cluster_address.is_empty() {
            return Met::Known;
        }
        if self.newcomers.insert(id, peer.clone()) == Some(peer) {
            Met::Known
        } else {
            Met::Newcomer
        }
    }

    /// Those who are not in the membership yet that this node knows.
    pub(super) fn newcomers(&self) -> impl Iterator<Item = &Peer> {
        self.newcomers.values()
    }

    /// Takes note of what another member knows; whether that is new.
    pub(super) fn heard(&mut self, membership: &Membership, whereabouts: &[(NodeId, String)]) -> bool {
        let mut news = false;
        for (id, address) in whereabouts {
            if membership.members().contains_key(id) && !address.is_empty() {
                news |= self.heard.insert(*id, address.clone()).as_ref() != Some(address);
            }
        }
        news
    }

    /// What this node tells the others: where the members are that it is connected to, and itself.
    pub(super) fn told(&self, own: NodeId, is_connected: impl Fn(NodeId) -> bool) -> Vec<(NodeId, String)> {
        let connected = self.said.iter().filter(|(id, _)| is_connected(**id));
        let others = connected.map(|(id, said)| (*id, said.now.cluster.clone()));
        others.chain([(own, self.own.cluster.clone())]).collect()
    }

    /// Where else a member may be than the membership says.
    pub(super) fn elsewhere(&self, id: NodeId, member: &Member) -> Vec<String> {
        let said = self.said.get(&id).map(|said| &said.now.cluster);
        let all = [said, self.heard.get(&id), self.listed.get(&member.name)];
        let mut addresses: Vec<String> = Vec::new();
        for address in all.into_iter().flatten() {
            let known = *address == member.cluster_address || addresses.contains(address);
            if !known && *address != self.own.cluster {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// Where somebody may be who knows more.
    pub(super) fn unnamed(&self) -> &[String] {
        &self.unnamed
    }

    pub(super) fn forget_all_but(&mut self, membership: &Membership) {
        let members = membership.members();
        self.said.retain(|id, _| members.contains_key(id));
        self.heard.retain(|id, _| members.contains_key(id));
        self.newcomers.retain(|id, _| *id >= membership.next_id());
    }

    /// What a leader has to record: a member, this node or one that is connected, is elsewhere than the membership says.
    pub(super) fn change(
        &self,
        own: NodeId,
        membership: &Membership,
        is_connected: impl Fn(NodeId) -> bool,
    ) -> Option<Change> {
        membership.members().iter().find_map(|(id, member)| {
            let addresses = if *id == own {
                &self.own
            } else {
                &self.said.get(id).filter(|_| is_connected(*id))?.now
            };
            (!addresses.are_of(member)).then(|| Change::Update {
                id: *id,
                cluster_address: addresses.cluster.clone(),
                client_address: addresses.client.clone(),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use quorate_core::raft::{DirectoryId, Lineage};

    use super::*;
    use crate::transport::Protocols;

    fn whereabouts() -> Whereabouts {
        Whereabouts {
            own: Addresses {
                cluster: "one:1".to_owned(),
                client: "one:2".to_owned(),
            },
            listed: BTreeMap::from([("3".to_owned(), "listed:1".to_owned())]),
            unnamed: Vec::new(),
            said: BTreeMap::new(),
            heard: BTreeMap::new(),
            newcomers: BTreeMap::new(),
        }
    }

    fn membership() -> Membership {
        let member = |id: u64, host: &str| {
            let (cluster, client) = (format!("{host}:1"), format!("{host}:2"));
            let directory = DirectoryId(u128::from(id));
            (
                NodeId(id),
                Member::new(id.to_string(), directory, &cluster, &client),
            )
        };
        let members = [member(1, "one"), member(2, "two"), member(3, "three")];
        Membership::bootstrap(Lineage(7), members.into())
    }

    fn hello(id: u64, host: &str, purpose: Purpose) -> Hello {
        Hello {
            protocols: Protocols::CURRENT,
            cluster: "test".to_owned(),
            lineage: Some(Lineage(7)),
            id: Some(NodeId(id)),
            name: id.to_string(),
            directory: DirectoryId(u128::from(id)),
            cluster_address: format!("{host}:1"),
            client_address: format!("{host}:2"),
            purpose,
        }
    }

    fn meet(known: &mut Whereabouts, hello: &Hello, connected: bool, seconds: u64) -> Met {
        let at = Instant::ORIGIN + Duration::from_secs(seconds);
        known.met(&membership(), hello, |_| connected, at)
    }

    fn elsewhere(whereabouts: &Whereabouts, id: u64) -> Vec<String> {
        let membership = membership();
        whereabouts.elsewhere(NodeId(id), &membership.members()[&NodeId(id)])
    }

    #[test]
    fn member_that_moved_is_recorded_where_it_says_once_it_is_connected() {
        let (mut known, membership) = (whereabouts(), membership());
        assert_eq!(
            meet(&mut known, &hello(2, "new", Purpose::Ask), false, 0),
            Met::Moved
        );
        assert_eq!(
            meet(&mut known, &hello(2, "new", Purpose::Ask), false, 0),
            Met::Known
        );
        assert_eq!(elsewhere(&known, 2), ["new:1"]);
        assert_eq!(known.change(NodeId(1), &membership, |_| false), None);
        let update = Change::Update {
            id: NodeId(2),
            cluster_address: "new:1".to_owned(),
            client_address: "new:2".to_owned(),
        };
        assert_eq!(
            known.change(NodeId(1), &membership, |_| true),
            Some(update.clone())
        );
        let recorded = membership.changed(&[update]).unwrap();
        assert!(!recorded.is_joint());
        assert_eq!(known.change(NodeId(1), &recorded, |_| true), None);
    }

    #[test]
    fn question_from_elsewhere_does_not_move_a_member_that_is_connected() {
        let (mut known, membership) = (whereabouts(), membership());
        assert_eq!(
            meet(&mut known, &hello(2, "two", Purpose::Peer), true, 0),
            Met::Moved
        );
        assert_eq!(
            meet(&mut known, &hello(2, "copy", Purpose::Ask), true, 0),
            Met::Known
        );
        assert_eq!(known.change(NodeId(1), &membership, |_| true), None);
    }

    #[test]
    fn who_cannot_prove_to_be_the_member_moves_nobody() {
        let mut known = whereabouts();
        let mut strangers = vec![hello(2, "new", Purpose::Peer); 5];
        strangers[0].lineage = None;
        strangers[1].lineage = Some(Lineage(8));
        strangers[2].directory = DirectoryId(9);
        strangers[3].name = "3".to_owned();
        strangers[4].id = Some(NodeId(3));
        for stranger in strangers {
            assert_eq!(meet(&mut known, &stranger, false, 0), Met::Known);
        }
        assert!(elsewhere(&known, 2).is_empty());
    }

    #[test]
    fn member_that_is_now_here_and_now_there_runs_twice() {
        let mut known = whereabouts();
        let (two, copy) = (hello(2, "two", Purpose::Peer), hello(2, "copy", Purpose::Peer));
        assert_eq!(meet(&mut known, &two, true, 0), Met::Moved);
        assert_eq!(meet(&mut known, &copy, true, 5), Met::Moved);
        let twice = Met::Twice {
            name: "2".to_owned(),
            other: "copy:1".to_owned(),
        };
        assert_eq!(meet(&mut known, &two, true, 6), twice);
        assert_eq!(
            meet(&mut known, &copy, true, 70),
            Met::Moved,
            "it may have moved by now"
        );
    }

    #[test]
    fn node_with_a_later_id_is_a_newcomer_until_the_membership_has_it() {
        let mut known = whereabouts();
        assert_eq!(
            meet(&mut known, &hello(4, "four", Purpose::Ask), false, 0),
            Met::Newcomer
        );
        assert_eq!(
            meet(&mut known, &hello(4, "four", Purpose::Ask), false, 0),
            Met::Known
        );
        let mut foreign = hello(5, "five", Purpose::Ask);
        foreign.lineage = Some(Lineage(8));
        assert_eq!(meet(&mut known, &foreign, false, 0), Met::Known);
        assert_eq!(
            known.newcomers().map(|peer| peer.id).collect::<Vec<_>>(),
            [NodeId(4)]
        );
        let member = Member::new("4", DirectoryId(4), "four:1", "four:2");
        let joined = membership().changed(&[Change::AddLearner(member)]).unwrap();
        known.forget_all_but(&joined);
        assert_eq!(known.newcomers().count(), 0);
        for id in 10..100 {
            meet(&mut known, &hello(id, "many", Purpose::Ask), false, 0);
        }
        assert_eq!(known.newcomers().count(), NEWCOMERS_MAX);
    }

    #[test]
    fn what_others_say_is_dialled_and_not_recorded() {
        let (mut known, membership) = (whereabouts(), membership());
        let told = [(NodeId(3), "heard:1".to_owned()), (NodeId(9), "x:1".to_owned())];
        assert!(known.heard(&membership, &told));
        assert!(!known.heard(&membership, &told));
        assert_eq!(elsewhere(&known, 3), ["heard:1", "listed:1"]);
        assert_eq!(known.change(NodeId(1), &membership, |_| true), None);
    }

    #[test]
    fn leader_records_itself() {
        let (mut known, membership) = (whereabouts(), membership());
        known.own.cluster = "moved:1".to_owned();
        let change = known.change(NodeId(1), &membership, |_| false);
        assert!(matches!(change, Some(Change::Update { id: NodeId(1), .. })));
        assert_eq!(
            known.told(NodeId(1), |_| true),
            [(NodeId(1), "moved:1".to_owned())]
        );
    }
}
