//! The other programs of a measurement, in one: what the servers under test stand in front of
//! (`origin`), what our own stack costs with no product in it (`hyper`, `hyper-moka`), and the loads
//! that `wrk` cannot make (`burst`, `rate`, `fill`). `benches/yardstick.py` starts them; the arguments are
//! `name=value`.

mod ceiling;
mod load;
mod origin;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitCode;

use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What was said on the command line.
pub struct Arguments(HashMap<String, String>);

impl Arguments {
    fn text<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).map_or(default, String::as_str)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.0.get(name).map_or(default, |text| text.parse().expect("a number"))
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let mode = words.next().unwrap_or_default();
    let pairs =
        words.filter_map(|word| word.split_once('=').map(|(name, value)| (name.into(), value.into())));
    let arguments = Arguments(pairs.collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match mode.as_str() {
            "origin" => origin::serve(&arguments).await,
            "hyper" => ceiling::hyper(&arguments).await,
            "hyper-moka" => ceiling::hyper_moka(&arguments).await,
            "burst" => load::burst(&arguments).await,
            "rate" => load::rate(&arguments).await,
            "fill" => load::fill(&arguments).await,
            other => {
                eprintln!("no such mode: {other:?}");
                return ExitCode::from(2);
            }
        }
        ExitCode::SUCCESS
    })
}

async fn listen(arguments: &Arguments, port: u64) -> TcpListener {
    let port = u16::try_from(arguments.number("port", port)).expect("a port");
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.expect("a free port")
}

/// A conversation of about 6 KB with the vendor's members. Its ids, times and pages differ from one
/// another as those of a real one do: a coding makes it smaller by three fifths, not to nothing.
pub fn conversation(id: &str) -> Vec<u8> {
    let status = if is_open(id) { "OPEN" } else { "CLOSED" };
    let mut random = Numbers(1);
    let participants: Vec<String> = (0..9)
        .map(|n| {
            let (queue, agent, second) = (random.hex(), random.hex(), random.below(10_000));
            format!(
                r#"{{"queueId":"qu-{queue}","queueName":"{}","agentId":"u-{agent}","name":"Agent {}","status":"INACTIVE","assignedAt":"2025-05-22T04:{n:02}:0{}.{:03}Z","startTimeStamp":"2025-05-22T04:{n:02}:1{}.{:03}Z","isTransferred":{}}}"#,
                ["Default Queue", "Residential - Sales", "Billing", "Night Shift"][n % 4],
                random.below(500),
                second % 10,
                random.below(1000),
                random.below(10),
                random.below(1000),
                n % 3 == 0,
            )
        })
        .collect();
    let pages: Vec<String> = (0..28)
        .map(|n| {
            format!(
                r#"{{"page":"/{}/{}","timestamp":"2025-05-22T04:{:02}:{:02}.{:03}Z","timespent":{}}}"#,
                ["account/billing", "support/internet", "plans/compare", "support/contact"][n % 4],
                random.hex(),
                random.below(60),
                random.below(60),
                random.below(1000),
                random.below(600_000),
            )
        })
        .collect();
    format!(
        r#"{{"_id":"{id}","botId":"st-1","status":"{status}","startTime":"2025-05-22T04:55:00.000Z","endTime":"2025-05-22T05:29:14.043Z","updatedAt":"2025-05-22T05:29:24.000Z","participants":[{}],"agentDesktopMeta":{{"pagesVisited":[{}]}},"notes":["The customer could not reach the internet and had slow speeds for a week.","Transferred to sales at the customer's request: wants to compare the plan with the offer of April."]}}"#,
        participants.join(","),
        pages.join(","),
    )
    .into_bytes()
}

/// The same numbers each time, by a linear congruence.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }

    fn hex(&mut self) -> String {
        let mut part = |bits: u32| self.below(1 << bits);
        format!("{:07x}-{:04x}-{:04x}-{:012x}", part(28), part(16), part(16), (part(31) << 16) | part(16))
    }
}

pub fn is_open(id: &str) -> bool {
    id.starts_with("c-open")
}

/// A past window of `rows` closed rows of about 2 KB.
pub fn window(rows: usize) -> Vec<u8> {
    let filler = "x".repeat(1800);
    let rows: Vec<String> = (0..rows)
        .map(|n| {
            format!(
                r#"{{"sessionId":"{n:024x}","conversationId":"c-{n}","botId":"st-1","finalStatus":"CLOSED","sessionStartTime":"2025-08-25T04:00:00","sessionEndTime":"2025-08-25T04:10:00","metaInfo":{{"notes":"{filler}"}}}}"#
            )
        })
        .collect();
    format!(r#"{{"numResults":{},"data":[{}]}}"#, rows.len(), rows.join(",")).into_bytes()
}
