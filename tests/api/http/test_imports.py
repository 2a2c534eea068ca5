"""Imports over HTTP: uploaded, filed by a job, reported, and nothing twice."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from api.http.routes import imports
from api.jobs import importing, table
from api.jobs.holding import Holding, Lost
from ledger import organisation_commands as facts
from ledger.envelope import Origin
from ledger.errors import LedgerError
from ledger.store.reading import head
from tests.api.http.office import CRM, EAST, Office, make_token
from tests.support.processes import wait_until

MAPPING = """
name = "list-1"

[constants]
time_zone = "Asia/Shanghai"
cut_over = 2024-01-01

[unknown]
people = "create"

[[files]]
file = "customers.csv"

[files.customer]
name = "客户名称"

[files.owner]
customer = "客户名称"
owner = "负责人"
"""
ROWS = "客户名称,负责人\n华星,王芳\n蓝海,李雷\n远山,\n华星,李雷\n"


def upload(
    office: Office,
    who: str = "per_admin",
    *,
    mapping: str = MAPPING,
    files: Mapping[str, str] | None = None,
    query: str = "",
    **more: Any,
) -> httpx.Response:
    named = files if files is not None else {"customers.csv": ROWS}
    parts: list[tuple[str, tuple[str, bytes, str]]] = [
        ("mapping", ("mapping.toml", mapping.encode(), "application/toml")),
        *(("file", (name, text.encode(), "text/csv")) for name, text in named.items()),
    ]
    return office.call(who, "POST", f"/v1/imports{query}", files=parts, **more)


def ended(office: Office, answer: httpx.Response, who: str = "per_admin") -> dict[str, Any]:
    """Return the job as it has ended."""
    assert answer.status_code == 202, answer.text
    path = answer.headers["Location"]
    wait_until(lambda: office.get(who, path).json()["state"] in table.OVER)
    told: dict[str, Any] = office.get(who, path).json()
    return told


def at_head(office: Office) -> int:
    with office.services.ledger.pool.connection() as connection:
        return head(connection)


def rejects(office: Office, job: str, who: str = "per_admin") -> list[list[str]]:
    answer = office.get(who, f"/v1/imports/{job}/rejects")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    return list(csv.reader(io.StringIO(answer.content.decode("utf-8-sig"))))


def test_an_import_is_filed_by_a_job_and_reported(office: Office) -> None:
    told = ended(office, upload(office))
    assert (told["state"], told["error"]) == ("done", None), told
    assert (told["kind"], told["actor"]) == ("import", "per_admin")
    assert told["parameters"] == {"name": "list-1", "files": ["customers.csv"], "check": False}
    result = told["result"]
    assert result["rows"] == 4
    assert result["recorded"]["register_customer"] == 3
    assert result["recorded"]["open_with_owner"] == 2
    assert result["report"]["customers"] == 3
    assert result["report"]["total"]["granted"] == 2
    assert result["rejects"] == {"second_owner": 1}
    header, row = rejects(office, told["job"])
    assert header == ["file", "row", "column", "reason", "value"]
    assert row[1:4] == ["5", "负责人", "second_owner"]
    found = office.get("per_a", "/v1/customers?text=华星").json()["items"]
    assert found[0]["ownership"]["state"] == "owned"
    with office.services.ledger.pool.connection() as connection:
        # What was uploaded holds personal data in plain: it has gone.
        assert table.file_names(connection, told["job"]) == [table.REJECTS]
        (noted,) = connection.execute(
            "SELECT caller, route, subjects, fields FROM api.personal_access"
        ).fetchall()
    assert noted[:2] == ("person:per_admin", "/v1/imports/{job}/rejects")


def test_the_same_import_again_changes_nothing(office: Office) -> None:
    key = {"Idempotency-Key": "import-1"}
    first = upload(office, headers=key)
    done = ended(office, first)
    again = upload(office, headers=key)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == done | {"repeated": True}
    before = at_head(office)
    other = ended(office, upload(office))
    assert other["job"] != done["job"]
    assert other["result"]["recorded_before"]["register_customer"] == 3
    assert set(other["result"]["recorded"].values()) == {0}
    assert at_head(office) == before
    reused = upload(office, headers=key, files={"customers.csv": ROWS + "长江,王芳\n"})
    assert (reused.status_code, reused.json()["code"]) == (422, "request_reused")


def test_a_check_says_what_would_be_filed_and_files_nothing(office: Office) -> None:
    before = at_head(office)
    told = ended(office, upload(office, query="?check=true"))
    assert told["state"] == "done", told
    assert told["result"]["actions"]["register_customer"] == 3
    assert len(rejects(office, told["job"])) == 2
    assert at_head(office) == before


def test_an_import_that_was_cut_off_goes_on_where_it_stopped(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill: the first worker is gone behind the first batch, another takes the job."""
    ledger = office.services.ledger
    monkeypatch.setattr("api.imports.filing.BATCH_ACTIONS", 1)
    asked = table.Asked(
        "import",
        "person:per_admin",
        "per_admin",
        False,
        "cut-1",
        b"d" * 32,
        {"name": "list-1", "files": ["customers.csv"], "check": False, "mapping": MAPPING},
    )
    with ledger.pool.connection() as connection:
        with connection.transaction():
            job, _ = table.ask(
                connection, asked, [(table.UPLOADED + "customers.csv", [ROWS.encode()])]
            )
            # In the same transaction, before anybody else can take it.
            taken = table.take(connection, "first", 3_600)
        assert taken is not None

    class Dying(Holding):
        def tell(self, words: str, done: int, total: int) -> None:
            if words == "filing" and done == 2:
                raise Lost
            super().tell(words, done, total)

    with pytest.raises(Lost):
        importing.do(ledger, taken, Dying("first", False, threading.Event()))
    with ledger.pool.connection() as connection:
        connection.execute("UPDATE api.jobs SET lease_until = now() WHERE job = %s", (job.job,))
    path = f"/v1/jobs/{job.job}"
    wait_until(lambda: office.get("per_admin", path).json()["state"] in table.OVER)
    result = office.get("per_admin", path).json()["result"]
    assert result["recorded_before"]["register_customer"] == 2
    assert result["recorded"]["register_customer"] == 1
    assert result["report"]["customers"] == 3
    opened = [each for each in ledger.recording.organisation().imports() if each.name == "list-1"]
    assert [each.closed for each in opened] == [True]


def test_nobody_files_under_the_name_of_anothers_import(office: Office) -> None:
    """Whoever names an import could file under it: the ids of its rows follow from the name."""
    ended(office, upload(office))
    office.state(facts.ChangePerson(person="per_east", territory=EAST, roles=("manager", "admin")))
    office.services.directory.organisation(now=True)
    expires = datetime.now(UTC) + timedelta(hours=1)
    office.tokens["per_east"] = make_token(
        office.services, "person", "per_east", ["admin"], expires
    )
    other = upload(office, "per_east")
    assert (other.status_code, other.json()["code"]) == (403, "import_of_another")
    own = upload(office, "per_east", mapping=MAPPING.replace("list-1", "list-2"))
    assert ended(office, own, "per_east")["state"] == "done"


def test_a_name_is_taken_also_between_the_asking_and_the_filing(office: Office) -> None:
    ledger = office.services.ledger
    opening = facts.OpenImport(name="list-1", time_zone="Asia/Shanghai")
    admit = importing.must_be_own(ledger, "person:per_admin")
    organisation = ledger.recording.organisation()
    admit(organisation, [])
    ledger.recording.record_fact(opening, Origin("cli:root", "req_open", "per_admin"))
    mine = list(ledger.recording.organisation().imports())
    with pytest.raises(LedgerError, match="Somebody else"):
        admit(ledger.recording.organisation(), mine)
    refused = upload(office)
    assert (refused.status_code, refused.json()["code"]) == (403, "import_of_another")


def test_where_four_eyes_are_required_the_import_is_proposed_first(office: Office) -> None:
    office.state(
        facts.ChangePerson(person="per_east", territory=EAST, roles=("manager", "admin")),
        facts.RequireFourEyes(required=True),
    )
    told = ended(office, upload(office))
    assert (told["state"], told["error"]["code"]) == ("failed", "proposed")
    (proposal,) = office.get("per_admin", "/v1/proposals").json()["items"]
    assert proposal["kind"] == "import"
    adopted = office.post("per_east", f"/v1/proposals/{proposal['proposal']}/adopt", None)
    assert adopted.status_code == 201
    again = ended(office, upload(office))
    assert again["state"] == "done", again
    assert again["result"]["report"]["customers"] == 3


def test_what_cannot_be_read_fails_with_its_reason(office: Office) -> None:
    told = ended(office, upload(office, files={"customers.csv": "name,owner\na,b\n"}))
    assert (told["state"], told["error"]["code"]) == ("failed", "column_missing")
    assert office.get("per_admin", f"/v1/imports/{told['job']}/rejects").status_code == 404


@pytest.mark.parametrize(
    ("mapping", "files", "status", "code"),
    [
        ("name = 1", None, 422, "mapping_invalid"),
        ("name = ", None, 422, "mapping_invalid"),
        ('name = "\\u0000"', None, 422, "mapping_invalid"),
        (MAPPING.replace("customers.csv", "../x.csv"), None, 422, "mapping_invalid"),
        (MAPPING.replace("customers.csv", "/etc/x.csv"), None, 422, "mapping_invalid"),
        (MAPPING.replace("customers.csv", "a/x.csv"), None, 422, "invalid_request"),
        (MAPPING.replace("customers.csv", "a\\\\x.csv"), None, 422, "invalid_request"),
        (MAPPING, {}, 422, "invalid_request"),
        (MAPPING, {"a.csv": ROWS, "b.csv": ROWS}, 422, "invalid_request"),
        (MAPPING, {"customers.csv": ROWS, "b.csv": ROWS}, 422, "invalid_request"),
        ("#" * 300_000, None, 422, "invalid_request"),
    ],
)
def test_what_cannot_be_a_job_is_refused_at_once(
    office: Office, mapping: str, files: Mapping[str, str] | None, status: int, code: str
) -> None:
    answer = upload(office, mapping=mapping, files=files)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert office.get("per_admin", "/v1/jobs").json()["items"] == []


def test_what_is_no_form_is_refused(office: Office) -> None:
    for content, kind in (
        (b"{}", "application/json"),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data"),
    ):
        answer = office.call(
            "per_admin", "POST", "/v1/imports", content=content, headers={"Content-Type": kind}
        )
        assert answer.status_code in {400, 422}, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_more_is_uploaded_than_a_body_may_have_elsewhere_and_not_too_much(office: Office) -> None:
    remark = "x" * 100_000
    rows = "客户名称,负责人,备注\n" + "".join(f"客户{each},王芳,{remark}\n" for each in range(12))
    some = ended(office, upload(office, files={"any.csv": rows}))
    assert (some["state"], some["result"]["report"]["customers"]) == ("done", 12), some
    assert imports.BODY_BYTES_MAX > 100_000_000
    too_long = office.call(
        "per_admin",
        "POST",
        "/v1/imports",
        content=b"",
        headers={
            "Content-Type": "multipart/form-data; boundary=x",
            "Content-Length": str(imports.BODY_BYTES_MAX + 1),
        },
    )
    assert too_long.status_code == 413


def test_only_who_may_import_does(office: Office) -> None:
    for who in ("per_a", "per_east", "per_auditor", CRM):
        answer = upload(office, who)
        assert (answer.status_code, answer.json()["permission"]) == (403, "imports:write")
    expires = datetime.now(UTC) + timedelta(hours=1)
    office.tokens["bound"] = make_token(
        office.services, "person", "per_admin", ["admin"], expires, territories=[EAST]
    )
    assert upload(office, "bound").json()["code"] == "forbidden"
    office.tokens["int_erp"] = make_token(
        office.services,
        "integration",
        "int_erp",
        ["integration"],
        expires,
        grants=["imports:write"],
    )
    alone = upload(office, "int_erp")
    assert (alone.status_code, alone.json()["permission"]) == (403, "On-Behalf-Of")
    for person, status in (("per_a", 403), ("per_admin", 202)):
        answer = upload(office, "int_erp", headers={"On-Behalf-Of": person})
        assert answer.status_code == status, answer.text
    told = ended(office, answer)
    assert (told["state"], told["caller"], told["actor"]) == (
        "done",
        "integration:int_erp",
        "per_admin",
    )


def test_who_may_no_longer_import_when_the_job_begins_imports_nothing(office: Office) -> None:
    ledger = office.services.ledger
    office.state(facts.ChangePerson(person="per_east", territory=EAST, roles=("admin",)))
    office.state(facts.ChangePerson(person="per_east", territory=EAST, roles=("manager",)))
    job = table.Job(
        **{
            **dict.fromkeys(("job", "kind", "request_id", "state", "progress"), "job_x"),
            **dict.fromkeys(("done", "total", "attempts"), 0),
            **dict.fromkeys(("result", "error", "began", "ended"), None),
        },  # type: ignore[arg-type]
        caller="person:per_east",
        actor="per_east",
        on_behalf=False,
        digest=b"",
        parameters={"mapping": MAPPING, "check": False},
        cancelling=False,
        asked=datetime.now(UTC),
    )
    with pytest.raises(LedgerError, match="Only an administrator"):
        importing.do(ledger, job, Holding("me", False, threading.Event()))


def test_what_was_ever_opened_is_listed(office: Office) -> None:
    for name in ("crm", "erp"):
        office.state(facts.OpenImport(name=name, time_zone="Asia/Shanghai"))
    page = office.get("per_a", "/v1/imports?limit=1").json()
    rest = office.get("per_a", f"/v1/imports?cursor={page['next']}").json()
    items = page["items"] + rest["items"]
    assert [(each["name"], each["closed"]) for each in items] == [("crm", False), ("erp", False)]
    office.state(facts.CloseImport(import_id=items[0]["import_id"]))
    closed, _ = office.get("per_a", "/v1/imports").json()["items"]
    assert (closed["closed"], rest["next"]) == (True, None)
    assert closed["closed_at"] is not None
