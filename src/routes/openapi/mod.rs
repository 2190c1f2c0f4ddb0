//! The OpenAPI 3.2 document, made from [`ROUTES`]: a route's own words and schemas, and around them
//! what holds for all of them (credentials, headers, errors). A fourth route is in it by being one.
//!
//! Schemas are JSON Schema 2020-12. What they cannot say (the order of two dates, seven days, an id
//! that has to be the path's) is said in words.

mod page;

use aws_lc_rs::digest;
use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::{ROUTES, RequestLimits, Route, ids};
use crate::error::{Kind, MOST_FAULTS};

/// What a route says of itself.
pub struct Description {
    pub summary: &'static str,
    /// Plain text; an empty line parts paragraphs.
    pub text: &'static str,
    /// Of the query string.
    pub parameters: Vec<Parameter>,
    /// The schema of the request's body; `Null` for a route without one.
    pub body: Value,
    /// The schema of a 200.
    pub answer: Value,
}

/// A parameter of the query string. None of them has to be there.
pub struct Parameter {
    pub name: &'static str,
    pub schema: Value,
    pub text: &'static str,
}

const TITLE: &str = "kore-gateway";
const ABOUT: &str = "Kore.ai's conversation APIs through one stable address: the upstream's own routes, with \
    an API key in place of the upstream's token. Answers are the upstream's, byte for byte, unless the caller's \
    policy redacts them. Closed conversations come out of a cache.";
const PROBLEM: &str = "application/problem+json";
const JSON: &str = "application/json";
/// What the upstream sent and did not call JSON.
const BYTES: &str = "application/octet-stream";

/// The contract as it is sent: for programs, and for people.
pub struct Contract {
    pub document: Page,
    pub page: Page,
}

/// Something for a browser.
pub struct Page {
    pub body: Bytes,
    /// Its entity tag.
    pub tag: String,
    /// Its Content Security Policy.
    pub policy: String,
}

impl Contract {
    /// The contract under the limits of a configuration. `version` is the gateway's own.
    pub fn new(limits: RequestLimits, version: &str) -> Self {
        let document = document(limits, version);
        Self {
            document: Page::new(
                document.to_string(),
                "default-src 'none'; frame-ancestors 'none'".to_owned(),
            ),
            page: Page::new(page::html(&document), page::policy()),
        }
    }
}

impl Page {
    fn new(body: String, policy: String) -> Self {
        let digest = digest::digest(&digest::SHA256, body.as_bytes());
        let tag = format!("\"{}\"", hex::encode(digest.as_ref().first_chunk::<16>().unwrap_or(&[0; 16])));
        Self { body: body.into(), tag, policy }
    }
}

/// The document, for the limits of a configuration. `version` is the gateway's own.
pub fn document(limits: RequestLimits, version: &str) -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let description = (route.describe)(limits);
        for (nth, path) in route.paths.iter().enumerate() {
            paths.insert((*path).to_owned(), path_item(route, path, nth, &description));
        }
    }
    json!({
        "openapi": "3.2.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": TITLE,
            "version": version,
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }, { "apiKey": [] }, { "auth": [] }],
        "tags": ROUTES.each_ref().map(|route| json!({ "name": route.name.as_str() })),
        "paths": paths,
        "components": {
            "securitySchemes": security_schemes(),
            "headers": headers(),
            "schemas": { "Problem": problem(), "UpstreamError": upstream_error(), "Passed": passed() },
        },
    })
}

fn path_item(route: &Route, path: &str, nth: usize, description: &Description) -> Value {
    let parameters: Vec<Value> = path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(path_parameter)
        .collect();
    let mut item = json!({ "parameters": parameters });
    item[route.method.as_str().to_ascii_lowercase()] = operation(route, &route.method, nth, description);
    if route.method == Method::GET {
        item["head"] = operation(route, &Method::HEAD, nth, description);
    }
    if route.takes_query() {
        item["query"] = operation(route, &Method::QUERY, nth, description);
    }
    item
}

fn path_parameter(name: &str) -> Value {
    let (pattern, example) = ids::pattern(name);
    json!({
        "name": name,
        "in": "path",
        "required": true,
        "schema": { "type": "string", "pattern": pattern },
        "example": example,
    })
}

fn operation(route: &Route, method: &Method, nth: usize, description: &Description) -> Value {
    let Description { summary, text, parameters, body, answer } = description;
    // Ids are unique in a document; an alias has one of its own.
    let mut id = route.name.as_str().to_owned();
    if method != route.method {
        id = format!("{id}_{}", method.as_str().to_ascii_lowercase());
    }
    if nth > 0 {
        id = format!("{id}_alias");
    }
    let text = match route.takes_query() {
        true => format!("{text}\n\nA query in truth: the method QUERY (RFC 10008) asks the same."),
        false => (*text).to_owned(),
    };
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|Parameter { name, schema, text }| {
            json!({ "name": name, "in": "query", "schema": schema, "description": text })
        })
        .chain(request_headers())
        .collect();
    let mut operation = json!({
        "operationId": id,
        "tags": [route.name.as_str()],
        "summary": summary,
        "description": text,
        "parameters": parameters,
        "responses": responses(route, method, answer),
    });
    if !body.is_null() {
        let mut schema = body.clone();
        schema["additionalProperties"] = json!({ "$ref": "#/components/schemas/Passed" });
        let misplaced = json!({ "pattern": route.names.pattern_of_misplaced() });
        schema["propertyNames"] = json!({ "anyOf": [{ "enum": route.names.body }, { "not": misplaced }] });
        operation["requestBody"] = json!({ "required": true, "content": { JSON: { "schema": schema } } });
    }
    operation
}

fn request_headers() -> [Value; 2] {
    let header = |name: &str, text: &str| json!({ "name": name, "in": "header", "schema": { "type": "string" }, "description": text });
    [
        header("X-Request-Id", "Your id of the request. Kept if it is 1 to 128 of `A-Z a-z 0-9 . _ -`."),
        header("If-None-Match", "An `ETag` you have: 304 if the answer is still the same, also of a POST."),
    ]
}

/// By status: the answer, and every kind of error that a request to the route can end in.
fn responses(route: &Route, method: &Method, answer: &Value) -> Value {
    let mut responses = Map::new();
    let has_body = *method != Method::HEAD;
    let content = |content: Value| if has_body { content } else { json!({}) };
    let stored = ["Cache-Status", "Age", "ETag", "Vary", "Cache-Control", "RateLimit", "RateLimit-Policy"];
    let also = if route.takes_query() { &["Accept-Query"][..] } else { &[] };
    let ours = |names: &[&'static str]| header_references(names.iter().chain(also));
    responses.insert(
        "200".to_owned(),
        json!({
            "description": "What the upstream answered, byte for byte unless the caller's policy redacts it",
            "headers": ours(&stored),
            "content": content(json!({ JSON: { "schema": answer }, BYTES: {} })),
        }),
    );
    let unchanged = json!({ "description": "What you have is still the answer", "headers": ours(&stored) });
    responses.insert("304".to_owned(), unchanged);

    for kind in Kind::ALL {
        if !may_end_in(route, kind) {
            continue;
        }
        let status = kind.status();
        let response = responses.entry(status.as_str().to_owned()).or_insert_with(|| {
            json!({
                "description": "",
                "headers": ours(headers_of(status)),
                "content": content(json!({ PROBLEM: { "schema": problem_of(status) } })),
            })
        });
        let text = response["description"].as_str().unwrap_or_default();
        let text =
            if text.is_empty() { kind.title().to_owned() } else { format!("{text} · {}", kind.title()) };
        response["description"] = text.into();
    }
    // Its 400 and 404 come beside ours; what else it refuses or fails with is passed on as it is.
    for (status, text) in [
        ("400", "The upstream refused the request"),
        ("404", "The upstream has no such conversation"),
        ("4XX", "Another refusal of the upstream's"),
        ("5XX", "Another failure of the upstream's"),
    ] {
        let response = responses
            .entry(status.to_owned())
            .or_insert_with(|| json!({ "description": text, "headers": ours(&["Cache-Status", "Age"]) }));
        if has_body {
            response["content"][JSON] = json!({ "schema": { "$ref": "#/components/schemas/UpstreamError" } });
            response["content"][BYTES] = json!({});
        }
    }
    Value::Object(responses)
}

/// The path and the method of an operation are right by being its.
fn may_end_in(route: &Route, kind: Kind) -> bool {
    match kind {
        Kind::NotFound | Kind::MethodNotAllowed => false,
        Kind::UnsupportedMediaType => route.method == Method::POST,
        _ => true,
    }
}

fn headers_of(status: StatusCode) -> &'static [&'static str] {
    match status {
        StatusCode::UNAUTHORIZED => &["WWW-Authenticate"],
        StatusCode::TOO_MANY_REQUESTS => &["Retry-After", "RateLimit", "RateLimit-Policy"],
        StatusCode::SERVICE_UNAVAILABLE => &["Retry-After", "Proxy-Status"],
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => &["Proxy-Status"],
        _ => &[],
    }
}

fn header_references<'a>(names: impl Iterator<Item = &'a &'static str>) -> Value {
    let reference = |name: &str| (name.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }));
    let references: Map<_, _> =
        ["X-Request-Id", "X-Content-Type-Options"].iter().chain(names).map(|name| reference(name)).collect();
    Value::Object(references)
}

/// A header whose references are many: its words, an example, and whether it is on every answer.
fn headers() -> Value {
    let text = |words: &str, example: &str, required: bool| {
        let schema = json!({ "type": "string", "examples": [example] });
        json!({ "description": words, "required": required, "schema": schema })
    };
    json!({
        "X-Request-Id": text("The caller's if it is a plain one, else a new one; it is in the gateway's log.", "4f2a9c0d1b7e4a55", true),
        "X-Content-Type-Options": text("Nothing is to be taken for another media type than it says.", "nosniff", true),
        "Cache-Status": text("Where the answer came from (RFC 9211).", "kore-gateway; hit; ttl=3600", false),
        "Age": { "description": "Seconds since the upstream was asked, on what comes out of the store.", "schema": { "type": "integer", "minimum": 0 } },
        "ETag": text("One for each coding. Send it back as `If-None-Match`.", "\"a1b2c3\"", false),
        "Vary": text("What the answer depends on beside the request itself.", "Accept-Encoding", false),
        "Cache-Control": text("The data is private: `no-cache` on what is over, `no-store` on what is live.", "private, no-cache", false),
        "RateLimit": text("Where the caller stands (draft-ietf-httpapi-ratelimit-headers-11): left, and seconds until it is back; also of the upstream's pool.", "\"client\";r=412;t=23, \"upstream\";r=57;t=60", false),
        "RateLimit-Policy": text("Quota and window in seconds.", "\"client\";q=600;w=60, \"upstream\";q=60;w=60", false),
        "Retry-After": { "description": "Seconds; waiting that long works.", "schema": { "type": "integer", "minimum": 0 } },
        "Proxy-Status": text("What went wrong towards the upstream (RFC 9209).", "kore-gateway; error=connection_timeout", false),
        "WWW-Authenticate": text("The scheme that would do.", "Bearer realm=\"kore-gateway\"", true),
        "Accept-Query": text("That QUERY is taken, and its media type (RFC 10008).", "\"application/json\"", false),
    })
}

fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key of the gateway's, or an identity token (OpenID Connect) of a configured issuer. Exactly one credential, and never in the URL.",
        },
        "apiKey": { "type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "An API key of the gateway's." },
        "auth": {
            "type": "apiKey",
            "in": "header",
            "name": "auth",
            "description": "The same under the upstream's own name, for clients that move over.",
        },
    })
}

/// RFC 9457, with the list of faults.
fn problem() -> Value {
    let fault = json!({
        "type": "object",
        "description": "One thing that is wrong: where, what was there, what would be right.",
        "required": ["detail", "msg", "code"],
        "properties": {
            "detail": { "type": "string" },
            "msg": { "type": "string", "description": "The same as `detail`, where clients of the upstream look for it." },
            "code": { "type": "integer", "description": "The status." },
            "pointer": { "type": "string", "description": "A place in the body (RFC 6901)." },
            "parameter": { "type": "string", "description": "A parameter of path or query string." },
            "header": { "type": "string", "description": "A header." },
        },
    });
    json!({
        "type": "object",
        "description": "An error of the gateway's own (RFC 9457).",
        "required": ["type", "title", "status", "detail", "request_id", "errors"],
        "properties": {
            "type": { "type": "string", "format": "uri-reference", "enum": Kind::ALL.map(Kind::type_uri) },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string" },
            "request_id": { "type": "string" },
            "errors": { "type": "array", "minItems": 1, "maxItems": MOST_FAULTS, "items": fault },
            "violated-policies": {
                "type": "array",
                "items": { "type": "string" },
                "description": "The limits that are used up, by their names in `RateLimit-Policy`.",
            },
        },
    })
}

/// A problem of one status: the types it can have.
fn problem_of(status: StatusCode) -> Value {
    let types: Vec<_> =
        Kind::ALL.into_iter().filter(|kind| kind.status() == status).map(Kind::type_uri).collect();
    let only = json!({ "properties": { "type": { "enum": types }, "status": { "const": status.as_u16() } } });
    json!({ "allOf": [{ "$ref": "#/components/schemas/Problem" }, only] })
}

/// What a request's body may hold beside the contract.
fn passed() -> Value {
    let any = json!({ "$ref": "#/components/schemas/Passed" });
    json!({
        "description": "A member that is passed on as it is.",
        "anyOf": [
            { "type": ["string", "boolean", "null", "number"] },
            { "type": "array", "items": any },
            { "type": "object", "additionalProperties": any },
        ],
    })
}

/// The vendor promises a shape on some routes and none on others, so nothing is required.
fn upstream_error() -> Value {
    json!({
        "description": "An error of the upstream's own, as it came.",
        "examples": [{ "errors": [{ "msg": "Invalid StreamId", "code": 400 }] }],
    })
}

#[cfg(test)]
mod tests;
