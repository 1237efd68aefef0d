//! Oracle's MySQL, where it is there; `scripts/test.sh` says where it is not.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::clients::{mysql_async_in, node_in, python_in, sysbench_in};
use crate::support::free_port;
use crate::support::mysql::{Client, Server, execute, oracle};
use crate::support::sidecar::{Setup, Sidecar};
use crate::{POLICY, World};

#[test]
fn my_9_my_10_my_13_my_18_c_3_oracle_mysql_is_governed_as_mariadb_is() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    let world = World::before(server, "", |setup| setup);
    let mut client = world.client();
    client.rows("START TRANSACTION");
    client.rows("INSERT INTO t VALUES (1, 'a')");
    let text = client.refusal("DELETE FROM forbidden");
    assert!(text.contains("#42000blocked by policy: the test says block"));
    client.refusal("INSERT INTO t VALUES (9, 'z'); DELETE FROM forbidden; SELECT 1");
    client.rows("COMMIT");
    assert_eq!(world.ids(), "1");
    let answer = client.query("INSERT INTO t VALUES (2, 'b'); SELECT 7; DO 0; SELECT 8");
    assert_eq!(answer.len(), 1 + 5 + 1 + 5, "{answer:?}");
    prepared(&mut client);
    for hidden in [
        "/*!50000 DELETE FROM forbidden */",
        "/*!90700 DELETE FROM forbidden */",
        "PREPARE s FROM 'DELETE FROM forbidden'",
        "/*!99999 -- */ /*!50000 DELETE FROM forbidden */",
        "/*M! # /* */ DELETE FROM forbidden # */",
    ] {
        client.refusal(hidden);
    }
    assert_eq!(world.ids(), "1,2,3");
    held(&world, &mut client);
    nothing_prepared(&world);
    client.rows("USE mysql");
    assert!(client.refusal("SELECT 'WHICH_DATABASE'").contains("mysql"));
}

fn prepared(client: &mut Client) {
    let forbidden = client.prepare("DELETE FROM forbidden");
    let insert = client.prepare("INSERT INTO t VALUES (3, 'c')");
    assert_eq!(client.command(&execute(forbidden))[0].error().0, 1227);
    assert_eq!(client.command(&execute(insert))[0].body[0], 0);
    let (_, text) = client.command(&execute(4_711))[0].error();
    assert!(text.contains("prepared out of sight"), "{text}");
}

/// Where somebody may not change a setting of an old name, the server prepares nothing
/// and says that all is well.
fn nothing_prepared(world: &World) {
    world
        .server
        .ask("CREATE USER nobody@'%'; GRANT LOCK TABLES ON shop.* TO nobody@'%'");
    let mut client = Client::connect_as(world.port, "nobody");
    let set = "SET GLOBAL slave_type_conversions = 'ALL_NON_LOSSY'";
    client.send(0, format!("\x16{set}").as_bytes());
    let answer = client.next().unwrap();
    assert_eq!((answer.body[0], answer.body.len()), (0, 7), "{answer:?}");
    assert_eq!(client.rows("SELECT 1"), ["1"]);
}

fn held(world: &World, client: &mut Client) {
    client.send(0, b"\x03INSERT INTO held VALUES (1)");
    let approval = world.sidecar.pending_approval();
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "0");
    world.sidecar.approve(&approval);
    assert_eq!(client.answer()[0].body[0], 0);
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "1");
    let id = client.rows("SELECT connection_id()").remove(0);
    client.send(0, b"\x03INSERT INTO held VALUES (2)");
    world.sidecar.pending_approval();
    world.client().query(&format!("KILL QUERY {id}"));
    assert_eq!(client.answer()[0].error().0, 1317);
    assert_eq!(world.server.ask("SELECT count(*) FROM shop.held"), "1");
}

#[test]
fn drivers_are_governed_before_oracle_mysql_as_before_mariadb() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    // Neither leg has TLS: the whole password passes as the server's key hides it.
    let world = World::before(server, "?ssl-mode=DISABLED", |setup| setup);
    let alter = "ALTER USER bob@'%' IDENTIFIED BY 'secret'";
    world.server.ask(alter);
    python_in(&world, "pymysql");
    // In clear it proves itself only to a server that knows it.
    python_in(&world, "connector");
    for client in ["aiomysql", "sqlalchemy"] {
        world.server.ask(alter);
        python_in(&world, client);
    }
    world.server.ask(&format!("{alter}; DELETE FROM shop.t"));
    node_in(&world);
    world.server.ask(&format!("{alter}; DELETE FROM shop.t"));
    python_in(&world, "mysqlclient");
    world.server.ask(alter);
    mysql_async_in(&world);
}

#[test]
fn sysbench_sees_no_errors_before_oracle_mysql() {
    if let Some(server) = Server::start_oracle(&[]) {
        sysbench_in(&World::before(server, "?ssl-mode=DISABLED", |setup| setup));
    }
}

#[test]
fn my_6_my_16_a_change_of_user_says_no_password_where_a_login_would_not() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    let world = World::before(server, "?ssl-mode=REQUIRED", |setup| setup);
    let mut client = world.client();
    let change = |plugin: &str| format!("\x11bob\0\x01\0mysql\0\x2d\0{plugin}\0");
    client.send(0, change("caching_sha2_password").as_bytes());
    let answer = client.next().unwrap();
    // Without a password there is nothing to ask for, or the server asks anew.
    if answer.body[0] == 0xfe {
        client.send(2, b"\0");
        assert_eq!(client.next().unwrap().body[0], 0);
    } else {
        assert_eq!(answer.body[0], 0, "{answer:?}");
    }
    client.send(0, change("sha256_password").as_bytes());
    let (code, text) = client.next().unwrap().error();
    assert!(code == 1227 && text.contains("sha256_password"), "{text}");
    assert_eq!(client.next(), None);
}

/// Where agents reach a server, and what is between the sidecar and that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// The agent's leg may have TLS, the server's has.
    Tls,
    /// The server's has none.
    Clear,
    /// A path, and TLS to the server.
    Path,
    /// A path, and no TLS to the server.
    PathClear,
    /// Nothing is said of the server's leg.
    Unsaid,
    /// The same by a path.
    PathUnsaid,
    /// TLS to the server is said to be preferred.
    Preferred,
}

/// One server behind each kind of legs.
struct Legs {
    server: Server,
    sidecar: Sidecar,
    folder: tempfile::TempDir,
    ports: [u16; 4],
}

impl Legs {
    fn before(server: Server, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = [free_port(), free_port(), free_port(), free_port()];
        let at = |name: &str| folder.path().join(name).display().to_string();
        let mut setup = Setup::new()
            .policy(POLICY)
            .config(&format!("mysql:\n  agent_tls: offer\n{config}"));
        for (listen, mode) in [
            (format!("127.0.0.1:{}", ports[0]), "?ssl-mode=REQUIRED"),
            (format!("127.0.0.1:{}", ports[1]), "?ssl-mode=DISABLED"),
            (at("tls"), "?ssl-mode=REQUIRED"),
            (at("clear"), "?ssl-mode=DISABLED"),
            (format!("127.0.0.1:{}", ports[2]), ""),
            (at("unsaid"), ""),
            (format!("127.0.0.1:{}", ports[3]), "?ssl-mode=PREFERRED"),
        ] {
            let url = format!("{listen}=mysql://localhost:{}{mode}", server.port);
            setup = setup.flag("--mysql", &url);
        }
        Self {
            sidecar: setup.start(),
            server,
            folder,
            ports,
        }
    }

    /// What Oracle's own client, logged in as `user`, is told.
    fn says(&self, by: By, user: &str, words: &[&str]) -> String {
        self.asks(by, user, words, "SELECT 6 * 7; DELETE FROM forbidden")
    }

    /// What it is told of this.
    fn asks(&self, by: By, user: &str, words: &[&str], sql: &str) -> String {
        let at = |port: u16| vec!["-h127.0.0.1".to_owned(), format!("-P{port}")];
        let path = |name: &str| vec![format!("-S{}", self.folder.path().join(name).display())];
        let place = match by {
            By::Tls => at(self.ports[0]),
            By::Clear => at(self.ports[1]),
            By::Path => path("tls"),
            By::PathClear => path("clear"),
            By::Unsaid => at(self.ports[2]),
            By::PathUnsaid => path("unsaid"),
            By::Preferred => at(self.ports[3]),
        };
        let mut command = oracle("mysql").unwrap();
        command.args(place).arg("-psecret").args(words);
        let ran = command
            .args([&format!("-u{user}"), "-NB", "shop"])
            .args(["-e", sql])
            .output();
        told(&ran.unwrap())
    }

    /// Lets the server know `user`, past the sidecar.
    fn introduces(&self, user: &str) {
        let path: &Path = &self.server.path();
        let mut command = oracle("mysql").unwrap();
        let ran = command
            .args([&format!("-u{user}"), "-psecret", "-e", "DO 0"])
            .arg(format!("-S{}", path.display()))
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", told(&ran));
    }
}

/// Whose a statement is by its query attributes, else by its comment, else by the
/// program that the connection says it is of.
#[test]
fn c_12_query_attributes_comments_and_programs_say_whose_a_statement_is() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    let world = World::before(server, "", |setup| setup);
    let event = |path: &str, body: Value| world.sidecar.event(path, &body);
    event("/v1/workflows", json!({"workflow_id": "w", "run_id": "r"}));
    let trace = |digit: char| format!("00-{}-00f067aa0ba902b7-01", digit.to_string().repeat(32));
    for (name, activity, trace) in [
        ("one", "a1", Some(trace('1'))),
        ("two", "a2", Some(trace('2'))),
        ("three", "a3", None),
    ] {
        let ids = json!({"workflow_id": "w", "run_id": "r", "activity_id": activity, "activity_type": "t"});
        event("/v1/activities", ids);
        let mut context = json!({"workflow_id": "w", "run_id": "r", "activity_id": activity});
        if let Some(trace) = trace {
            context["traceparent"] = trace.into();
        }
        let path = format!("/v1/contexts/{name}");
        let (status, told) = world.sidecar.agent("PUT", &path, &context.to_string());
        assert_eq!(status, 200, "{told}");
    }
    python_in(&world, "attributes");
    assert_eq!(world.ids(), "1,2,3,4,5,6,7");
    let inserts: Vec<_> = world
        .told("started")
        .into_iter()
        .filter(|line| line["db_operation"] == "INSERT")
        .map(|line| format!("{} {}", line["attribution"], line["activity_id"]))
        .collect();
    let expected = [
        r#""database_hint" "a3""#,
        r#""trace" "a1""#,
        r#""trace" "a2""#,
        r#""trace" "a1""#,
        r#""trace" "a2""#,
        // Prepared.
        r#""trace" "a2""#,
        r#""trace" "a2""#,
    ];
    assert_eq!(inserts, expected);
}

fn told(ran: &Output) -> String {
    String::from_utf8_lossy(&[&ran.stdout[..], &ran.stderr].concat()).into_owned()
}

const GOVERNED: &str = "the test says block";

#[test]
fn my_5_a_whole_password_passes_where_both_legs_hide_it_alike() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    let legs = Legs::before(server, "");
    legs.server.ask(
        "CREATE USER eve@'%' IDENTIFIED WITH caching_sha2_password BY 'secret';
         CREATE USER old@'%' IDENTIFIED WITH sha256_password BY 'secret';
         GRANT ALL ON *.* TO eve@'%', old@'%'",
    );
    let ca = format!("--ssl-ca={}", legs.sidecar.ca().display());
    let clear = &["--ssl-mode=DISABLED", "--get-server-public-key"][..];
    let tls = &["--ssl-mode=VERIFY_CA", &ca][..];
    let only_one = "only one of the legs";
    for (by, words, caching, sha256) in [
        (By::Tls, clear, only_one, only_one),
        (By::Tls, tls, GOVERNED, GOVERNED),
        (By::Clear, clear, GOVERNED, GOVERNED),
        (By::Clear, tls, only_one, only_one),
        // By a path the older method does not say a password.
        (By::Path, &[], GOVERNED, only_one),
        (By::PathClear, &[], only_one, GOVERNED),
    ] {
        // The server forgets whom it knows.
        legs.server.ask("FLUSH PRIVILEGES");
        for (user, expected) in [("eve", caching), ("old", sha256)] {
            let told = legs.says(by, user, words);
            assert!(told.contains(expected), "{user} {by:?} {words:?}: {told}");
            assert_eq!(told.contains("42\n"), expected == GOVERNED, "{told}");
        }
        // One that it knows it does not ask for the whole password.
        legs.introduces("eve");
        let told = legs.says(by, "eve", words);
        assert!(told.contains(GOVERNED), "{by:?} {words:?}: {told}");
    }
    // Its first packet would have the password in it, and does not reach the server.
    let first = [tls, &["--default-auth=sha256_password"]].concat();
    let told = legs.says(By::Clear, "old", &first);
    assert!(told.contains(only_one), "{told}");
    let refused = "openbox_connections_refused_total{cause=\"tls\",protocol=\"mysql\"}";
    // Six of the table, and that one.
    assert_eq!(legs.sidecar.metric(refused), 7);
}

#[test]
fn my_5_a_client_in_clear_hides_its_password_under_the_sidecars_key_where_that_is_set() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    let legs = Legs::before(server, "  whole_password: receive\n");
    legs.server.ask(
        "CREATE USER eve@'%' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO eve@'%';
         CREATE USER adam@'%' IDENTIFIED WITH caching_sha2_password BY 'a longer secret than the nonce';
         GRANT ALL ON *.* TO adam@'%'",
    );
    let asks = &["--ssl-mode=DISABLED", "--get-server-public-key"][..];
    let told = legs.says(By::Tls, "eve", asks);
    assert!(told.contains("42\n") && told.contains(GOVERNED), "{told}");
    // What the server does not know, it asks for as a whole again.
    legs.server.ask("FLUSH PRIVILEGES");
    let wrong = legs.says(By::Tls, "adam", asks);
    assert!(wrong.contains("ERROR 1045"), "{wrong}");
    let long = [asks, &["-pa longer secret than the nonce"]].concat();
    let told = legs.says(By::Tls, "adam", &long);
    assert!(told.contains("42\n"), "{told}");
    // The older method hides it in the same way, and asks in another.
    legs.server.ask(
        "CREATE USER old@'%' IDENTIFIED WITH sha256_password BY 'secret'; GRANT ALL ON *.* TO old@'%'",
    );
    for (by, words, expected) in [
        (By::Tls, asks, GOVERNED),
        (
            By::Tls,
            &["--ssl-mode=DISABLED", "--get-server-public-key", "-pwrong"],
            "ERROR 1045",
        ),
        (By::Path, &["--get-server-public-key"], GOVERNED),
    ] {
        let told = legs.says(by, "old", words);
        assert!(told.contains(expected), "{by:?} {words:?}: {told}");
    }
    // Another key than the sidecar's.
    let key = legs.folder.path().join("other.pem");
    let server = legs.server.path().with_file_name("data/public_key.pem");
    std::fs::copy(server, &key).unwrap();
    let pinned = format!("--server-public-key-path={}", key.display());
    legs.server.ask("FLUSH PRIVILEGES");
    let told = legs.says(By::Tls, "eve", &["--ssl-mode=DISABLED", &pinned]);
    assert!(
        told.contains("not hidden under the sidecar's key"),
        "{told}"
    );
}

#[test]
fn my_5_a_client_inside_tls_says_its_password_to_a_server_in_clear_where_that_is_set() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    let legs = Legs::before(server, "  whole_password: receive\n");
    legs.server.ask(
        "CREATE USER eve@'%' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO eve@'%';
         CREATE USER old@'%' IDENTIFIED WITH sha256_password BY 'secret'; GRANT ALL ON *.* TO old@'%'",
    );
    let ca = format!("--ssl-ca={}", legs.sidecar.ca().display());
    let tls = &["--ssl-mode=VERIFY_CA", &ca][..];
    let wrong = [tls, &["-pwrong"]].concat();
    for (by, user, words, expected) in [
        (By::Clear, "eve", tls, GOVERNED),
        (By::Clear, "eve", &wrong, "ERROR 1045"),
        (By::PathClear, "eve", &[], GOVERNED),
        (By::PathClear, "eve", &["-pwrong"], "ERROR 1045"),
        (By::Clear, "old", tls, GOVERNED),
        (By::Clear, "old", &wrong, "ERROR 1045"),
    ] {
        // The server forgets whom it knows.
        legs.server.ask("FLUSH PRIVILEGES");
        let told = legs.says(by, user, words);
        assert!(told.contains(expected), "{user} {by:?} {words:?}: {told}");
    }
    assert!(!legs.sidecar.log().contains("secret"));
}

/// A second factor that has to be proven by a path of the server's machine, which the
/// sidecar never comes by.
#[test]
fn my_3_my_6_a_further_factor_is_the_servers_to_refuse() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    let legs = Legs::before(server, "");
    legs.server.ask(
        "INSTALL PLUGIN auth_socket SONAME 'auth_socket.so';
         CREATE USER two@'%' IDENTIFIED WITH caching_sha2_password BY 'secret' AND IDENTIFIED WITH auth_socket;
         CREATE USER one@'%' IDENTIFIED WITH caching_sha2_password BY 'secret'; GRANT ALL ON *.* TO one@'%'",
    );
    let ca = format!("--ssl-ca={}", legs.sidecar.ca().display());
    let clear = &["--ssl-mode=DISABLED", "--get-server-public-key"][..];
    let tls = &["--ssl-mode=VERIFY_CA", &ca][..];
    for (by, words) in [(By::Tls, tls), (By::Clear, clear), (By::Unsaid, clear)] {
        legs.server.ask("FLUSH PRIVILEGES");
        // The first factor passes, as it does alone, and the second does not.
        let told = legs.says(by, "one", words);
        assert!(told.contains(GOVERNED), "{by:?}: {told}");
        let told = legs.says(by, "two", words);
        assert!(told.contains("ERROR 1698"), "{by:?}: {told}");
        let wrong = legs.says(by, "two", &[words, &["--password1=wrong"]].concat());
        assert!(wrong.contains("ERROR 1045"), "{by:?}: {wrong}");
    }
}

/// What the server's leg of a session has.
const CIPHER: &str = "SHOW STATUS LIKE 'Ssl_cipher'";

#[test]
fn my_5_where_nothing_is_said_of_tls_the_servers_leg_is_as_the_clients() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    let legs = Legs::before(server, "");
    legs.server
        .ask("CREATE USER eve@'%' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO eve@'%'");
    let ca = format!("--ssl-ca={}", legs.sidecar.ca().display());
    let clear = &["--ssl-mode=DISABLED", "--get-server-public-key"][..];
    let tls = &["--ssl-mode=VERIFY_CA", &ca][..];
    for (by, words, is_encrypted) in [
        (By::Unsaid, clear, false),
        (By::Unsaid, tls, true),
        (By::PathUnsaid, &[], true),
    ] {
        legs.server.ask("FLUSH PRIVILEGES");
        let told = legs.asks(by, "eve", words, CIPHER);
        assert!(told.contains("Ssl_cipher"), "{by:?} {words:?}: {told}");
        assert_eq!(
            told.contains("TLS"),
            is_encrypted,
            "{by:?} {words:?}: {told}"
        );
    }
    legs.server.ask("FLUSH PRIVILEGES");
    // As without the sidecar, one that asks for no key says no password in clear.
    let told = legs.says(By::Unsaid, "eve", &["--ssl-mode=DISABLED"]);
    assert!(told.contains("requires secure connection"), "{told}");
    // Who says that it is preferred has it.
    let told = legs.says(By::Preferred, "eve", clear);
    assert!(told.contains("only one of the legs"), "{told}");
    assert!(told.contains("mysql.whole_password: receive"), "{told}");
    legs.introduces("eve");
    let told = legs.asks(By::Preferred, "eve", clear, CIPHER);
    assert!(told.contains("TLS"), "{told}");
}

#[test]
fn my_5_a_server_that_takes_no_login_in_clear_has_tls_from_then_on() {
    let Some(server) = Server::start_oracle(&["--require-secure-transport=ON"]) else {
        return;
    };
    let legs = Legs::before(server, "");
    legs.server
        .ask("CREATE USER eve@'%' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO eve@'%'");
    legs.introduces("eve");
    let clear = &["--ssl-mode=DISABLED", "--get-server-public-key"][..];
    let told = legs.says(By::Unsaid, "eve", clear);
    assert!(told.contains("ERROR 3159"), "{told}");
    let told = legs.asks(By::Unsaid, "eve", clear, CIPHER);
    assert!(told.contains("TLS"), "{told}");
}

#[test]
fn my_5_drivers_hide_a_password_under_the_sidecars_key() {
    let Some(server) = Server::start_oracle(&[]) else {
        return;
    };
    let world = World::before(server, "?ssl-mode=REQUIRED", |setup| {
        setup.config("mysql:\n  whole_password: receive\n")
    });
    let alter = "ALTER USER bob@'%' IDENTIFIED BY 'secret'; DELETE FROM shop.t";
    for client in ["pymysql", "aiomysql", "sqlalchemy"] {
        world.server.ask(alter);
        python_in(&world, client);
    }
    world.server.ask(alter);
    node_in(&world);
}
