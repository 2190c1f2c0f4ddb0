//! The document as a page for people: one file of HTML that needs no script and nothing from outside.

use std::fmt::{self, Write};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

const STYLE: &str = include_str!("page.css");

/// The page of a [`document`](super::document).
pub fn html(document: &Value) -> String {
    let mut html = String::with_capacity(64 * 1024);
    // Writing to a string does not fail.
    let _ = write_page(&mut html, document);
    html
}

/// The policy under which browsers are to show it (Content Security Policy Level 3): its own style,
/// and nothing else at all.
pub fn policy() -> String {
    let style = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

/// Text as HTML: nothing in it is markup, but what stands between backquotes is code.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, part) in self.0.split('`').enumerate() {
            let is_code = nth % 2 == 1;
            if is_code {
                f.write_str("<code>")?;
            }
            for character in part.chars() {
                match character {
                    '&' => f.write_str("&amp;")?,
                    '<' => f.write_str("&lt;")?,
                    '>' => f.write_str("&gt;")?,
                    '"' => f.write_str("&quot;")?,
                    '\'' => f.write_str("&#39;")?,
                    other => f.write_char(other)?,
                }
            }
            if is_code {
                f.write_str("</code>")?;
            }
        }
        Ok(())
    }
}

fn text<'a>(value: &'a Value, member: &str) -> Text<'a> {
    Text(value[member].as_str().unwrap_or_default())
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn write_page(html: &mut String, document: &Value) -> fmt::Result {
    let info = &document["info"];
    writeln!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n\
         <h1>{title} <small>{version}</small></h1>\n<p>{about}</p>\n\
         <p>As a document for programs: <a href=\"openapi.json\">openapi.json</a> (OpenAPI {openapi}).</p>",
        title = text(info, "title"),
        version = text(info, "version"),
        about = text(info, "description"),
        openapi = text(document, "openapi"),
    )?;
    html.push_str("<nav><ul>\n");
    for (path, method, operation) in operations(document) {
        writeln!(
            html,
            "<li><a href=\"#{id}\"><b>{method}</b> <code>{path}</code></a>",
            id = text(operation, "operationId"),
            path = Text(path)
        )?;
    }
    html.push_str("</ul></nav>\n<h2>Credentials</h2>\n<p>Exactly one of these.</p>\n<dl>\n");
    for (name, scheme) in members(&document["components"]["securitySchemes"]) {
        let header = match scheme["name"].as_str() {
            Some(header) => format!("{header}: …"),
            None => "Authorization: Bearer …".to_owned(),
        };
        writeln!(
            html,
            "<dt id=\"{}\"><code>{}</code><dd>{}",
            Text(name),
            Text(&header),
            text(scheme, "description")
        )?;
    }
    html.push_str("</dl>\n");
    for (path, method, operation) in operations(document) {
        write_operation(html, document, path, &method, operation)?;
    }
    html.push_str("<h2>Headers of answers</h2>\n<dl>\n");
    for (name, header) in members(&document["components"]["headers"]) {
        writeln!(html, "<dt><code>{}</code><dd>{}", Text(name), text(header, "description"))?;
    }
    html.push_str("</dl>\n");
    for (name, schema) in members(&document["components"]["schemas"]) {
        writeln!(html, "<h2 id=\"{0}\">{0}</h2>", Text(name))?;
        write_schema(html, schema)?;
    }
    Ok(())
}

fn operations(document: &Value) -> impl Iterator<Item = (&String, String, &Value)> {
    let is_operation = |(_, operation): &(&String, &Value)| operation["operationId"].is_string();
    members(&document["paths"]).flat_map(move |(path, item)| {
        let operations = members(item).filter(is_operation);
        operations.map(move |(method, operation)| (path, method.to_ascii_uppercase(), operation))
    })
}

fn write_operation(
    html: &mut String,
    document: &Value,
    path: &str,
    method: &str,
    operation: &Value,
) -> fmt::Result {
    writeln!(
        html,
        "<section id=\"{id}\">\n<h2>{summary}</h2>\n<pre><b>{method}</b> {path}</pre>",
        id = text(operation, "operationId"),
        summary = text(operation, "summary"),
        path = Text(path),
    )?;
    for paragraph in operation["description"].as_str().unwrap_or_default().split("\n\n") {
        writeln!(html, "<p>{}</p>", Text(paragraph))?;
    }
    html.push_str("<h3>Parameters</h3>\n<dl>\n");
    let shared = items(&document["paths"][path]["parameters"]);
    for parameter in shared.chain(items(&operation["parameters"])) {
        write!(html, "<dt><code>{}</code> <small>{}", text(parameter, "name"), text(parameter, "in"))?;
        write_facts(html, &parameter["schema"])?;
        writeln!(html, "</small><dd>{}", text(parameter, "description"))?;
    }
    html.push_str("</dl>\n");
    if let Some(body) = operation.pointer("/requestBody/content/application~1json/schema") {
        html.push_str("<h3>Body</h3>\n");
        write_schema(html, body)?;
    }
    html.push_str("<h3>Answers</h3>\n<dl>\n");
    for (status, response) in members(&operation["responses"]) {
        writeln!(html, "<dt>{}<dd>{}", Text(status), text(response, "description"))?;
        if let Some(schema) = response.pointer("/content/application~1json/schema")
            && schema.get("properties").is_some()
        {
            write_schema(html, schema)?;
        }
    }
    html.push_str("</dl>\n</section>\n");
    Ok(())
}

/// Type and bounds of a schema, in words.
fn write_facts(html: &mut String, schema: &Value) -> fmt::Result {
    if let Some(kind) = schema["type"].as_str() {
        write!(html, " · {}", Text(kind))?;
    }
    for (member, word) in
        [("minimum", "at least"), ("maximum", "at most"), ("default", "if left out"), ("pattern", "like")]
    {
        match schema.get(member) {
            Some(Value::String(value)) => write!(html, " · {word} {}", Text(value))?,
            Some(value) => write!(html, " · {word} {value}")?,
            None => {}
        }
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
        write!(html, " · one of {}", Text(&words.join(", ")))?;
    }
    Ok(())
}

fn write_schema(html: &mut String, schema: &Value) -> fmt::Result {
    if let Some(words) = schema["description"].as_str() {
        writeln!(html, "<p>{}</p>", Text(words))?;
    }
    if schema["properties"].is_object() {
        html.push_str("<dl>\n");
        for (name, property) in members(&schema["properties"]) {
            write!(html, "<dt><code>{}</code> <small>", Text(name))?;
            if items(&schema["required"]).any(|required| required == name) {
                html.push_str(" required");
            }
            write_facts(html, property)?;
            html.push_str("</small><dd>");
            let inner = if property["items"].is_object() { &property["items"] } else { property };
            if !std::ptr::eq(inner, property) {
                write!(html, "{}", text(property, "description"))?;
            }
            write_schema(html, inner)?;
        }
        html.push_str("</dl>\n");
    }
    for example in items(&schema["examples"]).filter(|example| example.is_object()) {
        writeln!(html, "<pre>{}</pre>", Text(&format!("{example:#}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_in_the_document_becomes_markup() {
        let nasty = "<script>&\"'`</code>`";
        let document = json!({
            "info": { "title": nasty, "version": nasty, "description": nasty },
            "paths": { nasty: { "get": { "operationId": nasty, "summary": nasty, "description": nasty } } },
        });
        let html = html(&document);
        assert!(!html.contains("<script"), "{html}");
        assert!(html.contains("&lt;script&gt;&amp;&quot;&#39;<code>&lt;/code&gt;</code>"), "{html}");
    }
}
