//! One request through the proxy: pinned, described, admitted, sent, looked at
//! again, answered.

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;

use crate::domain::{
    Action, Answer, Completion, HttpAnswer, Operation, OperationId, Outcome, Reason, Refusal, Room,
    Timestamp,
};
use crate::gate::{After, Decision, Held, Permit, Refused, Terms};
use crate::metrics::LimitHit;
use crate::process::clock;
use crate::session::Session;

use super::answer_body::AnswerBody;
use super::authority::{self, Target};
use super::body::{self, Gathered, Tee};
use super::budget::Share;
use super::events::Events;
use super::failed::{self, Asked};
use super::fields::Reading;
use super::halt;
use super::line::Line;
use super::mask::Mask;
use super::outgoing::{Observed, Outgoing, Watched};
use super::refuse::{self, CONSTRAINTS};
use super::request_body::RequestBody;
use super::routes::Treatment;
use super::sentinel::{SUBSTITUTE, SUBSTITUTE_KEY};
use super::upstream::{Sending, Way};
use super::withhold::{Announced, Before, Streams};
use super::{
    canary, captured, connect, credentials, describe, expect, fields, mcp, replace, seen, silence,
    upgrade, withhold,
};

/// An answer that is here whole: it goes out, or waits for a person.
struct Parked {
    parts: http::response::Parts,
    data: Bytes,
    trailers: Option<HeaderMap>,
    room: Room,
}

/// Answers one request. Never fails: whatever goes wrong is an answer.
pub(super) fn answer(
    line: Arc<Line>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Outgoing>, Infallible>> + Send {
    // Boxed before the future begins: it would keep room for its arguments to
    // its end, and thousands of these may be held.
    answer_boxed(line, Box::new(request))
}

async fn answer_boxed(
    line: Arc<Line>,
    request: Box<Request<Incoming>>,
) -> Result<Response<Outgoing>, Infallible> {
    let busy = line.shared.begin();
    line.shared.end_answer_at(None);
    let mut response = route(&line, request).await;
    if line.shared.is_broken() {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    line.shared.end_answer_at(response.body().term());
    response.body_mut().keep(busy);
    Ok(response)
}

async fn route(line: &Arc<Line>, mut request: Box<Request<Incoming>>) -> Response<Outgoing> {
    if let Some(refused) = refused_head(line, request.headers()) {
        return refused;
    }
    let user = match line.proxy_user(request.headers()) {
        Ok(user) => user,
        Err(refusal) => return *refusal,
    };
    authority::complete_path(&mut request);
    if let Some(address) = line.captured {
        return match captured::destination(line, address, &mut request).await {
            Ok(target) => govern(line, request, &target, user.as_deref()).await,
            Err(wrong) => refuse::last_problem(wrong.status, wrong.code, wrong.detail),
        };
    }
    if line.tunnel.is_none() && request.method() == Method::CONNECT {
        return Box::pin(connect::open(line, *request, user)).await;
    }
    let target = match &line.tunnel {
        None => Target::of_absolute(&request).map(Cow::Owned),
        Some(tunnel) => tunnel.check_inner(&request).map(|()| Cow::Borrowed(tunnel)),
    };
    match target {
        Ok(target) if canary::is(&target) => line.proxy.canary.answer(request.uri().path()),
        Ok(target) => govern(line, request, &target, user.as_deref()).await,
        Err(wrong) => refuse::last_problem(wrong.status, wrong.code, wrong.detail),
    }
}

/// The answer to a head that the sentinel has substituted.
fn refused_head(line: &Line, headers: &HeaderMap) -> Option<Response<Outgoing>> {
    let malformed = line.shared.malformed()?;
    let key = headers.get(SUBSTITUTE)?;
    if key.as_bytes() != SUBSTITUTE_KEY.as_bytes() {
        return None;
    }
    if malformed.status == 431 {
        line.proxy.gate.metrics().limit_hit(LimitHit::TooLarge);
    }
    let status = StatusCode::from_u16(malformed.status).unwrap_or(StatusCode::BAD_REQUEST);
    Some(refuse::last_problem(
        status,
        malformed.code,
        malformed.detail,
    ))
}

/// Everything between a pinned request and its answer, given up when the client
/// leaves. The library is told to leave the end of the client's side alone (it
/// would keep a read buffer ready for every held request), so it is seen here.
async fn govern(
    line: &Arc<Line>,
    request: Box<Request<Incoming>>,
    target: &Target,
    user: Option<&str>,
) -> Response<Outgoing> {
    tokio::select! {
        biased;
        response = decide(line, request, target, user) => response,
        () = line.watch.hung_up() => gone(),
    }
}

async fn decide(
    line: &Arc<Line>,
    request: Box<Request<Incoming>>,
    target: &Target,
    user: Option<&str>,
) -> Response<Outgoing> {
    let (question, mut waiting) = match describe(line, request, target, user).await {
        Ok(described) => described,
        Err(response) => return *response,
    };
    let mut terms = waiting.treatment.terms(&waiting.method);
    if let Action::Http(call) = &question.operation.action
        && replace::is_replaceable(&call.body)
    {
        terms.replaces = replace::of_request;
    }
    let admitted = admit(line, question, &terms).await;
    let call = waiting.call.take();
    let mut response = match admitted {
        // Boxed: most of what a request that leaves needs, a held one does not.
        Ok(permit) => Box::pin(carry_out(line, permit, waiting, target)).await,
        Err(response) => *response,
    };
    if let Some(id) = call {
        mcp::speak_as(&mut response, &id);
    }
    response
}

/// What the gate is asked.
struct Question {
    operation: Box<Operation>,
    session: Session,
}

/// A request that waits for its permit.
struct Waiting {
    held: Held<Request<RequestBody>>,
    id: OperationId,
    method: Method,
    way: Way,
    treatment: Treatment,
    /// The client's side of the upgrade it asks for.
    client: Option<upgrade::Client>,
    /// What it gets once it may leave.
    credential: Option<Arc<credentials::Kept>>,
    /// The call of a tool that it is, by whose id its answer is known.
    call: Option<mcp::RequestId>,
}

/// Reads what policy is to see of a request, and locks the rest up.
async fn describe(
    line: &Arc<Line>,
    mut request: Box<Request<Incoming>>,
    target: &Target,
    user: Option<&str>,
) -> Result<(Question, Box<Waiting>), Box<Response<Outgoing>>> {
    let started_at = clock::now();
    let (trace, claim) = describe::evidence(request.headers(), user, line.watch.callers());
    let registry = line.proxy.gate.registry();
    let Some(session) = registry.attribute(&claim, started_at) else {
        return Err(Box::new(unattributed(line, started_at)));
    };
    let way = if upgrade::asks_for_websocket(&request) {
        Way::Upgrade
    } else if request.version() == Version::HTTP_2 {
        Way::Either
    } else {
        Way::Http1
    };
    let expects = expect::is_said(&request);
    fields::strip_hop_by_hop(request.headers_mut());
    let settings = &line.proxy.settings;
    let treatment = settings.treatment(
        request.method().as_str(),
        &target.host,
        request.uri().path(),
    );
    let (seen, capture) = seen::of_request(line, &mut request, &treatment).await?;
    let (mut parts, body) = request.into_parts();
    let client = match way {
        Way::Upgrade => upgrade::Client::take(&line.proxy, &mut parts, target),
        Way::Http1 | Way::Either => None,
    };
    if line
        .proxy
        .settings
        .judges_each(&target.host, parts.uri.path())
    {
        // What is encoded cannot be judged event by event.
        let identity = HeaderValue::from_static("identity");
        parts.headers.insert(header::ACCEPT_ENCODING, identity);
    }
    let call = mcp::call(&capture);
    let (tool, call) = call.map_or((None, None), |call| (Some(call.tool), call.id));
    // Only now: what is judged is what is sent.
    let seen_of_body = (capture, tool);
    let operation = describe::operation(&parts, target, seen_of_body, trace, &session, started_at);
    let method = parts.method.clone();
    let all = &line.proxy.credentials;
    let credential = all.of(settings, &method, target, parts.uri.path());
    let cap = treatment.capture_bytes_max;
    let is_with_client = seen.is_with_client();
    let mut body = seen.goes_on(body, cap, line.proxy.gate.metrics());
    body.take_at_most(treatment.body_within);
    let mut outbound = outbound(parts, body, way);
    if expects && is_with_client {
        expect::ask_origin(&mut outbound);
    }
    let waiting = Waiting {
        id: operation.id,
        // From here on nothing but a permit for this operation gets it out.
        held: Held::new(operation.id, outbound),
        method,
        way,
        treatment,
        client,
        credential,
        call,
    };
    Ok((Question { operation, session }, Box::new(waiting)))
}

/// Sends an admitted request and answers with its outcome.
async fn carry_out(
    line: &Arc<Line>,
    permit: Permit,
    waiting: Box<Waiting>,
    target: &Target,
) -> Response<Outgoing> {
    let Waiting {
        held,
        id,
        method,
        way,
        treatment,
        client,
        credential,
        call: _,
    } = *waiting;
    let cleared = held.release(&permit).and_then(|mut cleared| {
        let redacted = permit.ruling().and_then(|ruling| ruling.redacted.as_ref());
        let replaced = redacted
            .is_none_or(|redacted| cleared.amend(|request| replace::request(request, redacted)));
        replaced.then_some(cleared)
    });
    let Some(mut cleared) = cleared else {
        // A bug in this program; the request stays here.
        let detail = "the permit is for another request";
        return refuse::problem(
            StatusCode::INTERNAL_SERVER_ERROR,
            "mismatched_permit",
            detail,
            Some(id),
        );
    };
    let mut mask = Mask::default();
    if let Some(credential) = credential {
        match credential.add(&mut cleared).await {
            Ok(against) => mask = against,
            Err(unusable) => return without_credential(permit, id, &credential, &unusable),
        }
    }
    let how = Sending {
        way,
        own: &line.kept,
        answer_within: treatment.answer_within,
    };
    let sent = tokio::select! {
        biased;
        sent = line.proxy.upstream.send(cleared, (target, &line.asker), how) => sent,
        reason = halt::of_run(&permit) => return ended(permit, id, reason),
    };
    let method = &method;
    let asked = Asked { id, method };
    match sent {
        Err(error) => failed::unanswered(permit, asked, &error),
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            upgrade::relay(line, permit, asked, response, (client, mask))
        }
        Ok(response) => finish(line, permit, asked, (response, mask), &treatment).await,
    }
}

/// Asks the gate.
async fn admit(
    line: &Line,
    Question { operation, session }: Question,
    terms: &Terms,
) -> Result<Permit, Box<Response<Outgoing>>> {
    line.shared.belongs_to(&session);
    match line.proxy.gate.admit(operation, session, terms).await {
        Decision::Proceed(permit) => Ok(permit),
        Decision::Refuse(refused) => Err(Box::new(refuse::refusal(&refused))),
        Decision::Replay(replay) => Err(Box::new(match replay.parked.downcast::<Parked>() {
            Ok(parked) => whole(*parked),
            Err(_) => refuse::problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "lost_answer",
                "the held answer is not an HTTP response",
                Some(replay.event),
            ),
        })),
    }
}

/// Nobody reads it.
fn gone() -> Response<Outgoing> {
    refuse::last_problem(
        StatusCode::REQUEST_TIMEOUT,
        "client_gone",
        "the client closed the connection",
    )
}

fn unattributed(line: &Line, at: Timestamp) -> Response<Outgoing> {
    line.proxy.gate.metrics().decided(
        crate::domain::Protocol::Http,
        crate::domain::Stage::Started,
        crate::metrics::Decided::Refused,
        Duration::ZERO,
    );
    refuse::refusal(&Refused::unasked(
        Refusal::Unattributed,
        clock::operation_id(at),
    ))
}

/// The request as the origin gets it, but for what its version of HTTP asks for.
fn outbound(mut parts: Parts, body: RequestBody, way: Way) -> Request<RequestBody> {
    if way == Way::Upgrade {
        upgrade::ask_for_websocket(&mut parts.headers);
    }
    Request::from_parts(parts, body)
}

/// It may leave, and what it is to leave with cannot be read. Whoever asked is not told which file it
/// is.
fn without_credential(
    permit: Permit,
    id: OperationId,
    credential: &credentials::Kept,
    unusable: &credentials::Unusable,
) -> Response<Outgoing> {
    let file = credential.file().display();
    tracing::error!(%file, event = %id, "a credential cannot be used, so its request is not sent: {unusable}");
    let why = format!("its credential {file} cannot be used: {unusable}");
    failed::report(permit, &why, None);
    let detail = "nothing was sent: the sidecar adds a credential to requests to this place, and cannot read it; this is for its operator to mend";
    refuse::problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "credential_unavailable",
        detail,
        Some(id),
    )
}

/// The run was halted while the request was on its way, or its answer.
fn ended(permit: Permit, id: OperationId, reason: Reason) -> Response<Outgoing> {
    failed::report(permit, &halt::in_words(&reason), None);
    refuse::refusal(&Refused::unasked(Refusal::Halted(reason), id))
}

/// From the head of an answer to the answer, or to what goes out in its place.
async fn finish(
    line: &Arc<Line>,
    permit: Permit,
    asked: Asked<'_>,
    (response, mask): (Response<AnswerBody>, Mask),
    treatment: &Treatment,
) -> Response<Outgoing> {
    let is_unsent = expect::is_unsent(&response);
    let response = judge(line, permit, asked, (response, mask), treatment).await;
    match is_unsent {
        true => refuse::closing(response),
        false => response,
    }
}

async fn judge(
    line: &Arc<Line>,
    permit: Permit,
    asked: Asked<'_>,
    (response, mask): (Response<AnswerBody>, Mask),
    treatment: &Treatment,
) -> Response<Outgoing> {
    let (mut parts, mut body) = response.into_parts();
    parts.version = Version::HTTP_11;
    fields::strip_hop_by_hop(&mut parts.headers);
    let headers = mask.headers(fields::captured(&parts.headers));
    show_constraints(&permit, &mut parts.headers);
    let cap = treatment.capture_bytes_max;
    let reading = match cap {
        0 => Reading::Not,
        _ => fields::reading(&parts.headers),
    };
    let stream = fields::event_stream(&parts.headers);
    let over = body.is_end_stream() || *asked.method == Method::HEAD;
    // Of an answer without a body no event comes: it has ended with its head.
    let judged = stream.is_some() && !over && by_event(line, &permit);
    let answer = Announced {
        reading: &reading,
        bytes: body.size_hint().exact(),
        over,
        events: match stream {
            None => Streams::Not,
            Some(_) if judged => Streams::JudgedEvents,
            Some(_) => Streams::Events,
        },
    };
    let before = Before::of(treatment, &answer);
    if judged && reading != Reading::Text && cap > 0 {
        // Nobody had asked for an encoding.
        let answer = failed::head(parts.status, headers);
        return failed::unasked(permit, asked, ENCODED_EVENTS, answer);
    }
    let mut first = Bytes::new();
    let mut share = Share::default();
    if before != Before::Nothing {
        if !over {
            share = match seen::room(line, &line.proxy.answers, answer.bytes, cap).await {
                Some(share) => share,
                None => {
                    let answer = failed::head(parts.status, headers);
                    return failed::no_room(permit, asked.id, answer);
                }
            };
        }
        let read = before.read(line, &permit, &mut body, (&reading, cap)).await;
        let gathered = match read {
            Ok(gathered) => Gathered {
                // All of them may have been of the hop.
                trailers: gathered.trailers.filter(|trailers| !trailers.is_empty()),
                ..gathered
            },
            Err(error) => {
                let answer = failed::head(parts.status, headers);
                return failed::broke_off(permit, asked, error.to_string(), answer);
            }
        };
        if before.ends_with(&gathered) {
            let body = body::capture(&gathered, &reading, cap);
            let mut body = mask.capture(seen::with_trailers(body, gathered.trailers.as_ref()));
            let why = before.withheld(&gathered, &body, (cap, &parts.headers));
            let has_room = seen::keeps(&line.proxy.answers, share, &gathered.data, &mut body);
            let answer = HttpAnswer {
                status: parts.status.as_u16(),
                headers,
                body,
            };
            return match why {
                Some(why) => refuse::refusal(&withhold::unseen(line, permit, answer, why).await),
                None if has_room => complete(permit, answer, parts, gathered, treatment).await,
                None => failed::no_room(permit, asked.id, answer),
            };
        }
        first = gathered.data;
    }
    body.goes_out_to(&line.shared);
    let text = reading.is_text();
    let watched = Watched {
        permit,
        status: parts.status.as_u16(),
        headers,
        tee: Tee::new(reading, cap, &line.proxy.answers),
        mask,
    };
    if let Some(ends) = stream.filter(|_| judged && text) {
        let events = Events::new(line.clone(), *treatment, body, watched, ends);
        return Response::from_parts(parts, Outgoing::events(events));
    }
    let metrics = line.proxy.gate.metrics().clone();
    let first = (first, share);
    let patience = (treatment.idle_within, silence::term(treatment.body_within));
    let observed = Observed::new(first, body, watched, patience, line.watch.clone(), metrics);
    Response::from_parts(parts, Outgoing::observed(observed))
}

/// What policy cannot read event by event.
const ENCODED_EVENTS: (&str, &str) = (
    "unasked_encoding",
    "the origin answered with an event stream in an encoding, which nobody had asked for: its events cannot be judged one by one",
);

/// Whether the events of the answer to this are judged one by one.
fn by_event(line: &Line, permit: &Permit) -> bool {
    match permit.operation().map(|operation| &operation.action) {
        Some(Action::Http(call)) => line.proxy.settings.judges_each(&call.host, &call.path),
        Some(Action::Database(_) | Action::File(_) | Action::Function(_)) | None => false,
    }
}

fn show_constraints(permit: &Permit, headers: &mut HeaderMap) {
    let constraints = permit.constraints();
    let constrained = permit
        .ruling()
        .is_some_and(|ruling| ruling.verdict == crate::domain::Verdict::Constrain);
    if constrained {
        let names = if constraints.is_empty() {
            "unspecified".to_owned()
        } else {
            constraints.join(", ")
        };
        refuse::insert(headers, CONSTRAINTS, &names);
    }
}

/// Judges an answer that is all here, and hands it out, or not.
async fn complete(
    permit: Permit,
    answer: HttpAnswer,
    mut parts: http::response::Parts,
    mut gathered: Gathered,
    treatment: &Treatment,
) -> Response<Outgoing> {
    let mut terms = treatment.terms(&Method::GET);
    let room = answer.body.room.clone();
    if replace::is_answer_replaceable(answer.status, &answer.body) {
        terms.replaces = replace::of_answer;
    }
    let completion = Completion {
        ended_at: clock::now(),
        outcome: Outcome::Answered,
        answer: Some(Answer::Http(answer)),
        error: None,
    };
    let after = permit.complete(completion, &terms).await;
    let redacted = match &after {
        After::Release(redacted) => redacted.as_ref(),
        After::Withhold(refused, _) => refused.ruling.as_ref().and_then(|r| r.redacted.as_ref()),
    };
    if let Some(redacted) = redacted
        && !replace::answer(&mut parts, &mut gathered, redacted)
    {
        // Nothing to hand out: it was refused for that.
        gathered = Gathered::default();
    }
    let Gathered { data, trailers, .. } = gathered;
    let parked = Parked {
        parts,
        data,
        trailers,
        room,
    };
    match after {
        After::Release(_) => whole(parked),
        After::Withhold(refused, parking) => {
            if let Some(parking) = parking {
                parking.park(Box::new(parked));
            }
            refuse::refusal(&refused)
        }
    }
}

fn whole(answer: Parked) -> Response<Outgoing> {
    let mut body = Outgoing::whole(answer.data, answer.trailers);
    body.in_room(answer.room);
    Response::from_parts(answer.parts, body)
}

impl Treatment {
    /// What HTTP brings to a decision about a request of this method.
    pub(super) fn terms(self, method: &Method) -> Terms {
        const READ_ONLY: &str = "read_only";
        let safe = method.is_safe();
        Terms {
            hold_within: self.hold_within,
            unanswered: self.unanswered,
            applies: if safe {
                |name| name == READ_ONLY
            } else {
                |_| false
            },
            contradicts: if safe {
                |_| false
            } else {
                |name| name == READ_ONLY
            },
            replaces: |_| false,
        }
    }
}
