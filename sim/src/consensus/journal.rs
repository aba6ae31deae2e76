//! What happened in a run, line by line, for people.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, BufWriter, Write};

use super::schedule::{MICROSECOND, SECOND, Time};

/// Where the lines go: nowhere, which costs nothing, or to a writer.
#[derive(Default)]
pub struct Journal(Option<RefCell<Sink>>);

struct Sink {
    writer: BufWriter<Box<dyn Write>>,
    /// The first error; nothing is written after it.
    error: Option<io::Error>,
}

impl Journal {
    /// Lines that nobody wants.
    pub fn none() -> Journal {
        Journal(None)
    }

    /// Lines that go to `writer`.
    pub fn to(writer: impl Write + 'static) -> Journal {
        Journal(Some(RefCell::new(Sink {
            writer: BufWriter::new(Box::new(writer)),
            error: None,
        })))
    }

    /// Notes a line.
    pub(super) fn note(&self, now: Time, line: impl FnOnce() -> String) {
        let Some(sink) = &self.0 else { return };
        let line = line();
        let sink = &mut *sink.borrow_mut();
        if sink.error.is_none() {
            let (seconds, micros) = (now / SECOND, now % SECOND / MICROSECOND);
            sink.error = writeln!(sink.writer, "{seconds:>4}.{micros:06} {line}").err();
        }
    }

    /// Writes out what is left.
    ///
    /// # Errors
    /// With the first line that could not be written.
    pub fn finish(self) -> io::Result<()> {
        let Some(sink) = self.0 else { return Ok(()) };
        let mut sink = sink.into_inner();
        match sink.error.take() {
            Some(error) => Err(error),
            None => sink.writer.flush(),
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.0.is_some() { "written" } else { "none" };
        write!(formatter, "Journal({kind})")
    }
}
