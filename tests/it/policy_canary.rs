//! Nothing that policy denies is handed out: 200,000 mixed requests of limited, filtered and redacted clients against
//! an upstream that mixes shapes, accounts and bots. All texts that somebody may not see hold a marker that says whose
//! they are, and each head and body is searched for markers.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::{Arc, Mutex};

use kore_gateway::cache::Purge;
use kore_standin::{
    Account, Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Fault, OTHER_ACCOUNT, OTHER_STREAM, Standin,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::dice::Dice;
use crate::world::{DAY, HOUR, SECOND, World, before, client};

const REQUESTS: usize = 40_000;
const CALLERS: usize = 16;
const A: &str = EXAMPLE_STREAM;
/// Another bot of the same account.
const B: &str = "st-24ccdea9-de4e-5139-923f-883c53ffcccc";
/// Before each marker; the next letter says whose it is: `a` or `b` of the bots, `o` of the other account, `c` of
/// contact data, `e` of the upstream's errors.
const MARK: &str = "canary-";
/// What every token of ours begins with: `{"alg"` or `{"typ"`, in base64.
const TOKENS: [&str; 2] = ["eyJhbGci", "eyJ0eXAi"];
/// What the stand-in's own records hold as contact data.
const ADDRESS: &str = "203.0.113.69";

const PROFILE: &str = r#"
cache.capacity = "3MiB"
upstream.breaker = { failures = 100, open_for = "1s" }
[redaction.no-contact]
remove = ["/userInfo", "/conversationInfo/userDetails", "/data/*/userInfo", "/data/*/metaInfo"]
mask = ["/phoneNumber", "/data/*/phoneNumber", "/conversationInfo/phoneNumber"]
show = ["/note", "/padding"]
"#;

/// A client, and what it may see.
struct Client {
    name: &'static str,
    bots: &'static str,
    more: &'static str,
    /// The letters after [`MARK`] that may be in its answers.
    sees: &'static str,
}

const REDACT: &str = "redact = [\"no-contact\"]\n";
const CLIENTS: [Client; 8] = [
    Client { name: "all", bots: "*", more: "", sees: "abce" },
    Client { name: "of-a", bots: A, more: "", sees: "ac" },
    Client { name: "of-b", bots: B, more: "", sees: "bc" },
    Client { name: "rows-of-a", bots: A, more: "filter_rows = true\n", sees: "ac" },
    Client { name: "redacted", bots: "*", more: REDACT, sees: "ab" },
    Client { name: "of-a-redacted", bots: A, more: REDACT, sees: "a" },
    Client {
        name: "rows-redacted",
        bots: A,
        more: "filter_rows = true\nredact = [\"no-contact\"]\n",
        sees: "a",
    },
    Client { name: "neighbour", bots: "*", more: "", sees: "oce" },
];

impl Client {
    fn is_redacted(&self) -> bool {
        !self.sees.contains('c')
    }

    fn is_neighbour(&self) -> bool {
        self.sees.contains('o')
    }

    fn may_have_windows(&self) -> bool {
        self.bots == "*" || self.more.contains("filter_rows")
    }

    /// Why this client may not get this text.
    fn objection(&self, text: &str) -> Option<String> {
        if let Some(token) = TOKENS.iter().find(|token| text.contains(*token)) {
            return Some(format!("a token: {token}"));
        }
        if self.is_redacted() && text.contains(ADDRESS) {
            return Some("an address".to_owned());
        }
        let mut marks = text.match_indices(MARK).map(|(at, mark)| &text[at + mark.len()..]);
        let denied = marks.find(|rest| !rest.starts_with(|letter| self.sees.contains(letter)))?;
        Some(denied.chars().take(20).collect())
    }
}

fn letter(stream: &str) -> &'static str {
    match stream {
        A => "a",
        B => "b",
        _ => "o",
    }
}

/// The records: `n` decides the bot, and what the upstream makes of it.
fn record(n: u64) -> Conversation {
    let stream = [A, B, OTHER_STREAM][usize::try_from(n % 3).unwrap()];
    let ended = before(DAY + HOUR * u32::try_from(n % 150).unwrap());
    let mut record = Conversation::closed_at(stream, n, ended).padded(600);
    record.user_id = format!("{MARK}{}-{n}", letter(stream));
    record.channel = if n.is_multiple_of(2) { "Voice".to_owned() } else { record.user_id.clone() };
    record
}

const REAL: u64 = 90;
const RECORDS: u64 = 210;

/// What is right about a record, as a conversation and as a transcript, with this account in it.
fn right(record: &Conversation, account: &str, of: &str) -> [String; 2] {
    let (id, session, stream) = (&record.conversation_id, &record.session_id, &record.stream);
    let contact = format!(
        r#""phoneNumber":"{MARK}c-phone-{id}","userInfo":{{"ipAddress":"{MARK}c-address-{id}"}},"note":"{MARK}{of}-{id}","padding":"{}""#,
        "lorem ipsum ".repeat(50)
    );
    let ended = r#""status":"CLOSED","endTime":"2026-02-01T00:00:00Z""#;
    let account = format!(r#""accountId":"{account}""#);
    [
        format!(
            r#"{{{account},"_id":"{id}","botId":"{stream}","botSessionId":"{session}",{ended},{contact}}}"#
        ),
        format!(
            r#"{{"conversationInfo":{{{account},"sessionId":"{session}","phoneNumber":"{MARK}c-{id}"}},"conversationHistory":[],{contact}}}"#
        ),
    ]
}

/// What the upstream says about a record that it does not keep itself.
fn canned(record: &Conversation, n: u64) -> (u16, [String; 2]) {
    let of = letter(&record.stream);
    let (own, foreign, foreign_letter) = match of {
        "o" => (OTHER_ACCOUNT, EXAMPLE_ACCOUNT, "a"),
        _ => (EXAMPLE_ACCOUNT, OTHER_ACCOUNT, "o"),
    };
    let [conversation, transcript] = right(record, own, of);
    let wrap =
        |before: &str, after: &str| [&conversation, &transcript].map(|body| format!("{before}{body}{after}"));
    let turn = usize::try_from(n / 3).unwrap();
    match turn % 8 {
        0 => (200, wrap("[", "]")),
        1 => (200, wrap(r#"{"data":"#, "}")),
        2 => (200, wrap(r#"{"conversations":["#, "]}")),
        3 => (200, [0, 1].map(|_| format!(r#"{{"payload":"{MARK}{of} {MARK}c-payload"}}"#))),
        4 => ([201, 202, 203, 206, 299][turn / 8 % 5], wrap("", "")),
        5 => {
            let error = format!(r#"{{"errors":[{{"msg":"{MARK}e-{n} {MARK}{of} {MARK}c-error"}}]}}"#);
            ([400, 404, 409, 412, 422, 500, 501][turn / 8 % 7], [error.clone(), error])
        }
        6 => (200, right(record, foreign, foreign_letter)),
        // Another bot's record, whole; of the other account there is but one bot.
        _ => {
            let other = if of == "o" { n + 3 } else { n - n % 3 + (n % 3 + 1) % 2 };
            let other = self::record(other);
            (200, right(&other, own, letter(&other.stream)))
        }
    }
}

/// The days of the windows, and what is to be made of each.
const DAYS: u64 = 26;
const REAL_DAYS: u64 = 12;

/// The first and last date of each.
fn dates(day: u64) -> (String, String) {
    let (from, until) = match day {
        // Real records, some days of them.
        0..REAL_DAYS if day.is_multiple_of(3) => ("2026-02-23", "2026-02-28"),
        0..REAL_DAYS if day % 3 == 1 => ("2026-02-22", "2026-02-25"),
        0..REAL_DAYS => ("2026-02-27", "2026-03-02"),
        _ => return (format!("2026-01-{day:02}"), format!("2026-01-{day:02}")),
    };
    (from.to_owned(), until.to_owned())
}

fn canned_window(day: u64) -> (u16, String) {
    let row = |stream: &str, account: &str, of: &str| {
        format!(
            r#"{{"sessionId":"s-{day}-{of}","accountId":"{account}","botId":"{stream}","finalStatus":"CLOSED","sessionEndTime":"2026-01-{day:02}T00:00:00","phoneNumber":"{MARK}c-row","metaInfo":{{"x":"{MARK}c-row"}},"reason":"{MARK}{of}-row","errorDetails":"{}"}}"#,
            "lorem ipsum ".repeat(40)
        )
    };
    let (a, b) = (row(A, EXAMPLE_ACCOUNT, "a"), row(B, EXAMPLE_ACCOUNT, "b"));
    let foreign = row(OTHER_STREAM, OTHER_ACCOUNT, "o");
    let live = b.replace("CLOSED", "TRANSIENT_OPEN");
    let nobodys = format!(r#"{{"sessionId":"s-{day}","note":"{MARK}b-nobody","phoneNumber":"{MARK}c-row"}}"#);
    let rows = |rows: &[&String]| {
        let all: Vec<_> = rows.iter().map(|row| row.as_str()).collect();
        format!(r#"{{"numResults":{},"data":[{}]}}"#, rows.len(), all.join(","))
    };
    match day {
        12..16 => (200, rows(&[&a, &b, &a, &nobodys])),
        16 => (200, rows(&[&b])),
        17 => (200, rows(&[&a, &live])),
        18 => (200, format!("[{}]", rows(&[&a, &b]))),
        19 => (200, format!(r#"{{"data":{}}}"#, rows(&[&a, &b]))),
        20 => (200, rows(&[&format!(r#"{{"row":{a}}}"#), &format!("[{b}]")])),
        21 => (200, rows(&[&a, &foreign])),
        22 => (203, rows(&[&a, &b])),
        23 => (412, format!(r#"{{"errors":[{{"msg":"{MARK}e-{day} {MARK}b {MARK}c-error"}}]}}"#)),
        24 => (500, format!(r#"{{"errors":[{{"msg":"{MARK}e-{day} {MARK}a {MARK}c-error"}}]}}"#)),
        _ => (200, format!(r#"{{"payload":"{MARK}b {MARK}c-payload"}}"#)),
    }
}

fn put_down(standin: &Standin, records: &[Conversation]) {
    for (record, n) in records.iter().zip(0..).filter(|(_, n)| *n >= REAL) {
        let (status, [conversation, transcript]) = canned(record, n);
        let paths: &[&str] = if record.stream == OTHER_STREAM { &[OTHER_STREAM] } else { &[A, B] };
        for stream in paths {
            let path = format!("{stream}/conversations/{}", record.conversation_id);
            standin.serve_body(&path, status, "application/json", conversation.clone());
            let path = format!("bot/{stream}/conversationDetails");
            for id in [&record.conversation_id, &record.session_id] {
                standin.serve_bytes_when(&path, id, status, "application/json", transcript.clone());
            }
        }
    }
    for day in REAL_DAYS..DAYS {
        let (status, body) = canned_window(day);
        let path = format!("account/{EXAMPLE_ACCOUNT}/v2/interactionDetails");
        let date = format!("\"startDate\":\"2026-01-{day:02}\"");
        standin.serve_bytes_when(&path, &date, status, "application/json", body);
    }
}

/// What each client was really given.
type Tally = [HashMap<&'static str, usize>; CLIENTS.len()];

#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    /// Of whole conversations that hold contact data: the tag of no view may be among them.
    whole_tags: Mutex<HashSet<String>>,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn field(&self, name: &str) -> &str {
        let found = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.unwrap_or_default().trim()
    }

    async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>, is_head: bool) -> Self {
        loop {
            let end = buffer.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head = std::str::from_utf8(&buffer[..end]).unwrap().to_owned();
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                let mut answer = Self { status, head, body: Vec::new() };
                let has_body = !is_head && status != 304 && status != 204;
                let length = match answer.field("content-length").parse() {
                    Ok(length) if has_body => length,
                    Err(_) if has_body => panic!("no length: {}", answer.head),
                    _ => 0,
                };
                while buffer.len() < end + 4 + length {
                    assert_ne!(stream.read_buf(buffer).await.unwrap(), 0, "the gateway hung up");
                }
                answer.body = buffer.drain(..end + 4 + length).skip(end + 4).collect();
                return answer;
            }
            assert_ne!(stream.read_buf(buffer).await.unwrap(), 0, "the gateway hung up");
        }
    }

    fn text(&self) -> String {
        let mut plain = Vec::new();
        match self.field("content-encoding") {
            _ if self.body.is_empty() => {}
            "gzip" => drop(flate2::read::GzDecoder::new(&self.body[..]).read_to_end(&mut plain).unwrap()),
            "br" => drop(brotli::Decompressor::new(&self.body[..], 4096).read_to_end(&mut plain).unwrap()),
            "" => plain.clone_from(&self.body),
            other => panic!("{other}"),
        }
        String::from_utf8(plain).unwrap()
    }
}

struct Asked {
    method: &'static str,
    path: String,
    body: String,
}

/// What this client asks for next.
fn question(dice: &mut Dice, client: &Client, records: &[Conversation]) -> Asked {
    let wants_window = dice.below(10) < if client.may_have_windows() { 4 } else { 1 };
    if wants_window {
        let is_foreign = client.is_neighbour() != (dice.below(30) == 0);
        let account = if is_foreign { OTHER_ACCOUNT } else { EXAMPLE_ACCOUNT };
        let days = usize::try_from(DAYS).unwrap();
        let day = (dice.below(days) * dice.below(days) / days) as u64;
        let ((from, until), limit) = (dates(day), 1 + day / 3 * 10 + dice.below(3) as u64);
        return Asked {
            method: dice.of(&["POST", "QUERY"]),
            path: format!(
                "/agentassist/api/public/analytics/account/{account}/v2/interactionDetails?limit={limit}"
            ),
            body: format!(r#"{{"startDate":"{from}","endDate":"{until}","timeZoneOffset":0}}"#),
        };
    }
    // Squared, so that some are asked for often, and those that the upstream keeps itself the most.
    let record = &records[dice.below(records.len()) * dice.below(records.len()) / records.len()];
    let is_own = dice.below(4) != 0;
    let stream = match (client.is_neighbour(), is_own) {
        (true, _) => OTHER_STREAM,
        (false, true) if record.stream != OTHER_STREAM => &record.stream,
        _ => dice.of(&[A, B]),
    };
    if dice.below(3) == 0 {
        let (name, value) = dice.of(&[
            ("sessionId", &record.session_id),
            ("callId", &record.call_id),
            ("conversationId", &record.conversation_id),
        ]);
        Asked {
            method: dice.of(&["POST", "QUERY"]),
            path: format!("/api/public/bot/{stream}/conversationDetails"),
            body: format!(r#"{{"{name}":"{value}"}}"#),
        }
    } else {
        Asked {
            method: dice.of(&["GET", "GET", "HEAD"]),
            path: format!("/agentassist/api/v1/public/{stream}/conversations/{}", record.conversation_id),
            body: String::new(),
        }
    }
}

/// Without the coding's part.
fn bare_tag(tag: &str) -> String {
    let tag = tag.trim_start_matches("W/").trim_matches('"');
    tag.trim_end_matches("-br").trim_end_matches("-gzip").to_owned()
}

/// Now and then the upstream errs, time passes, or something is purged.
fn disturb(dice: &mut Dice, world: &World) {
    match dice.below(1000) {
        0..12 => {
            let fault = match dice.below(12) {
                0 => Fault::TruncatedJson,
                1 => Fault::EchoedToken(200),
                2 => Fault::EchoedToken(404),
                3 => Fault::EchoedToken(500),
                4 => Fault::OtherConversation200,
                5 => Fault::ErrorEnvelope200,
                6 => Fault::Empty200,
                7 => Fault::Html200,
                8 => Fault::CutBody,
                9 => Fault::Chunked,
                _ => Fault::Gzipped,
            };
            world.standin.fault_next(1 + dice.below(3), fault);
        }
        12..14 => {
            world.advance(SECOND * 20);
            world.standin.forget();
        }
        14 => {
            let everything = [Purge::bot(A), Purge::bot(B), Purge::account(OTHER_ACCOUNT), Purge::All];
            world.app.cache.purge(everything.into_iter().nth(dice.below(4)).unwrap());
        }
        _ => {}
    }
}

async fn caller(
    world: Arc<World>,
    records: Arc<Vec<Conversation>>,
    shared: Arc<Shared>,
    seed: u64,
    requests: usize,
) {
    let mut dice = Dice::of_seed(seed);
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut tags: HashMap<(usize, String), String> = HashMap::new();
    let mut tally = Tally::default();
    for _ in 0..requests {
        disturb(&mut dice, &world);
        let who = dice.below(CLIENTS.len());
        let client = &CLIENTS[who];
        let asked = question(&mut dice, client, &records);
        let target = format!("{} {}", asked.path, asked.body);
        let mut request = format!(
            "{} {} HTTP/1.1\r\nhost: g\r\nx-api-key: kg_{}\r\n",
            asked.method, asked.path, client.name
        );
        if asked.method == "POST" || asked.method == "QUERY" {
            let length = asked.body.len();
            request += &format!("content-type: application/json\r\ncontent-length: {length}\r\n");
        }
        let coding =
            dice.of(&["", "", "gzip", "br", "identity", "gzip;q=0.5, br;q=0.1", "identity;q=0", "*"]);
        if !coding.is_empty() {
            request += &format!("accept-encoding: {coding}\r\n");
        }
        // Its own tag, or that of somebody who may see more.
        let guessed = dice.below(6) == 0;
        let tag = if dice.below(3) == 0 {
            tags.get(&(if guessed { 0 } else { who }, target.clone()))
        } else {
            None
        };
        if let Some(tag) = tag {
            request += &format!("if-none-match: {tag}\r\n");
        }
        request += "\r\n";
        request += &asked.body;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = Answer::read(&mut stream, &mut buffer, asked.method == "HEAD").await;
        let text = answer.text();
        for part in [&answer.head, &text] {
            if let Some(objection) = client.objection(part) {
                panic!("{} got {objection:?} for {target}:\n{}\n\n{text}", client.name, answer.head);
            }
        }
        let etag = answer.field("etag").to_owned();
        let is_conversation = asked.body.is_empty();
        if !etag.is_empty() && is_conversation && matches!(answer.status, 200 | 304) {
            let mut whole = shared.whole_tags.lock().unwrap();
            if client.name == "all" && (text.contains(ADDRESS) || text.contains("canary-c-phone")) {
                whole.insert(bare_tag(&etag));
            }
            let is_of_whole = client.is_redacted() && whole.contains(&bare_tag(&etag));
            assert!(!is_of_whole, "{} got the tag of the whole of {target}: {}", client.name, answer.head);
        }
        let mut add = |what| *tally[who].entry(what).or_default() += 1;
        let was_given = answer.status == 304 || answer.status == 200;
        if was_given {
            add("given");
            let status = answer.field("cache-status");
            for (what, is_so) in [
                ("hits", status.contains("; hit;")),
                ("304", answer.status == 304),
                ("gzip", answer.field("content-encoding") == "gzip"),
                ("br", answer.field("content-encoding") == "br"),
                ("HEAD", asked.method == "HEAD"),
                ("QUERY", asked.method == "QUERY"),
                ("windows", asked.path.contains("interactionDetails")),
                ("transcripts", asked.path.ends_with("conversationDetails")),
                ("marked", text.contains(MARK)),
            ] {
                if is_so {
                    add(what);
                }
            }
        } else {
            add(if answer.status == 403 {
                "403"
            } else if answer.status == 502 {
                "502"
            } else {
                "other"
            });
        }
        if !etag.is_empty() {
            tags.insert((who, target), etag);
        }
    }
    let mut all = shared.tally.lock().unwrap();
    for (all, own) in all.iter_mut().zip(tally) {
        for (what, count) in own {
            *all.entry(what).or_default() += count;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policy_cache_canary_nothing_denied_is_handed_out_whatever_the_upstream_mixes() {
    let wanted = std::env::var("POLICY_CANARY_REQUESTS").ok();
    let requests = wanted.map_or(REQUESTS, |text| text.parse().unwrap());
    let records: Vec<_> = (0..RECORDS).map(record).collect();
    let world = World::with(|setup| {
        let mut account = Account::example();
        account.streams.push(B.to_owned());
        setup.standin.accounts = vec![account, Account::other()];
        setup.standin.conversations = records[..usize::try_from(REAL).unwrap()].to_vec();
        setup.standin.switches.held_to_path = false;
        setup.standin.switches.strict = false;
        setup.without_quota = true;
        setup.without = vec!["reporting", "neighbour", "one-bot"];
        setup.config = PROFILE.to_owned();
        for it in &CLIENTS {
            let account = if it.is_neighbour() { OTHER_ACCOUNT } else { EXAMPLE_ACCOUNT };
            let key = format!("kg_{}", it.name);
            // A long window, for the clock moves in steps.
            setup.clients +=
                &(client(it.name, &key).account(account).bots(it.bots).rate_limit("60000000/h").toml()
                    + it.more);
        }
    })
    .await;
    put_down(&world.standin, &records);
    let (world, records, shared) = (Arc::new(world), Arc::new(records), Arc::new(Shared::default()));
    let callers: Vec<_> = (1..=CALLERS as u64)
        .map(|seed| {
            let (world, records, shared) = (world.clone(), records.clone(), shared.clone());
            tokio::spawn(caller(world, records, shared, seed, requests / CALLERS))
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let tally = shared.tally.lock().unwrap();
    let count = |who: usize, what| tally[who].get(what).copied().unwrap_or_default();
    let mut sums: HashMap<&str, usize> = HashMap::new();
    for (who, client) in CLIENTS.iter().enumerate() {
        let mut counts: Vec<_> = tally[who].iter().collect();
        counts.sort_unstable();
        println!("{}: {counts:?}", client.name);
        for (&what, &more) in counts {
            *sums.entry(what).or_default() += more;
        }
        // It was really given something, that held what is looked for, and out of the store.
        for (what, of) in
            [("given", 50), ("hits", 100), ("marked", 100), ("304", 1000), ("gzip", 400), ("br", 400)]
        {
            assert!(count(who, what) > requests / of / 8, "{}: {what}: {}", client.name, count(who, what));
        }
        assert!(
            count(who, "HEAD") > requests / 2000 && count(who, "QUERY") > requests / 2000,
            "{}",
            client.name
        );
        assert_eq!(count(who, "windows") > requests / 800, client.may_have_windows(), "{}", client.name);
        assert!(count(who, "transcripts") > requests / 4000, "{}", client.name);
    }
    println!("{sums:?}");
    for (what, of) in [
        ("hits", 10),
        ("304", 100),
        ("gzip", 30),
        ("br", 30),
        ("HEAD", 30),
        ("QUERY", 30),
        ("403", 50),
        ("502", 100),
    ] {
        assert!(sums[what] > requests / of, "{what}: {sums:?}");
    }
}
