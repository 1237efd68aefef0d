//! The same execution over and over.

use crate::World;
use crate::support::mysql::execute;
use crate::support::policies::STEADY;
use crate::support::until;

#[test]
fn c_2_what_is_executed_over_and_over_is_counted_and_nothing_is_lost() {
    let world = World::with(&[], |setup| {
        setup.write("policy.rego", STEADY);
        setup
    });
    let mut client = world.client();
    for _ in 0..40 {
        assert_eq!(client.rows("SELECT 1"), ["1"]);
    }
    let statement = client.prepare("SELECT 2");
    for _ in 0..40 {
        assert!(!client.command(&execute(statement))[0].is_error());
    }
    assert!(client.query("DELETE FROM forbidden")[0].is_error());
    // Another database is another place.
    for _ in 0..10 {
        client.command(b"\x02mysql");
        client.rows("SELECT 1");
        client.command(b"\x02test");
        client.rows("SELECT 1");
    }
    drop(client);
    until("everything is told", || {
        let [decisions, completions, admitted, answered, apart, _] = world.sidecar.repeats();
        (decisions == completions + 1 && [admitted, answered, apart] == [48, 48, 0]).then_some(())
    });
}
