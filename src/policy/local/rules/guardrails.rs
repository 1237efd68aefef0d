//! Guardrails: what may not be said, in an activity's input or output or in
//! what an operation carries, and what stands in its place.
//!
//! Limits: 1 MiB of text and 10,000 values of one question, and the policy's
//! own deadline. What is longer is not half checked but refused. Patterns run
//! in time linear in the text; the deadline bounds how many matches are sought.

use std::borrow::Cow;
use std::ops::Range;

use regex::{Regex, RegexBuilder};
use serde_json::Value as Json;
use serde_norway::{Mapping, Value};

use super::detect::{Detector, Entity};
use crate::policy::local::yaml::{Reader, within};
use crate::policy::{Finding, Side};
use crate::process::cpu::Deadline;

/// Text that guardrails look at in one question, bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Values that guardrails look at in one question.
const VALUES_MAX: usize = 10_000;
/// Findings that one question keeps; more change nothing.
const FINDINGS_MAX: usize = 100;
/// Memory of one compiled pattern, bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Most words of one guardrail.
const WORDS_MAX: usize = 1_000;

/// One guardrail.
#[derive(Debug)]
pub(in crate::policy::local) struct Guardrail {
    name: Box<str>,
    side: Side,
    looks_for: LooksFor,
    then: Then,
    activities: Vec<Activity>,
    /// Families of operations whose payload is looked at.
    operations: Vec<Box<str>>,
}

#[derive(Debug)]
enum LooksFor {
    Pii(Vec<Detector>),
    Words(Regex),
    Pattern(Regex),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Block,
    Redact,
}

#[derive(Debug)]
struct Activity {
    /// The exact type; `*` is any.
    kind: Box<str>,
    /// What is looked at; empty: everything.
    fields: Vec<Vec<Box<str>>>,
}

/// What guardrails look at.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy::local) enum Matter<'a> {
    /// The input or output of an activity of this type.
    Activity(&'a str),
    /// The payload of an operation of this family.
    Operation(&'a str),
}

/// What guardrails made of it.
#[derive(Debug, Default)]
pub(in crate::policy::local) struct Looked {
    /// Whether any guardrail is about this at all.
    pub(in crate::policy::local) at_all: bool,
    /// Findings that block.
    pub(in crate::policy::local) blocking: Vec<Finding>,
    /// Findings that were replaced.
    pub(in crate::policy::local) replaced: Vec<Finding>,
}

/// Whether any guardrail looks at `side` of `matter`.
pub(in crate::policy::local) fn concerns(
    guardrails: &[Guardrail],
    side: Side,
    matter: Matter<'_>,
) -> bool {
    guardrails.iter().any(|g| g.fields(side, matter).is_some())
}

/// Looks at `value`, in the place of what is to be redacted leaving masks.
///
/// # Errors
/// It cannot be checked whole: too long, or not done by `until`.
pub(in crate::policy::local) fn look(
    guardrails: &[Guardrail],
    side: Side,
    matter: Matter<'_>,
    value: &mut Json,
    until: Deadline,
) -> Result<Looked, String> {
    let mut looked = Looked::default();
    for guardrail in guardrails {
        let Some(fields) = guardrail.fields(side, matter) else {
            continue;
        };
        looked.at_all = true;
        let root = match side {
            Side::Input => "input",
            Side::Output => "output",
        };
        let mut look = Look {
            guardrail,
            looked: &mut looked,
            until,
            bytes: 0,
            values: 0,
        };
        if fields.is_empty() {
            look.all(root, value)?;
        }
        for field in fields {
            look.path(root, field, value)?;
        }
    }
    Ok(looked)
}

impl Guardrail {
    /// What it looks at in `side` of `matter`; `None` if at nothing.
    fn fields(&self, side: Side, matter: Matter<'_>) -> Option<&[Vec<Box<str>>]> {
        if side != self.side {
            return None;
        }
        match matter {
            Matter::Activity(kind) => self
                .activities
                .iter()
                .find(|activity| &*activity.kind == "*" || &*activity.kind == kind)
                .map(|activity| &*activity.fields),
            Matter::Operation(family) => self
                .operations
                .iter()
                .any(|known| &**known == family)
                .then_some(&[]),
        }
    }

    fn kind(&self) -> &'static str {
        match self.looks_for {
            LooksFor::Pii(_) => "pii",
            LooksFor::Words(_) => "ban_words",
            LooksFor::Pattern(_) => "regex",
        }
    }
}

/// One guardrail looking at one value.
struct Look<'a> {
    guardrail: &'a Guardrail,
    looked: &'a mut Looked,
    until: Deadline,
    bytes: usize,
    values: usize,
}

impl Look<'_> {
    /// Follows `path` from `value`. A name looks into every element of a list:
    /// inputs are lists of arguments, and authors think of the arguments.
    fn path(&mut self, at: &str, path: &[Box<str>], value: &mut Json) -> Result<(), String> {
        let Some((step, rest)) = path.split_first() else {
            return self.all(at, value);
        };
        self.count()?;
        match value {
            Json::Array(items) => {
                let only: Option<usize> = step.parse().ok();
                for (index, item) in items.iter_mut().enumerate() {
                    let at = format!("{at}.{index}");
                    match (only, &**step) {
                        (Some(only), _) if only == index => self.path(&at, rest, item)?,
                        (Some(_), _) => {}
                        (None, "*") => self.path(&at, rest, item)?,
                        (None, _) => self.path(&at, path, item)?,
                    }
                }
                Ok(())
            }
            Json::Object(members) if &**step == "*" => members
                .iter_mut()
                .try_for_each(|(name, item)| self.path(&format!("{at}.{name}"), rest, item)),
            Json::Object(members) => match members.get_mut(&**step) {
                Some(item) => self.path(&format!("{at}.{step}"), rest, item),
                None => Ok(()),
            },
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(()),
        }
    }

    /// Everything from `value` down. Parsed JSON is at most 128 deep.
    fn all(&mut self, at: &str, value: &mut Json) -> Result<(), String> {
        self.count()?;
        let text = match value {
            Json::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.all(&format!("{at}.{index}"), item)?;
                }
                return Ok(());
            }
            Json::Object(members) => {
                for (name, item) in members.iter_mut() {
                    self.all(&format!("{at}.{name}"), item)?;
                }
                return Ok(());
            }
            Json::Null | Json::Bool(_) => return Ok(()),
            Json::Number(number) => Cow::Owned(number.to_string()),
            Json::String(text) => Cow::Borrowed(text.as_str()),
        };
        if let Some(masked) = self.text(at, &text)? {
            *value = Json::String(masked);
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), String> {
        self.values = self.values.saturating_add(1);
        if self.values > VALUES_MAX {
            return Err(format!("more than {VALUES_MAX} values to check"));
        }
        in_time(self.until)
    }

    /// `text` with masks, if any are to be in it.
    fn text(&mut self, at: &str, text: &str) -> Result<Option<String>, String> {
        self.bytes = self.bytes.saturating_add(text.len());
        if self.bytes > TEXT_BYTES_MAX {
            return Err(format!("more than {TEXT_BYTES_MAX} bytes to check"));
        }
        let then = self.guardrail.then;
        let mut masked: Option<String> = None;
        for (range_of, what, mask) in self.guardrail.searches() {
            let seen = masked.as_deref().unwrap_or(text);
            let ranges = range_of.find(seen, then, self.until)?;
            if ranges.is_empty() {
                continue;
            }
            let finding = Finding {
                kind: self.guardrail.kind().into(),
                field: at.chars().take(200).collect::<String>().into(),
                reason: format!("{}: {what} in {at}", self.guardrail.name)
                    .chars()
                    .take(300)
                    .collect::<String>()
                    .into(),
            };
            let findings = match then {
                Then::Block => &mut self.looked.blocking,
                Then::Redact => &mut self.looked.replaced,
            };
            if findings.len() < FINDINGS_MAX {
                findings.push(finding);
            }
            if then == Then::Redact {
                masked = Some(replaced(seen, &ranges, mask));
            }
        }
        Ok(masked)
    }
}

fn in_time(until: Deadline) -> Result<(), String> {
    if until.is_over() {
        return Err("guardrails took longer than `policy.evaluate_within`".to_owned());
    }
    Ok(())
}

fn replaced(text: &str, ranges: &[Range<usize>], mask: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for range in ranges {
        out.push_str(text.get(from..range.start).unwrap_or_default());
        out.push_str(mask);
        from = range.end;
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

/// One thing to search for.
enum Search<'a> {
    Entity(&'a Detector),
    Pattern(&'a Regex),
}

impl Search<'_> {
    fn find(&self, text: &str, then: Then, until: Deadline) -> Result<Vec<Range<usize>>, String> {
        match (self, then) {
            (Self::Entity(detector), _) => detector.find(text, &mut || in_time(until)),
            // One match decides.
            (Self::Pattern(pattern), Then::Block) => Ok(pattern
                .find(text)
                .map(|found| found.range())
                .into_iter()
                .collect()),
            (Self::Pattern(pattern), Then::Redact) => {
                let mut ranges = Vec::new();
                for found in pattern.find_iter(text).filter(|found| !found.is_empty()) {
                    in_time(until)?;
                    ranges.push(found.range());
                }
                Ok(ranges)
            }
        }
    }
}

impl Guardrail {
    /// What it searches for, in words, and the mask that replaces it.
    fn searches(&self) -> Vec<(Search<'_>, &'static str, &'static str)> {
        match &self.looks_for {
            LooksFor::Pii(detectors) => detectors
                .iter()
                .map(|detector| {
                    let (what, mask) = named(detector.entity);
                    (Search::Entity(detector), what, mask)
                })
                .collect(),
            LooksFor::Words(words) => {
                vec![(Search::Pattern(words), "a banned word", "<BANNED_WORD>")]
            }
            LooksFor::Pattern(pattern) => {
                vec![(
                    Search::Pattern(pattern),
                    "a forbidden pattern",
                    "<REDACTED>",
                )]
            }
        }
    }
}

fn named(entity: Entity) -> (&'static str, &'static str) {
    match entity {
        Entity::Email => ("an e-mail address", "<EMAIL_ADDRESS>"),
        Entity::Phone => ("a phone number", "<PHONE_NUMBER>"),
        Entity::Card => ("a card number", "<CREDIT_CARD>"),
        Entity::Iban => ("an IBAN", "<IBAN_CODE>"),
        Entity::UsSsn => ("a social security number", "<US_SSN>"),
        Entity::UkNino => ("a national insurance number", "<UK_NINO>"),
        Entity::EsNif => ("a Spanish NIF", "<ES_NIF>"),
        Entity::ItFiscalCode => ("an Italian fiscal code", "<IT_FISCAL_CODE>"),
    }
}

const KEYS: [&str; 10] = [
    "name",
    "type",
    "stage",
    "action",
    "activities",
    "operations",
    "entities",
    "words",
    "pattern",
    "match",
];
const OPERATIONS: [&str; 4] = [
    "http_request",
    "db_query",
    "file_operation",
    "function_call",
];

/// Reads the guardrail at `place`.
pub(super) fn read(reader: &mut Reader<'_>, place: &str, value: &Value) -> Option<Guardrail> {
    let map = reader.mapping(place, value, &KEYS)?;
    let name = reader.needed_text(place, map, "name");
    let looks_for = looks_for(reader, place, map);
    let side = word(
        reader,
        place,
        map,
        "stage",
        &[("input", Side::Input), ("output", Side::Output)],
    );
    let then = word(
        reader,
        place,
        map,
        "action",
        &[("block", Then::Block), ("redact", Then::Redact)],
    );
    let mut activities = Vec::new();
    for (index, value) in reader.list(place, map, "activities").iter().enumerate() {
        let place = format!("{}[{index}]", within(place, "activities"));
        activities.extend(activity(reader, &place, value, side));
    }
    let mut operations = Vec::new();
    for family in reader.texts(place, map, "operations") {
        if OPERATIONS.contains(&family) {
            operations.push(family.into());
        } else {
            reader.tell(
                &within(place, "operations"),
                &format!("{family:?} is no family of operations"),
                &OPERATIONS.join(", "),
                "operations: [http_request]",
            );
        }
    }
    if !map.contains_key("activities") && !map.contains_key("operations") {
        let expected = "`activities`, `operations` or both: what it looks at";
        let example = "activities: [{activity_type: send_email, fields_to_check: [input.*.body]}]";
        reader.missing(&within(place, "activities"), expected, example);
    }
    Some(Guardrail {
        name: name?.into(),
        side: side?,
        looks_for: looks_for?,
        then: then?,
        activities,
        operations,
    })
}

fn word<T: Copy>(
    reader: &mut Reader<'_>,
    place: &str,
    map: &Mapping,
    key: &str,
    words: &[(&str, T)],
) -> Option<T> {
    let found = reader.needed_text(place, map, key)?;
    let value = words.iter().find(|(word, _)| *word == found);
    if value.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let expected = known.join(" or ");
        let example = format!("{key}: {}", known.first().unwrap_or(&""));
        let what = format!("{found:?} is neither");
        reader.tell(&within(place, key), &what, &expected, &example);
    }
    value.map(|(_, value)| *value)
}

fn activity(
    reader: &mut Reader<'_>,
    place: &str,
    value: &Value,
    side: Option<Side>,
) -> Option<Activity> {
    let map = reader.mapping(place, value, &["activity_type", "fields_to_check"])?;
    let kind = reader.needed_text(place, map, "activity_type");
    let root = match side {
        Some(Side::Output) => "output",
        Some(Side::Input) | None => "input",
    };
    let mut fields = Vec::new();
    for path in reader.texts(place, map, "fields_to_check") {
        let mut steps = path.split('.');
        let first = steps.next();
        let steps: Vec<Box<str>> = steps.map(Into::into).collect();
        if first != Some(root) || steps.iter().any(|step| step.is_empty()) {
            reader.tell(
                &within(place, "fields_to_check"),
                &format!("{path:?} is no path of this stage"),
                &format!("{root}, or {root}. with names, numbers and * behind it"),
                &format!("fields_to_check: [{root}.*.body]"),
            );
        }
        fields.push(steps);
    }
    Some(Activity {
        kind: kind?.into(),
        fields,
    })
}

fn looks_for(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<LooksFor> {
    const TYPES: &str = "pii, ban_words or regex";
    let kind = reader.needed_text(place, map, "type")?;
    let own = match kind {
        "pii" => "entities",
        "ban_words" => "words",
        "regex" => "pattern",
        "content" | "nsfw" | "toxicity" => {
            reader.tell(
                &within(place, "type"),
                &format!(
                    "{kind:?} needs a service that judges language, and the embedded policy has none; \
                     use OpenBox Core for it"
                ),
                TYPES,
                "type: pii",
            );
            return None;
        }
        _ => {
            let what = format!("{kind:?} is no type of guardrail");
            reader.tell(&within(place, "type"), &what, TYPES, "type: pii");
            return None;
        }
    };
    for key in ["entities", "words", "pattern", "match"] {
        if map.contains_key(key) && key != own && !(key == "match" && own == "pattern") {
            let what = format!("`type: {kind}` has no {key}");
            reader.tell(
                &within(place, key),
                &what,
                &format!("only {own}"),
                "type: pii",
            );
        }
    }
    match own {
        "entities" => entities(reader, place, map).map(LooksFor::Pii),
        "words" => words(reader, place, map).map(LooksFor::Words),
        _ => pattern(reader, place, map).map(LooksFor::Pattern),
    }
}

/// Without any named, all of them.
fn entities(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<Vec<Detector>> {
    let named = reader.texts(place, map, "entities");
    for name in &named {
        if !Entity::ALL.iter().any(|entity| entity.as_str() == *name) {
            let known = Entity::ALL.map(Entity::as_str).join(", ");
            let what = format!("{name:?} cannot be recognised");
            let example = "entities: [EMAIL_ADDRESS]";
            reader.tell(&within(place, "entities"), &what, &known, example);
        }
    }
    Entity::ALL
        .into_iter()
        .filter(|entity| named.is_empty() || named.contains(&entity.as_str()))
        .map(Detector::new)
        .collect()
}

/// Whole words, in any case.
fn words(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<Regex> {
    let words = reader.texts(place, map, "words");
    if words.is_empty() || words.len() > WORDS_MAX {
        let expected = format!("1 to {WORDS_MAX} words");
        reader.missing(&within(place, "words"), &expected, "words: [classified]");
        return None;
    }
    let edge = |c: Option<char>| {
        if c.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            r"\b"
        } else {
            ""
        }
    };
    let any: Vec<String> = words
        .iter()
        .map(|word| {
            let word = word.trim();
            let (first, last) = (word.chars().next(), word.chars().last());
            format!("{}{}{}", edge(first), regex::escape(word), edge(last))
        })
        .collect();
    compiled(
        reader,
        &within(place, "words"),
        &format!("(?i){}", any.join("|")),
    )
}

fn pattern(reader: &mut Reader<'_>, place: &str, map: &Mapping) -> Option<Regex> {
    let text = reader.needed_text(place, map, "pattern")?;
    let full = match map.get("match") {
        None => false,
        Some(_) => word(
            reader,
            place,
            map,
            "match",
            &[("search", false), ("full", true)],
        )?,
    };
    let whole = if full {
        format!(r"\A(?:{text})\z")
    } else {
        text.to_owned()
    };
    let pattern = compiled(reader, &within(place, "pattern"), &whole)?;
    if pattern.is_match("") {
        reader.tell(
            &within(place, "pattern"),
            "it matches the empty text, and so everything",
            "a pattern that needs something to match",
            "pattern: 'AKIA[0-9A-Z]{16}'",
        );
        return None;
    }
    Some(pattern)
}

fn compiled(reader: &mut Reader<'_>, place: &str, pattern: &str) -> Option<Regex> {
    let built = RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .build();
    built
        .map_err(|error| {
            let what = format!("it cannot be used: {error}");
            let expected = format!("a regular expression within {PATTERN_BYTES_MAX} bytes");
            reader.tell(place, &what, &expected, "pattern: 'AKIA[0-9A-Z]{16}'");
        })
        .ok()
}
