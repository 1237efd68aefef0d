"""A Core and an identity provider that take from the sidecar exactly what the real SDK would have sent.

Each governed request is made anew by the SDK's own functions, from the moment and the id in it, and has to be the same
to the last byte of its signature.
"""

import base64
import http.server
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from urllib.parse import parse_qs, urlsplit

from common import check, main

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from openbox_core.client import EvaluationClient
from openbox_core.identity import AgentIdentity, prepare_signed_request
from openbox_core.identity_okta import OktaAgentIdentity, prepare_okta_signed_request
from openbox_core.identity_types import OktaAiAgentIdentityConfig, OpenBoxDidIdentityConfig
from openbox_core.jwk_thumbprint import jwk_thumbprint_sha256
from openbox_core.serialization import serialize_body
from openbox_core.workload_identity import build_private_key_jwt, parse_workload_bootstrap_document
from openbox_core.workload_identity import parse_workload_transition_bootstrap_response

BINARY = os.environ["COMPAT_BINARY"]
API_KEY = "obx_test_0123456789abcdef0123456789abcdef0123456789abcdef"
DID = "did:aip:7b9d6c1e-4f3a-4c55-9a1b-0f6f3b0c2d11"
SEED = base64.b64encode(bytes(range(32))).decode()
TRANSITION = "99999999-9999-4999-8999-999999999999"
EVENT = {"event_type": "WorkflowStarted", "workflow_id": "wf-identity", "run_id": "run-identity", "note": "ä"}

# What the sidecar governs: the SDK, with what `run` gives it, and nothing of the identity.
CHILD = """
import os
from openbox_core.config import OpenBoxConfig
from openbox_core.client import EvaluationClient
config = OpenBoxConfig.resolve()
assert config.identity_method == "legacy_unsigned", config.identity_method
result = EvaluationClient(config.api_url, config.api_key, on_api_error="fail_closed").evaluate(%r)
print(result.verdict.value, result.reason)
""" % (EVENT,)

# An agent that keeps the identity itself, and has the sidecar for its Core.
OWN = """
import os, sys
from openbox_core.client import EvaluationClient
from openbox_core.errors import OpenBoxConfigError, OpenBoxSigningError
from openbox_core.identity_okta import OktaAgentIdentity
from openbox_core.identity_types import OktaAiAgentIdentityConfig
pem, other = (open(path).read() for path in sys.argv[1:3])
names = %r
def client(pem, **more):
    identity = OktaAgentIdentity.from_config(OktaAiAgentIdentityConfig(private_key=pem, **names))
    url, key = os.environ["OPENBOX_URL"], os.environ["OPENBOX_API_KEY"]
    return EvaluationClient(url, key, identity=identity, **more)
for own in (client(pem), client(pem, workload_private_key=pem)):
    assert own.validate_api_key()
    result = own.evaluate(%r)
    assert result.verdict.value == "allow" and not result.fallback_used, result
    own.poll_approval("wf", "run", "none")
    assert own.emit_handoff("other", "wäit")["multi_agent_session_id"] == "mas-1"
try:
    raise AssertionError(client(other).evaluate(%r))
except OpenBoxSigningError as error:
    assert error.reason_code == "signature_invalid", error
bootstrap = EvaluationClient(
    os.environ["OPENBOX_URL"], os.environ["OPENBOX_API_KEY"], okta_bootstrap_private_key=pem
)
try:
    raise AssertionError(bootstrap.evaluate(%r))
except OpenBoxConfigError as error:
    assert "identity_method_mismatch" in str(error), error
print("taken")
"""

# An agent that has nothing but the key, and asks who it is; one with another key.
ASKS_WHO_IT_IS = """
import os, sys
from openbox_core.client import EvaluationClient
pem, other = %r, %r
def client(key):
    url, api_key = os.environ["OPENBOX_URL"], os.environ["OPENBOX_API_KEY"]
    return EvaluationClient(url, api_key, okta_bootstrap_private_key=key)
own = client(pem)
assert own.validate_api_key()
result = own.evaluate(%r)
assert result.verdict.value == "allow" and not result.fallback_used, result
try:
    raise AssertionError(client(other).evaluate(%r))
except Exception as error:
    assert "thumbprint" in str(error).lower() or "key" in str(error).lower(), error
print("taken")
"""


# An agent with a DID hands over, to one that Core knows and to one that it does not.
HANDS_OVER = """
import os
from openbox_core.client import EvaluationClient
from openbox_core.errors import OpenBoxAuthError
from openbox_core.identity import AgentIdentity
identity = AgentIdentity.from_private_key(%r, %r)
own = EvaluationClient(os.environ["OPENBOX_URL"], os.environ["OPENBOX_API_KEY"], identity=identity)
assert own.emit_handoff("other", "wäit") == {"status": "ok", "multi_agent_session_id": "mas-1"}
try:
    raise AssertionError(own.emit_handoff("nobody"))
except OpenBoxAuthError as error:
    assert "did_agent_mismatch" in str(error), error
print("handed over")
"""


def pem_of(key):
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PEM = pem_of(KEY)
NAMES = {
    "OPENBOX_AGENT_ID": "11111111-1111-4111-8111-111111111111",
    "OPENBOX_ORGANIZATION_ID": "org-ä",
    "OPENBOX_DEPLOYMENT_ID": "dep-1",
    "OPENBOX_AGENT_PROOF_AUDIENCE": "https://core.example.test/aud",
    "OPENBOX_OKTA_AGENT_ID": "wlp-okta-1",
    "OPENBOX_OKTA_AGENT_KEY_ID": "kid-1",
}
CANDIDATE = OktaAiAgentIdentityConfig(
    openbox_agent_id=NAMES["OPENBOX_AGENT_ID"],
    organization_id=NAMES["OPENBOX_ORGANIZATION_ID"],
    deployment_id=NAMES["OPENBOX_DEPLOYMENT_ID"],
    external_agent_id=NAMES["OPENBOX_OKTA_AGENT_ID"],
    key_id=NAMES["OPENBOX_OKTA_AGENT_KEY_ID"],
    audience=NAMES["OPENBOX_AGENT_PROOF_AUDIENCE"],
    private_key=PEM,
)


class Core(http.server.ThreadingHTTPServer):
    """Answers as Core does, and notes what was sent and what was wrong with it."""

    daemon_threads = True

    def __init__(self, key=KEY, workload=True, token=(200, None), signed=True):
        super().__init__(("127.0.0.1", 0), Handler)
        self.thumbprint = jwk_thumbprint_sha256(key)
        self.workload = workload
        self.token = token
        self.signed = signed
        self.sent = []
        self.wrong = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def account(self):
        issuer = self.url + "/realms/openbox"
        return {
            "bootstrap_version": 3,
            "contract_version": 3,
            "issuer": issuer,
            "token_endpoint": issuer + "/protocol/openid-connect/token",
            "audience": "openbox-core",
            "client_id": "svc 1&2",
            "service_account_id": "77777777-7777-4777-8777-777777777777",
            "activation_version": "88888888-8888-4888-8888-888888888888",
            "identity_source": "okta",
            "kid": "kid-w",
        }

    def transition(self):
        kept = ("bootstrap_version", "contract_version", "token_endpoint", "client_id", "identity_source", "kid")
        document = {name: self.account()[name] for name in kept}
        return document | {"transition_id": TRANSITION, "expires_at": "2099-01-01T00:00:00Z"}

    def names(self):
        ids = ("assignment_id", "provider_generation_id", "activation_version")
        ids += ("identity_id", "credential_id", "projection_version")
        return {
            "bootstrap_version": 1,
            "identity_method": "okta_ai_agent",
            "openbox_agent_id": NAMES["OPENBOX_AGENT_ID"],
            "organization_id": NAMES["OPENBOX_ORGANIZATION_ID"],
            "deployment_id": NAMES["OPENBOX_DEPLOYMENT_ID"],
            "assertion_audience": NAMES["OPENBOX_AGENT_PROOF_AUDIENCE"],
            "authority": {name: name for name in ids} | {"generation_number": 1},
            "okta": {
                "external_agent_id": NAMES["OPENBOX_OKTA_AGENT_ID"],
                "credential_kid": NAMES["OPENBOX_OKTA_AGENT_KEY_ID"],
                "algorithm": "RS256",
                "public_jwk_thumbprint": self.thumbprint,
            },
        }

    def answer(self, method, path, headers, body):
        route = urlsplit(path).path
        if route == "/api/v3/auth/bootstrap":
            if self.workload:
                return 200, self.account()
            return 409, {"reason_code": "workload_identity_unavailable"}
        if route == "/api/v2/auth/bootstrap":
            return 200, self.names()
        if route == "/realms/openbox/protocol/openid-connect/token":
            self.check_token(headers, body)
            granted = {"access_token": "eyJ.fake.token", "token_type": "Bearer", "expires_in": 300}
            return self.token[0], self.token[1] or granted
        if route == "/api/v3/auth/workload-transition/bootstrap":
            assert parse_qs(urlsplit(path).query) == {"transition_id": [TRANSITION]}, path
            return 200, self.transition()
        assert headers["authorization"] == f"Bearer {API_KEY}", headers
        if route.startswith("/api/v1/") and (self.signed or route.endswith("handoffs")):
            self.check_did(method, route, headers, body)
        elif route.startswith("/api/v2/"):
            self.check_assertion(method, route, headers, body)
        elif route.startswith("/api/v1/"):
            assert "x-openbox-agent-did" not in headers, headers
        elif route == "/api/v3/auth/workload-transition/proof":
            self.check_proof(body)
        else:
            assert headers["x-openbox-workload-token"] == "eyJ.fake.token", headers
        if route.endswith("handoffs"):
            if json.loads(body)["target_agent_id"] == "nobody":
                return 403, {"code": 403, "reason_code": "did_agent_mismatch", "message": "no such agent"}
            return 200, {"status": "ok", "multi_agent_session_id": "mas-1"}
        if "proof" in route:
            return 200, {"status": "proved"}
        if route.endswith("validate"):
            return 200, {"valid": True}
        return 200, {"verdict": "allow", "action": "allow", "reason": f"shown on {route}"}

    def check_token(self, headers, body):
        assert "authorization" not in headers, headers
        form = dict(parse_qs(body.decode(), strict_parsing=True))
        (jws,) = form.pop("client_assertion")
        assert form == {
            "grant_type": ["client_credentials"],
            "client_id": ["svc 1&2"],
            "client_assertion_type": ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"],
        }, form
        same_jws(jws, parse_workload_bootstrap_document(self.account()))

    def check_proof(self, body):
        said = json.loads(body)
        document = parse_workload_transition_bootstrap_response(200, json.dumps(self.transition()).encode())
        same_jws(said["client_assertion"], document)
        expected = {"transition_id": TRANSITION, "client_assertion": said["client_assertion"]}
        assert body == serialize_body(expected), body

    def check_assertion(self, method, route, headers, body):
        jws = headers["x-openbox-agent-assertion"]
        claims = claims_of(jws)
        extra = None
        if route.endswith("transition-proof"):
            extra = {
                "obx_transition_purpose": "okta_ai_agent",
                "obx_transition_id": TRANSITION,
                "obx_transition_challenge": "challenge-ä",
            }
        expected, sent = prepare_okta_signed_request(
            method,
            route,
            json.loads(body) if body else None,
            api_key=API_KEY,
            identity=OktaAgentIdentity.from_config(CANDIDATE),
            extra_claims=extra,
            _jti=claims["jti"],
            _iat=claims["iat"],
        )
        assert sent == body, body
        assert jws == expected["X-OpenBox-Agent-Assertion"], claims

    def check_did(self, method, route, headers, body):
        expected, sent = prepare_signed_request(
            method,
            route,
            json.loads(body) if body else None,
            api_key=API_KEY,
            identity=AgentIdentity.from_private_key(DID, SEED),
            _timestamp=headers["x-openbox-agent-timestamp"],
            _nonce=headers["x-openbox-agent-nonce"],
        )
        assert sent == body, body
        for name in ("DID", "Signature"):
            name = f"X-OpenBox-Agent-{name}"
            assert headers[name.lower()] == expected[name], name


def claims_of(jws):
    part = jws.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def same_jws(jws, document):
    claims = claims_of(jws)
    expected = build_private_key_jwt(PEM, document, issued_at=claims["iat"], jti=claims["jti"])
    assert jws == expected, claims


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        core = self.server
        core.sent.append((self.command, self.path, [name.lower() for name in self.headers], body))
        try:
            status, said = core.answer(self.command, self.path, headers, body)
        except Exception as error:
            core.wrong.append(f"{self.command} {self.path}: {error!r}")
            status, said = 401, {"reason_code": "signature_invalid", "message": "see the check"}
        text = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET


def sidecar(core, verb, arguments, identity):
    """Runs the sidecar with `identity` in its environment."""
    with tempfile.TemporaryDirectory() as state:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("OPENBOX_")}
        environment |= {"OPENBOX_API_KEY": API_KEY, "OPENBOX_STATE_DIR": state, **identity}
        command = [BINARY, *verb, "--core-url", core.url, "--fail-mode", "closed", *arguments]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert not core.wrong, core.wrong
    shown = ended.stdout + ended.stderr
    for secret in (PEM.splitlines()[1], SEED, "eyJ.fake.token", API_KEY):
        assert secret not in shown, shown
    return ended


def governed(core, identity):
    """What the sidecar sends to `core` for an agent that tells one event."""
    ended = sidecar(core, ["run"], ["--", sys.executable, "-c", CHILD], identity)
    assert ended.returncode == 0, ended
    return ended.stdout.strip(), [(method, path) for method, path, _, _ in core.sent]


def refused(core, identity, words):
    ended = sidecar(core, ["run"], ["--", sys.executable, "-c", CHILD], identity)
    assert ended.returncode == 1 and words in ended.stderr, ended
    asked = [path for _, path, _, _ in core.sent if "governance" in path or "validate" in path]
    assert not asked, asked


def of_sdk(core, **identity):
    """What the SDK sends to `core` for the same."""
    client = EvaluationClient(core.url, API_KEY, on_api_error="fail_closed", **identity)
    assert client.validate_api_key()
    assert client.evaluate(EVENT).verdict.value == "allow"
    assert not core.wrong, core.wrong
    return core.sent


def same(ours, theirs):
    """Routes and heads, in order; only ours names its retries, and says the type of nothing."""

    def heads(sent):
        return [(method, path, [n for n in names if n != "idempotency-key"]) for method, path, names, _ in sent]

    # The sidecar tells of its own run besides the event of its agent.
    seen = []
    for head in heads(ours):
        if head not in seen:
            seen.append(head)
    assert seen == heads(theirs), (seen, heads(theirs))


OKTA = {"OPENBOX_OKTA_AGENT_PRIVATE_KEY": PEM}
WORKLOAD = {"OPENBOX_WORKLOAD_PRIVATE_KEY": PEM}


@check
def an_okta_agent_asks_as_the_sdk():
    core, other = Core(workload=False), Core(workload=False)
    said, _ = governed(core, OKTA)
    assert said == "allow shown on /api/v2/governance/evaluate", said
    same(core.sent, of_sdk(other, okta_bootstrap_private_key=PEM, workload_private_key=PEM))


@check
def a_configured_okta_agent_asks_as_the_sdk():
    core, other = Core(workload=False), Core(workload=False)
    governed(core, OKTA | NAMES)
    identity = OktaAgentIdentity.from_config(CANDIDATE)
    same(core.sent, of_sdk(other, identity=identity, workload_private_key=PEM))
    assert "/api/v2/auth/bootstrap" not in [path for _, path, _, _ in core.sent]


@check
def a_workload_asks_as_the_sdk():
    for identity in (WORKLOAD, OKTA):
        core, other = Core(), Core()
        said, _ = governed(core, identity)
        assert said == "allow shown on /api/v3/governance/evaluate", said
        same(core.sent, of_sdk(other, workload_private_key=PEM))


@check
def without_a_workload_identity_it_is_the_agent_with_its_did():
    identity = AgentIdentity.from_private_key(DID, SEED)
    core, other = Core(workload=False), Core(workload=False)
    did = {"OPENBOX_AGENT_DID": DID, "OPENBOX_AGENT_PRIVATE_KEY": SEED}
    said, sent = governed(core, WORKLOAD | did)
    assert said == "allow shown on /api/v1/governance/evaluate", said
    assert sent.count(("GET", "/api/v3/auth/bootstrap")) == 1, sent
    same(core.sent, of_sdk(other, identity=identity, workload_private_key=PEM))


@check
def an_agent_may_assert_itself_to_the_sidecar():
    names = {name: getattr(CANDIDATE, name) for name in CANDIDATE.__dataclass_fields__}
    names = {k: v for k, v in names.items() if k not in ("private_key", "algorithm", "method")}
    with tempfile.TemporaryDirectory() as folder:
        other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        paths = [os.path.join(folder, name) for name in ("own.pem", "other.pem")]
        for path, pem in zip(paths, (PEM, pem_of(other))):
            with open(path, "w") as file:
                file.write(pem)
        script = OWN % (names, EVENT, EVENT, EVENT)
        core = Core(workload=False)
        command = ["--", sys.executable, "-c", script, *paths]
        ended = sidecar(core, ["run"], command, OKTA | NAMES)
        assert (ended.returncode, ended.stdout.strip()) == (0, "taken"), ended


@check
def an_agent_that_has_only_its_key_learns_from_the_sidecar_who_it_is():
    core = Core(workload=False)
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    script = ASKS_WHO_IT_IS % (PEM, pem_of(other), EVENT, EVENT)
    ended = sidecar(core, ["run"], ["--", sys.executable, "-c", script], OKTA)
    assert (ended.returncode, ended.stdout.strip()) == (0, "taken"), ended
    asked = [path for _, path, _, _ in core.sent].count("/api/v2/auth/bootstrap")
    assert asked == 1, core.sent


@check
def an_agent_hands_over_under_the_sidecars_identity():
    core = Core(workload=False)
    did = {"OPENBOX_AGENT_DID": DID, "OPENBOX_AGENT_PRIVATE_KEY": SEED}
    ended = sidecar(core, ["run"], ["--", sys.executable, "-c", HANDS_OVER % (DID, SEED)], did)
    assert (ended.returncode, ended.stdout.strip()) == (0, "handed over"), ended
    assert sum(path == "/api/v1/handoffs" for _, path, _, _ in core.sent) == 2, core.sent


@check
def an_agent_hands_over_under_its_own_identity_where_the_sidecar_has_none():
    core, other = Core(workload=False, signed=False), Core(workload=False, signed=False)
    public = Ed25519PrivateKey.from_private_bytes(base64.b64decode(SEED)).public_key().public_bytes_raw()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(f"sdk:\n  agent_did: {DID}\n  agent_public_key: {base64.b64encode(public).decode()}\n")
        file.flush()
        command = ["--config", file.name, "--", sys.executable, "-c", HANDS_OVER % (DID, SEED)]
        ended = sidecar(core, ["run"], command, {})
    assert (ended.returncode, ended.stdout.strip()) == (0, "handed over"), ended
    identity = AgentIdentity.from_private_key(DID, SEED)
    assert EvaluationClient(other.url, API_KEY, identity=identity).emit_handoff("other", "wäit")
    handed = [sent for sent in core.sent if sent[1] == "/api/v1/handoffs"]
    assert [sent[3] for sent in handed[:1]] == [sent[3] for sent in other.sent], (handed, other.sent)
    same(handed, other.sent)


@check
def another_key_than_the_one_that_core_holds_asks_nothing():
    core = Core(key=rsa.generate_private_key(public_exponent=65537, key_size=2048), workload=False)
    refused(core, OKTA, "thumbprint")


@check
def without_a_token_nothing_is_asked():
    refused(Core(token=(503, {})), WORKLOAD, "HTTP 503")
    refused(Core(token=(401, {"error": "invalid_client"})), WORKLOAD, "OPENBOX_WORKLOAD_PRIVATE_KEY")


@check
def a_transition_is_proved_as_the_sdk_proves_it():
    challenge = ["--transition", TRANSITION, "--challenge", "challenge-ä"]
    did = {"OPENBOX_AGENT_DID": DID, "OPENBOX_AGENT_PRIVATE_KEY": SEED}
    sdk = {
        "did": lambda client: client.validate_openbox_did_identity_transition(
            TRANSITION, "challenge-ä", candidate_identity=OpenBoxDidIdentityConfig(DID, SEED)
        ),
        "okta": lambda client: client.validate_okta_identity_transition(
            TRANSITION, "challenge-ä", candidate_identity=CANDIDATE
        ),
        "workload": lambda client: client.prove_workload_identity_transition(TRANSITION, candidate_private_key=PEM),
    }
    for name, arguments, identity in (
        ("did", challenge, did),
        ("okta", challenge, OKTA | NAMES),
        ("workload", challenge[:2], WORKLOAD),
    ):
        core, other = Core(), Core()
        ended = sidecar(core, ["identity", "prove"], arguments, identity)
        assert ended.returncode == 0 and "proved" in ended.stdout, ended
        assert sdk[name](EvaluationClient(other.url, API_KEY)) == {"status": "proved"}
        same(core.sent, other.sent)
        assert not other.wrong, other.wrong
        if name != "workload":
            assert [body for *_, body in core.sent] == [body for *_, body in other.sent], name


logging.disable(logging.CRITICAL)
main(lambda function: function())
