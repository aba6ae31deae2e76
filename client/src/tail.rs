//! Tails of streams that go on across failovers without a gap or a repeat.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_api::{TailBatch, TailMark, tail_events};

use crate::listen::{self, Broken, Search, Stream, odd, read, refused};
use crate::request::Sender;
use crate::stream::segment;
use crate::{Client, Error};

/// Where a tail begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TailFrom {
    /// With the first records that are kept.
    First,
    /// With what is yet to come.
    #[default]
    Next,
    /// With this offset; of one partition only.
    Offset(u64),
}

/// Which streams to follow, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailRequest {
    /// A stream, or what the names of streams begin with.
    pub name: String,
    /// Whether `name` is a prefix; streams that come later are followed from their beginning.
    pub prefix: bool,
    /// One partition only; not with a prefix.
    pub partition: Option<u32>,
    /// Where to begin.
    pub from: TailFrom,
    /// The least priority of the records to hear of.
    pub priority: u8,
}

impl TailRequest {
    /// What is yet to come of a stream.
    pub fn new(stream: impl Into<String>) -> TailRequest {
        TailRequest {
            name: stream.into(),
            prefix: false,
            partition: None,
            from: TailFrom::Next,
            priority: 0,
        }
    }
}

/// What a tail tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tailed {
    /// New records of a partition.
    Records(TailBatch),
    /// Nothing is new. The first one says that the tail has begun.
    Progress,
}

/// A tail under way. It holds one connection of its own, and goes on at another node when that breaks.
#[derive(Debug)]
pub struct Tail {
    sender: Arc<Sender>,
    request: TailRequest,
    /// The next offset of each partition, with the id of its stream; none before a node said where the tail begins.
    positions: Option<BTreeMap<(String, u32), (u64, u64)>>,
    stream: Option<Stream>,
    /// Which endpoint was asked last.
    index: usize,
}

impl Client {
    /// Follows streams. Nothing is sent before [`Tail::next`] is called.
    pub fn tail(&self, request: TailRequest) -> Tail {
        Tail {
            sender: Arc::clone(&self.sender),
            request,
            positions: None,
            stream: None,
            index: 0,
        }
    }
}

impl Tail {
    /// The next offset of each partition, by stream and partition, as far as it is known.
    pub fn positions(&self) -> impl Iterator<Item = (&str, u32, u64)> {
        let positions = self.positions.iter().flatten();
        positions.map(|((stream, partition), (_, offset))| (&**stream, *partition, *offset))
    }

    /// The node that tells, while one does.
    pub fn endpoint(&self) -> Option<&str> {
        self.stream.as_ref().map(|stream| &*stream.endpoint)
    }

    /// What comes next. Waits for it as long as a node is there; looks for another one when it goes, for the client's
    /// time-out. Nothing is lost when the future is dropped before it completes.
    ///
    /// # Errors
    /// [`Error::OffsetDeleted`] when retention dropped what comes next, [`Error::NotFound`] when the stream is gone: the
    /// tail cannot go on. Otherwise no node serves it at present, and the call may be repeated: nothing is lost.
    pub async fn next(&mut self) -> Result<Tailed, Error> {
        let mut search: Option<Search> = None;
        loop {
            let result = match self.stream {
                Some(_) => self.hear().await,
                None => self.connect().await.map(|()| None),
            };
            let error = match result {
                Ok(Some(tailed)) => return Ok(tailed),
                Ok(None) => continue,
                Err(broken) => {
                    self.stream = None;
                    match broken {
                        Broken::Over(error) => return Err(error),
                        Broken::Elsewhere(error) => error,
                    }
                }
            };
            let search = search.get_or_insert_with(|| Search::new(&self.sender));
            listen::leave(&self.sender, self.index);
            if !search.pause().await {
                return Err(error);
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Broken> {
        let path = self.path();
        self.stream = Some(listen::open(&self.sender, &mut self.index, &path).await?);
        Ok(())
    }

    fn path(&self) -> String {
        let request = &self.request;
        let what = if request.prefix { "prefix" } else { "stream" };
        let progress = listen::PROGRESS_MS;
        let mut path = format!(
            "/v1/tail?{what}={}&progress_ms={progress}",
            segment(&request.name)
        );
        if let Some(partition) = request.partition {
            path.push_str(&format!("&partition={partition}"));
        }
        if request.priority > 0 {
            path.push_str(&format!("&priority={}", request.priority));
        }
        match (&self.positions, request.from) {
            (Some(positions), _) => {
                let place = |((name, partition), (id, offset)): (&(String, u32), &(u64, u64))| {
                    format!("{name}/{id}/{partition}@{offset}")
                };
                let positions: Vec<String> = positions.iter().map(place).collect();
                path.push_str(&format!("&at={}", segment(&positions.join(","))));
            }
            (None, TailFrom::First) => path.push_str("&from=first"),
            (None, TailFrom::Next) => path.push_str("&from=next"),
            (None, TailFrom::Offset(offset)) => path.push_str(&format!("&from={offset}")),
        }
        path
    }

    /// Waits for the next event of the stream. None when there is nothing to tell the caller.
    async fn hear(&mut self) -> Result<Option<Tailed>, Broken> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let event = listen::next_event(stream).await?;
        let endpoint = stream.endpoint.clone();
        Ok(match &*event.kind {
            tail_events::PROGRESS => {
                let mark: TailMark = read(&endpoint, &event)?;
                let positions = mark.positions.into_iter().map(|position| {
                    let place = (position.stream, position.partition);
                    (place, (position.stream_id, position.next_offset))
                });
                self.positions = Some(positions.collect());
                Some(Tailed::Progress)
            }
            tail_events::RECORDS => {
                let batch: TailBatch = read(&endpoint, &event)?;
                self.advance(&endpoint, &batch)?;
                Some(Tailed::Records(batch))
            }
            tail_events::CANCEL => return Err(refused(&endpoint, read(&endpoint, &event)?)),
            // A kind of a later version.
            _ => None,
        })
    }

    /// Takes note that everything before the batch's end was told.
    fn advance(&mut self, endpoint: &str, batch: &TailBatch) -> Result<(), Broken> {
        let positions = self.positions.get_or_insert_default();
        let place = (batch.stream.clone(), batch.partition);
        let before = positions
            .insert(place, (batch.stream_id, batch.next_offset))
            .filter(|(id, _)| *id == batch.stream_id)
            .map_or(0, |(_, offset)| offset);
        match batch.records.first() {
            Some(first) if first.offset < before => Err(odd(
                endpoint,
                format!(
                    "it tells offset {} of stream {} again",
                    first.offset, batch.stream
                ),
            )),
            _ => Ok(()),
        }
    }
}
