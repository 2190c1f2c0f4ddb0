//! Connections: accept, read, wait, answer, go on.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::fault::Fault;
use super::fault::deliver;
use super::kore::Kore;
use super::options::KeepAlive;
use super::refusal::envelope;
use super::wire::{Connection, Request, Response, Unread};

/// Serves until dropped, and with it every connection.
pub(super) async fn serve(listener: TcpListener, kore: Arc<Kore>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(converse(stream, Arc::clone(&kore)));
                }
                // Out of file descriptors, most likely: connections under way may free some.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One request after the other, until one side has enough.
async fn converse(stream: TcpStream, kore: Arc<Kore>) {
    // Small answers at once; on a connection that is gone already it does not matter.
    let _ = stream.set_nodelay(true);
    let mut connection = Connection::new(stream);
    for answered in 0_usize.. {
        let keep_alive = kore.state().switches.keep_alive;
        match keep_alive {
            KeepAlive::ClosedWhenIdle if answered > 0 => return,
            KeepAlive::ClosedWhenReused if answered > 0 => {
                connection.wait_for_peer_to_speak().await;
                return;
            }
            _ => {}
        }
        // Asked for once something has come: what is sent from now on may lie unread.
        connection.wait_for_peer_to_speak().await;
        let stalled = kore.state().switches.stalled.clone();
        if let Some(gate) = stalled {
            gate.passed().await;
        }
        let request = match connection.read().await {
            Ok(request) => Request { reused: answered > 0, ..request },
            Err(Unread::Closed) => return,
            Err(Unread::Malformed(why)) => return refuse(connection, &kore, &why).await,
        };
        let mut reply = kore.receive(&request);
        if !reply.delay.is_zero() {
            tokio::time::sleep(reply.delay).await;
        }
        kore.clock.reaches(reply.not_before_ms).await;
        if let Some(Fault::Held(gate)) = &reply.fault {
            gate.passed().await;
        }
        if request.method == "HEAD" {
            reply.response.body.clear();
        }
        let (response, fault) = (&reply.response, reply.fault.as_ref());
        match deliver(connection, response, fault, wants_close(&request)).await {
            Ok(Some(still_open)) => connection = still_open,
            // Finished, or the peer has left: the journal knows what there is to know.
            Ok(None) | Err(_) => return,
        }
    }
}

fn wants_close(request: &Request) -> bool {
    request.values("connection").any(|value| value.eq_ignore_ascii_case("close"))
}

/// Bytes that are no request: 400, and the end of the connection.
async fn refuse(connection: Connection, kore: &Kore, why: &str) {
    kore.object(format!("malformed request: {why}"));
    let response = Response::json(400, &envelope("Bad Request", 400));
    let _ = deliver(connection, &response, None, true).await;
}
