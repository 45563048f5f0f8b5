// SPDX-License-Identifier: Apache-2.0
// fast_rust serve PORT | drive HOST:PORT: what fast_python.py does, over tokio.
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const MESSAGES: u64 = 150;
const PAUSE: Duration = Duration::from_millis(20);
const LARGEST: u64 = 200 << 10;

// Bytes that are no two places alike, the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn bytes(&mut self) -> Vec<u8> {
        let size = (1 + self.next() % LARGEST) as usize;
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }
}

async fn send(stream: &mut TcpStream, body: &[u8]) -> io::Result<()> {
    stream.write_all(&[&(body.len() as u32).to_be_bytes(), body].concat()).await
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut body = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

fn said<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?} {:?}", error.kind(), error.raw_os_error()),
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    loop {
        match receive(&mut stream).await {
            Ok(body) if body.is_empty() => return stream.set_linger(Some(Duration::ZERO)),
            Ok(body) => send(&mut stream, &body).await?,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return send(&mut stream, b"bye").await,
            Err(error) => return Err(error),
        }
    }
}

async fn serve(port: &str) -> io::Result<()> {
    let listener = TcpListener::bind(format!("[::]:{port}")).await?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = echo(stream).await {
                eprintln!("echo: {error}");
            }
        });
    }
}

async fn drive(address: &str) -> io::Result<()> {
    let mut pair = [TcpStream::connect(address).await?, TcpStream::connect(address).await?];
    let mut random = Random(1);
    let mut sum = 0u64;
    for number in 0..MESSAGES {
        let stream = &mut pair[(number % 2) as usize];
        let body = random.bytes();
        send(stream, &body).await?;
        let answer = receive(stream).await?;
        assert!(answer == body, "message {number}: {} bytes instead of {}", answer.len(), body.len());
        sum = answer.iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
        tokio::time::sleep(PAUSE).await;
    }
    println!("{MESSAGES} messages {sum:x}");
    let [first, second] = &mut pair;
    send(first, b"").await?;
    println!("reset: {} {}", said(first.read_u8().await), said(first.write_u8(0).await));
    second.shutdown().await?;
    println!("half-close: {} {} {}", said(second.write_u8(0).await), said(receive(second).await), said(second.read_u8().await));
    Ok(())
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments[1].as_str() {
        "serve" => runtime.block_on(serve(&arguments[2])),
        _ => runtime.block_on(drive(&arguments[2])),
    }
}
