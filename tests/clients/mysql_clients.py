"""Real Python clients through the sidecar. Each checks itself and says what it has seen."""

import asyncio
import os
import sys

WHERE = {
    "host": "127.0.0.1",
    "port": int(os.environ["MYSQL_PORT"]),
    "user": "bob",
    "password": "secret",
    "database": "shop",
}


def refused(call, kind):
    try:
        call()
    except kind as error:
        text = str(error)
        assert "1227" in text and "blocked by policy" in text, text
        return
    raise AssertionError("it was not refused")


def dbapi(connection, kind, mark="%s"):
    """What every client of Python's database interface does."""
    cursor = connection.cursor()
    cursor.execute("DELETE FROM t")
    cursor.execute(f"INSERT INTO t VALUES ({mark}, {mark})", (1, "it's \\ \"é\""))
    cursor.executemany(f"INSERT INTO t VALUES ({mark}, {mark})", [(2, "b"), (3, None)])
    connection.commit()
    cursor.execute("SELECT x FROM t ORDER BY id")
    assert [row[0] for row in cursor.fetchall()] == ["it's \\ \"é\"", "b", None]
    cursor.execute("INSERT INTO t VALUES (4, 'gone')")
    refused(lambda: cursor.execute("DELETE FROM forbidden"), kind)
    # A refusal ends no transaction.
    cursor.execute("SELECT count(*) FROM t")
    assert cursor.fetchone()[0] == 4
    connection.rollback()
    cursor.execute("SELECT count(*) FROM t")
    assert cursor.fetchone()[0] == 3
    # Bytes that are no letters, and look like the beginning of one in front of a quote.
    blob = bytes(range(256)) + b"\xe2'\xf0\\\xc3"
    cursor.execute("CREATE TEMPORARY TABLE blobs (x longblob)")
    cursor.execute(f"INSERT INTO blobs VALUES ({mark})", (blob,))
    cursor.execute("SELECT x FROM blobs")
    assert cursor.fetchone()[0] == blob
    cursor.execute("SELECT x FROM t WHERE id = 1 AND 'capped' = 'capped'")
    assert len(cursor.fetchall()) == 1
    cursor.close()


def pymysql():
    import pymysql

    connection = pymysql.connect(**WHERE, charset="utf8mb4")
    dbapi(connection, pymysql.err.OperationalError)
    connection.ping()
    connection.select_db("shop")
    connection.close()


def mysqlclient():
    """The binding of MariaDB's C library."""
    import MySQLdb

    connection = MySQLdb.connect(**WHERE, charset="utf8mb4")
    dbapi(connection, MySQLdb.OperationalError)
    connection.ping()
    connection.select_db("shop")
    # Rows that are read as they come, while more are on their way.
    cursor = connection.cursor(MySQLdb.cursors.SSCursor)
    cursor.execute("SELECT a.id, repeat('x', 1000) FROM t a, t b, t c, t d ORDER BY 1")
    assert sum(len(row[1]) for row in cursor) == 81_000
    cursor.close()
    # Several results of one packet.
    connection.query("SELECT 1; DO 0; SELECT 2")
    found = []
    while True:
        result = connection.store_result()
        found.append(result and result.fetch_row(0))
        if connection.next_result() == -1:
            break
    assert found == [((1,),), None, ((2,),)], found
    connection.change_user("bob", "secret", "shop")
    connection.close()


def connector():
    import mysql.connector as connector

    connection = connector.connect(**WHERE, use_pure=True, ssl_disabled=True)
    dbapi(connection, connector.errors.DatabaseError)
    cursor = connection.cursor(prepared=True)
    for id in (1, 2):
        cursor.execute("SELECT x FROM t WHERE id = %s", (id,))
        assert len(cursor.fetchall()) == 1
    refused(lambda: cursor.execute("DELETE FROM forbidden WHERE id = %s", (1,)),
            connector.errors.DatabaseError)
    connection.reset_session()
    connection.cmd_change_user("bob", "secret", "shop")
    assert connection.is_connected()
    connection.close()


def attributes():
    """Whose a statement is, in each way that a program can say it."""
    import mysql.connector as connector

    connection = connector.connect(**{**WHERE, "password": ""}, use_pure=True, ssl_disabled=True,
                                   conn_attrs={"program_name": "three"})
    cursor = connection.cursor()
    comment = f"/*traceparent='{trace('2')}'*/"
    cursor.execute("INSERT INTO t VALUES (1, 'a')")
    cursor.add_attribute("traceparent", trace("1"))
    cursor.execute(f"INSERT INTO t VALUES (2, 'b') {comment}")
    cursor.clear_attributes()
    cursor.execute(f"INSERT INTO t VALUES (3, 'c') {comment}")
    connection.commit()
    connection.close()
    # Of all that a connection says, where nothing of a statement is said.
    connection = connector.connect(**{**WHERE, "password": ""}, use_pure=True, ssl_disabled=True,
                                   conn_attrs={"program_name": "three", "traceparent": trace("1")})
    cursor = connection.cursor()
    cursor.execute("INSERT INTO t VALUES (4, 'd')")
    cursor.execute(f"INSERT INTO t VALUES (5, 'e') {comment}")
    # Beside the values of what was prepared.
    cursor = connection.cursor(prepared=True)
    cursor.add_attribute("number", 7)
    cursor.add_attribute("traceparent", trace("2"))
    for id, x in ((6, "f"), (7, None)):
        cursor.execute("INSERT INTO t VALUES (%s, %s)", (id, x))
    connection.commit()
    connection.close()


def trace(digit):
    return f"00-{digit * 32}-00f067aa0ba902b7-01"


def aiomysql():
    import aiomysql

    async def main():
        where = {**WHERE, "db": WHERE["database"]}
        del where["database"]
        async with aiomysql.create_pool(**where, minsize=1, maxsize=4) as pool:

            async def one(id):
                async with pool.acquire() as connection, connection.cursor() as cursor:
                    await cursor.execute("SELECT %s + 1", (id,))
                    return (await cursor.fetchone())[0]

            numbers = await asyncio.gather(*(one(id) for id in range(40)))
            assert numbers == list(range(1, 41))
            async with pool.acquire() as connection, connection.cursor() as cursor:
                try:
                    await cursor.execute("DELETE FROM forbidden")
                except Exception as error:
                    assert "1227" in str(error), error
                else:
                    raise AssertionError("it was not refused")

    asyncio.run(main())


def sqlalchemy():
    import sqlalchemy as sa

    url = sa.URL.create("mysql+pymysql", username="bob", password="secret", host="127.0.0.1",
                        port=WHERE["port"], database="shop")
    engine = sa.create_engine(url)
    meta = sa.MetaData()
    table = sa.Table("made", meta, sa.Column("id", sa.Integer, primary_key=True),
                     sa.Column("x", sa.String(20)))
    meta.drop_all(engine)
    meta.create_all(engine)
    with engine.begin() as connection:
        connection.execute(table.insert(), [{"id": n, "x": str(n)} for n in range(1, 101)])
        assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 100
    with engine.connect() as connection:
        refused(lambda: connection.execute(sa.text("DELETE FROM forbidden")),
                sa.exc.OperationalError)
    assert "made" in sa.inspect(engine).get_table_names()
    meta.drop_all(engine)


{"pymysql": pymysql, "mysqlclient": mysqlclient, "connector": connector, "aiomysql": aiomysql,
 "sqlalchemy": sqlalchemy, "attributes": attributes}[sys.argv[1]]()
print(sys.argv[1], "saw all")
