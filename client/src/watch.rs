//! Watches that go on across failovers without a gap or a repeat.

use std::marker::PhantomData;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use quorate_api::{SessionChange, SettingsChange, WatchChange, WatchMark, events};
use serde::de::DeserializeOwned;

use crate::listen::{self, Broken, PROGRESS_MS, Search, Stream, odd, read, refused};
use crate::request::Sender;
use crate::{Client, Error, NodeName, Parameters};

/// Which keys to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// This key.
    Only(Vec<u8>),
    /// All that begin with this.
    Prefix(Vec<u8>),
    /// From the first one up to but not including the second one; none for the end.
    Range(Vec<u8>, Option<Vec<u8>>),
}

/// Which changes not to hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// Hear of everything.
    #[default]
    Nothing,
    /// Not of puts.
    Puts,
    /// Not of deletes.
    Deletes,
}

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// Which keys.
    pub keys: Keys,
    /// The first revision to hear of; none for what is yet to come.
    pub from_revision: Option<u64>,
    /// Whether to tell what was there before.
    pub previous: bool,
    /// What to leave out.
    pub filter: Filter,
}

impl WatchRequest {
    /// What is yet to come of these keys.
    pub fn new(keys: Keys) -> WatchRequest {
        WatchRequest {
            keys,
            from_revision: None,
            previous: false,
            filter: Filter::Nothing,
        }
    }
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched<C = WatchChange> {
    /// The changes of one revision, or a part of them when the revision is very large.
    Change(C),
    /// Everything up to this revision was told. The first one says where the watch began.
    Progress {
        /// The revision.
        revision: u64,
    },
}

/// What happened at one revision.
pub trait Change: DeserializeOwned {
    /// The revision.
    fn revision(&self) -> u64;
    /// Whether more of the revision is to come.
    fn is_partial(&self) -> bool;
    /// How many events it has.
    fn events(&self) -> usize;
    /// Leaves out the first events.
    fn leave_out(&mut self, events: usize);
}

macro_rules! changes {
    ($($kind:ty),*) => {
        $(impl Change for $kind {
            fn revision(&self) -> u64 {
                self.revision
            }

            fn is_partial(&self) -> bool {
                self.partial
            }

            fn events(&self) -> usize {
                self.events.len()
            }

            fn leave_out(&mut self, events: usize) {
                self.events.drain(..events);
            }
        })*
    };
}

changes!(WatchChange, SessionChange, SettingsChange);

/// A watch under way. It holds one connection of its own, and goes on at another node when that breaks.
#[derive(Debug)]
pub struct Watch<C = WatchChange> {
    sender: Arc<Sender>,
    /// What is asked for, but for the revision to begin with.
    path: String,
    /// Everything up to this revision was told; none before a node said where the watch begins.
    position: Option<u64>,
    /// Of the revision after `position`, so many events were told already.
    told: usize,
    stream: Option<Stream>,
    /// Which endpoint was asked last.
    index: usize,
    /// Of the revision that is being told again, so many events are still to be left out.
    skip: usize,
    changes: PhantomData<fn() -> C>,
}

impl Client {
    /// Watches keys. Nothing is sent before [`Watch::next`] is called.
    pub fn watch(&self, request: WatchRequest) -> Watch {
        Watch::new(Arc::clone(&self.sender), request.path(), request.from_revision)
    }

    /// Watches what a node is given of sessions and what it loses, or what becomes of all sessions, from a revision on or
    /// as it is yet to come. What it has already is read with [`Client::sessions`], whose answer names the revision. Nothing
    /// is sent before [`Watch::next`] is called.
    pub fn watch_sessions(
        &self,
        node: Option<&NodeName>,
        from_revision: Option<u64>,
    ) -> Watch<SessionChange> {
        let mut parameters = Parameters::of("/v1/watch/sessions".to_owned());
        parameters.add_number("progress_ms", Some(PROGRESS_MS));
        if let Some(node) = node {
            parameters.add_bytes("node", node.as_str().as_bytes());
        }
        Watch::new(Arc::clone(&self.sender), parameters.into(), from_revision)
    }
}

impl Client {
    /// A watch of what stands at a path.
    pub(crate) fn watch_at<C: Change>(&self, path: String, from_revision: Option<u64>) -> Watch<C> {
        Watch::new(Arc::clone(&self.sender), path, from_revision)
    }
}

impl WatchRequest {
    fn path(&self) -> String {
        let encode = |bytes: &[u8]| percent_encode(bytes, NON_ALPHANUMERIC).to_string();
        let keys = match &self.keys {
            Keys::Only(key) => format!("key={}", encode(key)),
            Keys::Prefix(prefix) => format!("prefix={}", encode(prefix)),
            Keys::Range(start, None) => format!("start={}", encode(start)),
            Keys::Range(start, Some(end)) => format!("start={}&end={}", encode(start), encode(end)),
        };
        let mut path = format!("/v1/watch?{keys}&progress_ms={PROGRESS_MS}");
        if self.previous {
            path.push_str("&previous=true");
        }
        match self.filter {
            Filter::Nothing => {}
            Filter::Puts => path.push_str("&filter=no_puts"),
            Filter::Deletes => path.push_str("&filter=no_deletes"),
        }
        path
    }
}

impl<C: Change> Watch<C> {
    fn new(sender: Arc<Sender>, path: String, from_revision: Option<u64>) -> Watch<C> {
        Watch {
            sender,
            path,
            position: from_revision.map(|first| first.saturating_sub(1)),
            told: 0,
            stream: None,
            index: 0,
            skip: 0,
            changes: PhantomData,
        }
    }

    /// Everything up to this revision was told; none before a node said where the watch begins.
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// The node that tells, while one does.
    pub fn endpoint(&self) -> Option<&str> {
        self.stream.as_ref().map(|stream| &*stream.endpoint)
    }

    /// What happened next. Waits for it as long as a node is there; looks for another one when it goes, for the client's
    /// time-out. Nothing is lost when the future is dropped before it completes.
    ///
    /// # Errors
    /// [`Error::Compacted`] when what comes next is no longer known, and the watch cannot go on. Otherwise no node serves
    /// the watch at present, and the call may be repeated: nothing is lost.
    pub async fn next(&mut self) -> Result<Watched<C>, Error> {
        let mut search: Option<Search> = None;
        loop {
            let result = match self.stream {
                Some(_) => self.hear().await,
                None => self.connect().await.map(|()| None),
            };
            let error = match result {
                Ok(Some(watched)) => return Ok(watched),
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

    /// Asks the endpoint in use.
    async fn connect(&mut self) -> Result<(), Broken> {
        let path = self.path();
        let stream = listen::open(&self.sender, &mut self.index, &path).await?;
        self.skip = self.told;
        self.stream = Some(stream);
        Ok(())
    }

    fn path(&self) -> String {
        let from = self
            .position
            .map(|position| format!("&from_revision={}", position + 1));
        format!("{}{}", self.path, from.unwrap_or_default())
    }

    /// Waits for the next event of the stream. None when there is nothing to tell the caller.
    async fn hear(&mut self) -> Result<Option<Watched<C>>, Broken> {
        let Some(stream) = &mut self.stream else {
            return Ok(None);
        };
        let event = listen::next_event(stream).await?;
        let endpoint = stream.endpoint.clone();
        Ok(match &*event.kind {
            events::OPEN => {
                let WatchMark { revision } = read(&endpoint, &event)?;
                let began = self.position.is_none();
                self.position.get_or_insert(revision);
                began.then_some(Watched::Progress { revision })
            }
            events::PROGRESS => {
                let WatchMark { revision } = read(&endpoint, &event)?;
                self.advance(&endpoint, revision)?;
                Some(Watched::Progress { revision })
            }
            events::CHANGE => self
                .changed(&endpoint, read(&endpoint, &event)?)?
                .map(Watched::Change),
            events::CANCEL => return Err(refused(&endpoint, read(&endpoint, &event)?)),
            // A kind of a later version.
            _ => None,
        })
    }

    /// Takes note that everything up to `revision` was told.
    fn advance(&mut self, endpoint: &str, revision: u64) -> Result<(), Broken> {
        let position = self.position.unwrap_or_default();
        if revision < position {
            return Err(odd(
                endpoint,
                format!("it is at revision {revision} after {position}"),
            ));
        }
        (self.position, self.told, self.skip) = (Some(revision), 0, 0);
        Ok(())
    }

    /// Leaves out what was told before the stream broke; none when that is all.
    fn changed(&mut self, endpoint: &str, mut change: C) -> Result<Option<C>, Broken> {
        let revision = change.revision();
        if self.position.is_some_and(|position| revision <= position) {
            return Err(odd(endpoint, format!("it tells of revision {revision} again")));
        }
        let again = self.skip.min(change.events());
        change.leave_out(again);
        self.skip -= again;
        if change.is_partial() {
            self.told += change.events();
            return Ok((change.events() > 0).then_some(change));
        }
        self.advance(endpoint, revision)?;
        Ok(Some(change))
    }
}
