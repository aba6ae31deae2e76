//! Puts what happens into sentences.

use quorate_core::raft::*;

pub(super) fn node(id: NodeId) -> String {
    format!("n{id}")
}

fn nodes<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> String {
    ids.into_iter().map(|id| node(*id)).collect::<Vec<_>>().join(" ")
}

pub(super) fn entry(entry: &Entry) -> String {
    let what = match &entry.payload {
        Payload::Empty => "opening".to_owned(),
        Payload::Command(command) => String::from_utf8_lossy(command).into_owned(),
        Payload::Omitted => "omitted".to_owned(),
        Payload::Membership(membership) => format!("[{}]", self::membership(membership)),
    };
    format!("{} {what}", entry.position)
}

pub(super) fn entries(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "nothing".to_owned();
    }
    entries.iter().map(entry).collect::<Vec<_>>().join(", ")
}

pub(super) fn membership(membership: &Membership) -> String {
    let mut text = format!("voters {}", nodes(membership.voters()));
    if membership.is_joint() {
        text += &format!("; leaving {}", nodes(membership.outgoing()));
    }
    if !membership.learners().is_empty() {
        text += &format!("; learners {}", nodes(membership.learners()));
    }
    if membership.level() != FeatureLevel::FIRST {
        text += &format!("; features {}", membership.level());
    }
    for (id, member) in membership.members() {
        if member.priority != Member::PRIORITY {
            text += &format!("; {} of priority {}", node(*id), member.priority);
        }
        if member.witness {
            text += &format!("; {} a witness", node(*id));
        }
    }
    text
}

pub(super) fn hard_state(hard_state: HardState) -> String {
    match hard_state.vote {
        Some(vote) => format!("term {}, vote {}", hard_state.term, node(vote)),
        None => format!("term {}, no vote", hard_state.term),
    }
}

/// The word by which a script names a kind of message.
pub(super) fn kind(body: &Body) -> &'static str {
    match body {
        Body::PreVoteRequest { .. } => "pre-vote-request",
        Body::PreVoteResponse { .. } => "pre-vote",
        Body::VoteRequest { .. } => "vote-request",
        Body::VoteResponse { .. } => "vote",
        Body::Append { .. } => "append",
        Body::AppendAccepted { .. } => "accepted",
        Body::AppendRejected { .. } => "refused",
        Body::Heartbeat { .. } => "heartbeat",
        Body::HeartbeatResponse { .. } => "heard",
        Body::Begin { .. } => "begin",
        Body::TimeoutNow { .. } => "campaign",
        Body::ReadRequest { .. } => "read-request",
        Body::ReadResponse { .. } => "read-index",
    }
}

pub(super) fn message(message: &Message) -> String {
    let term = message.term;
    let what = match &message.body {
        Body::PreVoteRequest { last } => {
            return format!("pre-vote-request for term {term}, log ends at {last}");
        }
        Body::PreVoteResponse { proposed, answer } => {
            let answer = match answer {
                PreVote::Granted => given(true),
                PreVote::Refused => given(false),
                PreVote::Repairing => "refused, its log is being repaired",
                PreVote::Vetoed => "vetoed",
            };
            format!("pre-vote for term {proposed} {answer}")
        }
        Body::VoteRequest { last, transfer } => {
            let why = if transfer.is_some() {
                ", told to by the leader"
            } else {
                ""
            };
            format!("vote-request, log ends at {last}{why}")
        }
        Body::VoteResponse { granted } => format!("vote {}", given(*granted)),
        Body::Append {
            previous,
            entries,
            commit,
        } => format!(
            "append after {previous}: {}; committed {commit}",
            self::entries(entries)
        ),
        Body::AppendAccepted { matched } => format!("accepted up to {matched}"),
        Body::AppendRejected { previous, hint } => format!("refused after {previous}, may agree at {hint}"),
        Body::Heartbeat { commit, round, lease } => {
            let asks = if lease.is_some() { "; asks for a lease" } else { "" };
            format!("heartbeat {round}; committed {commit}{asks}")
        }
        Body::HeartbeatResponse {
            round,
            matched,
            disk,
            lease,
            ..
        } => {
            let promises = if lease.is_some() { ", promises a lease" } else { "" };
            format!(
                "heard {round}, agrees up to {matched}{}{promises}",
                self::disk(*disk)
            )
        }
        Body::Begin { base } => format!("begin after {}", base.position),
        Body::TimeoutNow { .. } => "campaign now".to_owned(),
        // The number of a request is random; what counts is whether an answer fits.
        Body::ReadRequest { lease: false, .. } => "read-request".to_owned(),
        Body::ReadRequest { lease: true, .. } => "read-request, by lease if there is one".to_owned(),
        Body::ReadResponse {
            index: Some(index), ..
        } => format!("read-index {index}"),
        Body::ReadResponse { index: None, .. } => "read-index unknown".to_owned(),
    };
    format!("{what} (term {term})")
}

/// What is remarkable about a disk: that it is stalled. Latencies depend on what a script lets pass.
fn disk(disk: DiskHealth) -> &'static str {
    if disk.stalled { ", its disk is stalled" } else { "" }
}

fn given(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}

pub(super) fn write(write: &Write) -> String {
    let mut parts = Vec::new();
    if let Some(changed) = write.hard_state {
        parts.push(hard_state(changed));
    }
    if let Some(base) = &write.reset {
        parts.push(format!("the log begins after {}", base.position));
    }
    if !write.entries.is_empty() {
        parts.push(entries(&write.entries));
    }
    parts.join("; ")
}

pub(super) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::NotLeader { leader: Some(leader) } => format!("not the leader, try {}", node(*leader)),
        Outcome::NotLeader { leader: None } => "not the leader".to_owned(),
        Outcome::Busy => "busy".to_owned(),
        Outcome::Unknown => "its fate is unknown".to_owned(),
        Outcome::ReadReady { index } => format!("may be read from index {index} on"),
        Outcome::Done => "done".to_owned(),
        Outcome::Refused(refusal) => format!("refused, {}", self::refusal(refusal)),
    }
}

fn refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NotAVoter(id) => format!("{} is no voter", node(*id)),
        Refusal::Witness(id) => format!("{} is a witness and cannot lead", node(*id)),
        Refusal::DiskStalled(id) => format!("a write to the disk of {} is stuck", node(*id)),
        Refusal::AnotherLeads(id) => format!("{} was elected instead", node(*id)),
        Refusal::TransferTimedOut(id) => format!("{} did not take over in time", node(*id)),
        Refusal::LearnerBehind { learner, entries } => {
            format!("{} is not known to hold {entries} entries", node(*learner))
        }
        Refusal::MajoritySilent { voters, in_touch } => {
            format!("only {in_touch} of the {voters} voters after it answer")
        }
        Refusal::LearnerSilent(id) => format!("{} does not answer", node(*id)),
        other => other.to_string(),
    }
}

/// What happened on a node, as the rest of a sentence that opens with its name.
pub(super) fn trace(event: &TraceEvent) -> String {
    match event {
        TraceEvent::Campaign { term, pre_vote: true } => {
            format!("asks whether it would be elected in term {term}")
        }
        TraceEvent::Campaign {
            term,
            pre_vote: false,
        } => format!("campaigns in term {term}"),
        TraceEvent::VoteReceived { from, granted: true } => format!("has the vote of {}", node(*from)),
        TraceEvent::VoteReceived { from, granted: false } => {
            format!("was refused the vote of {}", node(*from))
        }
        TraceEvent::Elected { term } => format!("LEADS term {term}"),
        TraceEvent::Following { leader, term } => format!("follows {} in term {term}", node(*leader)),
        TraceEvent::LeaderLost { leader, .. } => format!("has lost {}", node(*leader)),
        TraceEvent::SteppedDown { term, reason } => {
            let why = match reason {
                StepDown::NewerTerm => "there is a newer term",
                StepDown::QuorumLost => "no majority answers",
                StepDown::Removed => "it has no vote any more",
                StepDown::DiskFailed => "its disk failed",
                StepDown::DiskStalled => "a write to its disk is stuck",
            };
            format!("STEPS DOWN in term {term}: {why}")
        }
        TraceEvent::HandsOver { to, reason } => {
            let why = match reason {
                HandoverReason::SlowDisk => "its own disk is slow",
                HandoverReason::Preferred => "it is preferred",
            };
            format!("hands over to {}: {why}", node(*to))
        }
        TraceEvent::ClockDrifts { peer } => {
            format!("finds that the clock of {} drifts: no lease", node(*peer))
        }
        TraceEvent::Truncated { from } => format!("drops its entries from {from} on"),
        TraceEvent::MembershipChanged { position } => format!("has a new membership at {position}"),
        TraceEvent::QuorumLost => "is READ-ONLY: it has lost the quorum".to_owned(),
        TraceEvent::QuorumRegained => "is writable again".to_owned(),
        TraceEvent::SnapshotNeeded { to } => format!("finds that {} needs a snapshot", node(*to)),
        TraceEvent::SnapshotAccepted { position } => format!("accepts the snapshot at {position}"),
        TraceEvent::VoteWithheld { candidate, until } => format!(
            "withholds its vote from {} until its log is repaired up to {until}",
            node(*candidate)
        ),
        TraceEvent::Repaired { reached } => format!("has a whole log again, up to {reached}"),
        TraceEvent::Quarantined(why) => match **why {
            Quarantine::Diverged { leader, at } => format!(
                "is SET ASIDE: what is committed here at {at} is not what {} has",
                node(leader)
            ),
            Quarantine::Superseded { by } => {
                format!("is SET ASIDE: lineage {} followed on its own", by.0)
            }
        },
        TraceEvent::Unfit(error) => format!("STOPS: {error}"),
        TraceEvent::DiskFailed { error } => format!("FAILS: {error}"),
    }
}

pub(super) fn role(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::Learner => "learner",
        Role::Witness => "witness",
        Role::PreCandidate => "asking",
        Role::Candidate => "candidate",
        Role::Leader => "LEADER",
        Role::Failed => "failed",
    }
}

pub(super) fn peer(status: &PeerStatus) -> String {
    let state = match status.state {
        PeerState::Probe => "probe",
        PeerState::Replicate => "replicate",
        PeerState::Snapshot => "snapshot",
    };
    let drifts = if status.clock_drifts {
        ", its clock drifts"
    } else {
        ""
    };
    format!(
        "{}: {state}, matched {}, next {}{drifts}",
        node(status.id),
        status.matched,
        status.next
    )
}
