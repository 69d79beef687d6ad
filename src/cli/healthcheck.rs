//! `worker healthcheck`: asks the worker of this container, by the same configuration.

use std::time::Duration;

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Exit, Globals, out};
use crate::config::units;

/// Longest answer read; a page names a few parts.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit 0 where the answer is 200, else 1 with the failing part. The address is http.listen, as the worker's own \
                        flags, files and environment set it.")]
pub struct Args {
    /// Ask /livez (its own progress) instead of /readyz (its brokers and store too)
    #[arg(long)]
    live: bool,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = units::parse_duration)]
    timeout: Duration,
}

/// Asks, and prints what failed.
///
/// # Errors
/// Where the configuration cannot be used, or nothing answers.
pub async fn run(args: Args, globals: &Globals) -> anyhow::Result<Exit> {
    let loaded = globals.load(None)?;
    let address = reachable(&loaded.config.http.listen);
    let path = if args.live { "/livez" } else { "/readyz" };
    let (status, body) = timeout(args.timeout, get(&address, path))
        .await
        .with_context(|| format!("http://{address}{path}: no answer within {}", humantime::format_duration(args.timeout)))?
        .with_context(|| format!("http://{address}{path}"))?;
    let body = body.trim();
    if status == 200 {
        out(&format!("{}\n", if body.is_empty() { "ok" } else { body }))?;
        return Ok(Exit::Ok);
    }
    anyhow::bail!("http://{address}{path}: {status}{}{body}", if body.is_empty() { "" } else { "\n" })
}

/// The address on which this machine reaches a listener: an unspecified one stands for loopback.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0" | "", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}

async fn get(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: the answer ends with the connection, and is never chunked.
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
    parse(&String::from_utf8_lossy(&answer)).context("the answer is not HTTP")
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut first = head.lines().next()?.split(' ');
    first.next().filter(|version| version.starts_with("HTTP/"))?;
    Some((first.next()?.parse().ok()?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{parse, reachable};

    #[test]
    fn an_unspecified_address_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:9464"), "127.0.0.1:9464");
        assert_eq!(reachable("[::]:9464"), "[::1]:9464");
        assert_eq!(reachable(":9464"), "127.0.0.1:9464");
        assert_eq!(reachable("10.0.0.7:80"), "10.0.0.7:80");
    }

    #[test]
    fn an_answer_that_is_not_http_is_none() {
        assert_eq!(parse("HTTP/1.0 503 Service Unavailable\r\nx: y\r\n\r\nstore: down"), Some((503, "store: down".to_owned())));
        assert_eq!(parse("SSH-2.0-x\r\n\r\n"), None);
        assert_eq!(parse("HTTP/1.0 200"), None);
    }
}
