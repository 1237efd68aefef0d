//! What stands in front of the text of a `COM_QUERY`, and behind the number of a
//! `COM_STMT_EXECUTE`, where both sides speak of attributes: parameters in binary, of which
//! names and texts are read.

use super::capability::Capabilities;
use super::wire::Cursor;

/// Most attributes of one query that are read.
const ATTRIBUTES_MAX: u64 = 1_024;
/// Most parameters of a statement, with its attributes: as many as it may have.
const PARAMETERS_MAX: u64 = 65_535;
/// Of the type of a number.
const UNSIGNED: u16 = 1 << 15;
/// Of an execution that says how many parameters it has.
const HAS_A_COUNT: u8 = 8;

/// The text of a query, and the value of the attribute `wanted` where that is a
/// text. `None` where nobody can say where the text begins.
pub(super) fn text_behind<'a>(
    body: &'a [u8],
    wanted: &[u8],
) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let mut at = Cursor::new(body);
    let count = at.integer().filter(|count| *count <= ATTRIBUTES_MAX)?;
    let sets = at.integer()?;
    if sets != 1 {
        return None;
    }
    if count == 0 {
        return Some((at.rest(), None));
    }
    let found = value_of(&mut at, count, wanted)?;
    Some((at.rest(), found))
}

/// The value of the attribute `wanted` of an execution, where that is a text among what
/// `body` has of it. None of its values may have been sent ahead: they are missing here.
pub(super) fn of_execution<'a>(body: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut at = Cursor::new(body);
    let _number = at.u32()?;
    at.u8().filter(|flags| flags & HAS_A_COUNT != 0)?;
    let _executions = at.u32()?;
    let count = at.integer().filter(|count| *count <= PARAMETERS_MAX)?;
    value_of(&mut at, count, wanted)?
}

/// The whole number that is the first parameter of an execution, of sides that have agreed on
/// `capabilities`; `None` where it is something else, or its type is that of an execution before.
pub(super) fn number_of_execution(body: &[u8], capabilities: Capabilities) -> Option<u32> {
    let names = capabilities.has(Capabilities::QUERY_ATTRIBUTES);
    let mut at = Cursor::new(body);
    let _number = at.u32()?;
    let flags = at.u8()?;
    let _executions = at.u32()?;
    let count = match names && flags & HAS_A_COUNT != 0 {
        true => at.integer().filter(|count| *count <= PARAMETERS_MAX)?,
        false => 1,
    };
    let nulls = at.take(usize::try_from(count.div_ceil(8)).ok()?)?;
    nulls.first().filter(|nulls| *nulls & 1 == 0)?;
    at.u8().filter(|types| *types == 1)?;
    let mut first = None;
    for _ in 0..count {
        let kind = at.u16()?;
        first.get_or_insert(kind);
        if names {
            at.counted()?;
        }
    }
    whole_number(&mut at, first?)
}

fn whole_number(at: &mut Cursor<'_>, kind: u16) -> Option<u32> {
    match kind & !UNSIGNED {
        0x01 => at.u8().map(u32::from),
        0x02 => at.u16().map(u32::from),
        0x03 => at.u32(),
        0x08 => u32::try_from(at.u64()?).ok(),
        // As drivers say numbers whose only kind that is.
        0x05 => f64::from_bits(at.u64()?).to_string().parse().ok(),
        0x0f | 0xf6 | 0xfd | 0xfe => {
            let text = std::str::from_utf8(at.counted()?).ok()?;
            text.parse().ok()
        }
        _ => None,
    }
}

/// Takes so many parameters: the last text of this name, where there is one. `None` where
/// nobody can say where they end.
fn value_of<'a>(at: &mut Cursor<'a>, count: u64, wanted: &[u8]) -> Option<Option<&'a [u8]>> {
    let nulls = at.take(usize::try_from(count.div_ceil(8)).ok()?)?;
    // Without their types they could not be told from what follows.
    at.u8().filter(|types| *types == 1)?;
    let mut types = Vec::new();
    for _ in 0..count {
        types.push((at.u16()?, at.counted()?));
    }
    let mut found = None;
    for (index, (kind, name)) in types.into_iter().enumerate() {
        let byte = nulls.get(index / 8)?;
        if byte & (1 << (index % 8)) != 0 {
            continue;
        }
        let value = value(at, kind)?;
        if name.eq_ignore_ascii_case(wanted) {
            found = value.or(found);
        }
    }
    Some(found)
}

/// Takes a value of the type `kind`; `Some(Some(…))` for a text.
fn value<'a>(at: &mut Cursor<'a>, kind: u16) -> Option<Option<&'a [u8]>> {
    // Of the types that the protocol does not send (NULL, MEDIUMINT, YEAR), servers and
    // their documents say different lengths.
    let fixed = match kind & !UNSIGNED {
        0x01 => 1,
        0x02 => 2,
        0x03 | 0x04 => 4,
        0x05 | 0x08 => 8,
        // Times, behind their length: a longer one would be the first byte of a length.
        0x07 | 0x0a | 0x0b | 0x0c => usize::from(at.u8().filter(|length| *length <= 12)?),
        0x00 | 0x0f | 0x10 | 0xf2 | 0xf5..=0xff => return at.counted().map(Some),
        _ => return None,
    };
    at.take(fixed).map(|_| None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_begins_behind_its_attributes_whatever_those_are() {
        let none = b"\0\x01SELECT 1";
        // A number that is NULL, a time, and a text.
        let three = b"\x03\x01\x01\x01\x08\x00\x01a\x0c\x00\x01b\xfe\x00\x0btraceparent\x04\x01\x02\x03\x04\x02xySELECT 2";
        let trace = Some(&b"xy"[..]);
        for (body, expected) in [
            (&none[..], Some((&b"SELECT 1"[..], None))),
            (three, Some((b"SELECT 2", trace))),
            (b"\x01\x01\x00\x00SELECT 3", None),
            (b"\x01\x02\x00\x01\xfe\x00\x00\x00SELECT 4", None),
            (b"\x01\x01\x00\x01\x77\x00\x01a\x00SELECT 5", None),
            (b"\x01\x01\x00\x01\xfe\x00\x01a\x7fSELECT 6", None),
            (b"\x01\x01\x00\x01\x0d\x00\x01a\x01\x02SELECT 7", None),
            (
                b"\x01\x01\x00\x01\x09\x00\x01a\x01\x02\x03\x04SELECT 8",
                None,
            ),
            (b"\x01\x01\x00\x01\x06\x00\x01aSELECT 9", None),
            (b"\x01\x01\x00\x01\x0c\x00\x01a\xfc\x00\x00SELECT 10", None),
            (b"\xfe", None),
            (b"", None),
        ] {
            assert_eq!(text_behind(body, b"traceparent"), expected, "{body:?}");
        }
    }

    #[test]
    fn my_18_a_whole_number_is_one_however_a_driver_says_it() {
        let plain = Capabilities::PROTOCOL_41;
        let named = Capabilities::QUERY_ATTRIBUTES;
        let of = |flags: u8, rest: &[u8]| [&[7, 0, 0, 0, flags, 1, 0, 0, 0], rest].concat();
        for (speaks, flags, rest, expected) in [
            (plain, 0, &b"\0\x01\x08\0\x05\0\0\0\0\0\0\0"[..], Some(5)),
            (plain, 0, b"\0\x01\x03\x80\x05\0\0\0", Some(5)),
            (plain, 0, b"\0\x01\x02\0\x05\x01", Some(261)),
            (plain, 0, b"\0\x01\x01\0\x05", Some(5)),
            (plain, 0, b"\0\x01\xfd\0\x0212", Some(12)),
            (plain, 0, b"\0\x01\xfd\0\x02x2", None),
            (plain, 0, b"\0\x01\x05\0\0\0\0\0\0\0\x14\x40", Some(5)),
            (plain, 0, b"\0\x01\x05\0\0\0\0\0\0\0\x16\x40", None),
            (plain, 0, b"\0\x01\x08\0\x05\0\0\0\x01\0\0\0", None),
            (plain, 0, b"\x01\x01\x03\0\x05\0\0\0", None),
            (plain, 0, b"\0\0\x05\0\0\0", None),
            (
                named,
                8,
                b"\x02\0\x01\x03\0\0\xfe\0\x01a\x05\0\0\0\x01b",
                Some(5),
            ),
            (named, 0, b"\0\x01\x03\0\0\x05\0\0\0", Some(5)),
            (named, 8, b"\0\0\x01", None),
        ] {
            let body = of(flags, rest);
            assert_eq!(number_of_execution(&body, speaks), expected, "{body:?}");
        }
    }

    #[test]
    fn an_execution_says_its_attributes_behind_the_values_of_its_statement() {
        // A number that is the statement's, one that is NULL, and a text.
        let three = b"\x07\0\0\0\x08\x01\0\0\0\x03\x02\x01\x03\x00\0\x06\x00\0\xfe\x00\x0btraceparent\x05\0\0\0\x02xy";
        let without_count = [&three[..4], b"\0", &three[5..]].concat();
        for (body, expected) in [
            (&three[..], Some(&b"xy"[..])),
            (&without_count, None),
            (&three[..three.len() - 1], None),
            // Types of an execution before it are not known here.
            (b"\x07\0\0\0\x08\x01\0\0\0\x01\0\0\x02xy", None),
            (b"\x07\0\0\0\x08\x01\0\0\0\xfd\xff\xff\xff\0", None),
            (b"\x07\0\0\0\x08\x01\0\0\0", None),
            (b"", None),
        ] {
            assert_eq!(of_execution(body, b"traceparent"), expected, "{body:?}");
        }
    }
}
