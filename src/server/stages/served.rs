//! What the cache or the upstream has for a query.

use std::sync::Arc;

use super::{ClientRequest, Grant};
use crate::access::cache_control::Directives;
use crate::cache::{Served, Terms};
use crate::error::Error;
use crate::fetch::payer::{Payer, Payers};
use crate::routes::Query;

/// What the cache or the upstream has to say to `query`.
pub(super) async fn served(
    call: &ClientRequest,
    grant: &Grant,
    query: &Query,
    revalidate: bool,
) -> Result<Served, Error> {
    let ClientRequest { app, snapshot, trace, .. } = call;
    let config = &snapshot.config;
    let fill = {
        let (upstream, query, trace) = (snapshot.upstream.clone(), query.clone(), trace.clone());
        let calls = call.upstream_calls.get_or_init(Arc::default).clone();
        move |payers: Payers| {
            let (upstream, query, trace) = (upstream.clone(), query.clone(), trace.clone());
            let calls = calls.clone();
            async move { upstream.call(&query, &payers, trace.as_deref(), &calls).await }
        }
    };
    let (rule, wait) = (config.cache.rule(query.route), config.upstream.timeout);
    // The fill is the same for everyone; who waits for it only pays for it.
    let payer = Payer::from(&*grant.client);
    let directives = Directives::of(&call.head.headers);
    let terms = Terms { revalidate, no_store: directives.no_store, only_stored: directives.only_if_cached };
    app.cache.get_or_fill(query, rule, wait, terms, payer, fill).await
}
