//! A part of many seeds, so that machines can share them.

use std::str::FromStr;

use quorate_sim::batch::Seeds;

/// A part of the seeds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    part: u64,
    parts: u64,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parse = |text: &str| text.parse::<u64>().ok();
        let (part, parts) = text
            .split_once('/')
            .and_then(|(part, parts)| Some((parse(part)?, parse(parts)?)))
            .ok_or_else(|| format!("`{text}` is no part such as 2/4"))?;
        if !(1..=parts).contains(&part) {
            return Err(format!("`{text}`: the part must be between 1 and {parts}"));
        }
        Ok(Shard { part, parts })
    }
}

impl Shard {
    /// The seeds of this part.
    pub(super) fn of(self, seeds: Seeds) -> Vec<u64> {
        let is_here = |seed: &u64| (seed - seeds.first) % self.parts == self.part - 1;
        seeds.iter().filter(is_here).collect()
    }
}
