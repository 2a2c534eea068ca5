"""A process that appends numbered requests and tells each that was acknowledged; for the tests."""

from __future__ import annotations

import asyncio
import sys

from ledger.store.appending import Append, NewEvent, RequestKey
from ledger.store.committer import Committer

AT_ONCE = 20


async def work(conninfo: str, count: int) -> None:
    async def append(number: int) -> None:
        body = b"%d" % number
        event = NewEvent(f"customer-{number % 7}", "ClaimFiled.v1", body)
        request = RequestKey("tests", f"req_{number}", body)
        appended = await committer.append(Append((event,), request))
        print(number, appended.first_position, int(appended.repeated), flush=True)

    async with Committer(conninfo) as committer:
        for start in range(0, count, AT_ONCE):
            await asyncio.gather(*map(append, range(start, min(start + AT_ONCE, count))))


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], int(sys.argv[2])))
