// mysql2 through the sidecar. It checks itself and says what it has seen.
import assert from "node:assert";
import mysql from "mysql2/promise";

const connection = await mysql.createConnection({
  host: "127.0.0.1",
  port: Number(process.env.MYSQL_PORT),
  user: "bob",
  password: "secret",
  database: "shop",
  multipleStatements: true,
});
await connection.execute("INSERT INTO t VALUES (?, ?)", [1, 'it\'s "é" \\']);
const [rows] = await connection.execute("SELECT x FROM t WHERE id = ?", [1]);
assert.deepEqual(rows, [{ x: 'it\'s "é" \\' }]);
const [several] = await connection.query("SELECT 1 AS a; SELECT 2 AS b");
assert.deepEqual(several, [[{ a: 1 }], [{ b: 2 }]]);
for (const way of ["query", "execute"]) {
  await assert.rejects(connection[way]("DELETE FROM forbidden"), (error) => {
    assert.equal(error.errno, 1227);
    assert.match(error.message, /blocked by policy/);
    return true;
  });
}
// Bytes that are no letters.
const blob = Buffer.from([...Array(256).keys(), 0xe2, 0x27, 0xf0, 0x5c]);
await connection.query("CREATE TEMPORARY TABLE blobs (x longblob)");
for (const way of ["query", "execute"]) await connection[way]("INSERT INTO blobs VALUES (?)", [blob]);
const [blobs] = await connection.query("SELECT x FROM blobs");
assert.deepEqual(blobs, [{ x: blob }, { x: blob }]);
// Several at once: they wait for each other in the client.
const all = await Promise.all([1, 2, 3].map((n) => connection.query("SELECT ? AS n", [n])));
assert.deepEqual(all.map(([[row]]) => row.n), [1, 2, 3]);
await connection.changeUser({ user: "bob", password: "secret", database: "shop" });
await connection.ping();
await connection.end();
console.log("mysql2 saw all");
