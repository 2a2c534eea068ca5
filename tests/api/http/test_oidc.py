"""JWTs of an issuer: who they let in, and who they do not."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, OctKey

from api.http import callers, oidc
from api.http.callers import Gate, TokenVerifier
from api.http.oidc import Issuer, IssuerUnavailableError, OidcVerifier
from api.http.problems import UnauthorizedError
from ledger import organisation_commands as facts
from tests.api.http.office import Office

AUDIENCE = "guishu"


class Keys:
    """An issuer's keys, and the tokens that they sign."""

    def __init__(self) -> None:
        self.keys = [ECKey.generate_key("P-256", {"kid": "one"})]
        self.asked = 0
        self.issuer = ""

    def rotate(self) -> None:
        """Sign with another key from now on."""
        self.keys = [ECKey.generate_key("P-256", {"kid": "two"})]

    def token(self, **claims: Any) -> str:
        """Return a token that holds, but for what ``claims`` say otherwise; None leaves out."""
        said = {"iss": self.issuer, "aud": AUDIENCE, "exp": int(time.time()) + 600, "sub": "per_a"}
        given = {name: value for name, value in {**said, **claims}.items() if value is not None}
        key = self.keys[0]
        return jwt.encode({"alg": "ES256", "kid": key.kid}, given, key)

    def document(self, path: str) -> dict[str, Any]:
        """Return what the issuer publishes."""
        self.asked += 1
        if path.endswith("openid-configuration"):
            return {"jwks_uri": f"{self.issuer}/keys"}
        return dict(KeySet(self.keys).as_dict(private=False))  # type: ignore[arg-type]


@contextmanager
def publishing(keys: Keys) -> Iterator[str]:
    """Publish keys on this machine beside the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(keys.document(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        keys.issuer = f"http://127.0.0.1:{server.server_port}"
        yield keys.issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def accepting(office: Office, keys: Keys, **settings: Any) -> OidcVerifier:
    """Have the office accept an issuer's tokens."""
    directory = office.services.directory
    verifier = OidcVerifier(Issuer(keys.issuer, AUDIENCE, **settings), directory.organisation)
    own = TokenVerifier(office.services.ledger.pool.connection)
    vars(office.services)["gate"] = Gate(directory, (own, verifier))
    return verifier


def test_a_jwt_lets_its_person_in_with_the_persons_roles(office: Office) -> None:
    keys = Keys()
    with publishing(keys):
        accepting(office, keys)
        office.tokens["jwt"] = keys.token()
        customer = office.customer("华星")
        claimed = office.post("jwt", "/v1/claims", {"customer": customer})
        assert claimed.json()["owner"] == "per_a"
        # A rep has no business with the log, whatever brought them.
        assert office.get("jwt", "/v1/events").status_code == 403
        asked = keys.asked
        office.get("jwt", f"/v1/customers/{customer}")
        assert keys.asked == asked


def test_a_person_may_be_named_as_another_system_names_them(office: Office) -> None:
    keys = Keys()
    office.state(
        facts.AddPerson(
            person="per_new",
            name="新人",
            foreign_ids=({"system": "idp", "value": "u-7"},),  # type: ignore[arg-type]
        )
    )
    with publishing(keys):
        verifier = accepting(office, keys, claim="uid", system="idp")
        found = verifier.verify(keys.token(uid="u-7"))
        assert found is not None
        assert found.principal == "per_new"
        for nobody in ("u-8", 7, None):
            with pytest.raises(UnauthorizedError):
                verifier.verify(keys.token(uid=nobody))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://elsewhere"},
        {"aud": "another"},
        {"aud": None},
        {"iss": None},
        {"exp": None},
        {"exp": 1_000_000_000},
        {"exp": "tomorrow"},
        {"exp": 10**18},
        {"nbf": 4_000_000_000},
        {"aud": [f"not-{AUDIENCE}", "another"]},
        {"sub": ["per_a"]},
        {"sub": "per_nobody"},
        {"padding": "x" * oidc.TOKEN_CHARACTERS_MAX},
    ],
)
def test_what_is_not_for_us_or_is_over_does_not_hold(
    office: Office, claims: dict[str, Any]
) -> None:
    keys = Keys()
    with publishing(keys):
        accepting(office, keys)
        office.tokens["jwt"] = keys.token(**claims)
        assert office.get("jwt", "/v1/claims/1").status_code == 401


def test_a_token_that_somebody_else_signed_does_not_hold(office: Office) -> None:
    keys, forger = Keys(), Keys()
    with publishing(keys):
        verifier = accepting(office, keys)
        forger.issuer = keys.issuer
        for forged in (forger.token(), unsigned(keys), by_public_key(keys)):
            with pytest.raises(UnauthorizedError):
                verifier.verify(forged)


@pytest.mark.parametrize(
    "head",
    [
        {"alg": "ES256", "kid": "one", "crit": ["exp"], "exp": 1},
        {"alg": "ES256", "kid": "one", "crit": ["b64"], "b64": False},
        {"alg": "ES256", "kid": ["one"]},
        {"alg": "none", "kid": "one"},
        {"alg": "HS256", "kid": "one"},
        ["ES256"],
        {},
    ],
)
def test_a_head_that_says_something_else_does_not_hold(office: Office, head: Any) -> None:
    """Whatever the head says, whoever sends it is refused, and nobody's request is a defect."""
    keys = Keys()
    with publishing(keys):
        accepting(office, keys)
        _, body, signature = keys.token().split(".")
        said = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
        for forged in (f"{said}.{body}.{signature}", f"{said}.{body}.", f"{said}.."):
            office.tokens["jwt"] = forged
            assert office.get("jwt", "/v1/claims/1").status_code == 401


def test_a_critical_header_that_is_signed_does_not_hold_either(office: Office) -> None:
    keys = Keys()
    with publishing(keys):
        verifier = accepting(office, keys)
        _, body, _ = keys.token().split(".")
        head = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"one","crit":["x"],"x":1}')
        signed = head.rstrip(b"=") + b"." + body.encode()
        algorithm = jws.JWSRegistry.algorithms["ES256"]
        signature = base64.urlsafe_b64encode(algorithm.sign(signed, keys.keys[0])).rstrip(b"=")
        with pytest.raises(UnauthorizedError):
            verifier.verify((signed + b"." + signature).decode())


def unsigned(keys: Keys) -> str:
    """Return a token that says that it has no signature."""
    _, body, _ = keys.token().split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    return f"{head}.{body}."


def by_public_key(keys: Keys) -> str:
    """Return a token whose shared secret is the public key, which anybody knows."""
    secret = OctKey.import_key(json.dumps(keys.keys[0].as_dict(private=False)))
    claims = {"iss": keys.issuer, "aud": AUDIENCE, "exp": int(time.time()) + 600, "sub": "per_a"}
    return jwt.encode({"alg": "HS256", "kid": "one"}, claims, secret)


def test_a_new_key_is_fetched_but_not_for_everybody_who_makes_one_up(office: Office) -> None:
    keys, now = Keys(), [1_000.0]
    with publishing(keys):
        issuer = Issuer(keys.issuer, AUDIENCE, f"{keys.issuer}/keys")
        organisation = office.services.directory.organisation
        verifier = OidcVerifier(issuer, organisation, now=lambda: now[0])
        assert verifier.verify(keys.token()) is not None
        keys.rotate()
        with pytest.raises(UnauthorizedError):
            verifier.verify(keys.token())
        assert keys.asked == 1
        now[0] += oidc.REFRESH_SECONDS_MIN
        assert verifier.verify(keys.token()) is not None
        assert keys.asked == 2
        stranger = Keys()
        stranger.issuer = keys.issuer
        for _ in range(5):
            with pytest.raises(UnauthorizedError):
                verifier.verify(stranger.token())
        assert keys.asked == 2


def test_the_issuer_is_asked_again_only_for_a_key_that_is_not_known(office: Office) -> None:
    """Any forged token asked it again, and on the loop of all requests: it seemed to be at hand."""
    keys, now = Keys(), [1_000.0]
    with publishing(keys):
        issuer = Issuer(keys.issuer, AUDIENCE, f"{keys.issuer}/keys")
        organisation = office.services.directory.organisation
        verifier = OidcVerifier(issuer, organisation, now=lambda: now[0])
        assert not verifier.is_at_hand(keys.token())
        verifier.verify(keys.token())
        assert verifier.is_at_hand(keys.token())
        assert not verifier.is_at_hand("gs_x_y")
        forger = Keys()
        forger.issuer = keys.issuer
        now[0] += oidc.REFRESH_SECONDS_MIN
        for forged in (forger.token(), "a.b.c", "..", "W10.b.c"):
            with pytest.raises(UnauthorizedError):
                verifier.verify(forged)
        assert keys.asked == 1
        forger.rotate()
        assert not verifier.is_at_hand(forger.token())
        with pytest.raises(UnauthorizedError):
            verifier.verify(forger.token())
        assert keys.asked == 2


def test_keys_of_other_kinds_are_left_out(office: Office) -> None:
    """One key of a kind that is not known kept all tokens of the issuer out."""
    keys = Keys()
    with publishing(keys):
        verifier = accepting(office, keys)
        published = keys.document
        strange = [{"kty": "XYZ", "kid": "new"}, "one", None]

        def document(path: str) -> dict[str, Any]:
            found = published(path)
            return found | {"keys": [*strange, *found["keys"]]} if "keys" in found else found

        vars(keys)["document"] = document
        assert verifier.verify(keys.token()) is not None


def test_an_issuer_that_does_not_answer_is_told(office: Office) -> None:
    issuer = Issuer("http://127.0.0.1:1", AUDIENCE)
    verifier = OidcVerifier(issuer, office.services.directory.organisation)
    with pytest.raises(IssuerUnavailableError):
        verifier.verify("a.b.c")
    assert verifier.verify("gs_x_y") is None


@pytest.mark.parametrize("answer", [OSError("away"), {"keys": []}, {"keys": 7}, {}])
def test_an_issuer_that_does_not_answer_is_not_asked_by_everybody(
    office: Office, answer: Any
) -> None:
    """Each caller asked it anew, one behind the other, and held a thread for as long."""
    asked, now = [0], [1_000.0]

    def fetch(_: str) -> dict[str, Any]:
        asked[0] += 1
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    issuer = Issuer("https://issuer", AUDIENCE, "https://issuer/keys")
    organisation = office.services.directory.organisation
    verifier = OidcVerifier(issuer, organisation, fetch=fetch, now=lambda: now[0])
    vars(office.services)["gate"] = Gate(office.services.directory, (verifier,))
    office.tokens["jwt"] = "a.b.c"
    for _ in range(5):
        refused = office.get("jwt", "/v1/claims/1")
        assert (refused.status_code, refused.json()["code"]) == (503, "issuer_unavailable")
        assert refused.headers["Retry-After"] == "1"
    assert asked[0] == 1
    now[0] += oidc.RETRY_SECONDS_MIN
    assert office.get("jwt", "/v1/claims/1").status_code == 503
    assert asked[0] == 2


@pytest.mark.parametrize("url", ["http://example.org/keys", "file:///etc/passwd", "ftp://x/y"])
def test_keys_are_fetched_over_tls_only(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        oidc.fetch_json(url)


def test_what_is_of_no_known_kind_is_refused(office: Office) -> None:
    assert callers.CACHED_SECONDS < 60
    office.tokens["x"] = "whatever"
    assert office.get("x", "/v1/claims/1").status_code == 401


def test_only_what_a_known_key_signed_is_admitted_without_asking_anybody(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the issuer's keys were there any token was let in on the event loop.

    There the database was asked for guishu's own, and for a JWT that did not hold the issuer: all
    requests waited meanwhile.
    """
    keys = Keys()
    with publishing(keys):
        accepting(office, keys)
        gate, good = office.services.gate, keys.token()
        assert gate.admit(f"Bearer {good}", None).actor == "per_a"
        monkeypatch.setattr(office.services.directory, "_fresh_seconds", 3_600.0)
        assert gate.is_at_hand(f"Bearer {good}")
        asked = keys.asked
        keys.rotate()
        for other in (office.tokens["per_b"], keys.token()):
            assert not gate.is_at_hand(f"Bearer {other}")
        # Of what a known key is said to have signed, and has not, nobody is asked.
        with pytest.raises(UnauthorizedError):
            gate.admit(f"Bearer {good[:-4]}AAAA", None)
        assert keys.asked == asked
