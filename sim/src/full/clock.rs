//! The clock of a simulated machine, and the timers of QUIC on it.
//!
//! Simulated time advances with the paused clock of the runtime that turmoil gives each host. A machine's own clock
//! runs beside it at its own rate, goes on while its processes are down, and may jump ahead as after a suspend. What a
//! node sees of time is its machine's clock alone.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use quorate::port::{BoxFuture, Clock};
use quorate_core::Instant;

use super::gate::{Behind, Gate};
use crate::consensus;
use crate::consensus::schedule::Time;

/// The simulated date at which every run begins: 1 January 2026.
const BEGIN: Duration = Duration::from_secs(1_767_225_600);

/// Simulated time of the world, in nanoseconds since the run began.
#[derive(Debug, Default)]
pub(super) struct WorldTime {
    /// When the tick began that is running or comes next.
    tick: AtomicU64,
    /// Whether machines run right now: only then do their runtimes say what time it is.
    runs: AtomicBool,
}

impl WorldTime {
    pub(super) fn begin_tick(&self, now: Time) {
        self.tick.store(now, Ordering::Relaxed);
    }

    /// Machines run for a tick.
    pub(super) fn while_running<T>(&self, tick: impl FnOnce() -> T) -> T {
        self.runs.store(true, Ordering::Relaxed);
        let result = tick();
        self.runs.store(false, Ordering::Relaxed);
        result
    }

    fn runs(&self) -> bool {
        self.runs.load(Ordering::Relaxed)
    }

    /// When the current tick began.
    pub(super) fn tick(&self) -> Time {
        self.tick.load(Ordering::Relaxed)
    }
}

/// The clock of one machine.
pub(super) struct MachineClock {
    world: Arc<WorldTime>,
    /// What the node's `std` instants count from; only differences matter.
    origin: std::time::Instant,
    dial: Mutex<Dial>,
    /// How far the date is ahead of what the clock measures, in nanoseconds.
    ahead: AtomicU64,
}

/// How simulated time maps to the machine's, and the runtime's to simulated time.
#[derive(Clone, Copy, Debug)]
struct Dial {
    /// The runtime of this life began at this simulated time, and said it was this instant.
    anchor: (Time, tokio::time::Instant),
    clock: consensus::clock::Clock,
    /// The last simulated time that was told.
    last: Time,
}

impl MachineClock {
    /// A clock that shows `offset` at the beginning, and `rate` nanoseconds for a million of simulated time.
    pub(super) fn new(world: Arc<WorldTime>, offset: Time, rate: u64) -> MachineClock {
        MachineClock {
            world,
            origin: std::time::Instant::now(),
            dial: Mutex::new(Dial {
                anchor: (0, tokio::time::Instant::now()),
                clock: consensus::clock::Clock::new(offset, rate),
                last: 0,
            }),
            ahead: AtomicU64::new(0),
        }
    }

    fn dial(&self) -> MutexGuard<'_, Dial> {
        self.dial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process starts: its runtime has a clock of its own, which says `now` at the beginning of this tick. Called on
    /// that runtime.
    pub(super) fn start_life(&self) {
        self.dial().anchor = (self.world.tick(), tokio::time::Instant::now());
    }

    /// Simulated time.
    pub(super) fn simulated(&self) -> Time {
        let mut dial = self.dial();
        self.advance(&mut dial)
    }

    fn advance(&self, dial: &mut Dial) -> Time {
        // A runtime that is taken down tells the time of the real machine.
        let now = if self.world.runs() {
            let (begun, instant) = dial.anchor;
            begun + nanoseconds(tokio::time::Instant::now() - instant)
        } else {
            self.world.tick()
        };
        dial.last = dial.last.max(now);
        dial.last
    }

    /// The clock goes ahead at once.
    pub(super) fn step(&self, by: Time) {
        self.dial().clock.step(by);
    }

    /// The date is so far ahead.
    pub(super) fn set_date(&self, ahead: Time) {
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    fn wall(&self) -> SystemTime {
        let ahead = Duration::from_nanos(self.ahead.load(Ordering::Relaxed));
        SystemTime::UNIX_EPOCH + BEGIN + self.shown().since(Instant::ORIGIN) + ahead
    }

    fn shown(&self) -> Instant {
        let mut dial = self.dial();
        let now = self.advance(&mut dial);
        dial.clock.shows(now)
    }

    /// The runtime's instant at which the clock shows `shown`.
    fn wakes(&self, shown: Instant) -> tokio::time::Instant {
        let dial = self.dial();
        let (begun, instant) = dial.anchor;
        instant + Duration::from_nanos(dial.clock.when(shown).saturating_sub(begun))
    }

    /// What the machine's clock shows at an instant of the runtime's kind.
    fn shown_at(&self, at: std::time::Instant) -> Instant {
        Instant::ORIGIN + at.saturating_duration_since(self.origin)
    }

    fn std_instant(&self) -> std::time::Instant {
        self.origin + self.shown().since(Instant::ORIGIN)
    }
}

fn nanoseconds(duration: Duration) -> Time {
    Time::try_from(duration.as_nanos()).unwrap_or(Time::MAX)
}

impl fmt::Debug for MachineClock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MachineClock")
    }
}

/// The clock port: one machine's clock.
pub(super) struct ClockPort(pub(super) Arc<MachineClock>);

impl Clock for ClockPort {
    fn now(&self) -> Instant {
        self.0.shown()
    }

    fn wall(&self) -> SystemTime {
        self.0.wall()
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        Box::pin(Alarm::new(Arc::clone(&self.0), deadline))
    }
}

/// Completes when a machine's clock shows a time.
struct Alarm {
    clock: Arc<MachineClock>,
    due: Instant,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Alarm {
    fn new(clock: Arc<MachineClock>, due: Instant) -> Alarm {
        let sleep = Box::pin(tokio::time::sleep_until(clock.wakes(due)));
        Alarm { clock, due, sleep }
    }

    fn set(&mut self, due: Instant) {
        self.due = due;
        let wakes = self.clock.wakes(due);
        self.sleep.as_mut().reset(wakes);
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.clock.shown() >= self.due {
                return Poll::Ready(());
            }
            std::task::ready!(self.sleep.as_mut().poll(context));
            // The clock is slower than it was, or the runtime rounded down.
            let due = self.due;
            self.as_mut().get_mut().set(due);
            if self.clock.shown() < due && self.sleep.is_elapsed() {
                let soon = tokio::time::Instant::now() + Duration::from_millis(1);
                self.sleep.as_mut().reset(soon);
            }
        }
    }
}

/// What QUIC runs on: the runtime's tasks, and the machine's clock.
#[derive(Debug)]
pub(super) struct QuicRuntime {
    pub(super) clock: Arc<MachineClock>,
    pub(super) gate: Arc<Gate>,
}

impl quinn::Runtime for QuicRuntime {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn quinn::AsyncTimer>> {
        let due = self.clock.shown_at(at);
        Box::pin(QuicTimer(Alarm::new(Arc::clone(&self.clock), due)))
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(Behind::new(&self.gate, future));
    }

    fn wrap_udp_socket(&self, _socket: std::net::UdpSocket) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Err(io::Error::other(
            "a simulated machine has no sockets of the system",
        ))
    }

    fn now(&self) -> std::time::Instant {
        self.clock.std_instant()
    }
}

struct QuicTimer(Alarm);

impl fmt::Debug for QuicTimer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "QuicTimer({:?})", self.0.due)
    }
}

impl quinn::AsyncTimer for QuicTimer {
    fn reset(mut self: Pin<&mut Self>, at: std::time::Instant) {
        let due = self.0.clock.shown_at(at);
        self.0.set(due);
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<()> {
        Pin::new(&mut self.0).poll(context)
    }
}
