//! Header fields as they are shown to policy: text, in wire order, already redacted.

/// Names and values in one allocation: every governed request has a set of
/// these at both stages, so a string each would be most of its allocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    text: String,
    /// End of each name and end of its value, offsets into `text`.
    ends: Vec<(u32, u32)>,
}

impl Headers {
    /// Room for `fields` fields of `bytes` bytes together.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            ends: Vec::with_capacity(fields),
        }
    }

    /// Appends a field. Fields beyond 4 GiB of text are left out.
    pub fn push(&mut self, name: &str, value: &str) {
        let name_end = self.text.len().saturating_add(name.len());
        let value_end = name_end.saturating_add(value.len());
        let (Ok(name_end), Ok(value_end)) = (u32::try_from(name_end), u32::try_from(value_end))
        else {
            return;
        };
        self.text.push_str(name);
        self.text.push_str(value);
        self.ends.push((name_end, value_end));
    }

    /// Fields in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut from = 0_usize;
        self.ends.iter().map_while(move |(name_end, value_end)| {
            let (name_end, value_end) = (
                usize::try_from(*name_end).ok()?,
                usize::try_from(*value_end).ok()?,
            );
            let field = (
                self.text.get(from..name_end)?,
                self.text.get(name_end..value_end)?,
            );
            from = value_end;
            Some(field)
        })
    }

    /// The last value under `name`, which is compared without regard to case.
    pub fn last(&self, name: &str) -> Option<&str> {
        self.iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .last()
            .map(|(_, value)| value)
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_went_in() {
        let fields = [
            ("Accept", "*/*"),
            ("x-empty", ""),
            ("Ä", "ö"),
            ("accept", "2"),
        ];
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.push(name, value);
        }
        assert_eq!(headers.iter().collect::<Vec<_>>(), fields);
        assert_eq!(headers.last("ACCEPT"), Some("2"));
    }
}
