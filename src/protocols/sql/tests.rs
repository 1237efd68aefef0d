//! Whole texts, by table: what each is, and what must never be milder.

mod only_mysql;

use super::analysis::{cut, pieces};
use super::words::Words;
use super::*;

/// One line: class, verbs, relations with their access, functions, flags.
fn read(text: &str, dialect: Dialect) -> String {
    let analysis = Analysis::of(text, dialect);
    let statements = analysis.statements.iter().map(line);
    statements.collect::<Vec<_>>().join("; ")
}

fn line(statement: &Statement) -> String {
    let mut words = vec![statement.class.as_str().to_owned()];
    words.extend(statement.verbs.iter().map(|verb| (*verb).to_owned()));
    let relations = statement.relations.iter().map(|relation| {
        let access = match relation.access {
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Schema => 's',
        };
        format!("{access}:{}", relation.name)
    });
    let mut relations: Vec<_> = relations.collect();
    relations.sort();
    words.append(&mut relations);
    words.extend(statement.functions.iter().map(|name| format!("{name}()")));
    let flags = statement.flags;
    for (flag, name) in [
        (flags.no_where, "no_where"),
        (flags.server_file, "server_file"),
        (flags.program, "program"),
        (flags.for_update, "for_update"),
        (flags.sets_role, "sets_role"),
        (flags.sets_path, "sets_path"),
    ] {
        words.extend(flag.then(|| name.to_owned()));
    }
    words.join(" ")
}

#[test]
fn c_1_a_statement_is_read_for_what_it_does() {
    for (text, expected) in [
        ("SELECT 1", "read SELECT"),
        (
            "select * from Orders o where o.id = $1",
            "read SELECT r:orders",
        ),
        (
            "SELECT * FROM ONLY a, ONLY (b), c AS x, LATERAL (SELECT * FROM d) y",
            "read SELECT r:a r:b r:c r:d",
        ),
        ("TABLE a", "read SELECT r:a"),
        (
            "(SELECT 1 FROM a) UNION ALL (TABLE b) ORDER BY 1",
            "read SELECT r:a r:b",
        ),
        (
            "SELECT * FROM a JOIN b USING (id) LEFT JOIN c ON c.x = CASE WHEN b.y THEN 1 END, d",
            "read SELECT r:a r:b r:c r:d",
        ),
        (
            "SELECT * FROM ((a JOIN b ON true) CROSS JOIN (SELECT * FROM c) z), d",
            "read SELECT r:a r:b r:c r:d",
        ),
        ("SELECT x IS DISTINCT FROM y FROM a", "read SELECT r:a"),
        ("SELECT DISTINCT FROM a", "read SELECT r:a"),
        (
            "SELECT extract(year FROM d), trim(both ' ' from e) FROM a",
            "read SELECT r:a extract() trim()",
        ),
        ("SELECT 1 AS from, 2 AS select FROM a", "read SELECT r:a"),
        ("SELECT t.from, t.table FROM t", "read SELECT r:t"),
        ("SELECT update, delete FROM a", "read SELECT r:a"),
        (
            "SELECT (SELECT max(x) FROM b), ARRAY(SELECT y FROM c) FROM a WHERE EXISTS (SELECT FROM d)",
            "read SELECT r:a r:b r:c r:d max()",
        ),
        (
            "SELECT * FROM generate_series(1, 3) AS g(n), s.f((SELECT x FROM a)) h(i int, j numeric(10,2))",
            "read SELECT r:a generate_series() s.f()",
        ),
        (
            "SELECT * FROM ROWS FROM (f(1), g((SELECT 1 FROM a))) WITH ORDINALITY, b",
            "read SELECT r:a r:b f() g()",
        ),
        (
            "SELECT * FROM a TABLESAMPLE system ((SELECT 1 FROM c)), b",
            "read SELECT r:a r:b r:c system()",
        ),
        (
            "SELECT x::numeric(10,2), cast(y AS varchar(3)) FROM a",
            "read SELECT r:a",
        ),
        (
            "SELECT * FROM a FOR NO KEY UPDATE OF a, b NOWAIT",
            "read SELECT r:a for_update",
        ),
        ("SELECT * INTO TEMP TABLE n FROM a", "schema SELECT r:a s:n"),
        (
            "WITH a AS (SELECT * FROM a), b AS (SELECT * FROM a) SELECT * FROM a, b, c",
            "read SELECT r:a r:c",
        ),
        (
            "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT * FROM a) SELECT * FROM a",
            "read SELECT",
        ),
        (
            "SELECT * FROM o, (WITH o AS (SELECT 1) SELECT * FROM o) x",
            "read SELECT r:o",
        ),
        (
            "SELECT * FROM (WITH o AS (SELECT 1) SELECT * FROM o) x, o",
            "read SELECT r:o",
        ),
        (
            "WITH d AS (DELETE FROM a RETURNING *) SELECT * FROM d",
            "write DELETE SELECT w:a no_where",
        ),
        (
            "WITH d AS MATERIALIZED (SELECT 1 FROM a) UPDATE b SET x = 1 FROM d, c WHERE true",
            "write SELECT UPDATE r:a r:c w:b",
        ),
        ("VALUES (1), ((SELECT 2 FROM a))", "read SELECT r:a"),
        (
            "INSERT INTO a VALUES (1, lower('X'))",
            "write INSERT w:a lower()",
        ),
        (
            "INSERT INTO a (x, y) SELECT x, y FROM b, c ON CONFLICT (x) DO UPDATE SET x = 1, y = 2 WHERE a.z",
            "write INSERT SELECT UPDATE r:b r:c w:a",
        ),
        (
            "INSERT INTO a AS t (values, x) OVERRIDING USER VALUE (SELECT 1 FROM b) RETURNING *",
            "write INSERT SELECT r:b w:a",
        ),
        ("INSERT INTO a TABLE b", "write INSERT SELECT r:b w:a"),
        (
            "INSERT INTO a WITH x AS (SELECT 1 FROM b) SELECT * FROM x UNION SELECT * FROM c",
            "write INSERT SELECT r:b r:c w:a",
        ),
        ("INSERT INTO a DEFAULT VALUES", "write INSERT w:a"),
        (
            "UPDATE a SET x = (SELECT y FROM b WHERE true)",
            "write UPDATE SELECT r:b w:a no_where",
        ),
        (
            "UPDATE ONLY (a) AS t SET (x, y) = (1, 2) FROM b, c WHERE t.id = 1",
            "write UPDATE r:b r:c w:a",
        ),
        (
            "DELETE FROM ONLY customers",
            "write DELETE w:customers no_where",
        ),
        (
            "DELETE FROM s.a USING b, c WHERE a.id = b.id RETURNING (SELECT 1 FROM d)",
            "write DELETE SELECT r:b r:c r:d w:s.a",
        ),
        (
            "MERGE INTO a USING b ON a.id = b.id WHEN MATCHED THEN UPDATE SET x = 1 WHEN NOT MATCHED THEN INSERT (id) VALUES (b.id) ",
            "write MERGE UPDATE INSERT r:b w:a",
        ),
        (
            "MERGE INTO a USING (SELECT * FROM c) b ON true WHEN MATCHED THEN DELETE",
            "write MERGE SELECT DELETE r:c w:a",
        ),
        ("COPY a FROM STDIN WITH (FORMAT csv)", "write COPY w:a"),
        ("COPY s.a (x, y) TO STDOUT", "read COPY r:s.a"),
        (
            "COPY (SELECT * FROM a) TO '/tmp/x'",
            "admin COPY SELECT r:a server_file",
        ),
        (
            "COPY (DELETE FROM a RETURNING *) TO STDOUT",
            "write COPY DELETE w:a no_where",
        ),
        ("COPY a FROM PROGRAM 'curl x'", "admin COPY w:a program"),
        ("EXPLAIN DELETE FROM a", "read EXPLAIN r:a"),
        (
            "EXPLAIN (ANALYZE, BUFFERS) DELETE FROM a",
            "write EXPLAIN DELETE w:a no_where",
        ),
        (
            "EXPLAIN ANALYZE VERBOSE SELECT f(1) FROM a",
            "read EXPLAIN SELECT r:a f()",
        ),
        (
            "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM a FOR UPDATE",
            "read DECLARE SELECT r:a for_update",
        ),
        (
            "PREPARE p (int) AS DELETE FROM a WHERE id = $1",
            "write PREPARE DELETE w:a",
        ),
        ("PREPARE TRANSACTION 'x'", "session PREPARE"),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "session BEGIN"),
        ("SET LOCAL statement_timeout = 5", "session SET"),
        ("SET SESSION AUTHORIZATION x", "admin SET sets_role"),
        ("SET ROLE postgres", "admin SET sets_role"),
        (
            "TRUNCATE TABLE ONLY a, s.b * CASCADE",
            "write TRUNCATE w:a w:s.b no_where",
        ),
        (
            "CREATE TABLE IF NOT EXISTS s.n (a int DEFAULT f())",
            "schema CREATE s:s.n",
        ),
        (
            "CREATE VIEW v AS SELECT * FROM a",
            "schema CREATE SELECT r:a s:v",
        ),
        ("CREATE TABLE n AS TABLE a", "schema CREATE SELECT r:a s:n"),
        ("DROP TABLE IF EXISTS a, b", "schema DROP s:a s:b"),
        (
            "REFRESH MATERIALIZED VIEW CONCURRENTLY s.v WITH NO DATA",
            "write REFRESH w:s.v",
        ),
        (
            "SELECT set('t'), (SELECT update(1)) FROM a",
            "read SELECT r:a set() update()",
        ),
        (
            "CREATE UNIQUE INDEX CONCURRENTLY i ON a (x)",
            "schema CREATE s:a",
        ),
        ("ALTER ROLE x PASSWORD 'y'", "admin ALTER"),
        ("GRANT ALL ON a TO b", "admin GRANT"),
        (
            "SELECT pg_read_file('/etc/passwd')",
            "admin SELECT pg_read_file() server_file",
        ),
        (
            "SELECT ('/etc/passwd'::text).pg_read_file",
            "admin SELECT pg_read_file() server_file",
        ),
        (
            "SELECT t.pg_read_file FROM lower('/etc/passwd') t",
            "admin SELECT lower() t.pg_read_file() server_file",
        ),
        ("SELECT nextval('s')", "write SELECT nextval()"),
        (
            "SELECT \"From\" FROM \"My\".\"Ta\"\"ble\"",
            "read SELECT r:My.Ta\"ble",
        ),
    ] {
        assert_eq!(read(text, Dialect::POSTGRES), expected, "{text}");
    }
}

#[test]
fn my_27_each_server_decides_about_each_comment_for_itself() {
    let read = |text: &str| Analysis::of(text, Dialect::MYSQL);
    // text                                                              class
    for (text, expected) in [
        (
            "/*!99999 -- */ /*!50000 DELETE FROM accounts */",
            Class::Write,
        ),
        (
            "SELECT 1 /*!99999 -- */ /*!50000 , load_file('/a') */",
            Class::Admin,
        ),
        (
            "/*!99999 EXPLAIN */ /*!50000 DELETE FROM secret */",
            Class::Write,
        ),
        ("/*M! # /* */ DELETE FROM a # */", Class::Write),
        ("/*!50000 # */ /*M!100100 \n DELETE FROM a */", Class::Write),
        ("/*!40101 SET NAMES utf8 */", Class::Session),
        (
            "/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TRIGGER t BEFORE INSERT ON u FOR EACH ROW SET @a = 1 */",
            Class::Admin,
        ),
        (
            "/*!10001 a*/ /*!10002 a*/ /*!10003 a*/ /*!10004 a*/ /*!10005 a*/ SELECT 1",
            Class::Opaque,
        ),
        ("/*!100100x*/ SELECT 1", Class::Opaque),
    ] {
        assert_eq!(read(text).class(), expected, "{text}");
    }
    let told = read("SELECT a /*!99999 -- */ /*!50000 FROM secret */");
    let names: Vec<_> = told
        .statements
        .iter()
        .flat_map(|one| &one.relations)
        .collect();
    assert!(names.iter().any(|one| &*one.name == "secret"), "{told:?}");
}

#[test]
fn my_26_numbers_and_operators_end_where_the_server_ends_them() {
    let read = |text: &str| Analysis::of(text, Dialect::MYSQL);
    for text in [
        "SELECT 1=`a`, load_file('/etc/passwd') AS `x+` FROM (SELECT 1 a) t",
        "SELECT pw FROM t WHERE 1=1e0INTO OUTFILE '/tmp/x'",
    ] {
        let read = read(text);
        assert!(
            read.class() == Class::Admin && read.flags().server_file,
            "{read:?}"
        );
    }
    for text in [
        "WITH x AS (SELECT 1) SELECT pw, 1e0FROM secret",
        "SELECT 1.FROM secret",
        "SELECT a<`b` FROM secret AS `+`",
    ] {
        let read = read(text);
        let names = &read.statements[0].relations;
        assert!(names.iter().any(|one| &*one.name == "secret"), "{read:?}");
    }
    for name in ["0X41", "0o17", "1_0", "0x1g"] {
        let read = read(&format!("SELECT a FROM {name}"));
        assert_eq!(&*read.statements[0].relations[0].name, name);
    }
    // Numbers are no part of a shape, and what stands behind them is.
    let known = Analyses::new(1 << 20);
    for text in [
        "SELECT a, 1e0FROM secret",
        "SELECT a, 1FROM secret",
        "SELECT a, 1 FROM secret",
    ] {
        assert_eq!(
            *known.of(text, Dialect::MYSQL),
            Analysis::of(text, Dialect::MYSQL),
            "{text}"
        );
    }
}

#[test]
fn what_reaches_out_of_a_database_of_mysql_is_more_than_schema() {
    for (text, class, program, file) in [
        ("DROP SCHEMA prod", Class::Admin, false, false),
        ("CREATE OR REPLACE SCHEMA prod", Class::Admin, false, false),
        (
            "CREATE TABLE schema_of (a int)",
            Class::Schema,
            false,
            false,
        ),
        (
            "CREATE FUNCTION sys_eval RETURNS STRING SONAME 'lib.so'",
            Class::Admin,
            true,
            false,
        ),
        ("IMPORT TABLE FROM 'a.sdi'", Class::Admin, false, true),
        (
            "CREATE TABLE t ENGINE=CONNECT TABLE_TYPE=CSV FILE_NAME='/etc/passwd'",
            Class::Admin,
            false,
            true,
        ),
        (
            "CREATE TABLE t (a int) DATA DIRECTORY='/tmp'",
            Class::Admin,
            false,
            true,
        ),
    ] {
        let read = Analysis::of(text, Dialect::MYSQL);
        let flags = read.flags();
        assert_eq!(
            (read.class(), flags.program, flags.server_file),
            (class, program, file),
            "{text}"
        );
    }
}

#[test]
fn c_7_passwords_of_replication_and_of_connections_are_shown_to_nobody() {
    for text in [
        "CHANGE MASTER TO MASTER_PASSWORD='s3cret'",
        "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD='s3cret'",
        "SELECT OLD_PASSWORD('s3cret')",
        "CREATE TABLE t (a int) ENGINE=FEDERATED CONNECTION='mysql://u:s3cret@h/d/t'",
        "PREPARE s FROM 'ALTER USER a IDENTIFIED BY \"s3cret\"'",
        "EXECUTE IMMEDIATE 'SET PASSWORD = \"s3cret\"'",
    ] {
        assert!(Analysis::of(text, Dialect::MYSQL).secret, "{text}");
    }
    for text in [
        "PREPARE s FROM 'SELECT 1'",
        "EXECUTE IMMEDIATE 'SELECT 1'",
        "SELECT 'password'",
    ] {
        assert!(!Analysis::of(text, Dialect::MYSQL).secret, "{text}");
    }
    // One of each is not taken for the other.
    let known = Analyses::new(1 << 20);
    assert!(!known.of("PREPARE s FROM 'SELECT 1'", Dialect::MYSQL).secret);
    assert!(
        known
            .of("PREPARE s FROM 'SET PASSWORD = 1'", Dialect::MYSQL)
            .secret
    );
}

#[test]
fn c_5_what_is_not_understood_is_opaque_and_says_why() {
    let deep = format!("SELECT {}1{}", "(".repeat(300), ")".repeat(300));
    let long = format!("SELECT {}", "x,".repeat(600_000));
    for text in [
        "EXECUTE p(1)",
        "DO $$ BEGIN DELETE FROM a; END $$",
        "CALL p()",
        "SELECT query_to_xml('DELETE FROM a', true, true, '')",
        "SELECT * FROM dblink('', 'DELETE FROM a') AS t(x int)",
        "SELECT 'a",
        "SELECT /* a",
        "SELECT $a$ b $c$",
        "SELECT 1 FROM",
        "SELECT (1",
        "SELECT 1)",
        "WITH a AS (SELECT 1)",
        "WITH a AS (SELECT 1) SEARCH DEPTH FIRST BY x, y SET z SELECT 1",
        "SELECT (WITH x AS (SELECT 1) DELETE FROM t RETURNING 1)",
        "FROB x",
        "SELECT * FROM U&\"\\0061\"",
        "UPDATE a SET x = 1 UNION SELECT 1",
        "SELECT 1 SELECT 2 FROM a",
        "EXPLAIN EXECUTE p",
        "INSERT INTO a SELECT 1 INTO b",
        "EXPLAIN EXPLAIN SELECT 1",
        "CREATE TABLE n AS EXECUTE p",
        &deep,
        &long,
    ] {
        let analysis = Analysis::of(text, Dialect::POSTGRES);
        let shown: String = text.chars().take(80).collect();
        assert_eq!(analysis.class(), Class::Opaque, "{shown}");
        let strictest = analysis.statements.iter().find_map(|one| one.opaque);
        assert!(strictest.is_some_and(|why| !why.is_empty()), "{shown}");
    }
}

#[test]
fn pg_21_pg_22_a_text_is_cut_where_its_server_cuts_it() {
    for (text, expected) in [
        ("", &[][..]),
        (" ; -- a\n /* b; */ ;", &[]),
        (
            "SELECT ';' ; DELETE FROM a;",
            &["SELECT ';'", "DELETE FROM a"],
        ),
        (
            "SELECT $$;$$, \";\" /* ; */ -- ;\n; SELECT 2",
            &["SELECT $$;$$, \";\"", "SELECT 2"],
        ),
    ] {
        let dialect = Dialect::POSTGRES;
        let words = &cut(text, dialect).unwrap();
        let found: Vec<_> = pieces(Words {
            text,
            words,
            dialect,
        })
        .map(|piece| piece.words)
        .map(|words| &text[words[0].token.start..words[words.len() - 1].token.end])
        .collect();
        assert_eq!(found, expected, "{text}");
        assert_eq!(Analysis::of(text, dialect).statements.len(), found.len());
    }
    let many = Analysis::of(&"SELECT 1;".repeat(300), Dialect::POSTGRES);
    assert_eq!(many.class(), Class::Opaque);
    let mixed = Analysis::of(
        "SELECT 1; DROP TABLE a; UPDATE b SET x = 1",
        Dialect::POSTGRES,
    );
    assert_eq!((mixed.class(), mixed.verb()), (Class::Schema, "DROP"));
    assert!(mixed.flags().no_where);
}

#[test]
fn my_10_my_27_mysql_is_read_by_its_own_rules() {
    for (text, expected) in [
        ("SELECT * FROM `a``b` WHERE x = \"y\"", "read SELECT r:a`b"),
        ("REPLACE INTO a SET x = 1", "write REPLACE w:a"),
        (
            "DELETE LOW_PRIORITY FROM a WHERE id = 1 LIMIT 1",
            "write DELETE w:a",
        ),
        (
            "SELECT * FROM a INTO OUTFILE '/tmp/x'",
            "admin SELECT r:a server_file",
        ),
        (
            "SELECT load_file('/etc/passwd')",
            "admin SELECT load_file() server_file",
        ),
        // A comment that some execute: what either of them does.
        ("/*!50000 DELETE FROM a */", "write DELETE w:a no_where"),
        ("/*M! DELETE FROM a */", "write DELETE w:a no_where"),
        (
            "SELECT 1 /*!99999 ' */ ; DROP TABLE x; -- '*/",
            "read SELECT; schema DROP s:x",
        ),
        ("/*!40101 SET NAMES utf8 */", "session SET"),
        ("LOAD DATA LOCAL INFILE 'x' INTO TABLE a", "write LOAD w:a"),
        (
            "LOAD DATA INFILE 'x' INTO TABLE a SET b = load_file('y')",
            "admin LOAD w:a load_file() server_file",
        ),
        ("BEGIN WORK", "session BEGIN"),
        // As MariaDB's own test files showed them.
        (
            "CREATE OR REPLACE SEQUENCE s START WITH 1",
            "schema CREATE s:s",
        ),
        ("DROP SEQUENCE IF EXISTS a, b", "schema DROP s:a s:b"),
        ("CREATE TABLE sequence (a int)", "schema CREATE s:sequence"),
        (
            "CREATE OR REPLACE ALGORITHM = MERGE DEFINER = 'a'@'b' SQL SECURITY INVOKER VIEW v AS SELECT * FROM t",
            "schema CREATE SELECT r:t s:v",
        ),
        (
            "CREATE TABLE m (a int) ENGINE=MERGE UNION=(a, s.b) INSERT_METHOD=LAST",
            "schema CREATE s:m w:a w:s.b",
        ),
        (
            "CREATE TABLE m AS SELECT * FROM a UNION (SELECT * FROM b)",
            "schema CREATE SELECT r:a r:b s:m",
        ),
        ("ALTER TABLE m UNION (a)", "schema ALTER s:m w:a"),
        (
            "SET STATEMENT a = (1), sql_log_bin = 0 FOR INSERT INTO a VALUES (1)",
            "admin SET INSERT w:a",
        ),
        ("START SLAVE", "admin START"),
        ("START TRANSACTION READ ONLY", "session START"),
        ("SET @a = (SELECT b FROM c)", "read SET SELECT r:c"),
        ("SET NAMES utf8mb4, sql_mode = ''", "session SET"),
        ("SET a = 1, GLOBAL b = 2", "admin SET"),
        ("SET @@session.sql_log_bin = 0", "admin SET"),
        ("SET PASSWORD = 'x'", "admin SET"),
        (
            "SET STATEMENT max_statement_time = 1 FOR DELETE FROM a",
            "write SET DELETE w:a no_where",
        ),
        ("DESC a", "read DESCRIBE r:a"),
        ("EXPLAIN FORMAT=JSON DELETE FROM a", "read EXPLAIN r:a"),
        (
            "EXPLAIN ANALYZE DELETE FROM a",
            "write EXPLAIN DELETE w:a no_where",
        ),
        (
            "ANALYZE FORMAT=JSON DELETE FROM a",
            "write ANALYZE DELETE w:a no_where",
        ),
        ("ANALYZE TABLE a, b", "write ANALYZE w:a w:b"),
        ("LOCK TABLES a AS x READ, b WRITE", "write LOCK w:a w:b"),
        ("RENAME TABLE a TO b", "schema RENAME s:a s:b"),
        ("SHOW COLUMNS FROM a", "read SHOW r:a"),
        ("SHOW FULL TABLES FROM `a`", "read SHOW"),
        (
            "SHOW TABLES WHERE 1 = (SELECT b FROM c)",
            "read SHOW SELECT r:c",
        ),
        ("FLUSH TABLES", "admin FLUSH"),
        ("DO sleep(1)", "read DO sleep()"),
        ("HANDLER a OPEN", "read HANDLER r:a"),
        (
            "CREATE TABLE a SELECT load_file('x')",
            "admin CREATE SELECT s:a load_file() server_file",
        ),
        ("SELECT 1 # ; x", "read SELECT"),
        (
            "SELECT offset FROM a JOIN b ON offset, c",
            "read SELECT r:a r:b r:c",
        ),
    ] {
        assert_eq!(read(text, Dialect::MYSQL), expected, "{text}");
    }
    for text in [
        "SELECT /*+ BKA(`*/`) */ 1; DROP TABLE x; -- `",
        "BEGIN NOT ATOMIC DELETE FROM a; END",
        "EXECUTE IMMEDIATE 'DELETE FROM a'",
        "SET STATEMENT a = 1 FOR SET STATEMENT b = 2 FOR DELETE FROM a",
        "CALL p()",
    ] {
        assert_eq!(
            Analysis::of(text, Dialect::MYSQL).class(),
            Class::Opaque,
            "{text}"
        );
    }
}

#[test]
fn my_9_changes_of_several_tables_name_those_that_are_changed() {
    for (text, expected) in [
        ("UPDATE a SET x = 1, y = 2", "write UPDATE w:a no_where"),
        ("UPDATE a AS z SET z.x = 1 WHERE true", "write UPDATE w:a"),
        (
            "UPDATE LOW_PRIORITY IGNORE a USE INDEX (i) SET x = f(1) WHERE y LIMIT 1",
            "write UPDATE w:a f()",
        ),
        (
            "UPDATE a, s.b SET a.x = b.x, y = (SELECT z FROM c) WHERE true",
            "write UPDATE SELECT r:a r:c r:s.b w:a w:s.b",
        ),
        (
            "UPDATE a AS x LEFT JOIN (b AS y CROSS JOIN c) USING (id) SET x.i = 1, y.i = 2",
            "write UPDATE r:a r:b r:c w:a w:b w:c no_where",
        ),
        (
            "UPDATE (a) JOIN b ON a.x = (SELECT y FROM c, d) SET b.x = 1 WHERE true",
            "write UPDATE SELECT r:a r:b r:c r:d w:a w:b",
        ),
        (
            "UPDATE (SELECT x FROM b, c) AS z JOIN a ON true SET a.x = z.x WHERE true",
            "write UPDATE SELECT r:b r:c w:a",
        ),
        (
            "WITH z AS (SELECT * FROM b) UPDATE a, z SET a.x = z.x WHERE true",
            "write SELECT UPDATE r:b w:a",
        ),
        (
            "DELETE QUICK FROM a PARTITION (p, q) WHERE x = 1",
            "write DELETE w:a",
        ),
        (
            "DELETE a FROM a JOIN b ON true WHERE true",
            "write DELETE r:a r:b w:a",
        ),
        (
            "DELETE x, s.b.* FROM a AS x, s.b STRAIGHT_JOIN (c z, d) WHERE x.i IN (SELECT i FROM e)",
            "write DELETE SELECT r:a r:c r:d r:e r:s.b w:a w:s.b",
        ),
        (
            "DELETE FROM a, b.* USING a x JOIN b JOIN c",
            "write DELETE r:a r:b r:c w:a w:b no_where",
        ),
        // Which of the two it is, is said by neither server in all cases.
        (
            "DELETE x FROM a AS X JOIN x AS b WHERE true",
            "write DELETE r:a r:x w:a w:x",
        ),
        (
            "DELETE b FROM a JOIN (SELECT * FROM c) AS y JOIN b WHERE true",
            "write DELETE SELECT r:a r:b r:c w:b",
        ),
        // Words of clauses in hints for indexes end nothing.
        (
            "UPDATE a FORCE INDEX FOR ORDER BY (i), secret SET secret.x = 1",
            "write UPDATE r:a r:secret w:a w:secret no_where",
        ),
        (
            "UPDATE a AS z use key for group by (PRIMARY, `i`) IGNORE INDEX FOR JOIN (j), secret SET secret.x = 1",
            "write UPDATE r:a r:secret w:a w:secret no_where",
        ),
        (
            "DELETE a FROM a IGNORE KEY FOR ORDER BY (i), secret WHERE true",
            "write DELETE r:a r:secret w:a",
        ),
        (
            "INSERT INTO mine SELECT secret.* FROM a USE INDEX FOR ORDER BY (i), FORCE INDEX FOR GROUP BY (), secret",
            "write INSERT SELECT r:a r:secret w:mine",
        ),
        (
            "WITH c AS (SELECT 1) SELECT * FROM (a FORCE KEY FOR JOIN (i), b USE INDEX FOR ORDER BY (j), d) JOIN secret USE INDEX (i) ORDER BY 1",
            "read SELECT r:a r:b r:d r:secret",
        ),
        // A word that is an alias here.
        (
            "INSERT INTO mine WITH c AS (SELECT 1) SELECT secret.* FROM a do, secret",
            "write INSERT SELECT r:a r:secret w:mine",
        ),
        // An alias behind partitions.
        (
            "DELETE x FROM a PARTITION (p) AS x WHERE true",
            "write DELETE r:a w:a",
        ),
        (
            "DELETE x FROM secret PARTITION (p0) AS x JOIN other.x ON true WHERE true",
            "write DELETE r:other.x r:secret w:other.x w:secret",
        ),
        (
            "DELETE x FROM secret PARTITION (p0, p1) x, other.x WHERE true",
            "write DELETE r:other.x r:secret w:other.x w:secret",
        ),
        // Words that name tables here.
        ("UPDATE only o SET x = 1 WHERE true", "write UPDATE w:only"),
        ("DELETE FROM quick q WHERE true", "write DELETE w:quick"),
        (
            "UPDATE quick q SET x = 1 WHERE true",
            "write UPDATE w:quick",
        ),
        (
            "SELECT * FROM only o, lateral l",
            "read SELECT r:lateral r:only",
        ),
    ] {
        assert_eq!(read(text, Dialect::MYSQL), expected, "{text}");
    }
    for text in [
        "DELETE y FROM a AS x WHERE true",
        // The second reader takes the alias for a table.
        "DELETE FROM x USING a AS x WHERE true",
        "DELETE HISTORY FROM a",
        "DELETE y FROM a JOIN (SELECT * FROM c) AS y WHERE true",
        "DELETE x FROM secret PARTITION (p0, (p1)) AS x JOIN other.x WHERE true",
        "DELETE x FROM secret FOR SYSTEM_TIME ALL AS x JOIN other.x WHERE true",
        "DELETE x FROM secret 'x' JOIN other.x WHERE true",
        // Which letters are the same is for a server to say.
        "DELETE a FROM secret AS \u{e1} JOIN other.a WHERE true",
        "DELETE k FROM \u{212a} JOIN other.k WHERE true",
        "DELETE a FROM a, b AS \u{e1} WHERE true",
        "UPDATE a FORCE INDEX FOR ORDER (i), secret SET secret.x = 1",
        "UPDATE a FORCE INDEX FOR JOIN, secret SET secret.x = 1",
        "UPDATE a FORCE INDEX (i, (SELECT 1)), secret SET secret.x = 1",
        "UPDATE a JOIN b ON true FORCE INDEX FOR ORDER BY (i), secret SET secret.x = 1",
        "DELETE a FROM",
        "DELETE a,",
        "UPDATE a JOIN",
        "UPDATE SET x = 1",
    ] {
        let class = Analysis::of(text, Dialect::MYSQL).class();
        assert_eq!(class, Class::Opaque, "{text}");
    }
}

#[test]
fn c_7_texts_of_one_shape_have_one_digest_and_no_literals() {
    let shape = "INSERT INTO a VALUES (?) RETURNING ?";
    let texts = [
        "INSERT INTO a VALUES (1, 'x') RETURNING 1",
        "INSERT  INTO a /* c */ VALUES ($1,2), (3 , E'\\''),\n(5,$$x$$) RETURNING 9 -- end",
    ];
    for text in texts {
        let analysis = Analysis::of(text, Dialect::POSTGRES);
        assert_eq!(&*analysis.redacted, shape, "{text}");
        assert_eq!(
            analysis.digest,
            Analysis::of(texts[0], Dialect::POSTGRES).digest
        );
    }
    let other = Analysis::of(
        "INSERT INTO b VALUES (1, 'x') RETURNING 1",
        Dialect::POSTGRES,
    );
    assert_ne!(
        other.digest,
        Analysis::of(texts[0], Dialect::POSTGRES).digest
    );
    for (text, secret) in [
        ("ALTER ROLE a PASSWORD 'x'", true),
        (
            "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'x')",
            true,
        ),
        ("SELECT 'a", true),
        ("SELECT 'password'", false),
    ] {
        assert_eq!(
            Analysis::of(text, Dialect::POSTGRES).secret,
            secret,
            "{text}"
        );
    }
}

/// Nothing that this finds may be milder than what the same text is as a part
/// of a longer one.
#[test]
fn a_longer_text_is_never_milder_than_its_parts() {
    let parts = [
        "SELECT 1",
        "DELETE FROM a",
        "DROP TABLE a",
        "SET ROLE x",
        "EXECUTE p",
        "BEGIN",
        "SELECT * FROM a WHERE x = 'a;b'",
        "SELECT ('x'::text).pg_read_file",
    ];
    let class = |text: &str| Analysis::of(text, Dialect::POSTGRES).class();
    for first in parts {
        for second in parts {
            let both = format!("{first} /* ' */ ;\n{second}");
            assert_eq!(class(&both), class(first).max(class(second)), "{both}");
        }
    }
}

#[test]
fn reading_ends_whatever_the_text_and_takes_time_in_proportion() {
    let pieces = [
        "SELECT", "FROM", "(", ")", ",", "WITH", "a", "AS", "INSERT", "INTO", "UPDATE", "SET",
        "DELETE", "WHERE", "JOIN", "ON", "UNION", ".", "'x'", "VALUES", "ONLY", "MERGE", "USING",
        "COPY", "TO", "EXPLAIN", "PREPARE", "TABLE", "ROWS", "FOR", "\"b\"", "$1", ";", "=",
    ];
    let mut seed = 11_u64;
    for _ in 0..20_000 {
        let mut text = String::new();
        for _ in 0..16 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text += pieces[(seed >> 33) as usize % pieces.len()];
            text.push(' ');
        }
        for dialect in [Dialect::POSTGRES, Dialect::MYSQL] {
            let analysis = Analysis::of(&text, dialect);
            for one in &analysis.statements {
                let opaque = one.class == Class::Opaque;
                assert_eq!(opaque, one.opaque.is_some(), "{text}");
            }
        }
    }
    for piece in ["(", "a.", "SELECT ", "/*", "CASE ", "NOT ", "a AND ", "- "] {
        let long = format!("SELECT {}", piece.repeat(100_000));
        let began = tokio::time::Instant::now();
        drop(Analysis::of(&long, Dialect::POSTGRES));
        assert!(
            began.elapsed().as_secs() < 20,
            "{piece}: {:?}",
            began.elapsed()
        );
    }
}

#[test]
fn pg_28_pg_29_explaining_executes_where_it_analyses_and_roles_are_no_settings() {
    for (text, class, verbs) in [
        ("EXPLAIN DELETE FROM t", Class::Read, vec!["EXPLAIN"]),
        (
            "EXPLAIN ANALYZE DELETE FROM t",
            Class::Write,
            vec!["EXPLAIN", "DELETE"],
        ),
        (
            "EXPLAIN (ANALYZE) DELETE FROM t",
            Class::Write,
            vec!["EXPLAIN", "DELETE"],
        ),
        ("EXPLAIN (COSTS off) SELECT 1", Class::Read, vec!["EXPLAIN"]),
        (
            "EXPLAIN ANALYZE CREATE TABLE n AS SELECT 1",
            Class::Schema,
            vec!["EXPLAIN", "CREATE", "SELECT"],
        ),
        ("SET ROLE admin", Class::Admin, vec!["SET"]),
        ("SET LOCAL role = 'admin'", Class::Admin, vec!["SET"]),
        ("SET SESSION AUTHORIZATION admin", Class::Admin, vec!["SET"]),
        ("RESET SESSION AUTHORIZATION", Class::Admin, vec!["RESET"]),
        ("SET search_path = other", Class::Session, vec!["SET"]),
    ] {
        let analysis = Analysis::of(text, Dialect::POSTGRES);
        assert_eq!(analysis.class(), class, "{text}");
        assert_eq!(analysis.statements[0].verbs, verbs, "{text}");
    }
    // A name without its schema is told as it is written, and says so: which one it
    // means depends on `search_path`. A point within quotes resolves nothing.
    let text = "SELECT * FROM a, s.b, \"s.c\"";
    let analysis = Analysis::of(text, Dialect::POSTGRES);
    let names = analysis.statements[0].relations.iter();
    let names: Vec<_> = names.map(|one| (&*one.name, one.resolved)).collect();
    assert_eq!(names, [("a", false), ("s.b", true), ("s.c", false)]);
    let told: serde_json::Value = serde_json::from_str(&analysis.told.0).unwrap();
    let resolved = |at: usize| told["relations"][at]["resolved"].clone();
    assert_eq!([resolved(0), resolved(1)], [false, true]);
    assert_eq!(told.get("earlier"), None);
    for (text, flags) in [
        ("SET search_path = x", "sets_path"),
        ("RESET search_path", "sets_path"),
        ("SET LOCAL \"search_path\" TO x", "sets_path"),
        ("SET SCHEMA 'x'", "sets_path"),
        ("RESET ALL", "sets_path"),
        ("SET role = x", "sets_role"),
        ("RESET ROLE", "sets_role"),
        ("SET LOCAL SESSION AUTHORIZATION x", "sets_role"),
        (
            "SELECT pg_catalog.set_config('role', 'x', true)",
            "sets_role sets_path",
        ),
        ("SET statement_timeout = 1", ""),
    ] {
        let line = read(text, Dialect::POSTGRES);
        let set = line.find("sets").map_or("", |at| &line[at..]);
        assert_eq!(set, flags, "{text}");
    }
}

/// The server cuts names longer than it knows, so a longer one is another way to
/// write the same.
#[test]
fn pg_25_a_name_longer_than_the_server_knows_is_the_name_it_is_cut_to() {
    let known = "é".repeat(31);
    for more in ["", "x", "xyz", "é"] {
        let text = format!("DELETE FROM \"{known}{more}\"");
        let cut = if more.starts_with('x') { "x" } else { "" };
        let expected = format!("write DELETE w:{known}{cut} no_where");
        assert_eq!(read(&text, Dialect::POSTGRES), expected);
    }
    let text = format!("SELECT 1 FROM {}", "A".repeat(70));
    let expected = format!("read SELECT r:{}", "a".repeat(63));
    assert_eq!(read(&text, Dialect::POSTGRES), expected);
}
