//! What an operation does, one family a variant.

use super::capture::Capture;
use super::event::JsonText;
use super::headers::Headers;

/// What an operation does, one variant a family of the wire contract.
#[derive(Clone, Debug)]
pub enum Action {
    /// An HTTP request: seen on the wire, or told by an SDK's hook.
    Http(HttpCall),
    /// A database statement or command: seen on the wire, or told by a hook.
    Database(DatabaseCall),
    /// Something done to a file; only a hook can tell.
    File(FileCall),
    /// A function of the agent; only a hook can tell.
    Function(FunctionCall),
}

/// An HTTP request as policy sees it. Userinfo never reaches it, and secret
/// header values are redacted before they are stored here.
#[derive(Clone, Debug)]
pub struct HttpCall {
    /// The method, as sent.
    pub method: Box<str>,
    /// Absolute URL, without userinfo and fragment, and without what is secret in its query.
    pub url: Box<str>,
    /// The SHA-256 of what is not shown of it.
    pub secrets: Option<[u8; 32]>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host of the pinned authority: lower case, no brackets around IPv6.
    pub host: Box<str>,
    /// Port of the pinned authority.
    pub port: u16,
    /// Path without the query.
    pub path: Box<str>,
    /// Redacted request header fields.
    pub headers: Headers,
    /// What was seen of the request body before asking.
    pub body: Capture,
    /// The tool it calls, when its body is a `tools/call` of the Model Context
    /// Protocol.
    pub tool: Option<ToolCall>,
}

/// A `tools/call` request of the Model Context Protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// `params.name`; absent where the request names none.
    pub name: Option<Box<str>>,
}

/// A database statement or command as policy sees it. Values bound to
/// parameters never reach it.
#[derive(Clone, Debug)]
pub struct DatabaseCall {
    /// `postgresql`, `mysql`, `redis`, `sqlite`, …: OpenTelemetry's `db.system`.
    pub system: Box<str>,
    /// The database (`db_name`), when it is known.
    pub name: Option<Box<str>>,
    /// Who has logged in (`db_user`), as they say themselves: what the server made of that
    /// name is not known.
    pub user: Option<Box<str>>,
    /// Its verb or command, upper case: `SELECT`, `HSET`.
    pub operation: Box<str>,
    /// The statement. Its digest covers everything that makes a retry the same
    /// execution, so also what is bound to its parameters; without a digest
    /// nothing about it may be remembered.
    pub statement: Capture,
    /// Host of the server, when it is known.
    pub server_address: Option<Box<str>>,
    /// Port of the server, when it is known.
    pub server_port: Option<u16>,
    /// What its text does, where the sidecar has read it: a JSON object with
    /// `class`, `verbs`, `relations`, `functions` and `flags`.
    pub reading: Option<JsonText>,
    /// How an SDK's hook tells the same.
    pub told: Told,
}

/// How an SDK's hook tells a statement that the wire shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// As the statement is.
    #[default]
    AsItIs,
    /// As a text with this SHA-256: the statement shows less.
    Digest([u8; 32]),
    /// Nobody can say.
    Unknown,
}

impl DatabaseCall {
    /// The class that its reading begins with, such as `write`; `opaque` where
    /// nobody has read it.
    pub fn class(&self) -> &str {
        let class = self.reading.as_ref().and_then(|reading| {
            let rest = reading.0.strip_prefix(r#"{"class":""#)?;
            rest.split('"').next()
        });
        class.unwrap_or("opaque")
    }
}

/// Something done to a file.
#[derive(Clone, Debug)]
pub struct FileCall {
    /// The file, as the agent named it.
    pub path: Box<str>,
    /// The mode it was opened with: `r`, `wb`, …
    pub mode: Option<Box<str>>,
    /// `open`, `read`, `readline`, `readlines`, `write`, `writelines`, `close`, `delete`.
    pub operation: Box<str>,
}

/// A call of a function of the agent.
#[derive(Clone, Debug)]
pub struct FunctionCall {
    /// Its name.
    pub function: Box<str>,
    /// The module it is in.
    pub module: Option<Box<str>>,
    /// What it is called with.
    pub arguments: Option<JsonText>,
}

/// What an SDK's hook said about a span that the sidecar cannot know by
/// itself, passed on as it was said.
#[derive(Clone, Debug)]
pub struct Reported {
    /// The span's name.
    pub name: Box<str>,
    /// OpenTelemetry's span kind: `CLIENT`, `INTERNAL`, …
    pub kind: Box<str>,
    /// The span's attributes: always a JSON object.
    pub attributes: JsonText,
    /// Further fields of the event that carries the span (`agent_name`,
    /// `multi_agent_session_id`, …) in wire order.
    pub envelope: Vec<(&'static str, JsonText)>,
}
