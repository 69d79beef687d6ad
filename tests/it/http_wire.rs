//! The `http` handler's connections, against an app that is written byte by byte.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use worker::{
    handler::Registry,
    outcome::{Failure, Handled, HandlerResult},
};

use crate::http_handler::{self, build, event, flat, with_handler};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// The app's port, and a handler that posts to it.
async fn app() -> (TcpListener, Registry) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}/in", listener.local_addr().unwrap().port());
    (listener, build(&with_handler(&format!("url = {url:?}"))).await)
}

async fn run(registry: &Registry) -> HandlerResult {
    http_handler::run(registry, event(&flat())).await
}

/// Reads a whole request.
async fn request(stream: &mut TcpStream) {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        assert_ne!(count, 0, "the handler closed the connection");
        read.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            return;
        }
    }
}

/// Answers one request with that text, then goes on as told.
async fn answer(stream: &mut TcpStream, text: &str) {
    request(stream).await;
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// What comes of one run that the app answers so, on a connection of its own that it closes then.
async fn verdict(text: &str) -> HandlerResult {
    let (listener, registry) = app().await;
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer(&mut stream, text).await;
    };
    tokio::join!(run(&registry), served).0
}

#[tokio::test]
async fn a_connection_that_the_app_closed_is_not_used_again() {
    let (listener, registry) = app().await;
    for last in [OK, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"] {
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            answer(&mut stream, OK).await;
            // The same connection again.
            answer(&mut stream, last).await;
        };
        let twice = async { (run(&registry).await, run(&registry).await) };
        assert_eq!(tokio::join!(twice, served).0, (Ok(Handled::Done), Ok(Handled::Done)));
        // The end of the connection is seen.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_app_that_takes_no_request_is_asked_once() {
    let (listener, registry) = app().await;
    let served = async {
        let mut accepted = 0;
        loop {
            drop(listener.accept().await.unwrap());
            accepted += 1;
            assert_eq!(accepted, 1, "whoever closes at once is not asked again at once");
        }
    };
    tokio::select! {
        result = run(&registry) => assert!(matches!(result, Err(Failure::Transient { .. })), "{result:?}"),
        () = served => {}
    }
}

#[tokio::test]
async fn a_run_that_is_given_up_closes_its_connection() {
    let (listener, registry) = app().await;
    let mut given_up = Box::pin(run(&registry));
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream
    };
    let mut stream = tokio::select! {
        result = &mut given_up => panic!("nobody answered: {result:?}"),
        stream = served => stream,
    };
    drop(given_up);
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "the app is told");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_uses_is_closed_before_the_apps_side_would() {
    let (listener, registry) = app().await;
    let started = tokio::time::Instant::now();
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer(&mut stream, OK).await;
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    };
    assert_eq!(tokio::join!(run(&registry), served).0, Ok(Handled::Done));
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_answer_in_pieces_is_read_whole() {
    let retry = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nb\r\n{\"status\": \r\n8\r\n\"RETRY\"}\r\n0\r\n\r\n";
    let Err(Failure::Transient { error, .. }) = verdict(retry).await else { panic!("RETRY is transient") };
    assert!(error.contains("RETRY"), "{error}");
}

#[tokio::test]
async fn what_breaks_off_is_a_transient_failure_that_says_so() {
    for (text, said) in [
        ("", "the connection broke"),
        ("HTTP/1.1 2", "the connection broke"),
        ("no HTTP at all\r\n\r\n", "the connection broke"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"st", "the answer broke off"),
        ("HTTP/1.1 503 Busy\r\ncontent-length: 10\r\n\r\n{\"st", "the app answered 503"),
    ] {
        let Err(Failure::Transient { error, .. }) = verdict(text).await else { panic!("{text:?} is no success") };
        assert!(error.contains(said), "{text:?}: {error}");
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_an_answer_in_chunks_and_an_interim_one() {
    let (listener, registry) = app().await;
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        answer(&mut stream, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
        answer(&mut stream, OK).await;
    };
    let twice = async { (run(&registry).await, run(&registry).await) };
    assert_eq!(tokio::join!(twice, served).0, (Ok(Handled::Done), Ok(Handled::Done)));
}

#[tokio::test]
async fn what_the_app_says_before_it_has_read_all_counts() {
    let (listener, registry) = app().await;
    let mut large = flat();
    // More than the system takes on its way.
    large["data"]["description"] = "x".repeat(16 << 20).into();
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let read = stream.read(&mut [0; 64]).await.unwrap();
        assert!(read > 0);
        stream.write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream
    };
    let (result, mut stream) = tokio::join!(http_handler::run(&registry, event(&large)), served);
    assert_eq!(result, Err(Failure::permanent("the app answered 413")));
    // Nobody could tell where its next request begins.
    let mut rest = Vec::new();
    let closed = stream.read_to_end(&mut rest).await;
    assert!(closed.is_err() || rest.len() < 16 << 20, "the connection is not used again");
}
