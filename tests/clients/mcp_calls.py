"""The Model Context Protocol over streamable HTTP, by its own package.

mcp_calls.py serve      serves tools, prints its port, and then each call that came
mcp_calls.py call URL   calls them, one line a call; `HTTP_PROXY` names the sidecar
"""

import asyncio
import socket
import sys

import uvicorn
from mcp import Client, MCPError
from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings

server = MCPServer("tools")


def came(name):
    print("called", name, flush=True)


@server.tool()
def add(a: int, b: int) -> int:
    came("add")
    return a + b


@server.tool()
def drop(table: str) -> str:
    came("drop")
    return f"dropped {table}"


@server.tool()
def pay(amount: int) -> str:
    came("pay")
    return f"paid {amount}"


@server.tool()
def read() -> str:
    came("read")
    return "this is classified"


def serve():
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    # It is reached by a name here.
    anyone = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    app = server.streamable_http_app(json_response=True, transport_security=anyone)
    uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listening])


async def told(client, tool, **arguments):
    try:
        answer = await client.call_tool(tool, arguments)
    except MCPError as error:
        problem = error.error.data or {}
        approval = "approval" if problem.get("approval_id") else "no approval"
        return f"{error.error.code} {problem.get('code')} {problem.get('status')} {approval}: {error.error.message}"
    return answer.content[0].text


async def call(url):
    async with Client(url) as client:
        print("tools", ",".join(tool.name for tool in (await client.list_tools()).tools))
        print("add", await told(client, "add", a=1, b=2))
        print("drop", await told(client, "drop", table="users"))
        print("pay", await told(client, "pay", amount=7))
        print("read", await told(client, "read"))
        # The session goes on.
        print("add", await told(client, "add", a=3, b=4))


match sys.argv[1:]:
    case ["serve"]:
        serve()
    case ["call", url]:
        asyncio.run(call(url))
