"""What agents written in Python do with PostgreSQL, and what they must see.

    postgres.py psycopg3 | psycopg2 | asyncpg

Statements that name `forbidden` are blocked. The server is the one of libpq's
environment.
"""

import asyncio
import io
import sys


def psycopg3():
    import psycopg

    with psycopg.connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE p (id int, x text)")
        # Prepared after five executions, by its own name.
        for i in range(12):
            conn.execute("INSERT INTO p VALUES (%s, %s)", (i, "x" * i))
        assert conn.execute("SELECT count(*) FROM p").fetchone() == (12,)
        try:
            conn.execute("DELETE FROM forbidden")
            raise AssertionError("not refused")
        except psycopg.errors.InsufficientPrivilege as error:
            assert "the test says block" in str(error), error
            assert "refusal code blocked" in error.diag.message_detail, error
        # A savepoint outlives a refusal.
        with conn.transaction():
            conn.execute("INSERT INTO p VALUES (100, '')")
            try:
                with conn.transaction():
                    conn.execute("SELECT * FROM forbidden")
            except psycopg.errors.InsufficientPrivilege:
                pass
            conn.execute("INSERT INTO p VALUES (101, '')")
        assert conn.execute("SELECT count(*) FROM p WHERE id >= 100").fetchone() == (2,)
        # A refusal in a pipeline takes its batch, not the next one.
        try:
            with conn.pipeline() as pipeline:
                conn.execute("INSERT INTO p VALUES (200, '')")
                conn.execute("DELETE FROM forbidden")
                conn.execute("INSERT INTO p VALUES (201, '')")
            raise AssertionError("not refused")
        except psycopg.errors.InsufficientPrivilege:
            pass
        assert conn.execute("SELECT count(*) FROM p WHERE id >= 200").fetchone() == (0,)
        with conn.pipeline():
            cursors = [conn.execute("SELECT %s::int", (i,)) for i in range(50)]
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))
        conn.cursor().executemany("INSERT INTO p VALUES (%s, '')", [(i,) for i in range(300, 400)])
        with conn.cursor() as cursor:
            with cursor.copy("COPY p (id, x) FROM STDIN") as copy:
                for i in range(1000):
                    copy.write_row((1000 + i, "y" * 100))
            with cursor.copy("COPY (SELECT id FROM p WHERE id >= 1000) TO STDOUT") as copy:
                assert sum(1 for _ in copy.rows()) == 1000
        with conn.transaction(), conn.cursor("c") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT id FROM p WHERE id >= 1000")
            assert sum(1 for _ in cursor) == 1000
        try:
            conn.execute("SELECT repeat('x', 10)::int")
        except psycopg.errors.InvalidTextRepresentation:
            pass


def psycopg2():
    import psycopg2

    conn = psycopg2.connect("")
    cursor = conn.cursor()
    cursor.execute("CREATE TABLE q (id int)")
    conn.commit()
    blob = conn.lobject(0, "wb")
    blob.write(b"z" * 200_000)
    oid = blob.oid
    blob.close()
    conn.commit()
    assert len(conn.lobject(oid, "rb").read()) == 200_000
    conn.commit()
    cursor.execute("INSERT INTO q SELECT generate_series(1, %s)", (500,))
    try:
        cursor.execute("DELETE FROM forbidden")
        raise AssertionError("not refused")
    except psycopg2.errors.InsufficientPrivilege:
        pass
    # The server has aborted the transaction, too.
    try:
        cursor.execute("SELECT 1")
        raise AssertionError("not aborted")
    except psycopg2.errors.InFailedSqlTransaction:
        conn.rollback()
    cursor.execute("SELECT count(*) FROM q")
    assert cursor.fetchone() == (0,)
    cursor.copy_expert("COPY q FROM STDIN", io.StringIO("".join(f"{i}\n" for i in range(500))))
    named = conn.cursor("n")
    named.itersize = 50
    named.execute("SELECT id FROM q")
    assert sum(1 for _ in named) == 500
    conn.commit()


async def with_asyncpg():
    import asyncpg

    conn = await asyncpg.connect()
    await conn.execute("CREATE TABLE a (id int, x text)")
    await conn.executemany("INSERT INTO a VALUES ($1, $2)", [(i, "x") for i in range(500)])
    assert await conn.fetchval("SELECT count(*) FROM a") == 500
    try:
        await conn.fetch("SELECT * FROM forbidden WHERE id = $1", 1)
        raise AssertionError("not refused")
    except asyncpg.exceptions.InsufficientPrivilegeError as error:
        assert "the test says block" in str(error)
    try:
        await conn.executemany("INSERT INTO forbidden VALUES ($1)", [(i,) for i in range(5)])
        raise AssertionError("not refused")
    except asyncpg.exceptions.InsufficientPrivilegeError:
        pass
    async with conn.transaction():
        total = 0
        async for record in conn.cursor("SELECT id FROM a", prefetch=40):
            total += 1
        assert total == 500, total
    statement = await conn.prepare("SELECT id FROM a WHERE id = $1")
    for i in range(20):
        assert await statement.fetchval(i) == i
    await conn.copy_records_to_table("a", records=[(i, "y") for i in range(1000)])
    assert await conn.fetchval("SELECT count(*) FROM a") == 1500
    heard = asyncio.Event()
    await conn.add_listener("news", lambda *_: heard.set())
    other = await asyncpg.connect()
    await other.execute("NOTIFY news, 'x'")
    await asyncio.wait_for(heard.wait(), 60)
    try:
        await conn.fetch("SELECT pg_sleep(30)", timeout=0.5)
        raise AssertionError("not timed out")
    except asyncio.TimeoutError:
        pass
    assert await conn.fetchval("SELECT 1") == 1
    await other.close()
    await conn.close()


{"psycopg3": psycopg3, "psycopg2": psycopg2, "asyncpg": lambda: asyncio.run(with_asyncpg())}[sys.argv[1]]()
print(f"{sys.argv[1]} saw all")
