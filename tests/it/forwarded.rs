//! Behind proxies that are trusted, whoever asks is who they say asks; nobody else is believed, and
//! nobody can be somebody else by writing the field himself.

use http::Method;
use kore_standin::{Conversation, EXAMPLE_STREAM};
use serde_json::Value;

use crate::world::{DAY, REPORTING, World, before, conversation_path, from_address, got};

struct Behind {
    world: World,
    path: String,
    audit: std::path::PathBuf,
}

impl Behind {
    /// A gateway that trusts the proxy at 127.0.0.1, and the one at 10.1.2.3 behind it.
    async fn new(server: &str) -> Self {
        let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
        let path = conversation_path(&conversation.conversation_id);
        let mut audit = std::path::PathBuf::new();
        let world = World::with(|setup| {
            audit = setup.secrets.path().join("audit.jsonl");
            setup.standin.conversations = vec![conversation];
            setup.config = format!(
                "limits.unauthenticated = \"1/min\"\naudit.to = \"{}\"\n[server]\n{server}\n",
                audit.display()
            );
        })
        .await;
        Self { world, path, audit }
    }

    /// The status a guess gets that comes with these fields; one of an address a minute is a 401.
    async fn guess(&self, fields: &[(&str, &str)]) -> u16 {
        let mut request = self.world.request(Method::GET, &self.path, "kg_guess");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        got(request).await.status.as_u16()
    }

    /// Whom the audit names, who got the body with these fields.
    async fn audited(&self, http: &reqwest::Client, fields: &[(&str, &str)]) -> String {
        let mut request = http.get(format!("http://{}{}", self.world.address, self.path));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        assert_eq!(got(request.header("x-api-key", REPORTING)).await.status, 200);
        let text = std::fs::read_to_string(&self.audit).unwrap();
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        last["address"].as_str().unwrap().to_owned()
    }
}

const TRUSTING: &str = r#"trusted_proxies = ["127.0.0.1", "10.0.0.0/8"]"#;
const XFF: &str = "x-forwarded-for";

#[tokio::test]
async fn strangers_behind_one_balancer_are_counted_apart() {
    let behind = Behind::new(TRUSTING).await;
    assert_eq!(behind.guess(&[(XFF, "198.51.100.7")]).await, 401);
    assert_eq!(behind.guess(&[(XFF, "198.51.100.7")]).await, 429);
    assert_eq!(behind.guess(&[(XFF, "198.51.100.8")]).await, 401);
    assert_eq!(behind.guess(&[(XFF, "198.51.100.9, 10.1.2.3")]).await, 401);
    assert_eq!(behind.guess(&[(XFF, "198.51.100.9")]).await, 429, "whichever way it came");
    assert_eq!(behind.guess(&[(XFF, "2001:db8::1")]).await, 401);
    assert_eq!(behind.guess(&[(XFF, "[2001:db8::2]:80")]).await, 429, "one network of IPv6");
}

/// What the caller writes stands to the left of what the proxy appends, or in the other field.
#[tokio::test]
async fn nobody_gets_another_address_by_writing_the_field_himself() {
    let behind = Behind::new(TRUSTING).await;
    assert_eq!(behind.guess(&[(XFF, "198.51.100.7")]).await, 401);
    for forged in [
        &[(XFF, "1.1.1.1, 198.51.100.7")][..],
        &[(XFF, "10.9.9.9, 198.51.100.7")],
        &[(XFF, "127.0.0.1, 198.51.100.7")],
        &[(XFF, "1.1.1.2"), (XFF, "198.51.100.7")],
        &[(XFF, "unknown, 198.51.100.7")],
        &[(XFF, "198.51.100.7"), ("forwarded", "for=1.1.1.3")],
        &[(XFF, "198.51.100.7"), ("x-real-ip", "1.1.1.4"), ("true-client-ip", "1.1.1.4")],
        &[(XFF, "1.1.1.5, 198.51.100.7, 10.1.2.3")],
    ] {
        assert_eq!(behind.guess(forged).await, 429, "{forged:?}");
    }
}

#[tokio::test]
async fn who_is_no_trusted_proxy_is_not_believed() {
    for server in [r#"trusted_proxies = ["10.0.0.0/8"]"#, ""] {
        let behind = Behind::new(server).await;
        assert_eq!(behind.guess(&[(XFF, "198.51.100.7")]).await, 401);
        assert_eq!(behind.guess(&[(XFF, "198.51.100.8")]).await, 429, "{server}");
        let http = from_address([127, 0, 0, 9]);
        assert_eq!(behind.audited(&http, &[(XFF, "198.51.100.7")]).await, "127.0.0.9");
    }
}

#[tokio::test]
async fn the_audit_names_the_caller_and_not_the_balancer() {
    let behind = Behind::new(TRUSTING).await;
    let http = from_address([127, 0, 0, 1]);
    assert_eq!(behind.audited(&http, &[(XFF, "1.1.1.1, 198.51.100.7, 10.1.2.3")]).await, "198.51.100.7");
    assert_eq!(behind.audited(&http, &[]).await, "127.0.0.1");
    // Unreadable: the last proxy that could be read, never what stands beyond.
    assert_eq!(behind.audited(&http, &[(XFF, "198.51.100.7, nobody, 10.1.2.3")]).await, "10.1.2.3");
}

#[tokio::test]
async fn the_other_field_is_read_where_the_proxies_write_that_one() {
    let behind = Behind::new(&format!("{TRUSTING}\nproxy_header = \"forwarded\"")).await;
    let http = from_address([127, 0, 0, 1]);
    let fields = [("forwarded", r#"for=1.1.1.1, for="198.51.100.7:4711";proto=https"#), (XFF, "1.1.1.2")];
    assert_eq!(behind.audited(&http, &fields).await, "198.51.100.7");
    assert_eq!(behind.audited(&http, &[(XFF, "1.1.1.2")]).await, "127.0.0.1");
}
