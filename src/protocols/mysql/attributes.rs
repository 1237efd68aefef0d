//! What stands in front of the text of a `COM_QUERY` where both sides speak of
//! attributes: parameters in binary, of which names and texts are read.

use super::wire::Cursor;

/// Most attributes of one query that are read.
const ATTRIBUTES_MAX: u64 = 1_024;

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
    let nulls = at.take(usize::try_from(count.div_ceil(8)).ok()?)?;
    // Without their types they could not be told from the text.
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
        let value = value(&mut at, kind)?;
        if name.eq_ignore_ascii_case(wanted) {
            found = value.or(found);
        }
    }
    Some((at.rest(), found))
}

/// Takes a value of the type `kind`; `Some(Some(…))` for a text.
fn value<'a>(at: &mut Cursor<'a>, kind: u16) -> Option<Option<&'a [u8]>> {
    const UNSIGNED: u16 = 1 << 15;
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
}
