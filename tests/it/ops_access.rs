//! Who may ask the ops listener: by an address or a known name, and `/admin/*` with the ops token, which
//! cannot be guessed.

use http::StatusCode;

use crate::process::Process;
use crate::world::{Got, got};

const TOKEN: &str = "ops-token-canary";

struct Ops {
    process: Process,
    http: reqwest::Client,
    _folder: tempfile::TempDir,
}

impl Ops {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, TOKEN).unwrap();
        let token = format!("{{ file = \"{}\" }}", file.display());
        let start = move || {
            Process::start_with(&[
                ("OPS__TOKEN", &token),
                ("OPS__HOSTS", r#"["gateway", "ops.example.com"]"#),
            ])
        };
        let process = tokio::task::spawn_blocking(start).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        Self { process, http, _folder: folder }
    }

    fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.get(format!("http://{}{path}", self.process.ops))
    }

    async fn by(&self, host: &str, path: &str) -> StatusCode {
        got(self.request(path).header("host", host)).await.status
    }

    async fn with(&self, authorization: &[&str]) -> Got {
        let request = self.request("/admin/config");
        let fields = authorization.iter().copied();
        got(fields.fold(request, |request, field| request.header("authorization", field))).await
    }
}

/// DNS rebinding takes a name; probes and scrapers that use an address are answered.
#[tokio::test]
async fn a_name_that_is_not_known_is_not_answered_and_addresses_and_known_names_are() {
    let ops = Ops::start().await;
    for path in ["/livez", "/readyz", "/version", "/metrics", "/admin/config", "/elsewhere"] {
        for host in [
            "evil.example",
            "evil.example:9090",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "xgateway",
        ] {
            assert_eq!(ops.by(host, path).await, StatusCode::MISDIRECTED_REQUEST, "{host}{path}");
        }
    }
    for host in [
        "127.0.0.1",
        "10.1.2.3:9090",
        "[::1]:9090",
        "localhost",
        "LOCALHOST:1",
        "gateway:9090",
        "Ops.Example.com.",
    ] {
        assert_eq!(ops.by(host, "/livez").await, StatusCode::OK, "{host}");
    }
    let problem = got(ops.request("/metrics").header("host", "evil.example")).await;
    assert_eq!(problem.problem(), "misdirected-request");
}

#[tokio::test]
async fn the_scheme_is_read_in_any_letter_case_and_two_credentials_are_refused() {
    let ops = Ops::start().await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        assert_eq!(ops.with(&[&format!("{scheme} {TOKEN}")]).await.status, StatusCode::OK, "{scheme}");
    }
    let right = format!("Bearer {TOKEN}");
    for two in [[right.as_str(), "Bearer wrong"], ["Bearer wrong", &right], [&right, &right]] {
        assert_eq!(ops.with(&two).await.status, StatusCode::BAD_REQUEST);
    }
    for wrong in
        ["Bearer", "Bearer ", "Basic b3Bz", TOKEN, "Bearer ops-token-canar", "Bearer ops-token-canary2"]
    {
        assert_eq!(ops.with(&[wrong]).await.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
}

#[tokio::test]
async fn guesses_are_limited_and_counted_and_the_right_token_always_passes() {
    let ops = Ops::start().await;
    let (mut refused, mut limited) = (0, 0);
    for n in 0..200 {
        let guess = ops.with(&[&format!("Bearer ops-token-{n}")]).await;
        match guess.status {
            StatusCode::UNAUTHORIZED => refused += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                assert!(guess.header("retry-after").parse::<u64>().unwrap() >= 1);
                limited += 1;
            }
            other => panic!("{other}"),
        }
    }
    // 60 at once, and one more for each second that the loop has taken.
    assert!(refused >= 60 && limited >= 1, "{refused} and {limited}");
    assert_eq!(ops.with(&[&format!("Bearer {TOKEN}")]).await.status, StatusCode::OK);
    let scrape = String::from_utf8(got(ops.request("/metrics")).await.body.to_vec()).unwrap();
    assert!(scrape.contains("\nkore_gateway_ops_unauthenticated_total 200\n"), "{scrape}");
}
