//! An answer too large to be held, passed on as it comes to all who waited for it.
//!
//! They go at the pace of the slowest, so nothing is held but what is on its way; who takes nothing
//! for too long is left behind. A caller whose part ends without its [`Part::End`] was cut off, and
//! sees a connection that breaks.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use http::StatusCode;
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use super::brackets::Brackets;
use crate::answer::{Bounds, ContentType, Large, Parts};
use crate::error::{Error, Kind};

/// Parts that a caller may be behind the others.
const AHEAD: usize = 4;

/// Bytes looked through before other tasks get their turn: some 0.1 ms.
const STRETCH: usize = 64 * 1024;

#[derive(Clone)]
enum Part {
    Bytes(Bytes),
    End,
}

/// The start of the way: open as long as anybody holds it.
#[derive(Debug)]
pub struct Passage {
    status: StatusCode,
    content_type: Option<ContentType>,
    boarding: mpsc::UnboundedSender<mpsc::Sender<Part>>,
}

impl Passage {
    /// Sets off, in a task of its own, once nobody can board any more.
    pub fn open(large: Large, bounds: Bounds) -> Arc<Self> {
        let (boarding, boarded) = mpsc::unbounded_channel();
        let Large { status, content_type, body } = large;
        tokio::spawn(carry(body, bounds, boarded));
        Arc::new(Self { status, content_type, boarding })
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The whole answer, for one more caller.
    pub fn board(&self) -> Large {
        let (place, parts) = mpsc::channel(AHEAD);
        // It is there as long as somebody can board; if not, the caller is cut off.
        let _ = self.boarding.send(place);
        let parts = stream::unfold(Some(parts), |parts| async {
            let mut parts = parts?;
            match parts.recv().await {
                Some(Part::Bytes(bytes)) => Some((Ok(bytes), Some(parts))),
                Some(Part::End) => None,
                None => Some((Err(Error::new(Kind::UpstreamInvalid, "the answer was cut")), None)),
            }
        });
        Large {
            status: self.status,
            content_type: self.content_type.clone(),
            body: Parts::new(parts.boxed()),
        }
    }
}

async fn carry(body: Parts, bounds: Bounds, mut boarded: mpsc::UnboundedReceiver<mpsc::Sender<Part>>) {
    let mut callers = Vec::new();
    while let Some(caller) = boarded.recv().await {
        callers.push(caller);
    }
    let carried = async {
        let (mut parts, mut brackets) = (body.into_stream(), Brackets::default());
        while let Some(part) = parts.next().await {
            // The upstream broke off: so does this.
            let Ok(part) = part else { return };
            for stretch in part.chunks(STRETCH) {
                brackets.read(stretch);
                tokio::task::yield_now().await;
            }
            hand_out(&mut callers, Part::Bytes(part), bounds).await;
            if callers.is_empty() {
                return;
            }
        }
        if brackets.are_closed().unwrap_or(bounds.is_framed) {
            hand_out(&mut callers, Part::End, bounds).await;
        }
    };
    // What is not done by then is cut: the way, and with it the upstream's connection, ends here.
    let _ = timeout_at(bounds.until, carried).await;
}

/// Gives a part to all, and lets go of those who have left or do not take it.
async fn hand_out(callers: &mut Vec<mpsc::Sender<Part>>, part: Part, bounds: Bounds) {
    let given =
        callers.drain(..).map(|caller| {
            let part = part.clone();
            async move {
                matches!(timeout(bounds.patience, caller.send(part)).await, Ok(Ok(()))).then_some(caller)
            }
        });
    let given = join_all(given).await;
    callers.extend(given.into_iter().flatten());
}
