//! The leader is cut off from the majority: another one leads, and nobody loses a write over it.

use std::error::Error;
use std::time::Duration;

use quorate_sim::full::{Answer, Setup, Simulation};

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let setup = Setup {
        nodes: 5,
        loss: 10_000, // of a million packets
        ..Setup::default()
    };
    for seed in 1..=3 {
        let mut cluster = Simulation::found(&setup, seed)?;
        let (old, term) = (cluster.leader().ok_or("nobody leads")?, cluster.term());
        let others = cluster.followers();
        cluster.partition(&[&[old], &others], None);
        let write = cluster.write(old);
        let took = cluster.run_until(Duration::from_secs(5), |cluster| cluster.term() > term)?;
        println!("seed {seed}: another node leads after {took:?}");
        assert!(took.is_some(), "the majority elects a leader");
        cluster.run_for(Duration::from_secs(2))?;
        let done = cluster
            .answer(write)
            .is_some_and(|(answer, _)| answer == Answer::Done);
        assert!(!done, "a leader without a majority acknowledges nothing");
        cluster.heal();
        // The cluster must come to agree, and what its clients saw is judged.
        cluster.finish()?;
    }
    Ok(())
}
