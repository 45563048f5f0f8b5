// SPDX-License-Identifier: Apache-2.0
// rust_client HOST:PORT...: std::net with a thread per direction, a half-close and a connect timeout.
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

fn main() -> std::io::Result<()> {
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(2654435761) >> 24) as u8).collect();
    for address in std::env::args().skip(1) {
        let address: SocketAddr = address.parse().expect("an address with a port");
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let peer = stream.peer_addr()?;
        let mut sender = stream.try_clone()?;
        let sent = data.clone();
        let thread = std::thread::spawn(move || -> std::io::Result<()> {
            sender.write_all(&sent)?;
            sender.shutdown(Shutdown::Write)
        });
        let mut answer = Vec::new();
        (&stream).read_to_end(&mut answer)?;
        thread.join().expect("the sender")?;
        println!("{} {} {}", peer, answer.len(), answer == data);
    }
    Ok(())
}
