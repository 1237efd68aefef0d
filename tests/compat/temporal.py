"""The Temporal SDK, unchanged, with a sidecar as its Core.

Activities run in Temporal's own test environment, behind the SDK's own
interceptor and its own instrumentation.
"""

import asyncio
import dataclasses
import logging
import os
import sqlite3
import sys
import tempfile

import common
from common import KEY, ORIGIN, URL, approve, check, main, reject, until

import httpx
import requests
from openbox.activities import send_governance_event, set_temporal_client
from openbox.activity_interceptor import ActivityGovernanceInterceptor
from openbox.client import GovernanceClient
from openbox.config import GovernanceConfig, initialize
from openbox.otel_setup import setup_opentelemetry_for_governance
from openbox.span_processor import WorkflowSpanProcessor
from openbox.tracing import traced
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

MODE = sys.argv[1] if sys.argv[1:] else "all"
RUN = "run-compat"
TERMINATED = []


class Temporal:
    """Stands where the Temporal client stands when the SDK halts a workflow."""

    def get_workflow_handle(self, workflow_id):
        class Handle:
            async def terminate(self, reason):
                TERMINATED.append((workflow_id, reason))

        return Handle()


set_temporal_client(Temporal())
# Fail closed: what the sidecar would not answer must fail a check.
SPANS = WorkflowSpanProcessor(ignored_url_prefixes=[URL])
setup_opentelemetry_for_governance(
    SPANS,
    api_url=URL,
    api_key=KEY,
    ignored_urls=[URL, os.environ["COMPAT_OPERATOR_URL"]],
    instrument_databases=True,
    db_libraries={"sqlite3"},
    instrument_file_io=True,
    api_timeout=30.0,
    on_api_error="fail_closed",
)
CONFIG = GovernanceConfig(on_api_error="fail_closed", api_timeout=30.0)
CLIENT = GovernanceClient(api_url=URL, api_key=KEY, timeout=30.0, on_api_error="fail_closed")
INTERCEPTOR = ActivityGovernanceInterceptor(URL, KEY, SPANS, CONFIG, CLIENT)


class Last(ActivityInboundInterceptor):
    def __init__(self):
        pass

    async def execute_activity(self, input):
        result = input.fn(*input.args)
        return await result if asyncio.iscoroutine(result) else result


async def activity(kind, function, *args, id=None, attempt=1, workflow=None):
    """Runs one attempt of an activity as a worker would.

    In a workflow of its own: the SDK keeps its pending flag by workflow.
    """
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(
        ActivityEnvironment.default_info(),
        workflow_id=workflow or "wf-" + (id or kind),
        workflow_run_id=RUN,
        workflow_type="CompatWorkflow",
        activity_id=id or kind,
        activity_type=kind,
        attempt=attempt,
        task_queue="compat",
    )
    inbound = INTERCEPTOR.intercept_activity(Last())
    told = ExecuteActivityInput(fn=function, args=list(args), executor=None, headers={})
    return await environment.run(inbound.execute_activity, told)


async def fails(type_, awaitable):
    """What the SDK raises, which must be of its own type `type_`."""
    try:
        result = await awaitable
    except ApplicationError as error:
        assert error.type == type_, (error.type, type_, error)
        return error
    raise AssertionError(f"no {type_}, but {result!r}")


async def event(kind, workflow, **fields):
    """A workflow's event, sent as the SDK's workflow interceptor has it sent."""
    payload = {
        "source": "workflow-telemetry",
        "event_type": kind,
        "workflow_id": workflow,
        "run_id": RUN,
        "workflow_type": "CompatWorkflow",
        **fields,
    }
    told = {
        "api_url": URL,
        "api_key": KEY,
        "payload": payload,
        "timeout": 30.0,
        "on_api_error": "fail_closed",
    }
    return await ActivityEnvironment().run(send_governance_event, told)


def untouched(*_):
    raise AssertionError("the activity ran")


if MODE == "expiring":

    @check
    async def an_approval_that_nobody_gives_expires():
        await fails("ApprovalPending", activity("require_approval", untouched))

        async def polled():
            return await CLIENT.poll_approval("wf-require_approval", RUN, "require_approval")

        for _ in range(600):
            answer = await polled()
            if answer.get("expired"):
                break
            await asyncio.sleep(0.05)
        assert answer["expired"], answer
        again = activity("require_approval", untouched, attempt=2)
        error = await fails("ApprovalExpired", again)
        assert error.non_retryable

elif MODE == "through":
    # Requests go through the proxy, where the sidecar sees them as well.

    def post(path):
        return lambda: requests.post(ORIGIN + path, json={"ä": [1.5]}, timeout=20).status_code

    @check
    async def a_request_leaves():
        assert await activity("fetch", post("/echo"), id="once") == 200

    @check
    async def a_request_leaves_once_a_person_agrees():
        held = post("/started/require_approval")
        await fails("ApprovalPending", activity("fetch", held, id="asked"))
        approve("asked")
        assert await activity("fetch", held, id="asked", attempt=2) == 200

elif MODE == "ruled":

    @dataclasses.dataclass
    class Mail:
        to: str
        text: str

    @check
    async def a_guardrail_masks_what_goes_in():
        seen = []
        await activity("letter", seen.append, Mail(to="jane.roe@example.com", text="hello"))
        assert seen == [Mail(to="<EMAIL_ADDRESS>", text="hello")], seen

    @check
    async def a_guardrail_masks_what_comes_out():
        result = await activity("pay", lambda: {"card": "4111 1111 1111 1111", "sum": 5})
        assert result == {"card": "<CREDIT_CARD>", "sum": 5}, result

    @check
    async def a_guardrail_blocks_what_may_not_be_said():
        said = activity("say", untouched, "the bluebird flies")
        error = await fails("GuardrailsValidationFailed", said)
        assert "bluebird" not in str(error) and error.non_retryable, error

    @check
    async def a_guardrail_blocks_what_may_not_come_out():
        ran = []

        def work():
            ran.append(True)
            return {"text": "the bluebird flies"}

        error = await fails("GuardrailsValidationFailed", activity("tell", work))
        assert ran and "bluebird" not in str(error) and error.non_retryable, error

    @check
    async def a_behaviour_rule_looks_at_what_hooks_told_before():
        def delete():
            return requests.delete(ORIGIN + "/echo", timeout=20).status_code

        def look():
            return requests.get(ORIGIN + "/echo", timeout=20).status_code

        workflow = "wf-behaviour"
        early = activity("tidy", delete, id="early", workflow=workflow)
        assert "look before you delete" in str(await fails("GovernanceBlock", early))
        assert await activity("tidy", look, id="look", workflow=workflow) == 200
        assert await activity("tidy", delete, id="late", workflow=workflow) == 200

else:

    @check
    async def a_key_is_validated():
        initialize(URL, KEY, governance_timeout=30.0)
        try:
            initialize(URL, "obx_test_" + "0" * 48, governance_timeout=30.0)
        except Exception as error:
            assert type(error).__name__ == "OpenBoxAuthError", repr(error)
        else:
            raise AssertionError("a wrong key was accepted")

    @check
    async def a_workflow_is_told_from_its_start_to_its_end():
        for kind, fields in [
            ("WorkflowStarted", {"task_queue": "compat"}),
            ("SignalReceived", {"task_queue": "compat", "signal_name": "s", "signal_args": [1]}),
            ("WorkflowCompleted", {"workflow_output": {"n": 1}}),
        ]:
            answer = await event(kind, "wf-ended", **fields)
            assert answer["success"] and answer["verdict"] == "allow", answer
        error = {"type": "ValueError", "message": "no", "cause": {"type": "E", "message": "m"}}
        answer = await event("WorkflowFailed", "wf-failed", error=error)
        assert answer["success"], answer

    @check
    async def an_activity_that_is_allowed_runs():
        result = await activity("sum", lambda a, b: a + b, 1, 2)
        assert result == 3

    @check
    async def an_activity_that_is_constrained_runs():
        assert await activity("constrain", lambda: 5) == 5

    @check
    async def an_activity_that_is_blocked_does_not_run():
        error = await fails("GovernanceBlock", activity("block", untouched))
        assert "the test says block" in str(error) and error.non_retryable

    @check
    async def an_activity_waits_for_its_approval_and_then_runs():
        kind = "require_approval"
        await fails("ApprovalPending", activity(kind, untouched, id="approved"))
        await fails("ApprovalPending", activity(kind, untouched, id="approved", attempt=2))
        approve("approved")
        assert await activity(kind, lambda: "ran", id="approved", attempt=3) == "ran"

    @check
    async def an_approval_is_remembered_by_a_worker_that_forgot_it():
        kind = "require_approval"
        await fails("ApprovalPending", activity(kind, untouched, id="forgotten"))
        # As after a restart: the SDK does not poll, it only asks again.
        SPANS.unregister_workflow("wf-forgotten")
        await fails("ApprovalPending", activity(kind, untouched, id="forgotten", attempt=2))
        approve("forgotten")
        SPANS.unregister_workflow("wf-forgotten")
        assert await activity(kind, lambda: "ran", id="forgotten", attempt=3) == "ran"

    @check
    async def an_activity_that_a_person_rejects_does_not_run():
        kind = "require_approval"
        await fails("ApprovalPending", activity(kind, untouched, id="rejected"))
        reject("rejected", "not on a Friday")
        again = activity(kind, untouched, id="rejected", attempt=2)
        error = await fails("ApprovalRejected", again)
        assert "not on a Friday" in str(error)

    @dataclasses.dataclass
    class Letter:
        to: str
        text: str

    @check
    async def a_redacted_input_is_what_the_activity_gets():
        seen = []
        letter = Letter(to="x@example.com", text="hello")
        await activity("redact_in", seen.append, letter)
        assert seen == [Letter(to="[PERSON]", text="hello")], seen

    @check
    async def a_redacted_output_is_what_the_workflow_gets():
        result = await activity("redact_out", lambda: {"card": "4111"})
        assert result == {"card": "[CARD]"}, result

    def get(path):
        return lambda: requests.get(ORIGIN + path, timeout=20).status_code

    @check
    async def a_request_inside_an_activity_is_allowed():
        assert await activity("fetch", get("/echo"), id="allowed") == 200

    @check
    async def a_request_inside_an_activity_is_blocked_before_it_leaves():
        error = await fails("GovernanceBlock", activity("fetch", get("/started/block"), id="blocked"))
        assert "the test says block" in str(error)

    @check
    async def an_answer_that_is_blocked_fails_the_activity():
        error = await fails(
            "GovernanceBlock", activity("fetch", get("/completed/block"), id="answer")
        )
        assert "the test says block" in str(error)

    @check
    async def a_request_waits_for_its_approval_and_then_leaves():
        path = "/started/require_approval"
        kind = "fetch"
        await fails("ApprovalPending", activity(kind, get(path), id="held"))
        approve("held")
        assert await activity(kind, get(path), id="held", attempt=2) == 200

    @check
    async def httpx_and_its_async_client_are_taken_as_they_are_told():
        def sync():
            return httpx.post(ORIGIN + "/echo", json={"a": 1}, timeout=20).status_code

        async def later():
            async with httpx.AsyncClient(timeout=20) as client:
                answer = await client.post(ORIGIN + "/echo", json={"a": 1})
                return answer.status_code

        assert await activity("fetch", sync, id="httpx") == 200
        assert await activity("fetch", later, id="httpx-async") == 200

    @check
    async def statements_files_and_functions_are_governed():
        @traced
        def charge(amount):
            return amount * 2

        def work():
            with sqlite3.connect(":memory:") as connection:
                connection.execute("CREATE TABLE t (n INTEGER)")
                connection.execute("INSERT INTO t VALUES (?)", (5,))
                rows = connection.execute("SELECT n FROM t").fetchall()
            with tempfile.TemporaryDirectory() as folder:
                with open(folder + "/note.txt", "w") as file:
                    file.write("a\nb\n")
                with open(folder + "/note.txt") as file:
                    text = file.read()
            return rows[0][0], text, charge(21)

        assert await activity("work", work) == (5, "a\nb\n", 42)

    @check
    async def a_file_that_is_forbidden_is_not_opened():
        with tempfile.TemporaryDirectory() as folder:
            path = folder + "/forbidden.txt"
            await fails("GovernanceBlock", activity("work", lambda: open(path, "w"), id="file"))
            assert not os.path.exists(path)

    @check
    async def a_function_that_is_forbidden_is_not_called():
        @traced
        def forbidden():
            untouched()

        await fails("GovernanceBlock", activity("work", forbidden, id="function"))

    @check
    async def a_halt_stops_the_run_for_good():
        error = await fails("GovernanceHalt", activity("halt", untouched, workflow="wf-halted"))
        assert "the test says halt" in str(error)
        assert TERMINATED and TERMINATED[-1][0] == "wf-halted", TERMINATED
        await fails("GovernanceHalt", activity("sum", untouched, id="later", workflow="wf-halted"))
        assert await activity("sum", lambda: 1, id="other-run") == 1

    @check
    async def a_request_that_halts_stops_the_run_for_good():
        path = "/started/halt"
        await fails("GovernanceHalt", activity("fetch", get(path), workflow="wf-halted-by-hook"))
        later = activity("sum", untouched, id="later", workflow="wf-halted-by-hook")
        await fails("GovernanceHalt", later)


logging.disable(logging.CRITICAL)
main(lambda function: asyncio.run(function()))
