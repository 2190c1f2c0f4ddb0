//! The listening sockets: bound here, or handed over by whoever holds them open across restarts.

use std::io;
use std::net::SocketAddr;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket};

use crate::config::Config;

/// Connections that the kernel accepts ahead of the gateway.
const BACKLOG: u32 = 1024;

/// The two sockets.
pub struct Sockets {
    pub main: TcpListener,
    pub ops: TcpListener,
}

impl Sockets {
    /// Binds what the configuration says. The error says which address it was.
    pub fn bind(config: &Config) -> io::Result<Self> {
        let shared = config.server.share_port;
        Ok(Self { main: bind(config.server.listen, shared)?, ops: bind(config.ops.listen, shared)? })
    }

    /// Those that systemd (or whoever started the process) has handed over, as `LISTEN_FDS` says: the
    /// first is the main one, the second the ops one. What was not handed over is bound.
    pub fn inherit_or_bind(config: &Config) -> io::Result<Self> {
        let mut inherited = ListenFd::from_env();
        let mut socket = |place, address| match inherited.take_tcp_listener(place) {
            Ok(Some(socket)) => {
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket)
            }
            Ok(None) => bind(address, config.server.share_port),
            Err(error) => Err(io::Error::new(error.kind(), format!("LISTEN_FDS: {error}"))),
        };
        Ok(Self { main: socket(0, config.server.listen)?, ops: socket(1, config.ops.listen)? })
    }
}

/// `shared`: another process may bind the same address, and the kernel parts the connections.
fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(shared)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}
