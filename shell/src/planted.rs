//! Mistakes made on purpose in the shell, to see whether the simulation notices them.
//!
//! Each one is what somebody might forget or get wrong at the line where it is asked for. As with those of consensus
//! ([`quorate_core::raft::PlantedBug`]) the switches exist only with the feature `planted-bugs`, which no production build
//! turns on; without it [`Planted`] is empty, and every question is answered "no" when the code is compiled.

quorate_core::planted_bugs! {
    /// A group of writes is acknowledged without a sync of the log.
    LogIsNotSynced = "log-is-not-synced",
    /// A group of writes is acknowledged before it is written.
    AcknowledgedBeforeWrite = "acknowledged-before-write",
    /// The name of a new segment is not made durable.
    SegmentNameIsNotSynced = "segment-name-is-not-synced",
    /// A retired segment is used again with its old records in it.
    SpareIsNotBlanked = "spare-is-not-blanked",
    /// The log goes on in the next segment without a seal on the one before.
    SegmentIsNotSealed = "segment-is-not-sealed",
    /// A new segment begins without the term and the vote, which go with the old ones.
    CheckpointForgetsVote = "checkpoint-forgets-vote",
    /// A damaged sector passes for the end of a write that was never acknowledged.
    DamageCountsAsTorn = "damage-counts-as-torn",
    /// A node whose log lost its end to damage votes at once.
    RepairIsForgotten = "repair-is-forgotten",
    /// A node starts without the vote that its log holds.
    VoteIsNotRecovered = "vote-is-not-recovered",
    /// A received snapshot gets its final name before it is on disk.
    SnapshotIsNotSynced = "snapshot-is-not-synced",
    /// A snapshot that is sent again goes on one piece too far.
    SnapshotSkipsAPiece = "snapshot-skips-a-piece",
    /// The index up to which the state is on disk gets there one commit before the rows.
    AppliedBeforeRows = "applied-before-rows",
    /// The log is purged up to what the state store was handed, not to what it has on disk.
    PurgeBeyondState = "purge-beyond-state",
    /// A forwarded write whose answer never came is answered as done.
    LostForwardCountsAsDone = "lost-forward-counts-as-done",
    /// A forwarded write whose fate is not known is made once more.
    LostForwardIsRepeated = "lost-forward-is-repeated",
    /// The key by which a request is carried out once is lost when it is forwarded.
    ForwardDropsRequestKey = "forward-drops-request-key",
    /// A follower passes on the answer to another forwarded request.
    ForwardAnswersMixedUp = "forward-answers-mixed-up",
    /// Of two writes that are applied together each gets the other's answer.
    AnswersAreSwapped = "answers-are-swapped",
    /// Of a transaction's comparisons only the first one counts.
    FirstComparisonCounts = "first-comparison-counts",
    /// A linearizable read is answered from what the node has.
    ReadWithoutIndex = "read-without-index",
    /// A read is answered before the state has come to the index that was confirmed for it.
    ReadBeforeApplied = "read-before-applied",
    /// A read by lease is answered by whoever last saw itself lead, without a look at the lease.
    LeaseIsNotChecked = "lease-is-not-checked",
    /// A read does not wait for the revision that its client wants to see.
    MinRevisionIsIgnored = "min-revision-is-ignored",
    /// A watch that goes on misses the first change after the last one that was told.
    WatchGoesOnTooLate = "watch-goes-on-too-late",
    /// A watch that goes on repeats the last change that was told.
    WatchRepeatsLast = "watch-repeats-last",
    /// A mark of progress speaks of the revision after the last one that was told.
    MarkComesTooEarly = "mark-comes-too-early",
    /// Of two answers that leave together on a pipeline each goes to the other request.
    PipelineAnswersAreSwapped = "pipeline-answers-are-swapped",
    /// A request on a pipeline is carried out twice.
    PipelinedRequestIsMadeTwice = "pipelined-request-is-made-twice",
    /// The key by which a request is carried out once is lost on a pipeline.
    PipelineDropsRequestKey = "pipeline-drops-request-key",
    /// A node that stops ends a pipeline as one that has answered everything, and has not.
    PipelineEndsUnanswered = "pipeline-ends-unanswered",
    /// A node of another cluster is let in.
    ClusterIsNotChecked = "cluster-is-not-checked",
    /// Whoever answers at the address of a member is taken for that member.
    IdentityIsNotChecked = "identity-is-not-checked",
    /// A connection that ended is not let go.
    ConnectionIsKept = "connection-is-kept",
    /// The task that took a connection waits on when that has ended.
    TaskOutlivesConnection = "task-outlives-connection",
    /// The file of a segment stays open when the log goes on in the next one.
    SegmentStaysOpen = "segment-stays-open",
}
