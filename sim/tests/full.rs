//! The full simulation itself: production nodes keep every property on simulated machines, and runs repeat exactly.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use quorate_sim::consensus::{Engine, Mark, Outcome, Plan, Statistics};
use quorate_sim::full::{Holdings, NodeId, Setup, Simulation, run};

fn outcome(plan: &Plan) -> Outcome {
    run(plan, None).unwrap_or_else(|violation| panic!("{violation}"))
}

#[test]
fn nodes_found_a_cluster_and_serve_clients() {
    let plan = Plan::draw(1, 3, 3).calm();
    let Outcome { statistics, .. } = outcome(&plan);
    assert_eq!(statistics.elections, 1, "nothing disturbs the first leader");
    assert_eq!(statistics.unknown, 0, "every request is answered");
    assert!(statistics.acknowledged > 50 && statistics.reads > 30);
    assert!(
        statistics.watched > statistics.acknowledged,
        "one watches everything"
    );
}

#[test]
fn nodes_keep_every_property_through_faults() {
    let (mut sum, mut seen) = (Statistics::default(), BTreeSet::new());
    let had_all = |sum: &Statistics| {
        let on_disks = sum.stalls > 0 && sum.wiped > 0 && sum.rotten > 0;
        on_disks && sum.crashes > 0 && sum.partitions > 0 && sum.pauses > 0 && sum.transfers > 0
    };
    // A wiped or rotten disk is rare in runs this short.
    let mut seeds = 1..=120;
    while !had_all(&sum) || *seeds.start() <= 24 {
        let seed = seeds.next().expect("120 seeds have every fault");
        let outcome = outcome(&Plan::draw(seed, 3, 8));
        sum.add(&outcome.statistics);
        seen.extend(Mark::of(Engine::Nodes).filter(|mark| outcome.marks.has(*mark)));
    }
    assert!(
        sum.watched > 1_000 && sum.marks > 20 && sum.resumed > 20,
        "{sum:?}"
    );
    assert!(sum.elections > 8, "some leader was replaced");
    let over_quic = [Mark::QuicRefused, Mark::QuicReset];
    assert!(over_quic.iter().all(|mark| seen.contains(mark)), "{seen:?}");
}

#[test]
fn the_same_plan_gives_the_same_run_in_one_process() {
    for seed in 1..=3 {
        let plan = Plan::draw(seed, 3, 5);
        assert_eq!(outcome(&plan), outcome(&plan), "seed {seed}");
    }
}

#[test]
fn the_same_plan_gives_the_same_run_in_another_process() {
    let output = Command::new(env!("CARGO_BIN_EXE_quorate-sim"))
        .args([
            "run",
            "--nodes",
            "3",
            "--seeds",
            "2..4",
            "--seconds",
            "5",
            "--hashes",
        ])
        .output()
        .expect("the simulator runs");
    let there = String::from_utf8_lossy(&output.stdout);
    let here: String = (2..=4)
        .map(|seed| format!("{seed} {:016x}\n", outcome(&Plan::draw(seed, 3, 5)).trace))
        .collect();
    assert_eq!(there, here);
}

/// What the two nodes that are never restarted hold.
fn held(cluster: &Simulation) -> [Holdings; 2] {
    [1, 2].map(|node| cluster.holdings(NodeId(node)))
}

/// Lets time pass until a condition holds.
fn wait(cluster: &mut Simulation, condition: impl FnMut(&Simulation) -> bool) {
    let came = cluster.run_until(Duration::from_secs(10), condition);
    let came = came.unwrap_or_else(|violation| panic!("{violation}"));
    assert!(came.is_some(), "it does not come about: {:?}", held(cluster));
}

#[test]
fn nothing_is_left_behind_after_a_hundred_restarts() {
    let mut cluster = Simulation::found(&Setup::default(), 1).expect("a cluster of three can be");
    let agree = |cluster: &Simulation| cluster.agrees_up_to(cluster.committed());
    let mut before = [Holdings::default(); 2];
    for time in 0..=100 {
        let restarted = NodeId(3);
        match time % 3 {
            0 => cluster.kill(restarted),
            1 => cluster.cut_power(restarted),
            _ => cluster.stop(restarted),
        }
        wait(&mut cluster, |cluster| !cluster.runs(restarted));
        cluster.start(restarted);
        wait(&mut cluster, agree);
        wait(&mut cluster, |cluster| {
            held(cluster).iter().all(|held| held.connections == 2)
        });
        if time == 0 {
            before = held(&cluster);
        }
    }
    // A few connections of clients more or fewer; what each restart leaves behind would be there a hundred times.
    for (held, before) in held(&cluster).into_iter().zip(before) {
        assert_eq!(held.lanes, before.lanes);
        assert!(held.probes < before.probes + 5, "{held} after {before}");
        assert!(held.tasks < before.tasks + 20, "{held} after {before}");
        assert!(held.files < before.files + 5, "{held} after {before}");
    }
    cluster.finish().unwrap_or_else(|violation| panic!("{violation}"));
}

#[test]
fn a_disk_that_stands_still_goes_on_when_it_is_mended() {
    let mut cluster = Simulation::found(&Setup::default(), 2).expect("a cluster of three can be");
    let stuck = NodeId(3);
    cluster.stall_disk(stuck, Duration::from_secs(60));
    cluster.kill(stuck);
    cluster.start(stuck);
    let second = Duration::from_secs(1);
    cluster
        .run_for(second)
        .unwrap_or_else(|violation| panic!("{violation}"));
    cluster.finish().unwrap_or_else(|violation| panic!("{violation}"));
}

#[test]
fn a_command_ends_quietly_when_nobody_reads_on() {
    let plan = format!(
        "{} plan --seed 1 --nodes 5 --seconds 3000 | head -n 1",
        env!("CARGO_BIN_EXE_quorate-sim")
    );
    let output = Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {plan}")])
        .output()
        .expect("there is a shell");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(128 + 13), "as what SIGPIPE has ended");
}
