//! `worker dlq export`: dead letters as NDJSON, every byte of them.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::Context;

use super::{Desk, Exit, Globals, Which};
use crate::dlq::show::whole;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Each line has key, value and headers as text, or under key_base64, value_base64 where they are not UTF-8.")]
pub struct Args {
    /// Write to this file, which must not exist, instead of stdout
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    // Last: its heading covers whatever follows.
    #[command(flatten)]
    which: Which,
}

/// Runs it.
///
/// # Errors
/// Where the DLQ cannot be read, or the file not be written.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let desk = Desk::open(globals, &args.which).await?;
    let mut reading = desk.read(&args.which, args.file.is_none()).await?;
    let name = args.file.as_ref().map_or_else(|| "stdout".to_owned(), |path| path.display().to_string());
    let sink: Box<dyn Write + Send> = match &args.file {
        Some(path) => Box::new(File::create_new(path).with_context(|| name.clone())?),
        None => Box::new(io::stdout()),
    };
    let mut sink = BufWriter::new(sink);
    let mut count = 0_u64;
    while let Some(letter) = reading.next().await? {
        let line = serde_json::to_string(&whole(&letter))? + "\n";
        match sink.write_all(line.as_bytes()) {
            // A reader that has seen enough (`| head`) is no error.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Ok),
            result => result.with_context(|| name.clone())?,
        }
        count += 1;
    }
    match sink.flush() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        result => result.with_context(|| name.clone())?,
    }
    if args.file.is_some() {
        eprintln!("{count} dead letters written to {name}");
    }
    Ok(Exit::Ok)
}
