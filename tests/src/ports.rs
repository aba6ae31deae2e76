//! Ports that no other test uses.
//!
//! They lie below the range from which the system takes ports for outgoing connections: there, a port of a node that is
//! down could be taken before the node is back. A lock file for each port keeps the tests of one machine apart.

use std::fs::{File, TryLockError};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};

const FIRST: usize = 12_000;
const COUNT: usize = 18_000;

/// A port that is this test's as long as the value lives.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    _lock: File,
}

/// Claims a port that is free for TCP and for UDP.
pub(crate) fn claim() -> Port {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let directory = std::env::temp_dir().join("quorate-test-ports");
    std::fs::create_dir_all(&directory).expect("a directory for the locks of ports");
    let start = std::process::id() as usize * 61;
    for _ in 0..COUNT {
        let number = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let number = u16::try_from(number).expect("the range is below 65536");
        let lock = File::create(directory.join(number.to_string())).expect("a lock file for a port");
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => panic!("cannot lock a port: {error}"),
        }
        let address = (Ipv4Addr::LOCALHOST, number);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Port { number, _lock: lock };
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
