//! The program that runs in the self-test's pods: `serve PORT` answers every HTTP request with its host name,
//! `get HOST:PORT` asks one and prints the answer. Standard library only.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// For connecting and for the answer.
const LIMIT: Duration = Duration::from_secs(2);

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", port] => serve(port),
        ["get", address] => get(address),
        _ => Err(std::io::Error::other("usage: probe serve PORT | get HOST:PORT")),
    }
}

fn serve(port: &str) -> std::io::Result<()> {
    let name = std::env::var("HOSTNAME").unwrap_or_default();
    for stream in TcpListener::bind(format!("0.0.0.0:{port}"))?.incoming() {
        let mut stream = stream?;
        let _ = stream.read(&mut [0; 1024]);
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{name}", name.len());
        let _ = stream.write_all(answer.as_bytes());
    }
    Ok(())
}

fn get(address: &str) -> std::io::Result<()> {
    let target = address.to_socket_addrs()?.next().ok_or_else(|| std::io::Error::other("no address"))?;
    let mut stream = TcpStream::connect_timeout(&target, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // In one piece: the server answers and closes after the first that it gets.
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("{}", answer.split("\r\n\r\n").nth(1).unwrap_or_default());
    Ok(())
}
