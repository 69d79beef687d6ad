//! The tour's mail server: it takes every mail, and keeps whom it was for and what it was about.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

/// A mail that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Mail {
    /// The recipient's address.
    pub(super) to: String,
    /// Its `Subject`.
    pub(super) subject: String,
}

type Taken = Arc<Mutex<Vec<Mail>>>;

/// A server on a free port of this machine's loopback, without encryption; it ends when dropped.
pub(super) struct Mailbox {
    address: SocketAddr,
    taken: Taken,
    _serving: JoinSet<()>,
}

impl Mailbox {
    pub(super) async fn open() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, taken) = (listener.local_addr()?, Taken::default());
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&taken)));
        Ok(Self { address, taken, _serving: serving })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was taken for that recipient, in order.
    pub(super) fn mails_to(&self, address: &str) -> Vec<Mail> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.iter().filter(|mail| mail.to == address).cloned().collect()
    }
}

async fn serve(listener: TcpListener, taken: Taken) {
    let mut conversations = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // A client that breaks off has sent no mail.
        conversations.spawn(converse(stream, Arc::clone(&taken)));
    }
}

/// The commands of RFC 5321, 4.5.1, with one recipient; whatever else is said is agreed to.
async fn converse(stream: TcpStream, taken: Taken) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    say(&mut writer, "220 demo").await?;
    let mut to = String::new();
    while let Some(line) = lines.next_line().await? {
        match line.get(..4).unwrap_or_default().to_ascii_uppercase().as_str() {
            "RCPT" => {
                to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                say(&mut writer, "250 ok").await?;
            }
            "DATA" => {
                say(&mut writer, "354 go on").await?;
                let subject = subject(&mut lines).await?;
                taken.lock().unwrap_or_else(PoisonError::into_inner).push(Mail { to: to.clone(), subject });
                say(&mut writer, "250 taken").await?;
            }
            "QUIT" => return say(&mut writer, "221 bye").await,
            _ => say(&mut writer, "250 ok").await?,
        }
    }
    Ok(())
}

/// Reads a mail to its end.
async fn subject(lines: &mut Lines<BufReader<OwnedReadHalf>>) -> io::Result<String> {
    let mut subject = None;
    while let Some(line) = lines.next_line().await? {
        if line == "." {
            return Ok(subject.unwrap_or_default());
        }
        if let Some(text) = line.strip_prefix("Subject: ") {
            subject.get_or_insert_with(|| text.to_owned());
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

async fn say(writer: &mut OwnedWriteHalf, line: &str) -> io::Result<()> {
    writer.write_all(format!("{line}\r\n").as_bytes()).await
}
