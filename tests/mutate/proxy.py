"""Ways to break what the HTTP proxy adds to requests, and what it says of them. Data of `run.py`."""

TESTS = [["--lib", "--", "credential", "mask::", "mcp", "preview", "places", "k8s"],
         ["--test", "command_line", "--", "check_http"],
         ["--test", "governed_http", "--", "credential", "mcp", "policy_does_not"]]

HTTP = "src/protocols/http/"
K8S = "src/cli/k8s/"
CHECK = "src/cli/check_http.rs"

# what is broken, file, text that is there once, text that takes its place
MUTANTS = [
    # Credentials.
    ("what the agent sent goes too", HTTP + "credentials.rs", "request.headers_mut().insert(header, value)", "request.headers_mut().append(header, value)"),
    ("a file of the same length and age is the same", HTTP + "credentials.rs", "changed: (found.ctime(), found.ctime_nsec()),", "changed: (0, 0),"),
    ("a file that was just written is not read again", HTTP + "credentials.rs", "age >= SETTLED_AFTER", "age >= Duration::ZERO"),
    ("a pipe is waited for", HTTP + "credentials.rs", "    if !found.is_file() {\n", "    if false {\n"),
    ("a trace is given it", HTTP + "credentials.rs", "() if method.eq_ignore_ascii_case(Method::TRACE.as_str()) =>", "() if method.is_empty() =>"),
    ("it goes in the clear", HTTP + "credentials.rs", "() if clear =>", "() if clear && host.is_empty() =>"),
    ("this machine by its name is another", HTTP + "credentials.rs", 'host == "localhost" || ', ""),
    ("other than ASCII is sent", HTTP + "credentials.rs", ".filter(|text| text.is_ascii())", ".filter(|_| true)"),
    ("it is shown by Debug", HTTP + "credentials.rs", "value.set_sensitive(true);", "value.set_sensitive(false);"),
    ("it may frame a message", HTTP + "credentials.rs", "(!fields::is_reserved(&name)).then_some(name)", "(!fields::is_reserved(&name) || true).then_some(name)"),
    ("the end of its line is part of it", HTTP + "credentials.rs", "match text.expose().trim() {", "match text.expose() {"),
    ("a larger file is read", HTTP + "credentials.rs", "> FILE_BYTES_MAX {", "> FILE_BYTES_MAX * 2 {"),
    ("without it the request is sent", HTTP + "exchange.rs", "Err(unusable) => return without_credential(permit, id, &credential, &unusable),", "Err(_) => {}"),
    ("a host that passes unread is named", "src/config/sections.rs", "credentials::credential(text, passthrough)", "credentials::credential(text, &[])"),
    ("a name is all below it", HTTP + "places.rs", 'pattern.starts_with("*.") && is_host(pattern, name)', "is_host(pattern, name)"),
    ("nothing stands before it", "src/config/credentials.rs", "true => DEFAULT_PREFIX.to_owned(),", "true => String::new(),"),
    # What says it again.
    ("it is seen in a text that is cut", HTTP + "mask.rs", "if capture.state == Captured::Partial {", "if capture.state == Captured::Empty {"),
    ("it is seen in fields", HTTP + "exchange.rs", "mask.headers(fields::captured(&parts.headers))", "fields::captured(&parts.headers)"),
    ("it is seen in an answer", HTTP + "exchange.rs", "mask.capture(body::capture(&gathered, &reading, cap))", "body::capture(&gathered, &reading, cap)"),
    ("it is seen in an event", HTTP + "events.rs", "    let body = whole.mask.capture(body);\n", ""),
    ("it is seen in a message", HTTP + "websocket/judge.rs", "self.mask.capture(self.capture(&message))", "self.capture(&message)"),
    ("it is seen in the answer to a handshake", HTTP + "upgrade.rs", "mask.headers(fields::captured(&parts.headers))", "fields::captured(&parts.headers)"),
    ("the app may mount it", K8S + "sidecar.rs", "        CREDENTIALS_VOLUME,\n    ];", "    ];"),
    ("an app that has it is not told of", K8S + "apart.rs", "let all = core.into_iter().chain(added);", "let all = core.into_iter().chain(added.filter(|_| false));"),
    # Refused calls of tools.
    ("null is an id", HTTP + "mcp.rs", "            Value::Null | Value::Bool(_)", "            Value::Null => true,\n            Value::Bool(_)"),
    ("any number is an id", HTTP + "mcp.rs", "number.is_i64() || number.is_u64()", "number.is_i64() || true"),
    ("any protocol has calls", HTTP + "mcp.rs", 'request.get("jsonrpc")?.as_str()? == "2.0"', "true"),
    ("a refused call is a failed transport", HTTP + "mcp.rs", "    *response.status_mut() = StatusCode::OK;\n", "    *response.status_mut() = StatusCode::FORBIDDEN;\n"),
    # `check http`.
    ("hooks alone, and the wire is judged", CHECK, '"allow: not asked: `govern`', '"block: not asked: `govern`'),
    ("our own listeners are reached", CHECK, "config.listeners()", "Vec::new()"),
    ("headers are not shown", CHECK, '"headers": headers,', '"headers": {},'),
    ("the tool is not shown", CHECK, "tool_called(body).and_then(|call| call.name)", "tool_called(body).and_then(|call| call.name).filter(|_| false)"),
    ("what is no text is shown", CHECK, "cap > 0 && seen.is_text", "cap > 0"),
    ("what is blocked goes on redacted", CHECK, ".filter(|_| goes_on)", ".filter(|_| goes_on || true)"),
    ("a message that passes is judged", CHECK, "_ if seen.judged == Judged::Nothing =>", "_ if seen.port == 1 =>"),
    ("a message is a request", HTTP + "preview.rs", 'shown.replacen("http", "ws", 1)', "shown"),
]
