//! Tells the service manager how the node does (sd_notify(3), `Type=notify`).
//!
//! Without NOTIFY_SOCKET in the environment nothing is told to anybody. A message that cannot be sent is logged and
//! otherwise ignored: the node serves on.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the service manager listens, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Notifier {
    socket: Option<OsString>,
}

impl Notifier {
    /// The service manager that the environment names.
    pub fn from_environment() -> Notifier {
        Notifier {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()),
        }
    }

    /// The node serves.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The node has begun to stop.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// What the node does, in a few words for the operator.
    pub fn status(&self, words: &str) {
        self.send(&format!("STATUS={}", words.replace('\n', " ")));
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else {
            return;
        };
        if let Err(error) = send(socket, message.as_bytes()) {
            tracing::warn!(%error, socket = %socket.display(), "cannot tell the service manager `{message}`");
        }
    }
}

fn send(socket: &OsStr, message: &[u8]) -> io::Result<()> {
    // A name that begins with @ is in the abstract name space, without a file.
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.send_to_addr(message, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn a_socket_in_a_directory_hears_of_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier {
            socket: Some(path.into_os_string()),
        };
        notifier.ready();
        assert_eq!(receive(&socket), "READY=1");
        notifier.status("leads\nterm 3");
        assert_eq!(receive(&socket), "STATUS=leads term 3");
        notifier.stopping();
        assert_eq!(receive(&socket), "STOPPING=1");
    }

    #[test]
    fn an_abstract_socket_hears_of_the_node() {
        let name = format!("quorate-notify-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier {
            socket: Some(format!("@{name}").into()),
        };
        notifier.ready();
        assert_eq!(receive(&socket), "READY=1");
    }

    #[test]
    fn nobody_to_tell_is_no_error() {
        Notifier::default().ready();
        assert!(send(OsStr::new("/nowhere/at/all"), b"READY=1").is_err());
    }
}
