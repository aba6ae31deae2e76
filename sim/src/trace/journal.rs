//! Where the events of a run go.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufWriter, Write};

use super::{Event, Header, Record};

/// Where events go: nowhere, which costs nothing, or to a writer.
#[derive(Default)]
pub struct Journal(Option<RefCell<Sink>>);

struct Sink {
    writer: BufWriter<Box<dyn Write + Send>>,
    form: Form,
    /// The first error; nothing is written after it.
    error: Option<io::Error>,
}

#[derive(Clone, Copy)]
enum Form {
    Trace,
    Lines,
}

impl Journal {
    /// Events that nobody wants.
    pub fn none() -> Journal {
        Journal(None)
    }

    /// A trace, as [`read`](super::read) reads it.
    pub fn trace(writer: impl Write + Send + 'static) -> Journal {
        Journal::to(writer, Form::Trace)
    }

    /// Lines for people, each with its time in seconds.
    pub fn lines(writer: impl Write + Send + 'static) -> Journal {
        Journal::to(writer, Form::Lines)
    }

    fn to(writer: impl Write + Send + 'static, form: Form) -> Journal {
        Journal(Some(RefCell::new(Sink {
            writer: BufWriter::new(Box::new(writer)),
            form,
            error: None,
        })))
    }

    /// Whether anybody wants to know.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Notes which run this is, before everything else.
    pub fn begin(&self, header: &Header) {
        let Some(sink) = &self.0 else { return };
        let sink = &mut *sink.borrow_mut();
        if let Form::Trace = sink.form {
            sink.error = write_json(&mut sink.writer, header).err();
        }
    }

    /// Notes an event, `at` nanoseconds of simulated time after the run began.
    pub fn note(&self, at: u64, event: impl FnOnce() -> Event) {
        let Some(sink) = &self.0 else { return };
        let event = event();
        let sink = &mut *sink.borrow_mut();
        if sink.error.is_none() {
            sink.error = match sink.form {
                Form::Trace => write_json(&mut sink.writer, &Record { at, event }),
                Form::Lines => {
                    let (seconds, micros) = (at / 1_000_000_000, at % 1_000_000_000 / 1_000);
                    writeln!(sink.writer, "{seconds:>4}.{micros:06} {event}")
                }
            }
            .err();
        }
    }

    /// Writes out what is left.
    ///
    /// # Errors
    /// With the first event that could not be written.
    pub fn finish(self) -> io::Result<()> {
        let Some(sink) = self.0 else { return Ok(()) };
        let mut sink = sink.into_inner();
        match sink.error.take() {
            Some(error) => Err(error),
            None => sink.writer.flush(),
        }
    }
}

fn write_json(writer: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, value)?;
    writer.write_all(b"\n")
}

impl fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_on() { "written" } else { "none" };
        write!(formatter, "Journal({kind})")
    }
}
