//! What both sides can do: one set for both legs, so that nothing has to be
//! translated. What is not listed here is offered to nobody.

use std::ops::BitOr;

/// A set of them: those of MySQL in the lower half, those that MariaDB added in
/// the upper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities(pub(super) u64);

impl Capabilities {
    /// Clear in a greeting of MariaDB; then there are those of the upper half.
    pub(super) const LONG_PASSWORD: Self = Self(1);
    const FOUND_ROWS: Self = Self(1 << 1);
    const LONG_FLAG: Self = Self(1 << 2);
    pub(super) const CONNECT_WITH_DB: Self = Self(1 << 3);
    const NO_SCHEMA: Self = Self(1 << 4);
    pub(super) const COMPRESS: Self = Self(1 << 5);
    const ODBC: Self = Self(1 << 6);
    pub(super) const LOCAL_FILES: Self = Self(1 << 7);
    const IGNORE_SPACE: Self = Self(1 << 8);
    pub(super) const PROTOCOL_41: Self = Self(1 << 9);
    const INTERACTIVE: Self = Self(1 << 10);
    pub(super) const TLS: Self = Self(1 << 11);
    const IGNORE_SIGPIPE: Self = Self(1 << 12);
    const TRANSACTIONS: Self = Self(1 << 13);
    const RESERVED: Self = Self(1 << 14);
    pub(super) const SECURE_CONNECTION: Self = Self(1 << 15);
    const MULTI_STATEMENTS: Self = Self(1 << 16);
    const MULTI_RESULTS: Self = Self(1 << 17);
    const PS_MULTI_RESULTS: Self = Self(1 << 18);
    pub(super) const PLUGIN_AUTH: Self = Self(1 << 19);
    pub(super) const CONNECT_ATTRS: Self = Self(1 << 20);
    pub(super) const PLUGIN_AUTH_LENENC: Self = Self(1 << 21);
    const EXPIRED_PASSWORDS: Self = Self(1 << 22);
    pub(super) const SESSION_TRACK: Self = Self(1 << 23);
    pub(super) const DEPRECATE_EOF: Self = Self(1 << 24);
    pub(super) const ZSTD: Self = Self(1 << 26);
    pub(super) const QUERY_ATTRIBUTES: Self = Self(1 << 27);
    const FACTORS: Self = Self(1 << 28);
    const VERIFY_SERVER_CERT: Self = Self(1 << 30);
    const REMEMBER_OPTIONS: Self = Self(1 << 31);
    const BULK_OPERATIONS: Self = Self(1 << 34);
    const EXTENDED_METADATA: Self = Self(1 << 35);

    /// What clients say of themselves, whether or not a server offers it.
    const OF_CLIENTS: [Self; 13] = [
        Self::LONG_PASSWORD,
        Self::FOUND_ROWS,
        Self::LONG_FLAG,
        Self::CONNECT_WITH_DB,
        Self::NO_SCHEMA,
        Self::ODBC,
        Self::IGNORE_SPACE,
        Self::INTERACTIVE,
        Self::IGNORE_SIGPIPE,
        Self::TRANSACTIONS,
        Self::RESERVED,
        Self::VERIFY_SERVER_CERT,
        Self::REMEMBER_OPTIONS,
    ];

    /// What changes packets in a way that is understood here.
    const OF_SERVERS: [Self; 14] = [
        Self::PROTOCOL_41,
        Self::SECURE_CONNECTION,
        Self::MULTI_STATEMENTS,
        Self::MULTI_RESULTS,
        Self::PS_MULTI_RESULTS,
        Self::PLUGIN_AUTH,
        Self::CONNECT_ATTRS,
        Self::PLUGIN_AUTH_LENENC,
        Self::EXPIRED_PASSWORDS,
        Self::SESSION_TRACK,
        Self::DEPRECATE_EOF,
        Self::QUERY_ATTRIBUTES,
        Self::FACTORS,
        Self::BULK_OPERATIONS,
    ];

    fn all(of: &[Self]) -> Self {
        of.iter().fold(Self::default(), |all, one| all | *one)
    }

    /// Of what a server offers, what a client is offered.
    #[must_use]
    pub(super) fn offered(self, local_files: LocalFiles) -> Self {
        let mut mask =
            Self::all(&Self::OF_CLIENTS) | Self::all(&Self::OF_SERVERS) | Self::EXTENDED_METADATA;
        if local_files == LocalFiles::Judge {
            mask = mask | Self::LOCAL_FILES;
        }
        Self(self.0 & mask.0)
    }

    /// Of what a client takes, what holds on both legs, after it was offered
    /// `offered`.
    #[must_use]
    pub(super) fn agreed(self, offered: Self) -> Self {
        let own = Self::all(&Self::OF_CLIENTS);
        Self(self.0 & (offered.0 | own.0))
    }

    /// Whose server offers this.
    pub(super) fn flavour(self) -> Flavour {
        match self.has(Self::LONG_PASSWORD) {
            true => Flavour::Mysql,
            false => Flavour::Mariadb,
        }
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The lower half.
    pub(super) fn of_mysql(self) -> u32 {
        u32::try_from(self.0 & 0xffff_ffff).unwrap_or_default()
    }

    /// The upper half.
    pub(super) fn of_mariadb(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or_default()
    }

    pub(super) fn from_halves(mysql: u32, mariadb: u32) -> Self {
        Self(u64::from(mysql) | (u64::from(mariadb) << 32))
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Whose server it is, where they go by other names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flavour {
    Mariadb,
    Mysql,
}

/// Whether a server may ask a client for the contents of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalFiles {
    /// It may not.
    Refuse,
    /// `LOAD DATA LOCAL` is judged like any statement, and the file must be the
    /// one that it names.
    Judge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_set_for_both_legs_and_nothing_that_is_not_understood() {
        // As measured: MySQL 9.7, MariaDB 10.11 with what it added.
        let mysql = Capabilities(0xdfff_ffff);
        let mariadb = Capabilities::from_halves(0x81ff_f7fe, 0x1d);
        for (offer, cleared) in [(mysql, 0), (mariadb, 0)] {
            let offered = offer.offered(LocalFiles::Refuse);
            for (bit, what) in [
                (5, "compression"),
                (7, "local files"),
                (11, "TLS"),
                (25, "results without metadata"),
                (26, "zstd"),
                (29, "what is to come"),
                (32, "progress reports"),
                (33, "several commands in one"),
                (36, "cached metadata"),
                (37, "results of each row"),
            ] {
                assert_eq!(offered.0 & (1 << bit), cleared, "{what}");
            }
        }
        let judged = mysql.offered(LocalFiles::Judge);
        assert!(judged.has(Capabilities::LOCAL_FILES));
        assert!(
            mysql
                .offered(LocalFiles::Refuse)
                .has(Capabilities::QUERY_ATTRIBUTES)
        );
        let offered = mariadb.offered(LocalFiles::Refuse);
        assert_eq!(offered.of_mariadb(), 0b1100);
        // A client that takes what it was not offered does not have it.
        let agreed = Capabilities(u64::MAX).agreed(offered);
        assert!(!agreed.has(Capabilities::ZSTD) && !agreed.has(Capabilities::QUERY_ATTRIBUTES));
        assert!(agreed.has(Capabilities::LONG_PASSWORD));
    }
}
