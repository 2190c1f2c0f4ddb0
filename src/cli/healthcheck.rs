//! `kore-gateway healthcheck`: for a container, which has no curl.

use std::time::Duration;

use super::{Failure, runtime};

/// A gateway that takes longer than this to say that it is ready is not.
const TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn run(url: &str) -> Result<(), Failure> {
    let url = format!("{}/readyz", url.trim_end_matches('/'));
    runtime(Some(1))?.block_on(async {
        let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
        // Plain http within the container: no certificates needed.
        let client = if url.starts_with("http:") { client.tls_certs_only([]) } else { client };
        let response = match client.build() {
            Ok(client) => client.get(&url).send().await,
            Err(error) => Err(error),
        };
        match response {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => Err(Failure::new("not ready", response.status())),
            Err(error) => Err(Failure::new("not ready", error)),
        }
    })
}
