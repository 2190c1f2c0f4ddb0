//! The gateway as a process of its own: for what is about processes, and for what it takes alone.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::time::{Duration, Instant};

use kore_gateway::access::identify::key_digest;
use tokio::io::AsyncBufReadExt as _;

use crate::world::World;

/// The smallest configuration of a process: one account without an upstream, one client, any ports. Its secret is
/// the variable `TEST_SECRET`, its key `kg_x`, once [`with_key`] has been there.
pub const MINIMAL: &str = r#"
server.listen = "127.0.0.1:0"
ops.listen = "127.0.0.1:0"
[[accounts]]
id = "a1"
contact_center_url = "http://127.0.0.1:9"
automation_url = "http://127.0.0.1:9"
bots = ["*"]
[[accounts.credentials]]
client_id = "cs-1"
client_secret = { env = "TEST_SECRET" }
scopes = ["analytics"]
[[clients]]
name = "reporting"
api_key_sha256 = "@digest"
accounts = ["a1"]
bots = ["*"]
routes = ["conversation"]
"#;

/// No access line, and limits that no test reaches.
const UNDISTURBED: &str = r#"
log.access = false
limits.unauthenticated = "100000000/min"
server.max_connections_per_address = 10000
"#;

/// A configuration with the digest of `kg_x` where it says `@digest`.
pub fn with_key(text: &str) -> String {
    text.replace("@digest", &hex::encode(key_digest(b"kg_x")))
}

/// The program as a user without rights, by a copy in `folder`, which that user can enter. Tests may run as root, who may
/// read and write anything; whoever else runs them stays who it is.
pub fn as_nobody(folder: &Path) -> Command {
    let (built, program) = (env!("CARGO_BIN_EXE_kore-gateway"), folder.join("kore-gateway"));
    if !program.exists() {
        std::fs::hard_link(built, &program).or_else(|_| std::fs::copy(built, &program).map(drop)).unwrap();
    }
    let mut program = Command::new(program);
    if rustix::process::geteuid().is_root() {
        program.uid(65534);
    }
    program
}

/// Whether somebody reads what the gateway writes.
#[derive(Clone, Copy)]
enum Output {
    Read,
    Unread,
}

/// A running gateway; killed when it is dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    pub ops: SocketAddr,
    /// Its configuration, for tests that change it.
    pub config: PathBuf,
    /// The line that says that it serves.
    pub serving: serde_json::Value,
    /// The lines of its log after that one.
    pub log: Receiver<String>,
    _folder: tempfile::TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// With keys of `[server]`, for example `("WRITE_TIMEOUT", "1s")`.
    pub fn start(server: &[(&str, &str)]) -> Self {
        let keys: Vec<_> = server.iter().map(|(key, value)| (format!("SERVER__{key}"), *value)).collect();
        Self::start_with(&keys.iter().map(|(key, value)| (key.as_str(), *value)).collect::<Vec<_>>())
    }

    /// With any keys, as the environment spells them, for example `("CACHE__CAPACITY", "1GiB")`.
    pub fn start_with(keys: &[(&str, &str)]) -> Self {
        Self::run(r#"exec "$0" serve --config "$1""#, Stdio::null(), keys, Output::Read)
    }

    /// With nobody who reads what it writes to standard output, but for the lines that a test takes from
    /// `log` and a buffer's worth.
    pub fn start_unread(keys: &[(&str, &str)]) -> Self {
        Self::run(r#"exec "$0" serve --config "$1""#, Stdio::null(), keys, Output::Unread)
    }

    /// The same, with a word of the environment that is not ours.
    pub fn start_with_environment(word: &str, keys: &[(&str, &str)]) -> Self {
        Self::run(&format!(r#"{word} exec "$0" serve --config "$1""#), Stdio::null(), keys, Output::Read)
    }

    /// With a limit on file descriptors, in `ulimit`'s words.
    pub fn start_with_descriptors(limit: &str) -> Self {
        let limited = format!(r#"ulimit {limit}; exec "$0" serve --config "$1""#);
        Self::run(&limited, Stdio::null(), &[], Output::Read)
    }

    /// With its main socket handed over, as systemd does it: as the first descriptor after the usual
    /// three, and told to nobody but the process with this id.
    pub fn take_over(socket: &TcpListener, workers: &str) -> Self {
        let hand_over = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" serve --config "$1""#;
        let socket = OwnedFd::from(socket.try_clone().unwrap());
        Self::run(hand_over, Stdio::from(socket), &[("SERVER__WORKERS", workers)], Output::Read)
    }

    /// Returns once it serves.
    fn run(line: &str, stdin: Stdio, keys: &[(&str, &str)], output: Output) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("gateway.toml");
        std::fs::write(&config, with_key(&format!("{UNDISTURBED}{MINIMAL}"))).unwrap();
        let keys = keys.iter().map(|(key, value)| (format!("KORE_GATEWAY__{key}"), *value));
        let mut child = Command::new("bash")
            .args(["-c", line, env!("CARGO_BIN_EXE_kore-gateway")])
            .arg(&config)
            .env("TEST_SECRET", "secret")
            .envs(keys)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let serving = lines.next().expect("a line that says that it serves").unwrap();
        let serving: serde_json::Value = serde_json::from_str(&serving).unwrap();
        let address = |key: &str| serving[key].as_str().unwrap().parse().unwrap();
        let (address, ops) = (address("listen"), address("ops"));
        let mut lines = lines.map_while(Result::ok);
        let log = match output {
            Output::Read => {
                let (told, log) = channel();
                std::thread::spawn(move || lines.for_each(|line| drop(told.send(line))));
                log
            }
            Output::Unread => {
                let (told, log) = sync_channel(0);
                std::thread::spawn(move || lines.try_for_each(|line| told.send(line)));
                log
            }
        };
        Self { child, address, ops, config, serving, log, _folder: folder }
    }

    /// Sends it a signal, for example `HUP`.
    pub fn signal(&self, name: &str) {
        // The shell's own: a minimal system has no other.
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("bash").args(["-c", &kill]).status().unwrap().success());
    }

    /// SIGTERM, and a good end.
    pub fn drain(mut self) {
        self.signal("TERM");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    /// The same; whether it came within so long.
    pub fn drains_within(mut self, at_most: Duration) -> bool {
        self.signal("TERM");
        let ends = Instant::now() + at_most;
        while Instant::now() < ends {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Its threads.
    pub fn threads(&self) -> u64 {
        status(self.child.id(), "Threads:")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// In kibibytes: the most that it has ever held.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.child.id())
    }
}

/// A gateway with the configuration of `world`, in a process of its own, for it is the process's memory that is looked
/// at; and its URL. More keys are as the environment spells them.
pub async fn own_process(world: &World, keys: &[(&str, &str)]) -> (tokio::process::Child, String) {
    let mut gateway = tokio::process::Command::new(env!("CARGO_BIN_EXE_kore-gateway"))
        .args(["serve", "--config", world.config_file.to_str().unwrap()])
        .envs(keys.iter().map(|(key, value)| (format!("KORE_GATEWAY__{key}"), *value)))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::BufReader::new(gateway.stdout.take().unwrap()).lines();
    let serving: serde_json::Value =
        serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
    (gateway, format!("http://{}", serving["listen"].as_str().unwrap()))
}

/// Keys of a gateway that takes its time over bodies of up to `max_body`.
pub fn up_to(max_body: &str) -> [(&str, &str); 3] {
    [("UPSTREAM__MAX_BODY", max_body), ("UPSTREAM__TIMEOUT", "120s"), ("SERVER__BODY_TIMEOUT", "120s")]
}

/// In kibibytes: the most that a process has ever held.
pub fn peak_memory(process: u32) -> u64 {
    status(process, "VmHWM:")
}

fn status(process: u32, key: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
