//! `worker healthcheck` against a listener that answers as told.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    process::{Command, Output},
    thread,
};

/// Answers one request with `answer`, runs the check against it, and gives the request line and the check's output.
fn check(answer: &'static str, args: &[&str]) -> (String, Output) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // As a container configures it: an address to listen on, not one to ask.
    let listen = format!("0.0.0.0:{}", listener.local_addr().unwrap().port());
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        reader.read_line(&mut line).unwrap();
        let mut header = String::from("x");
        while !header.trim().is_empty() {
            header.clear();
            reader.read_line(&mut header).unwrap();
        }
        stream.write_all(answer.as_bytes()).unwrap();
        line
    });
    let output = Command::new(env!("CARGO_BIN_EXE_worker"))
        .arg("healthcheck")
        .args(args)
        .env_clear()
        .env("WORKER_HTTP__LISTEN", listen)
        .output()
        .unwrap();
    (server.join().unwrap(), output)
}

#[test]
fn a_ready_worker_is_exit_0() {
    let (request, output) = check("HTTP/1.1 200 OK\r\n\r\nready", &[]);
    assert_eq!(request, "GET /readyz HTTP/1.0\r\n");
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"ready\n"[..]));
}

#[test]
fn a_worker_that_is_not_ready_is_exit_1_with_the_failing_part() {
    let (request, output) = check("HTTP/1.1 503 Service Unavailable\r\n\r\nstore: no answer", &["--live"]);
    assert_eq!(request, "GET /livez HTTP/1.0\r\n");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("503") && stderr.contains("store: no answer"), "{stderr}");
}

#[test]
fn nobody_there_is_exit_1_with_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_worker")).args(["healthcheck", "--http-addr", &free.to_string()]).env_clear().output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains(&format!("http://{free}/readyz")), "{stderr}");
}
