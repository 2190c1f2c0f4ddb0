//! `kore-gateway healthcheck`: for a container, which has no curl.

use std::error::Error;
use std::time::Duration;

use reqwest::Url;

use super::{Failure, runtime};

/// A gateway that takes longer than this to say that it is ready is not.
const TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn run(url: &str) -> Result<(), Failure> {
    let url = readiness(url).map_err(|problem| Failure::new(&format!("--url {url:?}"), problem))?;
    let done = runtime(Some(1))?.block_on(ask(&url));
    done.map_err(|problem| Failure::new(&format!("not ready, by {url}"), problem))
}

fn readiness(url: &str) -> Result<Url, String> {
    let expected = "it is the ops listener's base URL, for example http://127.0.0.1:9090";
    let url = Url::parse(&format!("{}/readyz", url.trim_end_matches('/')))
        .map_err(|error| format!("is no URL: {error}; {expected}"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(format!("begins with neither http:// nor https://; {expected}")),
    }
}

async fn ask(url: &Url) -> Result<(), String> {
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
    // Plain http within the container: no certificates needed.
    let client = if url.scheme() == "http" { client.tls_certs_only([]) } else { client };
    let client = client.build().map_err(|error| whole(&error))?;
    let response = client.get(url.clone()).send().await.map_err(|error| match error.is_timeout() {
        true => format!("no answer within {} s", TIMEOUT.as_secs()),
        false => whole(&error.without_url()),
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let said: String = response.text().await.unwrap_or_default().trim().chars().take(200).collect();
    Err(if said.is_empty() { format!("it answers {status}") } else { format!("it answers {status}: {said}") })
}

/// An error and everything that it says lies behind it.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}
