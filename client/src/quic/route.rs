//! Whether one endpoint is spoken with over QUIC.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

use super::Connection;
use crate::connection::{CONNECT_TIMEOUT, Failure, Means, Protocol};
use crate::machine::Machine;

/// How long QUIC may take to connect before HTTP is tried beside it.
const HEAD_START: Duration = Duration::from_millis(100);
/// How long a node that does not answer to QUIC is spoken with over HTTP before QUIC is tried again.
const AGAIN: Duration = Duration::from_secs(30);

type Connecting = watch::Receiver<Option<Result<Arc<Connection>, String>>>;

#[derive(Debug)]
pub(crate) struct Route {
    authority: String,
    means: Means,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Nothing is known.
    Unknown,
    /// It is being tried; requests wait for it until then.
    Connecting(Connecting, Instant),
    Connected(Arc<Connection>),
    /// It did not work then.
    Closed(Instant),
}

/// What a request finds.
enum Found {
    Connection(Arc<Connection>),
    Http,
    /// A connection is being made.
    Wait(Connecting, Instant),
}

impl Route {
    pub(crate) fn new(authority: String, means: Means) -> Route {
        Route {
            authority,
            means,
            state: Mutex::new(State::Unknown),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection that requests share; none for HTTP.
    ///
    /// # Errors
    /// When there is none, and nothing else may be spoken.
    pub(crate) async fn connection(&self, deadline: Instant) -> Result<Option<Arc<Connection>>, Failure> {
        let (mut connecting, until) = match self.look() {
            Found::Connection(connection) => return Ok(Some(connection)),
            Found::Http => return Ok(None),
            Found::Wait(connecting, until) => (connecting, until),
        };
        let result = match timeout_at(until.min(deadline), connecting.wait_for(Option::is_some)).await {
            Ok(Ok(result)) => result.clone(),
            Ok(Err(_)) => Some(Err("connecting was given up".to_owned())),
            Err(_) => None,
        };
        match result {
            Some(Ok(connection)) => Ok(Some(connection)),
            _ if self.means.protocol == Protocol::Auto => Ok(None),
            Some(Err(reason)) => {
                self.forget();
                Err(Failure::NotSent(reason))
            }
            None if deadline < until => Err(Failure::TimedOut { maybe_sent: false }),
            None => Err(Failure::NotSent("it does not answer over QUIC".to_owned())),
        }
    }

    /// What there is, or begins to connect.
    fn look(&self) -> Found {
        let now = Instant::now();
        let mut state = self.state();
        if let State::Connecting(connecting, _) = &*state {
            let result = connecting.borrow().clone();
            match result {
                Some(Ok(connection)) => *state = State::Connected(connection),
                Some(Err(_)) => *state = State::Closed(now),
                None if connecting.has_changed().is_err() => *state = State::Unknown,
                None => {}
            }
        }
        let patience = match (&*state, self.means.protocol) {
            (_, Protocol::Http) => return Found::Http,
            (State::Connected(connection), _) if connection.takes_requests() => {
                return Found::Connection(Arc::clone(connection));
            }
            (State::Connecting(connecting, until), _) => return Found::Wait(connecting.clone(), *until),
            (_, Protocol::Quic) => CONNECT_TIMEOUT,
            (State::Closed(since), Protocol::Auto) if now < *since + AGAIN => return Found::Http,
            // What works is not waited for.
            (State::Closed(_), Protocol::Auto) => Duration::ZERO,
            (_, Protocol::Auto) => HEAD_START,
        };
        let connecting = connect(self.authority.clone(), Arc::clone(&self.means.machine));
        let until = now + patience;
        *state = State::Connecting(connecting.clone(), until);
        Found::Wait(connecting, until)
    }

    /// Whatever is known may not hold any more: the node went away.
    pub(crate) fn forget(&self) {
        let mut state = self.state();
        let failed = match &*state {
            State::Closed(_) => true,
            State::Connecting(connecting, _) => matches!(*connecting.borrow(), Some(Err(_))),
            State::Unknown | State::Connected(_) => false,
        };
        if failed {
            *state = State::Unknown;
        }
    }
}

/// Connects in a task of its own, which goes on when nobody waits any more.
fn connect(authority: String, machine: Arc<dyn Machine>) -> Connecting {
    let (done, connecting) = watch::channel(None);
    tokio::spawn(async move {
        let connected = timeout(CONNECT_TIMEOUT, Connection::open_to(&*machine, &authority)).await;
        let late = |_| {
            Err(format!(
                "no connection over QUIC within {} ms",
                CONNECT_TIMEOUT.as_millis()
            ))
        };
        let result = connected.unwrap_or_else(late).map(Arc::new);
        done.send_replace(Some(result));
    });
    connecting
}
