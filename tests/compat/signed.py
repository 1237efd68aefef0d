"""The base SDK, signing what it sends, with a sidecar that checks it."""

import base64
import datetime
import hashlib
import logging
import os
import sys

from common import KEY, ORIGIN, URL, check, main

import httpx
import requests
from openbox_core.client import APPROVAL_PATH, AUTH_VALIDATE_PATH, EVALUATE_PATH, HANDOFF_PATH
from openbox_core.client import EvaluationClient
from openbox_core.config import OpenBoxConfig
from openbox_core.context import activity_scope
from openbox_core.contracts.context import ActivityContext
from openbox_core.errors import OpenBoxSigningError
from openbox_core.identity import AgentIdentity, prepare_signed_request
from openbox_core.runtime import OpenBoxRuntime

DID = os.environ["COMPAT_DID"]
SEED = os.environ["COMPAT_SEED"]
IDENTITY = AgentIdentity.from_private_key(DID, SEED)
EVENT = {
    "event_type": "WorkflowStarted",
    "workflow_id": "wf-signed",
    "run_id": "run-signed",
    "note": "ä",
}
POLL = {"workflow_id": "wf-signed", "run_id": "run-signed", "activity_id": "none"}


def client(identity):
    return EvaluationClient(URL, KEY, on_api_error="fail_open", identity=identity)


def rejected(function, *args):
    """The reason code that the SDK itself reads from the rejection."""
    try:
        result = function(*args)
    except OpenBoxSigningError as error:
        return error.reason_code
    raise AssertionError(f"taken: {result!r}")


def sent(headers, body, path=EVALUATE_PATH):
    """Status and reason code of a request that is sent as it is."""
    answer = httpx.post(URL + path, headers=headers, content=body, timeout=20)
    said = answer.json()
    return answer.status_code, said.get("reason_code", said.get("verdict"))


def prepared(**with_):
    return prepare_signed_request(
        "POST", EVALUATE_PATH, EVENT, api_key=KEY, identity=IDENTITY, **with_
    )


def ago(seconds):
    at = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=seconds)
    return at.isoformat()


if "unknown" in sys.argv[1:]:

    @check
    def what_cannot_be_checked_is_not_taken():
        code = "verifier_not_configured"
        assert rejected(client(IDENTITY).validate_api_key) == code
        assert rejected(client(IDENTITY).evaluate, EVENT) == code
        assert client(None).validate_api_key()
        # Nobody can say who hands over.
        headers, body = prepare_signed_request(
            "POST", HANDOFF_PATH, {"target_agent_id": "x"}, api_key=KEY, identity=None
        )
        assert sent(headers, body, HANDOFF_PATH) == (401, "signature_invalid")

else:

    @check
    def every_signed_route_is_taken():
        signing = client(IDENTITY)
        assert signing.validate_api_key()
        result = signing.evaluate(EVENT)
        assert result.verdict.value == "allow" and not result.fallback_used, result
        assert signing.poll_approval(*POLL.values()) is None

    @check
    def a_signed_handoff_is_taken_and_finds_the_same_session_again():
        handed = [client(IDENTITY).emit_handoff("another-agent", reason) for reason in (None, "ä")]
        assert handed[0]["status"] == "ok" and handed[0]["multi_agent_session_id"], handed
        assert handed[0] == handed[1], handed
        headers, body = prepare_signed_request(
            "POST", HANDOFF_PATH, {"reason": "no target"}, api_key=KEY, identity=IDENTITY
        )
        assert sent(headers, body, HANDOFF_PATH) == (400, "missing_field")
        headers, body = prepare_signed_request(
            "POST", HANDOFF_PATH, {"target_agent_id": "x"}, api_key=KEY, identity=None
        )
        assert sent(headers, body, HANDOFF_PATH) == (401, "signature_invalid")

    @check
    def hooks_are_signed_too():
        config = OpenBoxConfig.resolve(
            environ={},
            api_url=URL,
            api_key=KEY,
            agent_did=DID,
            agent_private_key=SEED,
            on_api_error="fail_closed",
        )
        runtime = OpenBoxRuntime(config)
        runtime.install_instrumentation()
        context = ActivityContext(
            workflow_id="wf-signed",
            run_id="run-signed",
            workflow_type="t",
            activity_id="a",
            activity_type="fetch",
        )
        with activity_scope(context):
            assert requests.get(ORIGIN + "/echo", timeout=20).status_code == 200
        runtime.close()

    @check
    def what_is_not_signed_is_rejected():
        headers, body = prepare_signed_request(
            "POST", EVALUATE_PATH, EVENT, api_key=KEY, identity=None
        )
        assert sent(headers, body) == (401, "signature_invalid")
        answer = httpx.get(URL + AUTH_VALIDATE_PATH, headers=headers, timeout=20)
        assert answer.status_code == 401, answer.text
        assert httpx.get(URL + "/", timeout=20).text == "hello world"

    @check
    def another_body_or_route_or_key_is_rejected():
        headers, body = prepared()
        assert sent(headers, body.replace(b"wf-signed", b"wf-forged")) == (401, "signature_invalid")
        # Also with the digest of the other body: it is signed too.
        other = body.replace(b"wf-signed", b"wf-forged")
        headers["X-OpenBox-Body-SHA256"] = hashlib.sha256(other).hexdigest()
        assert sent(headers, other) == (401, "signature_invalid")
        headers, body = prepared()
        assert sent(headers, body, APPROVAL_PATH) == (401, "signature_invalid")
        stolen = AgentIdentity.from_private_key(DID, base64.b64encode(b"x" * 32).decode())
        assert rejected(client(stolen).evaluate, EVENT) == "signature_invalid"

    @check
    def another_agent_is_rejected():
        did = "did:aip:00000000-0000-0000-0000-000000000001"
        other = AgentIdentity.from_private_key(did, SEED)
        assert rejected(client(other).evaluate, EVENT) == "did_agent_mismatch"

    @check
    def a_request_is_taken_once():
        headers, body = prepared(_nonce="the-same-nonce")
        assert sent(headers, body) == (200, "allow")
        assert sent(headers, body) == (401, "nonce_replayed")
        headers, body = prepared(_nonce="the-same-nonce")
        assert sent(headers, body) == (401, "nonce_replayed")

    @check
    def a_clock_that_is_far_off_is_rejected():
        for seconds in (400, -400):
            headers, body = prepared(_timestamp=ago(seconds))
            assert sent(headers, body) == (401, "timestamp_outside_window"), seconds
        headers, body = prepared(_timestamp=ago(200))
        assert sent(headers, body) == (200, "allow")

    @check
    def a_wrong_key_is_told_from_a_wrong_signature():
        wrong = EvaluationClient(URL, "obx_test_" + "0" * 48, identity=IDENTITY)
        assert rejected(wrong.evaluate, EVENT) == "invalid_api_key"


logging.disable(logging.CRITICAL)
main(lambda function: function())
