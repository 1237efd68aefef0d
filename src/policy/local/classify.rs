//! `semantic_type`, computed as OpenBox Core computes it: the first match wins,
//! and a model call is known by its method and host, never by its body.

/// Hosts whose POSTs are model calls. An entry that begins with a dot also
/// covers every host under it.
const MODEL_HOSTS: [&str; 26] = [
    ".aiplatform.googleapis.com",
    ".cognitiveservices.azure.com",
    ".openai.azure.com",
    ".services.ai.azure.com",
    "aiplatform.googleapis.com",
    "api-inference.huggingface.co",
    "api.ai21.com",
    "api.anthropic.com",
    "api.cerebras.ai",
    "api.cohere.ai",
    "api.cohere.com",
    "api.deepinfra.com",
    "api.deepseek.com",
    "api.fireworks.ai",
    "api.groq.com",
    "api.mistral.ai",
    "api.moonshot.ai",
    "api.openai.com",
    "api.perplexity.ai",
    "api.replicate.com",
    "api.together.xyz",
    "api.voyageai.com",
    "api.x.ai",
    "generativelanguage.googleapis.com",
    "openrouter.ai",
    "router.huggingface.co",
];

/// Every semantic type there is.
pub(super) const SEMANTIC_TYPES: [&str; 21] = [
    "database_delete",
    "database_insert",
    "database_query",
    "database_select",
    "database_update",
    "file_delete",
    "file_open",
    "file_read",
    "file_write",
    "http",
    "http_delete",
    "http_get",
    "http_patch",
    "http_post",
    "http_put",
    "internal",
    "llm_completion",
    "llm_embedding",
    "llm_gen_ai",
    "llm_tool_call",
    "mcp_tool_call",
];

/// What a span tells about itself; absent fields are `None`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Signs<'a> {
    /// Span name.
    pub(super) name: &'a str,
    /// `attributes["mcp.method"]`.
    pub(super) mcp_method: Option<&'a str>,
    /// `attributes["gen_ai.system"]`.
    pub(super) gen_ai_system: Option<&'a str>,
    /// HTTP method, as sent.
    pub(super) http_method: Option<&'a str>,
    /// Host of the URL, lower case.
    pub(super) http_host: Option<&'a str>,
    /// `db.system`.
    pub(super) db_system: Option<&'a str>,
    /// `file.path`.
    pub(super) file_path: Option<&'a str>,
}

/// The semantic type of a span.
pub(super) fn semantic_type(signs: &Signs<'_>) -> &'static str {
    if signs.mcp_method == Some("callTool") {
        return "mcp_tool_call";
    }
    if signs.http_method == Some("POST") && signs.http_host.is_some_and(is_model_host) {
        return model_call(signs.name);
    }
    if signs.gen_ai_system.is_some() {
        return "llm_gen_ai";
    }
    if let Some(method) = signs.http_method {
        return http(method);
    }
    if signs.db_system.is_some() {
        return database(signs.name);
    }
    file(signs)
}

/// Whether `host` (lower case) is a model provider's.
fn is_model_host(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    MODEL_HOSTS.iter().any(|known| {
        if known.starts_with('.') {
            host.ends_with(known)
        } else {
            host == *known
        }
    }) || is_regional_model_host(host)
}

/// Hosts that carry a region in the middle of a label.
fn is_regional_model_host(host: &str) -> bool {
    (host.starts_with("bedrock-runtime.") && host.ends_with(".amazonaws.com"))
        || host.ends_with("-aiplatform.googleapis.com")
}

/// Core tells the kinds of model call apart by the span's name alone.
fn model_call(name: &str) -> &'static str {
    if contains_ignoring_case(name, "embedding") {
        "llm_embedding"
    } else if contains_ignoring_case(name, "tool") {
        "llm_tool_call"
    } else {
        "llm_completion"
    }
}

fn http(method: &str) -> &'static str {
    match method {
        "GET" => "http_get",
        "POST" => "http_post",
        "PUT" => "http_put",
        "PATCH" => "http_patch",
        "DELETE" => "http_delete",
        _ => "http",
    }
}

/// The verb is looked for in the span's name; Core never reads `db_operation`.
fn database(name: &str) -> &'static str {
    [
        ("select", "database_select"),
        ("insert", "database_insert"),
        ("update", "database_update"),
        ("delete", "database_delete"),
    ]
    .into_iter()
    .find(|(verb, _)| contains_ignoring_case(name, verb))
    .map_or("database_query", |(_, kind)| kind)
}

fn file(signs: &Signs<'_>) -> &'static str {
    match signs.name {
        "file.read" => "file_read",
        "file.write" => "file_write",
        "file.open" => "file_open",
        "file.delete" => "file_delete",
        _ if signs.file_path.is_some() => "file_open",
        _ => "internal",
    }
}

/// `needle` is ASCII.
fn contains_ignoring_case(text: &str, needle: &str) -> bool {
    text.as_bytes()
        .windows(needle.len())
        .any(|window| window.eq_ignore_ascii_case(needle.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_is_classified_as_core_does_it() {
        let http = |method, host| Signs {
            name: method,
            http_method: Some(method),
            http_host: Some(host),
            ..Signs::default()
        };
        let named = |name, host| Signs {
            name,
            ..http("POST", host)
        };
        let db = |name| Signs {
            name,
            db_system: Some("postgresql"),
            ..Signs::default()
        };
        let file = |name, path| Signs {
            name,
            file_path: path,
            ..Signs::default()
        };
        let table = [
            (http("GET", "example.com"), "http_get"),
            (http("POST", "example.com"), "http_post"),
            (http("PUT", "example.com"), "http_put"),
            (http("PATCH", "example.com"), "http_patch"),
            (http("DELETE", "example.com"), "http_delete"),
            (http("HEAD", "example.com"), "http"),
            (http("get", "example.com"), "http"),
            (http("POST", "api.openai.com"), "llm_completion"),
            (http("GET", "api.openai.com"), "http_get"),
            (http("POST", "api.openai.com.evil.example"), "http_post"),
            (http("POST", "notapi.openai.com"), "http_post"),
            (http("POST", "me.openai.azure.com"), "llm_completion"),
            (http("POST", "openai.azure.com"), "http_post"),
            (
                http("POST", "bedrock-runtime.eu-west-1.amazonaws.com"),
                "llm_completion",
            ),
            (
                http("POST", "us-east1-aiplatform.googleapis.com"),
                "llm_completion",
            ),
            (named("create EMBEDDING", "api.openai.com"), "llm_embedding"),
            (named("tool use", "api.openai.com"), "llm_tool_call"),
            (named("embedding", "example.com"), "http_post"),
            (
                Signs {
                    mcp_method: Some("callTool"),
                    ..http("POST", "api.openai.com")
                },
                "mcp_tool_call",
            ),
            (
                Signs {
                    mcp_method: Some("listTools"),
                    ..http("POST", "example.com")
                },
                "http_post",
            ),
            (
                Signs {
                    gen_ai_system: Some("x"),
                    ..http("POST", "example.com")
                },
                "llm_gen_ai",
            ),
            (db("SELECT orders"), "database_select"),
            (db("db insert"), "database_insert"),
            (db("UPDATE"), "database_update"),
            (db("delete"), "database_delete"),
            (db("db query"), "database_query"),
            (file("file.read", None), "file_read"),
            (file("file.write", Some("/tmp/x")), "file_write"),
            (file("file.delete", None), "file_delete"),
            (file("whatever", Some("/tmp/x")), "file_open"),
            (file("function f", None), "internal"),
        ];
        for (signs, expected) in table {
            assert_eq!(semantic_type(&signs), expected, "{signs:?}");
        }
    }
}
