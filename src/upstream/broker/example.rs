//! Runs the worked example of this module's documentation and compares each line of it.

use super::*;
use crate::config::Fairness;

/// A line of the table: what arrives at a second, and what comes of it.
struct Row {
    second: u64,
    arrives: &'static str,
    /// Calls that are granted and that are shed, calls in the window and calls that wait.
    outcome: [String; 4],
}

fn rows() -> Vec<Row> {
    let lines = include_str!("mod.rs").lines().filter_map(|line| line.strip_prefix("//! |"));
    let cells = lines.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let row = |cells: Vec<&'static str>| {
        let [second, arrives, granted, shed, window, waiting, ..] = cells[..] else { return None };
        let outcome = [granted, shed, window, waiting].map(str::to_owned);
        // The head of the table has no number there.
        Some(Row { second: second.parse().ok()?, arrives, outcome })
    };
    cells.filter_map(row).collect()
}

/// How many calls of each client, as the table has it: `a 2, b 1`.
fn counted(clients: impl Iterator<Item = String>) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    clients.for_each(|client| *counts.entry(client).or_default() += 1);
    counts.iter().map(|(client, calls)| format!("{client} {calls}")).collect::<Vec<_>>().join(", ")
}

struct Example {
    broker: Broker,
    clients: HashMap<Ticket, String>,
}

impl Example {
    fn new() -> Self {
        let fairness = Fairness { headroom: 10, reserve: 20, background_minimum: 20 };
        let shares = QuotaShares { interactive: 2, background: 1, heaviest: 1, fairness };
        let rate = Rate { amount: 10, window: Duration::from_secs(60) };
        Self { broker: Broker::new(&[rate], shares), clients: HashMap::new() }
    }

    /// `a 6` are six calls of client `a`, `b 1 by 30` is one of client `b` that is of no use after 30 s,
    /// and `429 for 20` is a refusal of the upstream.
    fn arrive(&mut self, arrives: &str, now: Duration) {
        let words: Vec<_> = arrives.split(' ').collect();
        let number = |word: &str| word.parse::<u64>().expect("a number");
        let (client, calls, deadline) = match words[..] {
            [""] => return,
            ["429", "for", wait] => return self.broker.refuse_until(now + Duration::from_secs(number(wait))),
            [client, calls] => (client, number(calls), Duration::MAX),
            [client, calls, "by", deadline] => (client, number(calls), Duration::from_secs(number(deadline))),
            _ => panic!("what is {arrives:?}"),
        };
        let lane = if client == "export" { Lane::Background } else { Lane::Interactive };
        let payer = Payer { client: client.into(), lane, weight: 1 };
        for _ in 0..calls {
            let ticket = self.broker.enqueue(std::slice::from_ref(&payer), now, deadline);
            self.clients.insert(ticket, client.to_owned());
        }
    }

    /// Grants and sheds what is due. Every call ends as soon as it is made.
    fn serve(&mut self, now: Duration) -> [String; 4] {
        let granted = self.broker.grant(now);
        granted.iter().for_each(|_| self.broker.end(now));
        let shed = self.broker.shed(now, 100);
        let client = |ticket: &Ticket| self.clients[ticket].clone();
        [
            counted(granted.iter().map(|(ticket, _)| client(ticket))),
            counted(shed.iter().map(|(ticket, _)| client(ticket))),
            self.broker.all.within(Duration::from_secs(60), now).to_string(),
            self.broker.queues.values().map(|queue| queue.backlog.len()).sum::<usize>().to_string(),
        ]
    }
}

#[test]
fn the_worked_example_is_what_happens_second_by_second() {
    let (mut example, mut rows) = (Example::new(), rows().into_iter().peekable());
    assert!(rows.len() >= 10);
    for second in 0..200 {
        let now = Duration::from_secs(second);
        let row = rows.next_if(|row| row.second == second);
        example.arrive(row.as_ref().map_or("", |row| row.arrives), now);
        let outcome = example.serve(now);
        match row {
            Some(row) => assert_eq!(outcome, row.outcome, "at {second} s: granted, shed, window, waiting"),
            None => assert_eq!(outcome[..2], ["", ""], "at {second} s, between two lines"),
        }
    }
    assert!(rows.next().is_none(), "lines out of order");
}
