//! The listening sockets. They are bound here, or inherited from systemd, which keeps them open across restarts.

use std::io;
use std::net::SocketAddr;

use listenfd::ListenFd;
use tokio::net::{TcpListener, TcpSocket};

use crate::config::Config;

/// Connections that the kernel queues for the gateway.
const BACKLOG: u32 = 1024;

/// The sockets of the main and the ops listener.
pub struct Sockets {
    pub main: TcpListener,
    pub ops: TcpListener,
}

impl Sockets {
    /// Binds both addresses of the configuration. An error names the address.
    pub fn bind(config: &Config) -> io::Result<Self> {
        let shared = config.server.share_port;
        Ok(Self { main: bind(config.server.listen, shared)?, ops: bind(config.ops.listen, shared)? })
    }

    /// Takes the sockets that systemd, or another parent process, passes in `LISTEN_FDS`: the first is the main one, the
    /// second the ops one. A socket that is not passed is bound.
    pub fn inherit_or_bind(config: &Config) -> io::Result<Self> {
        let mut inherited = ListenFd::from_env();
        let mut socket = |index, address| match inherited.take_tcp_listener(index) {
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

/// With `shared`, other processes may bind the same address, and the kernel distributes the connections.
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
