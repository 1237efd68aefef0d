"""The base SDK, unchanged, with a sidecar as its Core."""

import asyncio
import logging
import sys
import tempfile
import threading
import time

from common import KEY, ORIGIN, URL, approve, check, main, reject

import requests
from openbox_core.adapters.base import CoreAdapter
from openbox_core.approvals import ApprovalPoller
from openbox_core.config import HitlConfig, OpenBoxConfig
from openbox_core.context import activity_scope
from openbox_core.contracts import events
from openbox_core.contracts.context import ActivityContext
from openbox_core.client import EvaluationClient
from openbox_core.errors import (
    ApprovalExpiredError,
    ApprovalRejectedError,
    GovernanceBlockedError,
    GuardrailsValidationError,
    GovernanceHaltError,
    OpenBoxAuthError,
)
from openbox_core.instrumentation.function import governed
from openbox_core.runtime import OpenBoxRuntime

MODE = sys.argv[1] if sys.argv[1:] else "all"
CONFIG = OpenBoxConfig.resolve(
    environ={},
    api_url=URL,
    api_key=KEY,
    # Fail closed: what the sidecar would not answer must fail a check.
    on_api_error="fail_closed",
    hitl=HitlConfig(poll_interval_ms=100),
)
CLIENT = EvaluationClient(URL, KEY, on_api_error="fail_closed")
POLLER = ApprovalPoller(CLIENT, poll_interval_seconds=0.1, max_wait_seconds=30)
RUNTIME = OpenBoxRuntime(CONFIG, CoreAdapter(POLLER))
RUNTIME.install_instrumentation()
# One for all: the SDK keeps its connections.
LOOP = asyncio.new_event_loop()


def names(id, kind="work"):
    return {
        "workflow_id": "wf-" + id,
        "run_id": "run-base",
        "workflow_type": "CompatWorkflow",
        "task_queue": "compat",
        "activity_id": id,
        "activity_type": kind,
    }


def inside(id, function, *args):
    """Calls `function` inside an activity, where the SDK's hooks are bound."""
    with activity_scope(ActivityContext(**names(id), metadata={"attempt": 1})):
        return function(*args)


def raises(type_, function, *args):
    try:
        result = function(*args)
    except type_ as error:
        return error
    raise AssertionError(f"no {type_.__name__}, but {result!r}")


def started(id, kind):
    return events.activity_started(**names(id, kind), activity_input=[1])


def get(path):
    return lambda: requests.get(ORIGIN + path, timeout=20).status_code


def post(path):
    return requests.post(ORIGIN + path, json={"ä": [1.5]}, timeout=20).status_code


def decides(decide, *args):
    """Decides a moment later, as a person does while the SDK polls."""

    def later():
        time.sleep(0.5)
        decide(*args)

    thread = threading.Thread(target=later)
    thread.start()
    return thread


if MODE == "expiring":

    @check
    def an_approval_that_nobody_gives_expires():
        event = started("expired", "require_approval")
        waits = lambda: LOOP.run_until_complete(RUNTIME.aevaluate_lifecycle(event))
        raises(ApprovalExpiredError, waits)

elif MODE == "through":
    # Requests go through the proxy, where the sidecar sees them as well.

    @check
    def a_request_leaves():
        assert inside("once", lambda: post("/echo")) == 200

    @check
    def a_request_leaves_once_a_person_agrees():
        thread = decides(approve, "asked")
        assert inside("asked", lambda: post("/started/require_approval")) == 200
        thread.join()

elif MODE == "ruled":

    @check
    def what_guardrails_found_is_handed_over():
        letter = events.activity_started(
            **names("letter", "letter"), activity_input=[{"to": "jane.roe@example.com"}]
        )
        result = RUNTIME.evaluate_lifecycle(letter)
        assert result.guardrails.redacted_input == [{"to": "<EMAIL_ADDRESS>"}], result
        said = events.activity_started(**names("say", "say"), activity_input=["bluebird"])
        raises(GuardrailsValidationError, RUNTIME.evaluate_lifecycle, said)
        result = CLIENT.evaluate(said.to_payload_dict())
        assert not result.guardrails.validation_passed, result
        assert result.guardrails.get_reason_strings(), result

else:

    @check
    def a_key_is_validated():
        assert CLIENT.validate_api_key()
        wrong = EvaluationClient(URL, "obx_test_" + "0" * 48)
        raises(OpenBoxAuthError, wrong.validate_api_key)
        raises(OpenBoxAuthError, wrong.evaluate, {"event_type": "WorkflowStarted"})

    @check
    def every_lifecycle_event_is_allowed():
        run = {name: names("ended")[name] for name in ("workflow_id", "run_id", "workflow_type")}
        for event in [
            events.workflow_started(**run, task_queue="compat"),
            events.signal_received(**run, signal_name="s"),
            events.activity_started(**names("ended")),
            events.activity_completed(**names("ended"), result={"ä": [1.5, None]}),
            events.activity_completed(**names("ended"), error="a bare text"),
            events.workflow_completed(**run),
            events.workflow_failed(**run, error="no"),
            events.handoff(from_agent_did="did:aip:" + "1" * 8, multi_agent_session_id="mas-1"),
        ]:
            result = RUNTIME.evaluate_lifecycle(event)
            assert result.verdict.value == "allow" and not result.fallback_used, result

    @check
    def verdicts_of_activities_are_understood():
        error = raises(
            GovernanceBlockedError, RUNTIME.evaluate_lifecycle, started("blocked", "block")
        )
        assert error.reason == "the test says block", error.reason
        result = RUNTIME.evaluate_lifecycle(started("constrained", "constrain"))
        assert result.verdict.value == "constrain"
        raises(GovernanceHaltError, RUNTIME.evaluate_lifecycle, started("halted", "halt"))
        again = {**names("halted"), "activity_id": "later"}
        event = events.activity_started(**again)
        raises(GovernanceHaltError, RUNTIME.evaluate_lifecycle, event)
        RUNTIME.context_store.clear()

    @check
    def an_activity_goes_on_once_a_person_agrees():
        event = started("approved", "require_approval")
        thread = decides(approve, "approved")
        LOOP.run_until_complete(RUNTIME.aevaluate_lifecycle(event))
        thread.join()

    @check
    def an_activity_that_a_person_rejects_does_not_go_on():
        event = started("rejected", "require_approval")
        thread = decides(reject, "rejected", "not on a Friday")
        waits = lambda: LOOP.run_until_complete(RUNTIME.aevaluate_lifecycle(event))
        error = raises(ApprovalRejectedError, waits)
        assert "not on a Friday" in str(error)
        thread.join()

    @check
    def a_redacted_input_is_handed_over():
        event = events.activity_started(
            **names("redacted", "redact_in"), activity_input=[{"to": "x@example.com"}]
        )
        result = RUNTIME.evaluate_lifecycle(event)
        assert result.guardrails.redacted_input == [{"to": "[PERSON]"}], result
        assert result.guardrails.input_type == "activity_input"

    @check
    def requests_are_allowed_and_blocked():
        assert inside("fetch", get("/echo")) == 200
        error = raises(GovernanceBlockedError, inside, "fetch-blocked", get("/started/block"))
        assert error.reason == "the test says block", error.reason

    @check
    def a_request_leaves_once_a_person_agrees_and_is_asked_about_once():
        thread = decides(approve, "held")
        assert inside("held", get("/started/require_approval")) == 200
        thread.join()

    @check
    def a_request_that_a_person_rejects_does_not_leave():
        thread = decides(reject, "held-back", "no")
        raises(GovernanceBlockedError, inside, "held-back", get("/started/require_approval"))
        thread.join()

    @check
    def a_blocked_answer_blocks_what_comes_later():
        def both():
            assert get("/completed/block")() == 200
            return get("/echo")()

        raises(GovernanceBlockedError, inside, "answer", both)

    @check
    def functions_and_files_are_governed():
        @governed
        def charge(amount, currency="eur"):
            return amount * 2

        @governed
        def forbidden():
            raise AssertionError("it was called")

        assert inside("function", charge, 21) == 42
        raises(GovernanceBlockedError, inside, "function-blocked", forbidden)
        with tempfile.TemporaryDirectory() as folder:

            def write():
                with open(folder + "/note.txt", "w") as file:
                    file.write("a\n")
                with open(folder + "/note.txt") as file:
                    return file.read()

            assert inside("file", write) == "a\n"
            path = folder + "/forbidden.txt"
            raises(GovernanceBlockedError, inside, "file-blocked", lambda: open(path, "w"))

    @check
    def a_halted_request_halts_the_run():
        raises(GovernanceHaltError, inside, "halting", get("/started/halt"))
        RUNTIME.context_store.clear()
        raises(GovernanceHaltError, RUNTIME.evaluate_lifecycle, started("halting", "work"))
        RUNTIME.context_store.clear()


logging.disable(logging.CRITICAL)
main(lambda function: function())
