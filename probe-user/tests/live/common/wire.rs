//! HTTP byte by byte: for requests that no client would send, and answers as they come.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::patience;

/// A connection that no test waits on for ever.
///
/// # Panics
/// If there is none.
pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connecting");
    let patience = Some(patience(Duration::from_secs(20)));
    stream.set_read_timeout(patience).expect("a timeout");
    stream.set_write_timeout(patience).expect("a timeout");
    stream
}

/// Everything up to the end of the connection, which has to come, be it in order or not.
///
/// # Panics
/// If it does not end.
pub fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let mut chunk = [0; 16384];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return all,
            Ok(length) => all.extend_from_slice(&chunk[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return all;
            }
            Err(error) => panic!("the connection does not end: {error}"),
        }
    }
}

/// The status of the answer that comes on a connection.
///
/// # Panics
/// If there is none.
pub fn status(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            outcome => panic!("{outcome:?} after {:?}", String::from_utf8_lossy(&head)),
        }
    }
    let line = String::from_utf8(head).expect("a status line");
    line.split(' ').nth(1).expect("a status").to_owned()
}

/// The body at a path, through the agent's socket.
///
/// # Panics
/// If there is none.
pub fn get_unix(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("connecting");
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("asking");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains(" 200 "), "{head}");
    body.to_owned()
}
