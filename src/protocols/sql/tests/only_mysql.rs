//! Clauses that only MySQL and MariaDB have: what is called in them is seen.

use super::{Analysis, Class, Dialect, read};

/// Each of these is read as it says; all that is not is told of at once.
fn is(rows: &[(&str, &str)]) {
    let found = rows.iter().map(|row| (row, read(row.0, Dialect::MYSQL)));
    let wrong = found.filter(|((_, expected), found)| found != expected);
    let wrong: Vec<_> = wrong
        .map(|((text, expected), found)| format!("{text}\n  is   {expected}\n  read {found}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn my_10_what_is_called_behind_what_is_selected_from_is_seen() {
    is(&[
        (
            "SELECT STRAIGHT_JOIN load_file('/etc/passwd')",
            "admin SELECT load_file() server_file",
        ),
        (
            "SELECT STRAIGHT_JOIN x, y FROM a STRAIGHT_JOIN b, c",
            "read SELECT r:a r:b r:c",
        ),
        (
            "SELECT 1 FROM a UNION SELECT STRAIGHT_JOIN x, f() FROM (b STRAIGHT_JOIN c)",
            "read SELECT r:a r:b r:c f()",
        ),
        (
            "INSERT INTO t VALUE (load_file('/etc/passwd'))",
            "admin INSERT w:t load_file() server_file",
        ),
        (
            "REPLACE t(a) VALUE (sys_exec('id'))",
            "admin REPLACE w:t sys_exec()",
        ),
        (
            "REPLACE value(value) VALUE (1), (f())",
            "write REPLACE w:value f()",
        ),
        (
            "INSERT INTO a SELECT 1,2 FROM b ON DUPLICATE KEY UPDATE x=1, y=load_file('/etc/passwd')",
            "admin INSERT SELECT r:b w:a load_file() server_file",
        ),
        (
            "INSERT INTO a SELECT 1 FROM b JOIN c ON duplicate, d ON DUPLICATE KEY UPDATE x=1, y=2",
            "write INSERT SELECT r:b r:c r:d w:a",
        ),
        (
            "INSERT INTO scratch SELECT 1 FROM dual RETURNING load_file('/etc/passwd')",
            "admin INSERT SELECT r:dual w:scratch load_file() server_file",
        ),
        (
            "INSERT INTO pub SELECT s.x FROM b returning FORCE INDEX (PRIMARY), secret s",
            "write INSERT SELECT r:b r:secret w:pub",
        ),
        (
            "INSERT INTO pub SELECT s.x FROM b returning FORCE INDEX (PRIMARY) STRAIGHT_JOIN secret s",
            "write INSERT SELECT r:b r:secret w:pub",
        ),
        (
            "INSERT INTO a SELECT 1 FROM b RETURNING x, f(), (SELECT y FROM c)",
            "write INSERT SELECT r:b r:c w:a f()",
        ),
        // In MySQL, an alias.
        (
            "INSERT INTO a SELECT 1 FROM b returning, c",
            "write INSERT SELECT r:b r:c w:a",
        ),
        (
            "INSERT INTO a SELECT 1 FROM b returning STRAIGHT_JOIN c",
            "write INSERT SELECT r:b r:c w:a",
        ),
        (
            "INSERT INTO a SELECT 1 FROM b returning LEFT JOIN c ON f(), d",
            "write INSERT SELECT r:b r:c r:d w:a f()",
        ),
        (
            "SELECT rank() OVER w FROM t WINDOW w AS (ORDER BY sys_exec('id'))",
            "admin SELECT r:t rank() sys_exec()",
        ),
        (
            "SELECT rank() OVER w FROM t WINDOW v AS (PARTITION BY x), w AS (ORDER BY f())",
            "read SELECT r:t f() rank()",
        ),
        // In MariaDB, an alias.
        ("SELECT 1 FROM t window, u", "read SELECT r:t r:u"),
        (
            "SELECT x FROM t QUALIFY load_file('/etc/passwd')",
            "admin SELECT r:t load_file() server_file",
        ),
        (
            "SELECT x FROM t QUALIFY x IN (SELECT f(y) FROM u)",
            "read SELECT r:t r:u f()",
        ),
        (
            "SELECT x FROM t PARTITION (p0, p1) AS z, (SELECT 1) v (a, b), u JOIN w USING (x)",
            "read SELECT r:t r:u r:w",
        ),
        (
            "SELECT x FROM (SELECT 1) AS v (a, b), JSON_TABLE('[]', '$' COLUMNS (a INT PATH '$')) AS j, u",
            "read SELECT r:u COLUMNS() JSON_TABLE()",
        ),
        (
            "WITH v (a, b) AS (SELECT 1, f()) SELECT * FROM v, u",
            "read SELECT r:u f()",
        ),
        (
            "SELECT * FROM t PROCEDURE ANALYSE(f())",
            "read SELECT r:t ANALYSE() f()",
        ),
        (
            "SELECT * FROM t FOR SYSTEM_TIME AS OF f() AS z, u FOR SYSTEM_TIME ALL, v",
            "read SELECT r:t r:u r:v f()",
        ),
        (
            "SELECT * FROM (t FOR SYSTEM_TIME BETWEEN f() AND g() JOIN u) FOR UPDATE",
            "read SELECT r:t r:u f() g() for_update",
        ),
        ("UPDATE IGNORE a SET x = 1", "write UPDATE w:a no_where"),
        (
            "HANDLER t READ FIRST WHERE load_file('/etc/passwd') LIKE 'root%'",
            "admin HANDLER r:t load_file() server_file",
        ),
        ("HANDLER s.t OPEN AS u", "opaque HANDLER r:s.t"),
    ]);
}

#[test]
fn my_10_what_locks_and_what_selects_into_variables_is_known() {
    is(&[
        (
            "SELECT * FROM t LOCK IN SHARE MODE",
            "read SELECT r:t for_update",
        ),
        ("SELECT * FROM t FOR SHARE", "read SELECT r:t for_update"),
        (
            "INSERT INTO a SELECT * FROM t FOR UPDATE",
            "write INSERT SELECT r:t w:a for_update",
        ),
        (
            "INSERT INTO a SELECT * FROM t LOCK IN SHARE MODE ON DUPLICATE KEY UPDATE x = f()",
            "write INSERT SELECT r:t w:a f() for_update",
        ),
        ("SELECT a, b FROM t INTO @x, @y", "read SELECT r:t"),
        ("SELECT a, b INTO @x, @y FROM t, u", "read SELECT r:t r:u"),
    ]);
}

#[test]
fn my_10_sequences_of_mariadb_are_drawn_from() {
    is(&[
        ("SELECT (NEXT VALUE FOR s)", "write SELECT w:s"),
        ("DO NEXT VALUE FOR shop.s", "write DO w:shop.s"),
        ("SET @x = NEXT VALUE FOR s", "write SET w:s"),
        ("SELECT PREVIOUS VALUE FOR s", "read SELECT r:s"),
        (
            "SELECT nextval(s), lastval(s)",
            "write SELECT r:s w:s lastval() nextval()",
        ),
        (
            "INSERT INTO t VALUES (NEXT VALUE FOR s)",
            "write INSERT w:s w:t",
        ),
        (
            "SELECT next value FROM t FOR UPDATE",
            "read SELECT r:t for_update",
        ),
        ("SELECT next value FOR UPDATE", "read SELECT for_update"),
    ]);
}

#[test]
fn my_10_a_table_is_made_of_a_query_however_that_is_written() {
    is(&[
        (
            "CREATE TABLE n VALUES ROW(load_file('/etc/passwd'))",
            "admin CREATE SELECT s:n load_file() server_file",
        ),
        (
            "CREATE TABLE n TABLE secret",
            "schema CREATE SELECT r:secret s:n",
        ),
        (
            "CREATE TABLE n (a INT) IGNORE SELECT * FROM t",
            "schema CREATE SELECT r:t s:n",
        ),
        (
            "CREATE TABLE n (SELECT * FROM t)",
            "schema CREATE SELECT r:t s:n",
        ),
        (
            "CREATE TABLE n WITH c AS (SELECT * FROM t) SELECT * FROM c",
            "schema CREATE SELECT r:t s:n",
        ),
        (
            "CREATE TABLE t (a INT, b INT GENERATED ALWAYS AS (a+1) STORED)",
            "schema CREATE s:t",
        ),
        (
            "CREATE TABLE t (a INT AS (f(b)), c INT CHECK (c < g(a)), d INT DEFAULT (h()), e INT DEFAULT i(1) NOT NULL)",
            "schema CREATE s:t f() g() h() i()",
        ),
        (
            "CREATE TABLE t (a INT DEFAULT NEXT VALUE FOR s, b VARCHAR(10) DEFAULT 'x')",
            "schema CREATE s:t w:s",
        ),
        (
            "CREATE TABLE t (a INT AS (b)) AS SELECT x FROM u",
            "schema CREATE SELECT r:u s:t",
        ),
        (
            "CREATE TABLE t (a INT) WITH SYSTEM VERSIONING PARTITION BY RANGE (a) (PARTITION p VALUES LESS THAN (1))",
            "schema CREATE s:t",
        ),
    ]);
}

#[test]
fn my_10_what_a_table_is_changed_to_compute_is_read() {
    is(&[
        (
            "ALTER TABLE t ADD d INT DEFAULT NEXT VALUE FOR s",
            "schema ALTER s:t w:s",
        ),
        (
            "ALTER TABLE t ADD c INT AS (f(b)), ADD CHECK (g(a) > 0), ALTER COLUMN e SET DEFAULT (h())",
            "schema ALTER s:t f() g() h()",
        ),
        (
            "ALTER TABLE t ADD c INT DEFAULT 5 AFTER b, ADD CONSTRAINT k FOREIGN KEY (c) REFERENCES u (c) ON DELETE SET DEFAULT",
            "schema ALTER s:t",
        ),
        (
            "ALTER TABLE t ADD c TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP",
            "schema ALTER s:t",
        ),
        (
            "ALTER TABLE t DEFAULT CHARACTER SET = utf8mb4, CHECK PARTITION p",
            "schema ALTER s:t",
        ),
    ]);
}

#[test]
fn my_27_a_hint_that_sets_what_set_may_not_is_not_understood() {
    for (text, expected) in [
        (
            "DELETE /*+ SET_VAR(foreign_key_checks=OFF) */ FROM parent WHERE id=1",
            Class::Opaque,
        ),
        (
            "SELECT /*+ set_var ( TIMESTAMP = 1 ) */ now()",
            Class::Opaque,
        ),
        (
            "SELECT /*+ SET_VAR(foreign_k\u{e9}y_checks=OFF) */ 1",
            Class::Opaque,
        ),
        (
            "DELETE /*+ SET_VAR(sort_buffer_size=16M) */ FROM parent WHERE id=1",
            Class::Write,
        ),
        ("SELECT /*+ MAX_EXECUTION_TIME(1000) */ 1", Class::Read),
    ] {
        assert_eq!(
            Analysis::of(text, Dialect::MYSQL).class(),
            expected,
            "{text}"
        );
    }
}

#[test]
fn my_10_my_26_words_end_where_the_servers_end_them() {
    is(&[
        // A variable, whatever its name looks like.
        ("SELECT x,@1.as FROM secret", "read SELECT r:secret"),
        ("SELECT x,@1e1as FROM secret", "read SELECT r:secret"),
        ("SELECT x, @a. FROM secret", "read SELECT r:secret"),
        ("SELECT @.5as FROM secret", "read SELECT r:secret"),
        ("SELECT @$a.b_1,@@x.y FROM secret", "read SELECT r:secret"),
        (
            "SELECT 1, @a. INTO OUTFILE '/tmp/x'",
            "admin SELECT server_file",
        ),
        // Nor is it a literal that has come to nothing, or what one server alone knows.
        ("SELECT 5 1.e-- 1; DROP TABLE t", "opaque"),
        ("SELECT 5 .1e-- 1; DROP TABLE t", "opaque"),
        ("SELECT load_file 1.E('/etc/hostname')", "opaque"),
        ("SELECT 1.5e1, 1.e5, 1e5, .5e-1", "read SELECT"),
        ("SELECT x,\\NFROM secret", "opaque"),
        // A name directly behind a point, and one directly before it.
        ("SELECT red.2024(78)", "read SELECT red.2024()"),
        ("TRUNCATE red.2024", "write TRUNCATE w:red.2024 no_where"),
        (
            "SELECT q.1e1as INTO OUTFILE '/tmp/x' FROM (SELECT 1) q",
            "admin SELECT server_file",
        ),
        (
            "WITH q AS (SELECT 1) SELECT secret.x FROM t `limit` JOIN v ON limit.id=limit.id, secret",
            "read SELECT r:secret r:t r:v",
        ),
        (
            "UPDATE t `where` SET a=where.a+100",
            "write UPDATE w:t no_where",
        ),
        (
            "ALTER TABLE red.t DISCARD TABLESPACE",
            "admin ALTER s:red.t",
        ),
        // Names like any other.
        ("SELECT conflict(5)", "read SELECT conflict()"),
        (
            "SELECT similar(1), ilike(2), cube(3), sets(4)",
            "read SELECT cube() ilike() sets() similar()",
        ),
        (
            "INSERT INTO t SELECT a FROM (SELECT 1 a) returning (a), secret ON DUPLICATE KEY UPDATE id=id",
            "write INSERT SELECT r:secret w:t",
        ),
        ("SHOW COLUMNS FROM t FROM other", "opaque SHOW r:t"),
        ("SHOW INDEX FROM t IN other", "opaque SHOW r:t"),
        ("SHOW COLUMNS FROM t LIKE 'a'", "read SHOW r:t"),
        (
            "EXPLAIN ANALYZE FOR SCHEMA other SELECT * FROM t",
            "opaque EXPLAIN",
        ),
    ]);
}

/// What is walked over once is not begun again within.
#[test]
fn my_10_definitions_and_many_tables_are_read_in_time_in_proportion() {
    let row = "DEFAULT b ".repeat(20_000);
    let nested = "AS (".repeat(20_000);
    let names = vec!["a"; 20_000].join(",");
    for (text, expected) in [
        (format!("CREATE TABLE z (a int {row})"), Class::Schema),
        (format!("ALTER TABLE z ADD a int {row}"), Class::Schema),
        (format!("CREATE TABLE z (a int {nested}"), Class::Opaque),
        (format!("DELETE {names} FROM {names}"), Class::Opaque),
    ] {
        let class = Analysis::of(&text, Dialect::MYSQL).class();
        assert_eq!(class, expected, "{}", &text[..40]);
    }
    is(&[(
        "CREATE TABLE z (a int DEFAULT (f() + (g())) CHECK (h()), b int AS (i()))",
        "schema CREATE s:z f() g() h() i()",
    )]);
}
