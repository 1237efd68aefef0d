//! Finding personal data in text: a pattern says where it may be, a checksum
//! or a range says whether it is. What is found is never repeated in words.

use std::ops::Range;

use regex::Regex;

/// A kind of personal data, by the name its mask has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entity {
    Email,
    Phone,
    Card,
    Iban,
    UsSsn,
    UkNino,
    EsNif,
    ItFiscalCode,
}

impl Entity {
    /// Those with checksums first: a card number must not pass for a phone's.
    pub(super) const ALL: [Self; 8] = [
        Self::Iban,
        Self::Card,
        Self::UsSsn,
        Self::UkNino,
        Self::EsNif,
        Self::ItFiscalCode,
        Self::Email,
        Self::Phone,
    ];

    /// The word of rules and masks.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Email => "EMAIL_ADDRESS",
            Self::Phone => "PHONE_NUMBER",
            Self::Card => "CREDIT_CARD",
            Self::Iban => "IBAN_CODE",
            Self::UsSsn => "US_SSN",
            Self::UkNino => "UK_NINO",
            Self::EsNif => "ES_NIF",
            Self::ItFiscalCode => "IT_FISCAL_CODE",
        }
    }

    /// Where it may be.
    fn pattern(self) -> &'static str {
        match self {
            Self::Email => {
                r"[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)*\.[A-Za-z]{2,24}"
            }
            Self::Phone => r"(?:\+|\(|\b)[0-9][0-9 ().\-/]{5,24}[0-9]\b",
            Self::Card => r"[0-9](?:[ \-]?[0-9]){12,}",
            Self::Iban => r"(?i)\b[A-Z]{2}[0-9]{2}(?:[ \-]?[A-Z0-9]){11,40}",
            Self::UsSsn => r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
            Self::UkNino => r"(?i)\b[A-CEGHJ-PR-TW-Z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]\b",
            Self::EsNif => r"(?i)\b[0-9]{8}-?[A-Z]\b",
            Self::ItFiscalCode => r"(?i)\b[A-Z]{6}[0-9]{2}[A-EHLMPRST][0-9]{2}[A-Z][0-9]{3}[A-Z]\b",
        }
    }

    /// Which parts of `found`, a match of the pattern, are it.
    fn within(self, found: &str) -> Vec<Range<usize>> {
        let whole = |is: bool| is.then_some(0..found.len()).into_iter().collect();
        match self {
            Self::Email | Self::UkNino | Self::ItFiscalCode => whole(true),
            Self::Phone => whole(is_phone(found)),
            Self::Card => longest(found, 13..=19, is_card),
            Self::Iban => longest(found, 15..=34, is_iban),
            Self::UsSsn => whole(is_ssn(found)),
            Self::EsNif => whole(is_nif(found)),
        }
    }
}

/// Finds one kind of personal data.
#[derive(Debug)]
pub(super) struct Detector {
    pub(super) entity: Entity,
    pattern: Regex,
}

impl Detector {
    /// `None`: the pattern does not compile, which a test rules out.
    pub(super) fn new(entity: Entity) -> Option<Self> {
        let pattern = Regex::new(entity.pattern()).ok()?;
        Some(Self { entity, pattern })
    }

    /// Where it is in `text`; `go_on` is asked between finds and may end it.
    pub(super) fn find(
        &self,
        text: &str,
        go_on: &mut impl FnMut() -> Result<(), String>,
    ) -> Result<Vec<Range<usize>>, String> {
        let mut all = Vec::new();
        for found in self.pattern.find_iter(text) {
            go_on()?;
            let at = found.start();
            for part in self.entity.within(found.as_str()) {
                all.push(at.saturating_add(part.start)..at.saturating_add(part.end));
            }
        }
        Ok(all)
    }
}

/// The longest runs of `lengths` characters, without what separates them, that
/// `is` holds for, from left to right and not overlapping. They begin and end
/// where a group does: a number beside another must not hide it.
fn longest(
    text: &str,
    lengths: std::ops::RangeInclusive<usize>,
    is: fn(&[u8]) -> bool,
) -> Vec<Range<usize>> {
    let marks: Vec<(usize, u8)> = text
        .bytes()
        .enumerate()
        .filter(|(_, byte)| byte.is_ascii_alphanumeric())
        .collect();
    let bytes: Vec<u8> = marks.iter().map(|(_, byte)| *byte).collect();
    let place = |index: usize| marks.get(index).map(|(at, _)| *at);
    // Whether a group begins at `index`, so that another ends before it.
    let begins = |index: usize| {
        let before = index.checked_sub(1).and_then(place);
        before.and_then(|at| at.checked_add(1)) != place(index) || before.is_none()
    };
    let mut all = Vec::new();
    let mut from = 0_usize;
    while from < bytes.len() {
        let hit = lengths.clone().rev().find(|length| {
            let to = from.saturating_add(*length);
            begins(from) && begins(to) && bytes.get(from..to).is_some_and(is)
        });
        let Some(length) = hit else {
            from = from.saturating_add(1);
            continue;
        };
        let to = from.saturating_add(length);
        if let (Some(start), Some(end)) = (place(from), place(to.saturating_sub(1))) {
            all.push(start..end.saturating_add(1));
        }
        from = to;
    }
    all
}

/// ISO/IEC 7812: a major industry digit in use, and the sum of Luhn.
fn is_card(digits: &[u8]) -> bool {
    if !matches!(digits.first(), Some(b'2'..=b'6')) {
        return false;
    }
    let mut sum = 0_u32;
    for (index, byte) in digits.iter().rev().enumerate() {
        let Some(digit) = char::from(*byte).to_digit(10) else {
            return false;
        };
        sum = sum.saturating_add(match (index % 2, digit) {
            (0, _) => digit,
            (_, 0..=4) => digit.saturating_mul(2),
            (_, _) => digit.saturating_mul(2).saturating_sub(9),
        });
    }
    sum.is_multiple_of(10)
}

/// ISO 13616: moved by four and read as a number, it is 1 modulo 97.
fn is_iban(text: &[u8]) -> bool {
    let head = text.iter().take(4);
    let starts = head
        .clone()
        .enumerate()
        .all(|(index, byte)| byte.is_ascii_alphabetic() == (index < 2));
    let mut rest = 0_u32;
    for byte in text.iter().skip(4).chain(head) {
        let Some(value) = char::from(*byte).to_digit(36) else {
            return false;
        };
        let shift = if value < 10 { 10 } else { 100 };
        rest = rest.saturating_mul(shift).saturating_add(value) % 97;
    }
    starts && rest == 1
}

/// Digits enough for a number of E.164, written like one: led by `+` or
/// divided, and not a date or an address of the internet.
fn is_phone(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let divided = text.bytes().any(|byte| !byte.is_ascii_digit());
    let groups = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|group| !group.is_empty());
    let longest = groups.clone().map(str::len).max().unwrap_or(0);
    let is_address = text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && longest <= 3;
    if text.starts_with('+') {
        return (8..=15).contains(&digits);
    }
    let first: Vec<usize> = groups.take(3).map(str::len).collect();
    let is_date = first == [4, 2, 2] || first == [2, 2, 4];
    (9..=15).contains(&digits) && divided && !is_address && !is_date
}

/// Numbers that were never given out are none.
fn is_ssn(text: &str) -> bool {
    let mut groups = text.split('-');
    let (area, group, serial) = (groups.next(), groups.next(), groups.next());
    let area_given =
        area.is_some_and(|area| area != "000" && area != "666" && !area.starts_with('9'));
    area_given && group != Some("00") && serial != Some("0000")
}

/// The letter is the number modulo 23.
fn is_nif(text: &str) -> bool {
    const LETTERS: &[u8; 23] = b"TRWAGMYFPDXBNJZSQVHLCKE";
    let number: String = text.chars().take(8).collect();
    let letter = text.bytes().last().map(|byte| byte.to_ascii_uppercase());
    number
        .parse::<usize>()
        .is_ok_and(|number| LETTERS.get(number % 23).copied() == letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(entity: Entity, text: &str) -> Vec<&str> {
        let detector = Detector::new(entity).unwrap();
        let ranges = detector.find(text, &mut || Ok(())).unwrap();
        ranges.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn personal_data_is_found_where_its_checksum_agrees() {
        #[rustfmt::skip]
        let table: &[(Entity, &str, &[&str])] = &[
            (Entity::Email, "to ann.o+x@mail.example.co.uk, please", &["ann.o+x@mail.example.co.uk"]),
            (Entity::Email, "@example and a@b", &[]),
            (Entity::Phone, "call +49 30 901820 or (212) 555-0187", &["+49 30 901820", "(212) 555-0187"]),
            (Entity::Phone, "on 2026-11-25 at 192.168.100.254 order 123456789", &[]),
            (Entity::Card, "4111 1111 1111 1111", &["4111 1111 1111 1111"]),
            (Entity::Card, "4111-1111-1111-1112", &[]),
            (Entity::Card, "no 12 4111111111111111 7", &["4111111111111111"]),
            (Entity::Card, "378282246310005", &["378282246310005"]),
            (Entity::Iban, "to DE89 3704 0044 0532 0130 00 NOW", &["DE89 3704 0044 0532 0130 00"]),
            (Entity::Iban, "GB82WEST12345698765432", &["GB82WEST12345698765432"]),
            (Entity::Iban, "gb82west12345698765432", &["gb82west12345698765432"]),
            (Entity::Iban, "DE88 3704 0044 0532 0130 00", &[]),
            (Entity::UsSsn, "123-45-6789 000-12-3456 987-65-4321", &["123-45-6789"]),
            (Entity::UkNino, "AB 12 34 56 C", &["AB 12 34 56 C"]),
            (Entity::UkNino, "QQ123456C", &[]),
            (Entity::EsNif, "12345678Z and 12345678A", &["12345678Z"]),
            (Entity::ItFiscalCode, "RSSMRA85T10A562S", &["RSSMRA85T10A562S"]),
        ];
        for (entity, text, expected) in table {
            assert_eq!(&found(*entity, text), expected, "{entity:?}: {text}");
        }
    }

    #[test]
    fn every_pattern_compiles_and_finds_nothing_in_nothing() {
        for entity in Entity::ALL {
            assert!(found(entity, "").is_empty(), "{entity:?}");
            assert!(
                found(entity, "the quick brown fox, 42").is_empty(),
                "{entity:?}"
            );
        }
    }
}
