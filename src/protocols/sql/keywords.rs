//! The words that decide what a statement does.

macro_rules! keywords {
    ($($variant:ident = $text:literal,)*) => {
        /// A word that some statement gives a meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Keyword {
            $($variant,)*
            /// Any other word.
            Other,
        }

        /// Longest of them, bytes.
        const BYTES_MAX: usize = 14;

        /// The keyword that `word` is, in whatever case.
        pub(super) fn keyword(word: &str) -> Keyword {
            let mut upper = [0_u8; BYTES_MAX];
            let Some(upper) = upper.get_mut(..word.len()) else {
                return Keyword::Other;
            };
            upper.copy_from_slice(word.as_bytes());
            upper.make_ascii_uppercase();
            $(const _: () = assert!($text.len() <= BYTES_MAX);)*
            match &*upper {
                $($text => Keyword::$variant,)*
                _ => Keyword::Other,
            }
        }
    };
}

keywords! {
        Abort = b"ABORT", All = b"ALL", Alter = b"ALTER", Analyse = b"ANALYSE", Analyze = b"ANALYZE",
        And = b"AND", Any = b"ANY", Array = b"ARRAY", As = b"AS", Authorization = b"AUTHORIZATION",
        Begin = b"BEGIN", Between = b"BETWEEN", By = b"BY", Call = b"CALL", Case = b"CASE",
        Cast = b"CAST", Checkpoint = b"CHECKPOINT", Close = b"CLOSE", Cluster = b"CLUSTER",
        Comment = b"COMMENT", Commit = b"COMMIT", Concurrently = b"CONCURRENTLY",
        Conflict = b"CONFLICT", Copy = b"COPY", Create = b"CREATE", Cube = b"CUBE",
        Deallocate = b"DEALLOCATE", Declare = b"DECLARE", Default = b"DEFAULT", Delayed = b"DELAYED",
        Delete = b"DELETE", Desc = b"DESC", Describe = b"DESCRIBE", Discard = b"DISCARD",
        Distinct = b"DISTINCT", Do = b"DO", Drop = b"DROP", Dumpfile = b"DUMPFILE", Else = b"ELSE",
        End = b"END", Escape = b"ESCAPE", Except = b"EXCEPT", Execute = b"EXECUTE",
        Exists = b"EXISTS", Explain = b"EXPLAIN", Fetch = b"FETCH", Filter = b"FILTER",
        For = b"FOR", Foreign = b"FOREIGN", From = b"FROM", Global = b"GLOBAL", Grant = b"GRANT",
        Group = b"GROUP", Having = b"HAVING", High = b"HIGH_PRIORITY", If = b"IF",
        Ignore = b"IGNORE", Ilike = b"ILIKE", Import = b"IMPORT", In = b"IN", Index = b"INDEX",
        Insert = b"INSERT", Intersect = b"INTERSECT", Into = b"INTO", Is = b"IS", Join = b"JOIN",
        Key = b"KEY", Kill = b"KILL", Lateral = b"LATERAL", Like = b"LIKE", Limit = b"LIMIT",
        Listen = b"LISTEN", Load = b"LOAD", Local = b"LOCAL", Lock = b"LOCK", Low = b"LOW_PRIORITY",
        Materialized = b"MATERIALIZED", Merge = b"MERGE", Minus = b"MINUS", Move = b"MOVE",
        No = b"NO", Not = b"NOT", Notify = b"NOTIFY", Offset = b"OFFSET", On = b"ON", Only = b"ONLY",
        Or = b"OR", Order = b"ORDER", Outfile = b"OUTFILE", Over = b"OVER", Password = b"PASSWORD",
        Prepare = b"PREPARE", Program = b"PROGRAM", Quick = b"QUICK", Reassign = b"REASSIGN",
        Recursive = b"RECURSIVE", Refresh = b"REFRESH", Reindex = b"REINDEX",
        Release = b"RELEASE", Repeatable = b"REPEATABLE", Replace = b"REPLACE", Reset = b"RESET",
        Returning = b"RETURNING", Revoke = b"REVOKE", Role = b"ROLE", Rollback = b"ROLLBACK",
        Rollup = b"ROLLUP", Row = b"ROW", Rows = b"ROWS", Savepoint = b"SAVEPOINT",
        Search = b"SEARCH", Cycle = b"CYCLE", Security = b"SECURITY", Select = b"SELECT",
        Session = b"SESSION", Set = b"SET", Sets = b"SETS", Share = b"SHARE", Show = b"SHOW",
        Similar = b"SIMILAR", Some = b"SOME", Start = b"START", Stdin = b"STDIN",
        Stdout = b"STDOUT", Straight = b"STRAIGHT_JOIN", Table = b"TABLE",
        Tablesample = b"TABLESAMPLE", Temp = b"TEMP", Temporary = b"TEMPORARY", Then = b"THEN",
        To = b"TO", Truncate = b"TRUNCATE", Union = b"UNION", Unlisten = b"UNLISTEN",
        Unlogged = b"UNLOGGED", Update = b"UPDATE", Use = b"USE", User = b"USER", Using = b"USING",
        Vacuum = b"VACUUM", Values = b"VALUES", Verbose = b"VERBOSE", View = b"VIEW",
        When = b"WHEN", Where = b"WHERE", Window = b"WINDOW", With = b"WITH", Within = b"WITHIN",
}

impl Keyword {
    /// The same for servers of MySQL, to which some of these are names like any other.
    pub(super) fn calls_nothing_of_mysql(self) -> bool {
        use Keyword as K;
        let is_name = matches!(
            self,
            K::Array
                | K::Conflict
                | K::Cube
                | K::Filter
                | K::Ilike
                | K::Lateral
                | K::Materialized
                | K::Only
                | K::Rollup
                | K::Sets
                | K::Similar
        );
        self.calls_nothing() && !is_name
    }

    /// Whether a parenthesis behind it opens anything but arguments of a function.
    pub(super) fn calls_nothing(self) -> bool {
        use Keyword as K;
        matches!(
            self,
            K::All
                | K::And
                | K::Any
                | K::Array
                | K::As
                | K::Between
                | K::By
                | K::Case
                | K::Cast
                | K::Conflict
                | K::Cube
                | K::Default
                | K::Distinct
                | K::Else
                | K::Except
                | K::Exists
                | K::Fetch
                | K::Filter
                | K::From
                | K::Group
                | K::Having
                | K::Ilike
                | K::In
                | K::Insert
                | K::Intersect
                | K::Into
                | K::Is
                | K::Join
                | K::Lateral
                | K::Like
                | K::Limit
                | K::Materialized
                | K::Not
                | K::Offset
                | K::On
                | K::Or
                | K::Over
                | K::Returning
                | K::Rollup
                | K::Row
                | K::Select
                | K::Set
                | K::Sets
                | K::Similar
                | K::Some
                | K::Then
                | K::To
                | K::Union
                | K::Using
                | K::Values
                | K::When
                | K::Where
                | K::Table
                | K::Order
                | K::Only
                | K::With
                | K::Update
        )
    }

    /// Whether it begins a query.
    pub(super) fn begins_query(self) -> bool {
        matches!(self, Self::Select | Self::With | Self::Values | Self::Table)
    }

    /// Whether it begins a statement that changes rows.
    pub(super) fn begins_change(self) -> bool {
        matches!(
            self,
            Self::Insert | Self::Update | Self::Delete | Self::Merge
        )
    }
}
