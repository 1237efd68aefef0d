"""Asks by requests, which reaches a SOCKS proxy by PySocks.

    over_socks.py PROXY CA PORT URL        with a name that is looked up here: socks5://
    over_socks.py PROXY CA - URL           or there: socks5h://

Prints the text and the status of the answer, or the class of the exception.
"""

import socket
import sys

import requests

proxy, ca, port, url = sys.argv[1:]


def by_name_of_tests(name, *_, **__):
    """As a resolver would that knows the names of the tests."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(port)))]


if port != "-":
    # PySocks has a lookup of its own, of one address.
    socket.getaddrinfo = by_name_of_tests
    socket.gethostbyname = lambda _: "127.0.0.1"

with requests.Session() as session:
    session.trust_env = False
    session.verify = ca
    session.proxies = {"http": proxy, "https": proxy}
    try:
        answer = session.get(url, timeout=30)
        print(answer.text, answer.status_code, end="")
    except requests.RequestException as error:
        print(type(error).__name__, end="")
