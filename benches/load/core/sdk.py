"""Evaluations by the real OpenBox SDK, unchanged: `sdk.py PORT IDENTITY IN_FLIGHT SECONDS QUESTIONS` prints JSON.

One question at a time goes through the SDK's synchronous client, several through its asynchronous one: each is made by
the SDK, once, and kept, as in an agent.
"""

import asyncio
import itertools
import json
import logging
import sys
import time

from openbox_core.client import EvaluationClient
from openbox_core.identity import AgentIdentity
from openbox_core.identity_okta import OktaAgentIdentity
from openbox_core.identity_types import OktaAiAgentIdentityConfig

WARM_UP_S = 0.3


def identity_of(name):
    if name == "unsigned":
        return None
    if name == "did":
        return AgentIdentity.from_private_key(
            "did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
        )
    with open(name) as file:
        return OktaAgentIdentity.from_config(
            OktaAiAgentIdentityConfig(
                openbox_agent_id="11111111-1111-4111-8111-111111111111",
                organization_id="org-1",
                deployment_id="dep-1",
                external_agent_id="wlp-okta-1",
                key_id="kid-1",
                audience="https://core.example.test/aud",
                private_key=file.read(),
            )
        )


def allowed(result):
    assert result.verdict.value == "allow" and not result.fallback_used, result


def one_by_one(client, questions, seconds):
    asked = 0

    def until(end):
        nonlocal asked
        while time.monotonic() < end:
            for question in questions:
                allowed(client.evaluate(question))
                asked += 1

    until(time.monotonic() + WARM_UP_S)
    asked, began, spent = 0, time.monotonic(), time.process_time()
    until(began + seconds)
    return asked, time.monotonic() - began, time.process_time() - spent


async def together(client, questions, in_flight, seconds):
    asked, is_over = 0, False

    async def asker():
        nonlocal asked
        for question in itertools.cycle(questions):
            if is_over:
                return
            allowed(await client.aevaluate(question))
            asked += 1

    askers = [asyncio.create_task(asker()) for _ in range(in_flight)]
    await asyncio.sleep(WARM_UP_S)
    before, began, spent = asked, time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    told = asked - before, time.monotonic() - began, time.process_time() - spent
    is_over = True
    await asyncio.gather(*askers)
    return told


def main():
    port, identity, in_flight, seconds, path = sys.argv[1:]
    logging.disable(logging.CRITICAL)
    with open(path) as file:
        questions = json.load(file)
    client = EvaluationClient(
        f"http://127.0.0.1:{port}", "obx_test_" + "0" * 48, on_api_error="fail_closed", identity=identity_of(identity)
    )
    if int(in_flight) == 1:
        asked, took, spent = one_by_one(client, questions, float(seconds))
    else:
        asked, took, spent = asyncio.run(together(client, questions, int(in_flight), float(seconds)))
    print(json.dumps({"evaluations": asked, "seconds": took, "cpu_seconds": spent}))


main()
