//! Where no connection can be made, a caller is told which way it failed, hits go on, what is there
//! already is used, and two seconds after the upstream can be reached again it is.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use hyper_util::client::legacy::connect::dns::Name;
use kore_gateway::upstream::Resolver;
use kore_standin::{Conversation, EXAMPLE_STREAM, Options, Standin};
use socket2::{Domain, Socket, Type};

use crate::caller::{Caller, Version};
use crate::tls::Trust;
use crate::tls_listener::Authority;
use crate::world::{DAY, Got, SECOND, World, before, conversation_path};

fn check(answer: &Got, word: &str, cell: &str) {
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (502, "upstream-unreachable"), "{cell}");
    let proxy_status = answer.header("proxy-status");
    assert!(proxy_status.ends_with(&format!("; error={word}")), "{cell}: {proxy_status:?}");
}

/// Holds a port, so that it is nobody else's, and refuses whoever wants to connect: it does not listen.
fn nobody_on(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Connections of who had it before may linger.
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    socket
}

async fn entries(world: &World) -> f64 {
    world.metric("kore_gateway_cache_entries").await
}

#[tokio::test]
async fn no_connection_of_any_kind_is_a_502_that_says_which() {
    let nobody = nobody_on(0);
    let refused = format!("http://{}", nobody.local_addr().unwrap().as_socket().unwrap());
    // As the machine looks it up.
    let unknown = "https://upstream.invalid".to_owned();
    for (url, word) in [(refused, "connection_refused"), (unknown, "dns_error")] {
        let world = World::with(|setup| {
            setup.upstream = Some(url);
            setup.https = Some(Trust::SomebodyElse);
        })
        .await;
        check(&world.get(&conversation_path("c-1")).await, word, word);
        assert_eq!(entries(&world).await, 0.0);
    }
    let world = World::with(|setup| setup.https = Some(Trust::SomebodyElse)).await;
    check(&world.get(&conversation_path("c-1")).await, "tls_certificate_error", "a stranger");
    assert_eq!(world.standin.count(), 0, "nothing is said to a stranger");
}

/// Knows where every name is, or none.
#[derive(Default)]
struct Names {
    are_known: AtomicBool,
}

impl Names {
    fn resolver(self: &Arc<Self>) -> Resolver {
        let names = self.clone();
        resolver(move |_| {
            let found = names.are_known.load(Ordering::SeqCst).then(|| vec![Ipv4Addr::LOCALHOST]);
            found.ok_or_else(|| io::Error::other("no such name"))
        })
    }
}

/// Looks names up by `find`.
fn resolver(find: impl Fn(&str) -> io::Result<Vec<Ipv4Addr>> + Clone + Send + Sync + 'static) -> Resolver {
    Resolver::new(tower::service_fn(move |name: Name| {
        // The port is the URL's.
        let with_port = |address| SocketAddr::from((address, 0));
        let found = find(name.as_str());
        let found = found.map(|found| found.into_iter().map(with_port).collect::<Vec<_>>().into_iter());
        std::future::ready(found)
    }))
}

/// Takes a port and answers nobody who wants to connect, as a machine that is gone.
struct Gone {
    _socket: Socket,
    /// Those that fill its queue.
    _waiting: Vec<Socket>,
}

impl Gone {
    /// An address of the machine's that is no other test's.
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 77);

    fn on(port: u16) -> Self {
        let new = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let (socket, address) = (new(), SocketAddr::from((Self::ADDRESS, port)).into());
        socket.bind(&address).unwrap();
        socket.listen(0).unwrap();
        let waiting = [new(), new(), new()].map(|waiting| {
            waiting.set_nonblocking(true).unwrap();
            let _under_way = waiting.connect(&address);
            waiting
        });
        Self { _socket: socket, _waiting: waiting.into() }
    }
}

#[tokio::test]
async fn an_address_that_is_lost_leaves_time_for_the_next_one_and_alone_it_is_a_504() {
    let addresses = Arc::new(Mutex::new(vec![Gone::ADDRESS, Ipv4Addr::LOCALHOST]));
    let known = addresses.clone();
    let world = World::with(|setup| {
        setup.named = Some("kore.test");
        setup.resolver = Some(resolver(move |_| Ok(known.lock().unwrap().clone())));
        setup.config = "upstream.allow_plain_http = true\nupstream.connect_timeout = \"4s\"\n\
                        upstream.retry.budget = 0"
            .to_owned();
    })
    .await;
    let _gone = Gone::on(world.standin.address().port());
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 404);

    // Without a budget for repeats the next call has a connection of its own.
    *addresses.lock().unwrap() = vec![Gone::ADDRESS];
    let answer = world.get(&conversation_path("c-2")).await;
    assert_eq!((answer.status.as_u16(), &*answer.problem()), (504, "upstream-timeout"));
    assert!(answer.header("proxy-status").ends_with("; error=connection_timeout"), "{answer:?}");
    assert_eq!(world.standin.count(), 1);
}

#[tokio::test]
async fn an_upstream_is_asked_by_its_name_in_ascii_however_the_configuration_spells_it() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let names = asked.clone();
    let world = World::with(|setup| {
        setup.named = Some("K\u{d6}RE.test");
        setup.resolver = Some(resolver(move |name| {
            names.lock().unwrap().push(name.to_owned());
            Ok(vec![Ipv4Addr::LOCALHOST])
        }));
        setup.config = "upstream.allow_plain_http = true".to_owned();
    })
    .await;
    assert_eq!(world.get(&conversation_path("c-1")).await.status, 404);
    assert_eq!(*asked.lock().unwrap(), ["xn--kre-sna.test"]);
}

/// How an upstream gets lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lost {
    /// Nobody listens where it was, and its connections are gone.
    Refused,
    /// Its name is not known any more.
    NoName,
    /// Somebody else answers in its place.
    WrongCertificate,
}

impl Lost {
    const fn word(self) -> &'static str {
        match self {
            Self::Refused => "connection_refused",
            Self::NoName => "dns_error",
            Self::WrongCertificate => "tls_certificate_error",
        }
    }
}

/// An upstream, and what is needed to lose it and to bring it back.
struct Place {
    world: World,
    names: Arc<Names>,
    /// What takes its port again.
    options: Options,
    /// What holds it meanwhile.
    nobody: Option<Socket>,
}

impl Place {
    async fn of(lost: Lost, is_warm: bool, stored: Conversation) -> Self {
        let names = Arc::new(Names::default());
        names.are_known.store(true, Ordering::SeqCst);
        let world = World::with(|setup| {
            setup.standin.conversations = vec![stored];
            setup.https = (lost == Lost::WrongCertificate).then_some(Trust::Upstream);
            setup.named = (lost == Lost::NoName).then_some("kore.test");
            setup.resolver = Some(names.resolver());
            // Without a budget for repeats each call has a connection of its own; with one it goes over
            // the one that is there.
            let budget = if is_warm { 100 } else { 0 };
            setup.config = format!(
                "cache.back_off = \"1s\"\nupstream.allow_plain_http = true\n\
                 upstream.retry = {{ budget = {budget}, first_wait = \"1ms\", longest_wait = \"2ms\" }}"
            );
        })
        .await;
        let (port, clock) = (world.standin.address().port(), world.standin.clock().clone());
        Self { world, names, options: Options { port, clock, ..Options::default() }, nobody: None }
    }

    async fn lose(&mut self, lost: Lost) {
        match lost {
            Lost::Refused => {
                let elsewhere = Standin::start(Options::default()).await.unwrap();
                std::mem::replace(&mut self.world.standin, elsewhere).stop().await;
                self.nobody = Some(nobody_on(self.options.port));
            }
            Lost::NoName => self.names.are_known.store(false, Ordering::SeqCst),
            Lost::WrongCertificate => self.world.front.as_ref().unwrap().pretends(true),
        }
    }

    async fn bring_back(&mut self, lost: Lost) {
        match lost {
            Lost::Refused => {
                self.nobody = None;
                self.world.standin = Standin::start(self.options.clone()).await.unwrap();
            }
            Lost::NoName => self.names.are_known.store(true, Ordering::SeqCst),
            Lost::WrongCertificate => self.world.front.as_ref().unwrap().pretends(false),
        }
    }
}

async fn cell(lost: Lost, is_warm: bool, version: Version) {
    let cell = format!("{lost:?}, {}, {version:?}", if is_warm { "warm" } else { "cold" });
    let stored = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let hit = conversation_path(&stored.conversation_id);
    let mut place = Place::of(lost, is_warm, stored).await;
    let caller = Caller::of(&place.world, version, &Authority::new()).await;
    assert_eq!(caller.get(&hit).await.status, 200, "{cell}");
    let before = entries(&place.world).await;
    let calls = place.world.standin.count();

    place.lose(lost).await;
    // A connection that is there goes on, whatever has become of the way to another one.
    let goes_on = is_warm && lost != Lost::Refused;
    for n in 0..5 {
        let answer = caller.get(&conversation_path(&format!("c-{n}"))).await;
        if goes_on {
            assert_eq!(answer.status, 404, "{cell}: {answer:?}");
        } else {
            check(&answer, lost.word(), &cell);
        }
        assert!(caller.get(&hit).await.is_hit(), "{cell}: a hit");
    }
    if !goes_on {
        assert_eq!(caller.get(&conversation_path("c-5")).await.status, 503, "{cell}: the breaker is open");
        assert!(caller.get(&hit).await.is_hit(), "{cell}: a hit");
        let said = if lost == Lost::Refused { 0 } else { calls };
        assert_eq!(place.world.standin.count(), said, "{cell}: nothing is said to a stranger");
    }
    assert_eq!(entries(&place.world).await, before, "{cell}: stored");

    place.bring_back(lost).await;
    place.world.advance(SECOND * 2);
    // One that failed, and a new one.
    for n in [0, 6] {
        let answer = caller.get(&conversation_path(&format!("c-{n}"))).await;
        assert_eq!(answer.status, 404, "{cell}: two seconds after it came back: {answer:?}");
    }
    assert!(caller.get(&hit).await.is_hit(), "{cell}: a hit");
    place.world.assert_no_violations();
}

#[tokio::test]
async fn a_lost_upstream_is_found_within_two_seconds_of_coming_back() {
    for lost in [Lost::Refused, Lost::NoName, Lost::WrongCertificate] {
        for is_warm in [false, true] {
            for version in [Version::Http1, Version::Http2] {
                cell(lost, is_warm, version).await;
            }
        }
    }
}
