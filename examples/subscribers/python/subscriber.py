"""Keeps a local copy of who owns which customer, right across restarts.

    python subscriber.py 127.0.0.1:9092 copy.sqlite --caller crm

The copy is a file of SQLite: what a batch of records brings and up to where they were read are
written in one transaction, so whatever ends this program, it goes on where the copy stands.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, TopicPartition  # pip install kafka-python

TABLES = """
CREATE TABLE IF NOT EXISTS ownership (
    customer TEXT PRIMARY KEY, partition INTEGER NOT NULL, version INTEGER NOT NULL, owner TEXT,
    told TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS offsets (
    partition INTEGER PRIMARY KEY, topic_id TEXT NOT NULL, next INTEGER NOT NULL);
"""
# A record may come again, and so may one that is older than what is held: the highest version wins.
KEEP = """
INSERT INTO ownership (customer, partition, version, owner, told) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (customer) DO UPDATE
SET version = excluded.version, owner = excluded.owner, told = excluded.told
WHERE excluded.version > version
"""
FORGET = "DELETE FROM ownership WHERE customer = ?"
FORGET_ALL = "DELETE FROM ownership WHERE partition = ?"
MOVE = """
INSERT INTO offsets (partition, topic_id, next) VALUES (?, ?, ?)
ON CONFLICT (partition) DO UPDATE SET topic_id = excluded.topic_id, next = excluded.next
"""


def keep(copy: sqlite3.Connection, caller: str | None, records: Iterable[Any]) -> bool:
    """Take in records of one partition; False: the topic was made anew, read it from its beginning.

    What is held by then may be of a past that was given up. In a transaction of the caller's.
    """
    for record in records:
        headers = {name: value.decode() for name, value in record.headers}
        topic_id = headers["topic_id"]
        known = copy.execute(
            "SELECT topic_id FROM offsets WHERE partition = ?", (record.partition,)
        ).fetchone()
        if known is not None and known[0] != topic_id:
            copy.execute(FORGET_ALL, (record.partition,))
            copy.execute(MOVE, (record.partition, topic_id, 0))
            return False
        customer = record.key.decode()
        if record.value is None:  # the customer was erased
            copy.execute(FORGET, (customer,))
        else:
            told = json.loads(record.value)
            owner = told["owner"] and told["owner"]["id"]
            values = (customer, record.partition, told["version"], owner, json.dumps(told))
            if copy.execute(KEEP, values).rowcount:
                show(customer, owner, told["cause"], caller)
        copy.execute(MOVE, (record.partition, topic_id, record.offset + 1))
    return True


def show(customer: str, owner: str | None, cause: dict[str, Any], caller: str | None) -> None:
    """Do here what your system does when an owner changes; its own doing it knows already."""
    echo = caller is not None and cause["caller"] == caller
    by = f"our own request {cause['request_id']}" if echo else f"{cause['caller']}"
    print(f"{customer}: {owner or 'free'} (by {by})", flush=True)


def follow(
    bootstrap: str, file: str, topic: str, caller: str | None, *, until_end: bool = False
) -> None:
    """Follow a topic for ever, or up to where it ends now."""
    with (
        closing(sqlite3.connect(file)) as copy,
        # Every copy reads all partitions: it is no member of a group, and commits nothing to Kafka.
        KafkaConsumer(
            bootstrap_servers=bootstrap.split(","),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        ) as consumer,
    ):
        copy.executescript(TABLES)
        at = [TopicPartition(topic, each) for each in consumer.partitions_for_topic(topic) or ()]
        if not at:
            raise SystemExit(f"There is no topic {topic}.")
        consumer.assign(at)
        consumer.seek_to_beginning()
        for partition, next_offset in copy.execute("SELECT partition, next FROM offsets"):
            consumer.seek(TopicPartition(topic, partition), next_offset)
        ends = consumer.end_offsets(at)
        while not (until_end and all(consumer.position(each) >= ends[each] for each in at)):
            for where, records in consumer.poll(timeout_ms=500, max_records=500).items():
                with copy:  # one transaction
                    goes_on = keep(copy, caller, records)
                if not goes_on:
                    consumer.seek_to_beginning(where)


def main() -> None:
    """Follow as the command line says."""
    parser = argparse.ArgumentParser(description="Keeps a copy of who owns which customer.")
    parser.add_argument("bootstrap", help="brokers, as host:port,host:port")
    parser.add_argument("file", help="the copy, which is made if it is not there")
    parser.add_argument("--topic", default="guishu.ownership.current.v1")
    parser.add_argument("--caller", help="as whom your own requests are recorded")
    parser.add_argument("--until-end", action="store_true", help="do not wait for more")
    given = parser.parse_args()
    follow(given.bootstrap, given.file, given.topic, given.caller, until_end=given.until_end)


if __name__ == "__main__":
    main()
