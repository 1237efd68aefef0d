"""Drivers that are let in by SCRAM inside TLS, and what they then see.

    postgres_tls.py DRIVER

The server is the one of libpq's environment; SSL_CERT_FILE holds whom to trust.
"""

import asyncio
import os
import ssl
import sys

PLACE = {
    "host": os.environ["PGHOST"],
    "port": int(os.environ["PGPORT"]),
    "user": os.environ["PGUSER"],
    "password": os.environ["PGPASSWORD"],
    "database": "postgres",
}
SQL = "SELECT current_user::text"
FORBIDDEN = "SELECT 1 AS forbidden"


def context():
    return ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])


def psycopg3():
    import psycopg

    more = {"sslmode": "verify-full", "sslrootcert": os.environ["SSL_CERT_FILE"]}
    for how in [
        {"channel_binding": os.environ["BINDING"]},
        {"sslnegotiation": "direct"},
        {"max_protocol_version": "latest"},
        {"gssencmode": "prefer"},
    ]:
        place = PLACE | {"dbname": PLACE["database"]} | more | how
        del place["database"]
        with psycopg.connect(**place, autocommit=True) as conn:
            assert conn.pgconn.ssl_in_use
            assert conn.execute(SQL).fetchone() == ("postgres",)
            try:
                conn.execute(FORBIDDEN)
                raise AssertionError("not refused")
            except psycopg.errors.InsufficientPrivilege:
                pass
            cancelled(conn)


def cancelled(conn):
    """A cancel request, which goes inside TLS."""
    import threading

    import psycopg

    done = threading.Event()

    def cancel():
        # The statement may not be there yet, and then nothing is cancelled.
        while not done.wait(0.2):
            conn.cancel_safe()

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        conn.execute("SELECT pg_sleep(60)")
        raise AssertionError("not cancelled")
    except psycopg.errors.QueryCanceled:
        pass
    finally:
        done.set()
        thread.join()


def async_pg():
    import asyncpg

    async def talk():
        conn = await asyncpg.connect(**PLACE, ssl=context())
        assert await conn.fetchval(SQL) == "postgres"
        try:
            await conn.execute(FORBIDDEN)
            raise AssertionError("not refused")
        except asyncpg.InsufficientPrivilegeError:
            pass
        await conn.close()

    asyncio.run(talk())


def pg_8000():
    import pg8000.native

    conn = pg8000.native.Connection(**PLACE, ssl_context=context())
    assert conn.run(SQL) == [["postgres"]]
    try:
        conn.run(FORBIDDEN)
        raise AssertionError("not refused")
    except pg8000.native.DatabaseError as error:
        assert error.args[0]["C"] == "42501", error
    conn.close()


def sqlalchemy():
    from sqlalchemy import URL, create_engine, exc, text

    place = dict(PLACE)
    url = URL.create(
        "postgresql+psycopg",
        username=place["user"],
        password=place["password"],
        host=place["host"],
        port=place["port"],
        database=place["database"],
        query={"sslmode": "verify-full", "sslrootcert": os.environ["SSL_CERT_FILE"]},
    )
    engine = create_engine(url)
    with engine.connect() as conn:
        assert conn.execute(text(SQL)).scalar() == "postgres"
        try:
            conn.execute(text(FORBIDDEN))
            raise AssertionError("not refused")
        except exc.ProgrammingError:
            conn.rollback()
        assert conn.execute(text(SQL)).scalar() == "postgres"


if __name__ == "__main__":
    for driver in sys.argv[1:]:
        {
            "psycopg3": psycopg3,
            "asyncpg": async_pg,
            "pg8000": pg_8000,
            "sqlalchemy": sqlalchemy,
        }[driver]()
        print(driver)
