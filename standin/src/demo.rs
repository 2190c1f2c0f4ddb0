//! A small world to try the gateway on.

use super::{Account, Clock, Conversation, EXAMPLE_ACCOUNT, EXAMPLE_STREAM, Options};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Where [`Options::demo`] puts the records that [`DemoIds`] names.
const SETTLED: u64 = 1;
const JUST_CLOSED: u64 = 2;
const LIVE: u64 = 3;

impl Options {
    /// Two accounts, and in the first a handful of conversations around the present: some
    /// settled for days, one just closed, one live, one session without an agent. Those that are
    /// settled closed two to four days ago: a window of whole days that ends two days ago holds all
    /// of them and none of the others, at any time of day.
    pub fn demo(clock: Clock) -> Options {
        let now = clock.now_ms();
        let stream = EXAMPLE_STREAM;
        let conversations = vec![
            settled(now),
            Conversation::closed_at(stream, JUST_CLOSED, now - MINUTE_MS),
            Conversation::live(stream, LIVE, now - 5 * MINUTE_MS).with_messages(1_000),
            Conversation::closed_at(stream, 4, now - 2 * DAY_MS - 2 * HOUR_MS).without_agent(),
            Conversation::closed_at(stream, 5, now - 2 * DAY_MS - HOUR_MS).on_channel("Voice"),
            Conversation::closed_at(stream, 6, now - 2 * DAY_MS)
                .on_channel("telegram ")
                .surveyed_at(now - 2 * DAY_MS + HOUR_MS, 5),
            Conversation::closed_at(stream, 7, now - 4 * DAY_MS).outbound(),
        ];
        Options {
            clock,
            accounts: vec![Account::example(), Account::other()],
            conversations,
            ..Options::default()
        }
    }
}

fn settled(now: i64) -> Conversation {
    Conversation::closed_at(EXAMPLE_STREAM, SETTLED, now - 3 * DAY_MS)
}

/// What to ask a demo for.
#[derive(Clone, Debug)]
pub struct DemoIds {
    /// The account that owns everything below.
    pub account: String,
    /// The stream (= bot) of everything below.
    pub stream: String,
    /// A conversation id: closed three days before the demo began.
    pub settled: String,
    /// A conversation id: closed a minute before.
    pub just_closed: String,
    /// A conversation id: five minutes old and going on.
    pub live: String,
    /// The session id of `settled`, for conversation details.
    pub session: String,
}

impl DemoIds {
    /// The ids within these options, which [`Options::demo`] has made.
    ///
    /// # Panics
    /// On options that are not a demo's.
    pub fn of(options: &Options) -> DemoIds {
        let record = |n: u64| {
            options
                .conversations
                .iter()
                .find(|record| record.n == n && record.stream == EXAMPLE_STREAM)
                .expect("the options are a demo's")
        };
        let id = |n: u64| record(n).conversation_id.clone();
        DemoIds {
            account: EXAMPLE_ACCOUNT.to_owned(),
            stream: EXAMPLE_STREAM.to_owned(),
            settled: id(SETTLED),
            just_closed: id(JUST_CLOSED),
            live: id(LIVE),
            session: record(SETTLED).session_id.clone(),
        }
    }
}
