//! Whether what transactions over several keys saw can be explained by doing them one after the other, each at some moment
//! between its call and its answer: strict serializability (Papadimitriou, 1979; Herlihy and Wing, 1990, section 3.3).
//!
//! Every key holds a list. Transactions read lists and append values, each of which nobody else appends. A list that was
//! read tells in which order its values came, and so which transaction goes before which: who appended a value before who
//! read it, who appended it before who appended the next one, and who read a list without it before who appended it (the
//! dependencies of Adya, 1999; that lists reveal them is from Kingsbury and Alvaro, "Elle", 2020). And whoever was
//! answered before another one was asked goes before it. Where that goes round in a circle, no order explains it.
//!
//! Unlike the search that one key needs, this is always decided, in time linear in what was read.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, and read what it says.
    Done,
    /// Certainly nothing happened.
    Failed,
    /// It may have happened, on what it says that it read, or may yet, or never.
    Unknown,
}

/// One transaction of one client.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The lists that it read, as they were before it appended to any.
    pub reads: BTreeMap<String, Vec<u64>>,
    /// What it appended to which list.
    pub appends: BTreeMap<String, u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// When it began, since the history began.
    pub invoked: Duration,
    /// When its answer was there.
    pub returned: Duration,
}

/// Why no order explains the transactions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Anomaly {
    /// A list holds what no transaction appended that may have been done.
    #[error("{key} holds {value}, which nobody appended or only a transaction that failed")]
    Unexplained {
        /// The list.
        key: String,
        /// The value.
        value: u64,
    },
    /// A list holds a value more than once.
    #[error("{key} holds {value} twice: {list:?}")]
    Twice {
        /// The list.
        key: String,
        /// The value.
        value: u64,
        /// What it was read as.
        list: Vec<u64>,
    },
    /// Neither of two reads of a list continues the other.
    #[error("{key} was read as {one:?} and as {other:?}")]
    Forked {
        /// The list.
        key: String,
        /// What it was read as,
        one: Vec<u64>,
        /// and what else.
        other: Vec<u64>,
    },
    /// Each of these transactions goes before the next one, and the last one before the first.
    #[error("each goes before the next, and the last before the first: {}", in_words(.0))]
    Circle(Vec<Step>),
}

/// One transaction of a circle, and why it goes before the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its place among the transactions.
    pub transaction: usize,
    /// What it did.
    pub about: String,
    /// Why it goes before the next one.
    pub why: Why,
}

/// Why one transaction goes before another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The other one read what it appended to this list.
    Read(String),
    /// The other one appended the next value to this list.
    Appended(String),
    /// It read this list without what the other one appended.
    Unseen(String),
    /// It was answered before the other one was asked.
    Earlier,
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Read(key) => write!(formatter, "the next read what it appended to {key}"),
            Why::Appended(key) => write!(formatter, "the next appended to {key} after it"),
            Why::Unseen(key) => write!(formatter, "it read {key} without what the next appended"),
            Why::Earlier => write!(formatter, "it was answered before the next was asked"),
        }
    }
}

fn in_words(circle: &[Step]) -> String {
    let step = |step: &Step| format!("{} {} ({})", step.transaction, step.about, step.why);
    circle.iter().map(step).collect::<Vec<_>>().join("; ")
}

/// Judges transactions over lists that were empty at first.
///
/// # Errors
/// Why no order explains them.
pub fn check(transactions: &[Transaction]) -> Result<(), Anomaly> {
    let lists = Lists::of(transactions)?;
    let graph = Graph::of(transactions, &lists);
    match graph.circle() {
        None => Ok(()),
        Some(circle) => Err(Anomaly::Circle(
            circle
                .into_iter()
                .map(|(transaction, why)| Step {
                    transaction,
                    about: about(&transactions[transaction]),
                    why,
                })
                .collect(),
        )),
    }
}

fn about(transaction: &Transaction) -> String {
    let reads = transaction.reads.iter().map(|(key, list)| match list.last() {
        None => format!("read {key} empty"),
        Some(last) => format!("read {key} up to {last}"),
    });
    let appends = transaction.appends.iter();
    let appends = appends.map(|(key, value)| format!("appended {value} to {key}"));
    reads.chain(appends).collect::<Vec<_>>().join(", ")
}

/// The lists as they are known.
struct Lists<'a> {
    /// The longest that each was read as.
    longest: BTreeMap<&'a str, &'a [u64]>,
    /// Who appended each value of those.
    writers: BTreeMap<(&'a str, u64), usize>,
    /// Who certainly appended to a list what nobody ever read: after all that is in it.
    unread: BTreeMap<&'a str, Vec<usize>>,
    /// Which transactions were done.
    done: Vec<bool>,
}

impl<'a> Lists<'a> {
    fn of(transactions: &'a [Transaction]) -> Result<Lists<'a>, Anomaly> {
        let longest = longest(transactions)?;
        let mut done: Vec<bool> = transactions
            .iter()
            .map(|transaction| transaction.outcome == Outcome::Done)
            .collect();
        let mut appended = BTreeMap::new();
        for (place, transaction) in transactions.iter().enumerate() {
            if transaction.outcome != Outcome::Failed {
                let values = transaction.appends.iter();
                appended.extend(values.map(|(key, value)| ((key.as_str(), *value), place)));
            }
        }
        let mut writers = BTreeMap::new();
        for (key, list) in &longest {
            for value in *list {
                let writer = appended.remove(&(*key, *value));
                let writer = writer.ok_or_else(|| match writers.get(&(*key, *value)) {
                    None => Anomaly::Unexplained {
                        key: (*key).to_owned(),
                        value: *value,
                    },
                    Some(_) => Anomaly::Twice {
                        key: (*key).to_owned(),
                        value: *value,
                        list: list.to_vec(),
                    },
                })?;
                // Somebody saw it, so it was done, whatever its client heard.
                done[writer] = true;
                writers.insert((*key, *value), writer);
            }
        }
        let mut unread: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for ((key, _), place) in appended {
            if done[place] {
                unread.entry(key).or_default().push(place);
            }
        }
        Ok(Lists {
            longest,
            writers,
            unread,
            done,
        })
    }

    fn writer(&self, key: &str, value: u64) -> usize {
        self.writers[&(key, value)]
    }

    fn unread(&self, key: &str) -> &[usize] {
        self.unread.get(key).map_or(&[], Vec::as_slice)
    }
}

/// The longest that each list was read as; all reads of it are beginnings of that.
fn longest(transactions: &[Transaction]) -> Result<BTreeMap<&str, &[u64]>, Anomaly> {
    let mut longest: BTreeMap<&str, &[u64]> = BTreeMap::new();
    for transaction in transactions {
        for (key, list) in &transaction.reads {
            let known = longest.entry(key).or_default();
            let shared = known.len().min(list.len());
            if known[..shared] != list[..shared] {
                return Err(Anomaly::Forked {
                    key: key.clone(),
                    one: known.to_vec(),
                    other: list.clone(),
                });
            }
            if list.len() > known.len() {
                *known = list;
            }
        }
    }
    Ok(longest)
}

/// Which transaction goes before which. After the transactions come moments, at each of which one was answered: so what
/// follows from time takes few edges.
struct Graph {
    edges: Vec<Vec<(usize, Why)>>,
    transactions: usize,
}

impl Graph {
    fn of(transactions: &[Transaction], lists: &Lists<'_>) -> Graph {
        let mut graph = Graph {
            edges: vec![Vec::new(); transactions.len()],
            transactions: transactions.len(),
        };
        for (key, list) in &lists.longest {
            graph.add_order(key, list, lists);
        }
        for (place, transaction) in transactions.iter().enumerate() {
            if lists.done[place] {
                for (key, list) in &transaction.reads {
                    graph.add_read(place, key, list, lists);
                }
            }
        }
        graph.add_time(transactions, &lists.done);
        graph
    }

    fn add(&mut self, before: usize, after: usize, why: Why) {
        self.edges[before].push((after, why));
    }

    /// The order in which a list was appended to.
    fn add_order(&mut self, key: &str, list: &[u64], lists: &Lists<'_>) {
        for pair in list.windows(2) {
            let why = Why::Appended(key.to_owned());
            self.add(lists.writer(key, pair[0]), lists.writer(key, pair[1]), why);
        }
        if let Some(last) = list.last() {
            for after in lists.unread(key) {
                self.add(lists.writer(key, *last), *after, Why::Appended(key.to_owned()));
            }
        }
    }

    fn add_read(&mut self, reader: usize, key: &str, list: &[u64], lists: &Lists<'_>) {
        if let Some(last) = list.last() {
            self.add(lists.writer(key, *last), reader, Why::Read(key.to_owned()));
        }
        let next = match lists.longest[key].get(list.len()) {
            Some(value) => &[lists.writer(key, *value)],
            None => lists.unread(key),
        };
        // Its own value may well be the next one.
        for after in next.iter().filter(|after| **after != reader) {
            self.add(reader, *after, Why::Unseen(key.to_owned()));
        }
    }

    fn add_time(&mut self, transactions: &[Transaction], done: &[bool]) {
        let answered = |place: &usize| transactions[*place].outcome == Outcome::Done;
        let mut answers: Vec<usize> = (0..transactions.len()).filter(answered).collect();
        answers.sort_by_key(|place| transactions[*place].returned);
        for (moment, place) in answers.iter().enumerate() {
            let node = self.edges.len();
            self.edges.push(Vec::new());
            self.add(*place, node, Why::Earlier);
            if moment > 0 {
                self.add(node - 1, node, Why::Earlier);
            }
        }
        for (place, transaction) in transactions.iter().enumerate().filter(|(place, _)| done[*place]) {
            let earlier =
                answers.partition_point(|answer| transactions[*answer].returned < transaction.invoked);
            if earlier > 0 {
                self.add(self.transactions + earlier - 1, place, Why::Earlier);
            }
        }
    }

    /// The shortest circle, when there is one.
    fn circle(&self) -> Option<Vec<(usize, Why)>> {
        let tangled = self.tangled();
        let starts = (0..self.transactions).filter(|place| tangled[*place]);
        let circles = starts.filter_map(|start| self.circle_through(start, &tangled));
        circles.min_by_key(Vec::len)
    }

    /// What is left when one after the other everything is taken away that nothing goes before.
    fn tangled(&self) -> Vec<bool> {
        let mut before = vec![0_usize; self.edges.len()];
        for (after, _) in self.edges.iter().flatten() {
            before[*after] += 1;
        }
        let mut free: Vec<usize> = (0..before.len()).filter(|place| before[*place] == 0).collect();
        let mut tangled = vec![true; before.len()];
        while let Some(place) = free.pop() {
            tangled[place] = false;
            for (after, _) in &self.edges[place] {
                before[*after] -= 1;
                if before[*after] == 0 {
                    free.push(*after);
                }
            }
        }
        tangled
    }

    /// The shortest way from a transaction back to it, without the moments on it.
    fn circle_through(&self, start: usize, tangled: &[bool]) -> Option<Vec<(usize, Why)>> {
        let mut from: Vec<Option<(usize, &Why)>> = vec![None; self.edges.len()];
        let mut next = VecDeque::from([start]);
        while let Some(place) = next.pop_front() {
            for (after, why) in self.edges[place].iter().filter(|(after, _)| tangled[*after]) {
                if from[*after].is_none() {
                    from[*after] = Some((place, why));
                    next.push_back(*after);
                }
            }
        }
        let mut circle = Vec::new();
        let mut place = start;
        loop {
            let (before, why) = from[place]?;
            if before < self.transactions {
                circle.push((before, why.clone()));
            }
            place = before;
            if place == start {
                circle.reverse();
                return Some(circle);
            }
        }
    }
}

#[cfg(test)]
mod tests;
