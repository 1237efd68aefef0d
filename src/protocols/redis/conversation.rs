//! What is owed to whom. No sockets, no clock, no gate: bytes and decisions in,
//! bytes and questions out.
//!
//! ```text
//! client            conversation         gate        server
//!   |-- SELECT 1 ---->|-- Pass ----------------------->|
//!   |-- SET k v ----->|-- Ask ----------->|            |
//!   |                 |<- Permit ---------|            |
//!   |                 |-- Cleared -------------------->|
//!   |<----------------------------|------------- +OK --|  the permit is settled
//! ```
//!
//! A refused command is replaced by one that cannot exist, and the server's
//! error about it is rewritten when it comes: so the server keeps the order of
//! replies, aborts a transaction, and answers or keeps silent as it was told.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};

use crate::domain::{Answer, Completion, DatabaseAnswer, Outcome, TraceId};
use crate::gate::Permit;
use crate::metrics::Passage;
use crate::process::clock;
use crate::session::trace_of;

use super::answers::{Said, Unit};
use super::commands::{self, Arguments};
use super::describe::{Described, Known};
use super::effect::{Effect, Silence, Subscribed};
use super::limits::Fits;
use super::nodes::Route;
use super::refuse::{self, Poison, Then};
use super::request::{self, Progress, RequestError, Rest};
use super::scripts::Scripts;
use super::treat::{Dangerous, Standing, Treatment, treatment};
use super::waiting::Waiting;
use super::{Refusals, reply};

/// A command beyond this is judged by its beginning, once its keys are there,
/// and its values pass on without being kept; bytes.
const BEGINNING_BYTES_MAX: usize = 64 << 10;
/// Longest beginning in which keys are searched, bytes; a command whose keys
/// are behind it is opaque.
const SEARCHED_BYTES_MAX: usize = 1 << 20;
/// Most replies owed at once; beyond it the client waits.
const OWED_MAX: usize = 65_536;
/// Most commands queued in a transaction; beyond it they are refused.
const QUEUED_MAX: usize = 65_536;

/// What to do with what the client just said.
#[derive(Debug)]
pub(super) enum Step {
    /// Nothing until more has come, or been answered.
    More,
    /// Forward without asking.
    Pass(Bytes, Passage),
    /// Nothing.
    Drop,
    /// Ask the gate.
    Ask(Box<Ask>),
    /// Replace it, for this reason.
    Refuse(&'static str),
    /// Replace what was refused a while ago, now that all of it has come.
    Instead(Box<Poison>),
}

/// What is asked about.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) described: Described,
    pub(super) database: Option<u32>,
    /// What is forwarded once it is permitted: all of it, or its beginning.
    pub(super) bytes: Bytes,
    pub(super) effect: Effect,
    pub(super) fits: Fits,
    /// It is whole, and changes nothing of how what follows is read.
    pub(super) stands_alone: bool,
}

/// Whether the server lets this client say more than a login takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Unknown,
    /// It has asked for one.
    Needed,
    /// It has answered something else.
    Done,
}

/// What is with the commands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Decided,
    /// So many are not, and nobody knows yet what they come to.
    Undecided(usize),
}

impl Before {
    fn count(self) -> usize {
        match self {
            Self::Decided => 0,
            Self::Undecided(count) => count,
        }
    }
}

/// An admitted command, and what is known of how it goes.
#[derive(Debug)]
pub(super) struct Running {
    permit: Permit,
    pub(super) error: Option<Box<str>>,
}

impl Running {
    pub(super) fn new(permit: Permit) -> Self {
        Self {
            permit,
            error: None,
        }
    }

    pub(super) fn settle(self, outcome: Outcome) {
        self.permit.report(Completion {
            ended_at: clock::now(),
            outcome,
            answer: (outcome == Outcome::Answered)
                .then_some(Answer::Database(DatabaseAnswer { rows: None })),
            error: self.error,
        });
    }

    pub(super) fn ended(mut self, outcome: Outcome, why: &str) {
        self.error.get_or_insert_with(|| why.into());
        self.settle(outcome);
    }
}

/// A reply that the server owes.
#[derive(Debug)]
pub(super) struct Owed {
    pub(super) running: Option<Running>,
    pub(super) effect: Effect,
    /// What follows waits for it.
    pub(super) barrier: bool,
}

impl Owed {
    pub(super) fn new(running: Option<Running>, effect: Effect) -> Self {
        Self {
            running,
            effect,
            barrier: false,
        }
    }
}

/// What becomes of the rest of a command.
#[derive(Debug)]
pub(super) enum Tail {
    Pass,
    Drop(Option<Box<Poison>>),
}

/// One connection.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) scripts: Arc<Scripts>,
    pub(super) refusals: Refusals,
    dangerous: Dangerous,
    // The client.
    scan: request::Scan,
    pub(super) rest: Rest,
    pub(super) tail: Tail,
    pub(super) silence: Silence,
    pub(super) in_transaction: bool,
    /// Refused locally inside a transaction, which therefore must not happen.
    pub(super) spoilt: bool,
    /// A `SELECT` is queued: nobody knows where what follows goes.
    pub(super) elsewhere: bool,
    /// Keys are watched for a transaction to come.
    pub(super) watches: bool,
    pub(super) login: Login,
    /// What the client says next waits for it to be known.
    pub(super) held_back: bool,
    /// And the server is to be asked.
    pub(super) wants_login: bool,
    /// Nothing more is read of the client.
    pub(super) closing: bool,
    /// Replies that change how what follows is read.
    pub(super) barriers: usize,
    /// Local replies that no owed reply stands in front of.
    pub(super) due: VecDeque<(Bytes, Then)>,
    // The server.
    pub(super) owed: VecDeque<Owed>,
    /// The last of them is for a command whose rest is still to come.
    pub(super) owes_unfinished: bool,
    pub(super) queued: VecDeque<Owed>,
    pub(super) replies: reply::Scan,
    pub(super) unit: Unit,
    pub(super) said: Said,
    pub(super) resp3: bool,
    pub(super) multi: bool,
    pub(super) exec_left: Option<u64>,
    pub(super) subscribed: Subscribed,
    /// The connection ends when what is said so far has gone out.
    pub(super) ended: bool,
    /// The client has asked the server to end it.
    quits: bool,
    pub(super) database: Option<u32>,
    pub(super) user: Option<Box<str>>,
    pub(super) client_name: Option<Box<str>>,
    /// Where other servers are; `None`: nowhere.
    pub(super) route: Option<Route>,
    /// Commands that are held, of all connections.
    pub(super) waiting: Arc<Waiting>,
    /// What the server calls this connection.
    pub(super) id: Option<i64>,
    /// The client broke the protocol, and nobody has counted it.
    pub(super) broken: bool,
    /// Whether the server is a Sentinel.
    pub(super) of_sentinel: bool,
}

/// The command at the beginning of a buffer.
struct Seen<'a> {
    scan: &'a request::Scan,
    input: &'a [u8],
}

impl Arguments for Seen<'_> {
    fn argument(&self, index: usize) -> Option<&[u8]> {
        self.input.get(self.scan.argument(index)?)
    }

    fn count(&self) -> usize {
        self.scan.count()
    }

    fn seen(&self) -> usize {
        self.scan.seen()
    }
}

impl Conversation {
    pub(super) fn new(scripts: Arc<Scripts>, refusals: Refusals, dangerous: Dangerous) -> Self {
        Self {
            scripts,
            refusals,
            dangerous,
            scan: request::Scan::default(),
            rest: Rest::default(),
            tail: Tail::Pass,
            silence: Silence::None,
            in_transaction: false,
            spoilt: false,
            elsewhere: false,
            watches: false,
            login: Login::Unknown,
            held_back: false,
            wants_login: false,
            closing: false,
            barriers: 0,
            due: VecDeque::new(),
            owed: VecDeque::new(),
            owes_unfinished: false,
            queued: VecDeque::new(),
            replies: reply::Scan::default(),
            unit: Unit::default(),
            said: Said::default(),
            resp3: false,
            multi: false,
            exec_left: None,
            subscribed: Subscribed::default(),
            ended: false,
            quits: false,
            database: Some(0),
            user: None,
            client_name: None,
            route: None,
            waiting: Arc::default(),
            id: None,
            broken: false,
            of_sentinel: false,
        }
    }

    /// Whom commands claim to be of: a registered context.
    pub(super) fn claims(&self) -> Option<&str> {
        self.client_name.as_deref().or(self.user.as_deref())
    }

    /// The trace that commands claim to be of: that of a client whose name is
    /// a `traceparent`.
    pub(super) fn trace(&self) -> Option<TraceId> {
        trace_of(self.client_name.as_deref()?)
    }

    /// Whether the connection is over once everything has gone out.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.owed.is_empty() && self.between_replies() && self.rest.is_over()
    }

    /// Whether what the client says next waits for replies to what it said.
    pub(super) fn waits(&self) -> bool {
        self.is_behind() || self.held_back
    }

    fn is_behind(&self) -> bool {
        self.barriers > 0 || self.owed.len() >= OWED_MAX
    }

    /// Whether a transaction is open: while it waits, what it watches changes.
    pub(super) fn has_transaction(&self) -> bool {
        self.in_transaction || self.watches
    }

    /// Whether all that is waited for is what the server says of a login.
    pub(super) fn waits_for_login(&self) -> bool {
        let asked = matches!(self.owed.front(), Some(owed) if matches!(owed.effect, Effect::OwnId));
        self.held_back && asked
    }

    /// Whether the server owes an answer to a command that it may not know: one
    /// in place of a refused one, or a question of the relay.
    pub(super) fn asked_the_unknown(&self) -> bool {
        let mut all = self.owed.iter();
        !self.quits && all.any(|owed| matches!(owed.effect, Effect::Poisoned(_) | Effect::OwnId))
    }

    /// The refusal that a client waits for next, where something can be said.
    pub(super) fn next_refusal(&self) -> Option<Bytes> {
        match self.owed.front().map(|owed| &owed.effect) {
            Some(Effect::Poisoned(poison)) if self.between_replies() => Some(poison.error()),
            _ => None,
        }
    }

    /// Everything that is open ends with the connection to the server.
    pub(super) fn lost(&mut self) {
        let all = self.queued.drain(..).chain(self.owed.drain(..));
        for running in all.filter_map(|owed| owed.running) {
            running.ended(Outcome::Failed, "the server ended the connection");
        }
    }

    /// Deals with at most one command of the client.
    pub(super) fn client(&mut self, input: &mut BytesMut) -> Step {
        if self.closing {
            input.clear();
            return Step::More;
        }
        match self.next(input, Before::Decided) {
            Ok(step) => step,
            Err(wrong) => self.wrong(wrong, input),
        }
    }

    /// As [`Self::client`], while `undecided` commands before are not decided:
    /// only what is [`Step::Ask`]ed about, whatever becomes of those, and
    /// [`Ask::stands_alone`] itself. All else waits.
    pub(super) fn client_ahead(&mut self, input: &mut BytesMut, undecided: usize) -> Step {
        // What is wrong is said once they are decided.
        self.next(input, Before::Undecided(undecided))
            .unwrap_or(Step::More)
    }

    /// As a server does: what was asked before is answered, then this is said,
    /// and the connection ends.
    fn wrong(&mut self, wrong: RequestError, input: &mut BytesMut) -> Step {
        tracing::info!("a connection for Redis ends: {wrong}");
        input.clear();
        (self.closing, self.broken) = (true, true);
        self.give_up_unfinished();
        let last = match wrong == RequestError::NotRedis {
            true => Bytes::new(),
            false => refuse::line("ERR", &wrong.to_string()),
        };
        self.say(last, Then::End);
        Step::More
    }

    /// The server will never answer what it does not get whole.
    fn give_up_unfinished(&mut self) {
        if !std::mem::take(&mut self.owes_unfinished) || self.rest.is_over() {
            return;
        }
        if let Some(running) = self.owed.pop_back().and_then(|owed| owed.running) {
            running.ended(
                Outcome::Abandoned,
                "its client broke the protocol within it",
            );
        }
    }

    /// Says something in its turn.
    pub(super) fn say(&mut self, bytes: Bytes, then: Then) {
        if self.owed.is_empty() {
            self.due.push_back((bytes, then));
        } else {
            let effect = Effect::Local(bytes, then);
            self.owed.push_back(Owed::new(None, effect));
        }
    }

    fn next(&mut self, input: &mut BytesMut, before: Before) -> Result<Step, RequestError> {
        if !self.rest.is_over() {
            let now = self.rest.advance(input)?;
            if now == 0 {
                return Ok(Step::More);
            }
            let bytes = input.split_to(now).freeze();
            return Ok(match &mut self.tail {
                Tail::Pass => Step::Pass(bytes, Passage::RequestTail),
                Tail::Drop(poison) => match poison.take_if(|_| self.rest.is_over()) {
                    Some(poison) => Step::Instead(poison),
                    None => Step::Drop,
                },
            });
        }
        let under_way = self.owed.len().saturating_add(before.count());
        if self.is_behind() || under_way >= OWED_MAX {
            return Ok(Step::More);
        }
        let progress = self.scan.advance(input)?;
        self.held_back = match self.scan.before_login() {
            Some(wrong) if self.login != Login::Done => self.awaits_login(wrong, before)?,
            Some(_) | None => false,
        };
        if self.held_back {
            return Ok(Step::More);
        }
        match progress {
            Progress::Nothing(bytes) => {
                self.scan.clear();
                input.advance(bytes);
                Ok(Step::Drop)
            }
            // What is judged is what the server reads: it gets our reading.
            Progress::Inline(bytes, words) => {
                input.advance(bytes);
                let rest = input.split();
                input.unsplit(request::array(&words));
                input.unsplit(rest);
                Ok(Step::Drop)
            }
            Progress::Whole(bytes) => Ok(self.command(input, Some(bytes), before)),
            Progress::More if self.may_begin(input) => Ok(self.command(input, None, before)),
            Progress::More => Ok(Step::More),
        }
    }

    /// Whether a command that is longer than any login waits until it is known
    /// whether one is asked for: the reply to what was said before shows it,
    /// or the relay asks the server itself. `wrong` says what it is if so.
    fn awaits_login(&mut self, wrong: RequestError, before: Before) -> Result<bool, RequestError> {
        if self.login == Login::Needed && before == Before::Decided {
            return Err(wrong);
        }
        let under_way = self.owed.len().saturating_add(before.count());
        self.wants_login = under_way == 0 && self.may_ask();
        Ok(under_way > 0 || self.wants_login)
    }

    /// Whether a long command can be judged by its beginning.
    fn may_begin(&self, input: &[u8]) -> bool {
        let ends = self.scan.ends_at_least_at();
        if ends <= BEGINNING_BYTES_MAX || self.scan.seen() == 0 {
            return ends > SEARCHED_BYTES_MAX && self.scan.seen() == 0;
        }
        let seen = Seen {
            scan: &self.scan,
            input,
        };
        let name = seen.argument(0).unwrap_or_default();
        let row = commands::lookup(name, seen.argument(1));
        let keys = row.is_some_and(|row| {
            let container = row.contains && seen.seen() < 2;
            !container && row.keys(&seen).is_ok() && !is_text(&row.name)
        });
        keys || ends > SEARCHED_BYTES_MAX
    }

    /// Decides what becomes of the command, which is `whole` or long.
    fn command(&mut self, input: &mut BytesMut, whole: Option<usize>, before: Before) -> Step {
        let seen = Seen {
            scan: &self.scan,
            input,
        };
        let name = seen.argument(0).unwrap_or_default();
        let row = commands::lookup(name, seen.argument(1));
        let unlisted;
        let name = match row {
            Some(row) => &*row.name,
            // Some that a newer server has are known by name alone.
            None => {
                unlisted = two_words(&seen);
                &*unlisted
            }
        };
        // Its success is not answered: whether the server takes it is known only once
        // all before it is answered.
        if name == "CLIENT REPLY" && !self.owed.is_empty() {
            return Step::More;
        }
        let standing = Standing {
            dangerous: self.dangerous,
            in_transaction: self.in_transaction,
            silent: self.silence != Silence::None,
            answers_anything: self.login != Login::Needed && (self.resp3 || !self.subscribed.any()),
        };
        let mut treatment = treatment(name, &seen, standing);
        let under_way = self.queued.len().saturating_add(self.owed.len());
        if self.in_transaction && under_way.saturating_add(before.count()) >= QUEUED_MAX {
            treatment = Treatment::Refuse("too many commands in a transaction");
        }
        let effect = match treatment {
            Treatment::Refuse(_) => Effect::None,
            Treatment::Judge | Treatment::Pass(_) => Effect::of(name, &seen),
        };
        let stands_alone =
            treatment == Treatment::Judge && whole.is_some() && matches!(effect, Effect::None);
        if before != Before::Decided && !stands_alone {
            return Step::More;
        }
        let opaque = match self.database {
            Some(_) if !self.elsewhere => None,
            _ => Some("which database it is in is not known"),
        };
        let database = self.database.filter(|_| opaque.is_none());
        let described = match treatment {
            Treatment::Judge => {
                if let Some(text) = loaded(name, &seen) {
                    self.scripts.seen(text);
                }
                let known = Known {
                    row,
                    scripts: &self.scripts,
                    whole: whole.and_then(|bytes| input.get(..bytes)),
                    opaque,
                    traced: self.trace().is_some(),
                };
                Some(Described::of(&seen, known))
            }
            Treatment::Pass(_) | Treatment::Refuse(_) => None,
        };
        let quits = name == "QUIT";
        let fits = whole.map_or_else(Fits::default, |_| Fits::of(name, &seen));
        let bytes = match whole {
            Some(bytes) => {
                self.scan.clear();
                bytes
            }
            None => {
                let (rest, read) = self.scan.take_rest();
                (self.rest, self.tail) = (rest, Tail::Drop(None));
                read
            }
        };
        let bytes = input.split_to(bytes.min(input.len())).freeze();
        match (treatment, described) {
            (Treatment::Refuse(why), _) => Step::Refuse(why),
            (Treatment::Pass(passage), _) => {
                self.tail = Tail::Pass;
                self.quits |= quits;
                match self.spoilt_exec(&effect) {
                    Some(instead) => Step::Pass(instead, passage),
                    None => {
                        self.sent(None, effect);
                        Step::Pass(bytes, passage)
                    }
                }
            }
            (Treatment::Judge, Some(described)) => Step::Ask(Box::new(Ask {
                described,
                database,
                bytes,
                effect,
                fits,
                stands_alone,
            })),
            (Treatment::Judge, None) => Step::More,
        }
    }
}

/// Whether policy reads a text of it, so that all of it is waited for.
fn is_text(name: &str) -> bool {
    matches!(name, "EVAL" | "EVAL_RO" | "SCRIPT LOAD" | "FUNCTION LOAD")
}

/// The script that a command makes known to the server.
fn loaded<'a>(name: &str, seen: &'a Seen<'_>) -> Option<&'a [u8]> {
    match name {
        "EVAL" | "EVAL_RO" => seen.argument(1),
        "SCRIPT LOAD" => seen.argument(2),
        _ => None,
    }
}

/// The name of a command that no table has: `CLIENT SETINFO` of newer servers.
fn two_words(seen: &Seen<'_>) -> String {
    let text = |at| String::from_utf8_lossy(seen.argument(at).unwrap_or_default());
    let mut name = text(0).to_ascii_uppercase();
    if matches!(
        &*name,
        "CLIENT" | "SENTINEL" | "CLUSTER" | "COMMAND" | "MODULE"
    ) && seen.count() > 1
    {
        name.push(' ');
        name.push_str(&text(1).to_ascii_uppercase());
    }
    name
}
