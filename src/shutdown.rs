//! One shutdown signal, passed by argument: the first SIGTERM or SIGINT drains, a second SIGINT ends the process at once.

use std::io::{self, IsTerminal};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

/// Exit code after a second SIGINT: 128 + SIGINT, what shells and supervisors read as "interrupted by hand".
pub const INTERRUPTED: u8 = 130;

/// The wish to stop, shared by every part of a process.
///
/// Cheap to clone; all clones are one signal. It says *begin to stop*: what is in flight is finished within the drain timeout, which each
/// role keeps itself. Tests make their own and call [`Shutdown::drain`].
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    drain: CancellationToken,
    reloads: watch::Sender<u64>,
}

impl Shutdown {
    /// A signal that nobody has given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A signal of its own for a part that stops later than the others; wishes to read again reach it all the same.
    #[must_use]
    pub fn later(&self) -> Self {
        Self { drain: CancellationToken::new(), reloads: self.reloads.clone() }
    }

    /// Gives the signal. Giving it again changes nothing.
    pub fn drain(&self) {
        self.drain.cancel();
    }

    /// Whether it was given.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Resolves once it is given, at once where it was.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// The signal as a token, for parts that take one.
    pub fn token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Asks every part that reads something from elsewhere to read it again.
    pub fn reload(&self) {
        self.reloads.send_modify(|count| *count += 1);
    }

    /// Changes with each wish to read again, from now on.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// Turns this process' signals into this one, and resolves at the second SIGINT: the caller then ends the process with [`INTERRUPTED`],
    /// whatever is in flight. SIGTERM is taken any number of times: orchestrators repeat it, only a person at a terminal means "now". SIGHUP
    /// asks to read again; where standard input is a terminal it says that the terminal is gone, and stops like SIGTERM.
    ///
    /// Signals are caught from the first poll until the future is dropped.
    ///
    /// # Errors
    /// Where the system refuses a signal handler.
    pub async fn follow_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let has_terminal = io::stdin().is_terminal();
        let mut interrupted = false;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = hangup.recv() => {
                    if !has_terminal {
                        tracing::info!("SIGHUP: reading again what apps want");
                        self.reload();
                        continue;
                    }
                    "SIGHUP"
                }
                _ = interrupt.recv() => {
                    if interrupted {
                        tracing::warn!("second SIGINT: ending at once");
                        return Ok(());
                    }
                    interrupted = true;
                    "SIGINT"
                }
            };
            if !self.is_draining() {
                tracing::info!(signal = name, "shutting down: finishing what is in flight");
                self.drain();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_sees_the_signal_however_late_it_asks() {
        let shutdown = Shutdown::new();
        let clone = shutdown.clone();
        assert!(!clone.is_draining());
        shutdown.drain();
        clone.draining().await;
        assert!(clone.token().is_cancelled());
    }
}
