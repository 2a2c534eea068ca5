"""One process of the HTTP measurements: what serves, or what decides and projects beside it.

``python -m api.bench.stack serve|follow`` reads the settings of the environment and works until its
standard input ends. What serves has two routes more, which do the least that a route can do with
the database: through the same stack they say what the stack itself costs.
"""

from __future__ import annotations

import sys
from typing import Annotated

from fastapi import APIRouter, Path

from api.bootstrap import Ledger, open_ledger
from api.http.app import create_app
from api.http.services import InServices, open_services
from api.http.serving import listen, serving
from api.running import running
from api.settings import load_settings

router = APIRouter(prefix="/bench")

TABLE = "CREATE TABLE public.bench_rows (key text PRIMARY KEY, value text NOT NULL)"
GRANT = "GRANT SELECT, INSERT ON public.bench_rows TO guishu_app"

_SELECT = "SELECT key, value FROM public.bench_rows WHERE key = %s"
_INSERT = "INSERT INTO public.bench_rows VALUES (gen_random_uuid()::text, %s)"


@router.get("/rows/{key}")
def one_row(key: Annotated[str, Path(max_length=80)], services: InServices) -> dict[str, str]:
    """Select one row by its key."""
    with services.ledger.pool.connection() as connection:
        row = connection.execute(_SELECT, (key,), prepare=True).fetchone()
    return {"key": row[0], "value": row[1]} if row else {}


@router.post("/rows", status_code=201)
def insert(value: dict[str, str], services: InServices) -> dict[str, bool]:
    """Insert one row, and commit."""
    with services.ledger.pool.connection() as connection:
        connection.execute(_INSERT, (str(value),), prepare=True)
    return {"inserted": True}


def serve(ledger: Ledger) -> None:
    """Serve HTTP until the standard input ends; prints the address."""
    with open_services(ledger) as services:
        app = create_app(services)
        app.include_router(router)
        with serving(app, listen("127.0.0.1", 0)) as address:
            sys.stdout.write(f"{address}\n")
            sys.stdout.flush()
            sys.stdin.read()
            services.tail.end_all()


def follow(ledger: Ledger) -> None:
    """Decide and project until the standard input ends."""
    with running(ledger):
        sys.stdout.write("following\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    with open_ledger(load_settings(), migrating=False) as opened:
        {"serve": serve, "follow": follow}[sys.argv[1]](opened)
