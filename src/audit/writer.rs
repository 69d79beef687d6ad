//! The thread that writes a journal: whatever comes while it waits for the disk goes there together.

use std::{io, thread};

use chrono::Utc;
use tokio::sync::{mpsc, oneshot};

use super::{
    chain::Body,
    journal::{Journal, JournalOptions},
};

/// Records that wait for the disk.
const WAITING: usize = 1024;
/// Records of one write, at most.
const BATCH: usize = 256;

struct Pending {
    body: Body,
    written: oneshot::Sender<Result<(), String>>,
}

/// Appends to a journal. The thread ends with the last of its clones.
#[derive(Clone)]
pub struct Writer(mpsc::Sender<Pending>);

impl Writer {
    /// Starts the thread, which opens the journal, and opens it again after a failure.
    ///
    /// # Errors
    /// Where there can be no thread.
    pub fn start(options: JournalOptions) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(WAITING);
        thread::Builder::new().name("audit".to_owned()).spawn(move || write(&options, receiver))?;
        Ok(Self(sender))
    }

    /// Writes one record; it is on the disk when this answers.
    ///
    /// # Errors
    /// What the system says where it is not, or not surely.
    pub async fn append(&self, body: Body) -> Result<(), String> {
        let (written, answer) = oneshot::channel();
        let gone = || "the writing thread is gone".to_owned();
        self.0.send(Pending { body, written }).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

fn write(options: &JournalOptions, mut pending: mpsc::Receiver<Pending>) {
    // Opened at once: a folder that cannot be written is told at the start, not at the first event.
    let mut journal = Journal::open(options.clone(), Utc::now());
    let mut well = true;
    loop {
        match &journal {
            Err(error) if well => tracing::error!(audit.dir = %options.dir.display(), "audit records cannot be written: {error}"),
            Ok(journal) if !well => tracing::info!(audit.chain = &*journal.chain().name, "audit records are written again"),
            _ => {}
        }
        well = journal.is_ok();
        let Some(first) = pending.blocking_recv() else { return };
        let (mut bodies, mut answers) = (vec![first.body], vec![first.written]);
        while bodies.len() < BATCH
            && let Ok(next) = pending.try_recv()
        {
            bodies.push(next.body);
            answers.push(next.written);
        }
        if journal.is_err() {
            journal = Journal::open(options.clone(), Utc::now());
        }
        let result = match &mut journal {
            Ok(journal) => journal.append(Utc::now(), &bodies).map_err(|error| format!("{}: {error}", options.dir.display())),
            Err(error) => Err(format!("{}: {error}", options.dir.display())),
        };
        if let Err(error) = &result
            && journal.is_ok()
        {
            // What stands on the disk is read again before anything is added to it.
            journal = Err(io::Error::other(error.clone()));
        }
        for answer in answers {
            let _nobody_waits = answer.send(result.clone());
        }
    }
}
