//! A process that stands still, as one that was stopped with SIGSTOP: nothing of it moves, and time goes on.
//!
//! Every task that a node starts through its ports passes the gate whenever it is polled. What a connection of a client
//! does by itself (reading a request, for one) is not held up; the node behind it is.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::consensus::schedule::Time;

#[derive(Debug, Default)]
struct State {
    /// Until then nothing moves.
    closed_until: Time,
    waiting: Vec<Waker>,
}

/// The gate of one machine.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<State>);

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing moves until then.
    pub(super) fn close(&self, until: Time) {
        let mut state = self.state();
        state.closed_until = state.closed_until.max(until);
    }

    /// Whatever was closed is open.
    pub(super) fn open(&self) {
        let waiting = {
            let mut state = self.state();
            state.closed_until = 0;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether nothing moves.
    pub(super) fn is_closed(&self) -> bool {
        self.state().closed_until > 0
    }

    /// Opens the gate when its time has come.
    pub(super) fn tick(&self, now: Time) {
        let due = {
            let state = self.state();
            state.closed_until > 0 && state.closed_until <= now
        };
        if due {
            self.open();
        }
    }

    /// Whether the gate is open; `waker` is woken when it opens.
    fn passes(&self, waker: &Waker) -> bool {
        let mut state = self.state();
        if state.closed_until == 0 {
            return true;
        }
        state.waiting.push(waker.clone());
        false
    }
}

/// A task behind a gate.
pub(super) struct Behind<F: ?Sized> {
    gate: Arc<Gate>,
    task: Pin<Box<F>>,
}

impl<F: ?Sized> Behind<F> {
    pub(super) fn new(gate: &Arc<Gate>, task: Pin<Box<F>>) -> Behind<F> {
        Behind {
            gate: Arc::clone(gate),
            task,
        }
    }
}

impl<F: Future + ?Sized> Future for Behind<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.gate.passes(context.waker()) {
            self.task.as_mut().poll(context)
        } else {
            Poll::Pending
        }
    }
}
