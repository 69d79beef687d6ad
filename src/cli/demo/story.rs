//! How the tour is told: coloured, with a live line at the bottom, on a terminal; plain lines anywhere else.

use std::{
    io::{self, IsTerminal},
    time::Instant,
};

use super::super::{BOLD, DIM, GREEN, RED, YELLOW, out, paint};

/// A line's mark and colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Done,
    Failed,
    Duplicate,
    Dead,
}

impl Mark {
    fn sign(self) -> (&'static str, &'static str) {
        match self {
            Self::Done => ("✓", GREEN),
            Self::Failed => ("↻", YELLOW),
            Self::Duplicate => ("=", YELLOW),
            Self::Dead => ("✗", RED),
        }
    }
}

/// The teller.
pub(super) struct Story {
    to_stderr: bool,
    terminal: bool,
    began: Instant,
    live: bool,
}

impl Story {
    /// On stderr where stdout is for data.
    pub(super) fn new(to_stderr: bool) -> Self {
        let terminal = if to_stderr { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        Self { to_stderr, terminal, began: Instant::now(), live: false }
    }

    /// Since when it is told.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// The headline.
    pub(super) fn title(&mut self, text: &str) {
        let text = self.paint(BOLD, text);
        self.write(&format!("\n  {text}\n"));
    }

    /// A new part of the tour.
    pub(super) fn act(&mut self, number: usize, text: &str) {
        let (number, text) = (self.paint(DIM, &format!("{number}")), self.paint(BOLD, text));
        self.write(&format!("\n{number} {text}\n"));
    }

    /// Something said aside.
    pub(super) fn note(&mut self, text: &str) {
        let text = self.paint(DIM, text);
        self.write(&format!("  {text}\n"));
    }

    /// One part of a record; an empty line without a name.
    pub(super) fn field(&mut self, name: &str, value: &str) {
        let line = if name.is_empty() { String::new() } else { format!("  {} {value}", self.paint(DIM, &format!("{name:<40}"))) };
        self.write(&format!("{line}\n"));
    }

    /// What happened to one event.
    pub(super) fn event(&mut self, mark: Mark, at: Instant, user: &str, event_type: &str, text: &str) {
        let (sign, colour) = mark.sign();
        let time = self.paint(DIM, &format!("{:6.2} s", at.saturating_duration_since(self.began).as_secs_f64()));
        let (sign, text) = (self.paint(colour, sign), if mark == Mark::Done { text.to_owned() } else { self.paint(colour, text) });
        self.write(&format!("{time}  {sign} {user:<7} {event_type:<23} {text}\n"));
    }

    /// What goes on at this moment: replaced by the next line; nothing where that cannot be.
    pub(super) fn now(&mut self, text: &str) {
        if self.terminal {
            let text = self.paint(DIM, text);
            self.write(&format!("          {text}"));
            self.live = true;
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        paint(self.terminal, colour, text)
    }

    fn write(&mut self, text: &str) {
        let text = if std::mem::take(&mut self.live) { format!("\r\x1b[2K{text}") } else { text.to_owned() };
        if self.to_stderr {
            eprint!("{text}");
        } else {
            // A reader that has gone has heard enough; the figures are judged all the same.
            let _gone = out(&text);
        }
    }
}
