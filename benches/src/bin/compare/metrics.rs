//! What a node says of itself: one sample of its `/metrics`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const TIME: Duration = Duration::from_secs(2);

/// The value of the sample whose line begins with `name`, labels included.
///
/// HTTP/1.0, so that the answer ends with the connection and is not chunked.
pub(crate) fn sample(address: SocketAddr, name: &str) -> Option<f64> {
    let mut stream = TcpStream::connect_timeout(&address, TIME).ok()?;
    stream.set_read_timeout(Some(TIME)).ok()?;
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.lines()
        .filter_map(|line| line.rsplit_once(' '))
        .find(|(sample, _)| *sample == name)
        .and_then(|(_, value)| value.parse().ok())
}
