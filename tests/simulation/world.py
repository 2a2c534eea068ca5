"""Everything in one process: clients, relays, followers, the topic and the store."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from consumers.kafka.gathering import GenerationContradictsError
from consumers.progress import FencedError
from ledger.deciders import Decider
from ledger.deciders.drafts import Draft
from ledger.envelope import Event, StoredEvent, decode
from ledger.events.catalogue import Catalogue
from ledger.organisation import Organisation, OrganisationAt
from ledger.settled import Settled
from tests.simulation.checking import check
from tests.simulation.clients import DEFECT, Clients
from tests.simulation.following import ENFORCER, PROJECTOR, Enforcer, Follower, Projector, Shared
from tests.simulation.prologue import Prologue
from tests.simulation.relaying import Relay, TailLostError, drop
from tests.simulation.restoring import Tail, put_back, tail_of, without_parts
from tests.simulation.rules import Rules
from tests.simulation.schedule import Step
from tests.simulation.store import PARTITIONS, NoGenerationError, Store
from tests.simulation.topic import Session, Topic
from tests.simulation.violations import Violation

RELAYS = 2
_POINTS = ("after the move", "before its commit", "after its commit")
_ROUNDS_MAX = 40
_BATCHES_MAX = 200


class _CutError(Exception):
    """A process ends here."""


class World:
    """One schedule at work; ``history`` says what each step has brought."""

    def __init__(self, catalogue: Catalogue, prologue: Prologue, rules: Rules) -> None:
        self._catalogue = catalogue
        self._mended = False
        versions = {each: self._with_defects(decide) for each, decide in rules.versions.items()}
        self._broken = rules
        self._rules = replace(rules, versions=versions, open_generation=self._open_generation)
        self._store = Store(prologue.state.copy(), prologue.now)
        self._topic = Topic()
        # Behind this the topic must have everything, whatever was cut off since.
        self._filled_from = prologue.state.head
        self._facts = _Facts(self._store, catalogue, prologue)
        self._shared = Shared(
            self._rules, self._store, self._topic, catalogue, self._facts.organisation
        )
        self._clients = Clients(self._store, catalogue, self._facts.organisation)
        # What was acknowledged and is lost, until it is put back.
        self._lost: dict[int, bytes] = {}
        self._gives_up = False
        self._relays: list[Relay | None] = [None] * RELAYS
        # What relays had sent when they ended, and the broker has not taken.
        self._left: list[Session] = []
        self._followers: dict[tuple[str, int], list[Follower]] = {}
        self._made = 0
        self._steps = self._known_steps()
        self.history: list[str] = []

    def _known_steps(self) -> Mapping[str, Callable[[Step], str]]:
        clients = self._clients
        return {
            "claim": clients.claim,
            "release": clients.release,
            "transfer": clients.transfer,
            "answer": clients.answer,
            "assign": clients.assign,
            "follow_up": clients.follow_up,
            "deadline": clients.deadline,
            "fact": clients.fact,
            "time": clients.time,
            "unpark": clients.unpark,
            "relay": self._relay,
            "send": self._send,
            "settle": self._settle,
            "mark": self._mark,
            "stop_relay": self._stop_relay,
            "follow": self._follow,
            "read": self._read,
            "commit": self._commit,
            "take_over": self._take_over,
            "kill": self._kill,
            "late": self._late,
            "lose_unsent": self._lose_unsent,
            "expire": self._expire,
            "lose_topic": self._lose_topic,
            "crash": self._crash,
            "lose_tail": self._lose_tail,
            "start_server": self._start_server,
        }

    def do(self, step: Step) -> None:
        """Let a step happen."""
        self._tell(step.kind, self._steps[step.kind](step))

    def _tell(self, kind: str, said: str) -> None:
        if said:
            self.history.append(f"{kind:12} {said}")

    def _with_defects(self, decide: Decider) -> Decider:
        def deciding(settled: Settled, request: Event, organisation: OrganisationAt) -> Draft:
            if not self._mended and request.envelope["request_id"].startswith(DEFECT):
                raise ZeroDivisionError("a defect that is to be mended")
            return decide(settled, request, organisation)

        return deciding

    # --- the relays ------------------------------------------------------------------------------

    def _relay(self, step: Step) -> str:
        """Let a relay do all of its round, and nothing go wrong but that it may be a zombie."""
        number, said = _relay_of(step), [self._send(step)]
        relay = self._relays[number]
        if relay is not None and relay.waits:
            said.append(self._settled(number, relay, None))
        if relay is not None and relay is self._relays[number]:
            said.append(relay.mark(taken=True))
        return "; ".join(said)

    def _send(self, step: Step) -> str:
        number = _relay_of(step)
        relay = self._relays[number] or self._started(number)
        if relay is None:
            return f"relay {number} does not start, for the log has lost its tail"
        if relay.waits:
            return self._settle(step)
        return f"{relay.session.name} sends {relay.send(1 + step.b % 9)}"

    def _started(self, number: int) -> Relay | None:
        self._made += 1
        name = f"relay {number} ({self._made})"
        try:
            self._relays[number] = Relay(self._rules, self._store, self._topic, name)
        except TailLostError:
            return None
        return self._relays[number]

    def _settle(self, step: Step) -> str:
        number, chance = _relay_of(step), step.chance()
        relay = self._relays[number]
        if relay is None or not relay.waits:
            return ""
        return self._settled(number, relay, None if chance.random() < 0.3 else chance)

    def _settled(self, number: int, relay: Relay, chance: random.Random | None) -> str:
        try:
            said, goes_on = relay.settle(chance)
        except FencedError:
            said, goes_on = "is fenced", False
        if not goes_on:
            self._end_relay(number)
        return f"{relay.session.name} {said}" + ("" if goes_on else ", and ends")

    def _mark(self, step: Step) -> str:
        number = _relay_of(step)
        relay = self._relays[number]
        if relay is None or relay.waits:
            return ""
        taken = step.b % 5 > 0
        said = relay.mark(taken=taken)
        if not taken:
            self._end_relay(number)
        return f"{relay.session.name} {said}" + ("" if taken else ", not taken, and ends")

    def _stop_relay(self, step: Step) -> str:
        number = _relay_of(step)
        relay = self._relays[number]
        if relay is None:
            return ""
        # What was sent may have been taken, before the checkpoint was moved.
        taken = step.b % 2
        if taken:
            self._take_all(relay.session)
        self._end_relay(number)
        return f"{relay.session.name} ends" + (", all it sent was taken" if taken else "")

    def _end_relay(self, number: int) -> None:
        relay, self._relays[number] = self._relays[number], None
        if relay is not None and relay.session.waiting:
            self._left.append(relay.session)

    def _take_all(self, session: Session) -> None:
        for number, queue in enumerate(session.queues):
            self._topic.take(session, number, len(queue))

    # --- the network and the broker --------------------------------------------------------------

    def _late(self, step: Step) -> str:
        for session, number in self._on_its_way(step):
            taken = self._topic.take(session, number, 1 + step.c % 4)
            return f"partition {number} takes {taken} of {session.name}"
        return ""

    def _lose_unsent(self, step: Step) -> str:
        for session, number in self._on_its_way(step):
            lost = drop(session, number, 1 + step.c % 4)
            return f"{lost} of {session.name} never come to partition {number}"
        return ""

    def _on_its_way(self, step: Step) -> Iterator[tuple[Session, int]]:
        """Yield a session with something on its way to a partition, if there is one."""
        there = [
            (session, number)
            for session in self._left
            for number, queue in enumerate(session.queues)
            if queue
        ]
        if there:
            yield there[step.a % len(there)]

    def _expire(self, step: Step) -> str:
        number = step.a % PARTITIONS
        return f"partition {number} begins at {self._topic.cut(number, 1 + step.b % 10)}"

    def _lose_topic(self, step: Step) -> str:
        self._topic.lose()
        self._filled_from = 0
        return "it is made anew"

    # --- who follows -----------------------------------------------------------------------------

    def _follow(self, step: Step) -> str:
        """Let the process that took a partition over last do all that there is for it."""
        consumer, partition = self._whose(step)
        those = self._followers.get((consumer, partition))
        follower = those[-1] if those else self._new(consumer, partition)

        def work() -> str:
            before, said = self._store.state.head, f"from {follower.position}"
            reached = -1
            while reached < follower.position:
                reached = follower.position
                follower.read(10, 30)
                follower.commit(lambda point: None)
            return f"{said} to {reached}; adds {_names(self._store, before)}"

        return self._guarded(follower, work)

    def _read(self, step: Step) -> str:
        follower = self._chosen(step)
        return self._guarded(follower, lambda: self._reading(follower, step.chance()))

    def _commit(self, step: Step) -> str:
        follower, chance = self._chosen(step), step.chance()
        point = chance.choice(_POINTS) if chance.random() < 0.3 else None
        keeps = chance.random() < 0.5

        def cut(here: str) -> None:
            if here == point:
                raise _CutError(here)

        def work() -> str:
            said, before = self._reading(follower, chance), self._store.state.head
            follower.commit(cut)
            return f"{said}; adds {_names(self._store, before)}"

        try:
            return self._guarded(follower, work)
        except _CutError as error:
            if keeps:
                follower.lose_connection()
                return f"{follower.name} loses its connection {error}"
            self._end(follower)
            return f"{follower.name} is killed {error}"

    def _take_over(self, step: Step) -> str:
        follower = self._new(*self._whose(step))
        return self._guarded(follower, lambda: f"takes over at {follower.position}")

    def _kill(self, step: Step) -> str:
        follower = self._chosen(step)
        self._end(follower)
        return follower.name

    def _whose(self, step: Step) -> tuple[str, int]:
        return (PROJECTOR if step.c % 6 == 0 else ENFORCER), step.a % PARTITIONS

    def _chosen(self, step: Step) -> Follower:
        """Return one of the processes that follow a partition, zombies among them."""
        consumer, partition = self._whose(step)
        those = self._followers.get((consumer, partition))
        return those[step.b % len(those)] if those else self._new(consumer, partition)

    def _new(self, consumer: str, partition: int) -> Follower:
        self._made += 1
        kind = Enforcer if consumer == ENFORCER else Projector
        follower = kind(self._shared, partition, f"{consumer} {partition} ({self._made})")
        self._followers.setdefault((consumer, partition), []).append(follower)
        return follower

    def _end(self, follower: Follower) -> None:
        self._followers[follower.consumer, follower.partition].remove(follower)

    def _reading(self, follower: Follower, chance: random.Random) -> str:
        again = chance.randint(1, 4) if chance.random() < 0.1 else 0
        return follower.read(chance.choice([1, 3, 10]), chance.choice([1, 3, 30]), again)

    def _guarded(self, follower: Follower, work: Callable[[], str]) -> str:
        """Do what a follower does; what its process does not survive ends it."""
        try:
            return f"{follower.name} {work()}"
        except FencedError:
            self._end(follower)
            return f"{follower.name} is fenced"
        except GenerationContradictsError as error:
            self._end(follower)
            return f"{follower.name} stops: {error}"
        except NoGenerationError:
            follower.lose_connection()
            return f"{follower.name} cannot append, for no generation is open"

    # --- the database ----------------------------------------------------------------------------

    def _crash(self, step: Step) -> str:
        lost = self._store.crash()
        self._lose_connections()
        return f"{lost} commits are lost that had not waited for the disk"

    def _lose_tail(self, step: Step) -> str:
        if self._store.is_open():
            self._lost.clear()  # whoever opened the generation has given it up
        lost = self._store.lose_tail(1 + step.a % 12)
        self._lose_connections()
        acknowledged = self._clients.acknowledged
        for each in lost:
            if each.position in acknowledged:
                self._lost[each.position] = acknowledged.pop(each.position)
        return f"positions {[each.position for each in lost]} are lost"

    def _lose_connections(self) -> None:
        for number in range(RELAYS):
            self._end_relay(number)
        for those in self._followers.values():
            for follower in those:
                follower.lose_connection()

    def _start_server(self, step: Step) -> str:
        return self._open(gives_up=step.a % 3 == 0)

    def _open(self, *, gives_up: bool) -> str:
        """Open a generation: what the topic holds behind the log is put back, or given up."""
        if self._store.is_open():
            return ""
        asks = self._rules.asks_the_topic
        tail = tail_of(self._topic, self._store) if asks else Tail([], whole=True)
        if self._rules.puts_back_whole_decisions:
            versions = self._broken.versions
            tail = without_parts(self._store, tail, self._catalogue, versions)
        if not tail.whole and not gives_up:
            return "refused, for the topic does not hold all that is missing"
        self._gives_up = not tail.whole
        if tail.events:
            put_back(self._store, self._catalogue, tail.events)
            there = {each.position for each in tail.events} & self._lost.keys()
            self._clients.acknowledged |= {each: self._lost[each] for each in there}
        self._lost.clear()
        self._rules.open_generation(self._store)
        rest = "" if tail.whole else ", and the rest is given up"
        return f"{[each.position for each in tail.events]} are put back{rest}"

    def _open_generation(self, store: Store) -> None:
        """Open one by the rule for it; what the topic holds must not be given up unasked."""
        if not store.is_open() and not self._gives_up:
            tail = tail_of(self._topic, store)
            if tail.events or not tail.whole:
                raise Violation("tail", f"{[each.position for each in tail.events]} are given up")
        self._gives_up = False
        self._broken.open_generation(store)

    # --- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """End all faults, let everything catch up, and raise Violation for what does not hold."""
        self._mended = True
        for session in self._left:
            self._take_all(session)
        self._tell("finish", self._open(gives_up=True))
        for _ in range(_ROUNDS_MAX):
            before = self._reached()
            self._relay_all()
            for consumer in (ENFORCER, PROJECTOR):
                for partition in range(PARTITIONS):
                    self._follow_all(consumer, partition)
            self._unpark_all()
            if self._reached() == before:
                break
        check(
            self._store,
            self._topic,
            self._catalogue,
            self._rules.versions,
            self._clients.acknowledged,
            self._filled_from,
        )

    def _reached(self) -> tuple[object, ...]:
        state = self._store.state
        positions = {key: position for key, (_, position) in state.progress.items()}
        return state.head, positions, state.checkpoint.position, self._topic.topic_id

    def _relay_all(self) -> None:
        self._end_relay(0)
        relay = self._started(0)
        if relay is None:
            raise Violation("catches up", "the log has lost its tail, with a generation open")
        while relay.position < self._store.state.head:
            before = relay.position
            relay.send(100)
            relay.settle(None)
            if relay.position == before:
                raise Violation("catches up", f"the relay stays at {before}")
        relay.mark(taken=True)

    def _follow_all(self, consumer: str, partition: int) -> None:
        """Let the one that has taken over last go on, or where that is none another one."""
        those = self._followers.get((consumer, partition), [])
        follower = those[-1] if those else self._new(consumer, partition)
        self._followers[consumer, partition] = [follower]
        idle = 0
        for _ in range(_BATCHES_MAX):
            try:
                before = follower.position
                follower.read(100, 1_000)
                follower.commit(lambda point: None)
            except FencedError:
                follower = self._new(consumer, partition)
                self._followers[consumer, partition] = [follower]
                continue
            # The first batch may be one that was at hand, from before.
            idle = idle + 1 if follower.position == before else 0
            if idle == 2:
                return
        raise Violation("catches up", f"{follower.name} comes to no end")

    def _unpark_all(self) -> None:
        if self._store.state.parked:
            self._clients.unpark(Step("unpark", 0, 0, 0))


def _relay_of(step: Step) -> int:
    """Return which relay it is: mostly the same, as the others stand by."""
    return 0 if step.a % 4 else 1


def _names(store: Store, after: int) -> list[str]:
    return [f"{each.position} {each.name}" for each in store.state.log[after:]]


class _Facts:
    """The organisation's facts of the log as it is, folded once."""

    def __init__(self, store: Store, catalogue: Catalogue, prologue: Prologue) -> None:
        self._store = store
        self._catalogue = catalogue
        self._prologue = prologue
        self._organisation = Organisation()
        self._last: StoredEvent | None = None
        self._begin()

    def _begin(self) -> None:
        self._organisation = Organisation()
        facts = (each for each in self._prologue.events if each.stream == "organisation")
        self._organisation.apply_all(facts)
        self._last = self._store.state.log[len(self._prologue.events) - 1]

    def organisation(self) -> Organisation:
        """Return them all; a request is decided by those in front of it."""
        log = self._store.state.log
        last = self._last
        if last is None or last.position > len(log) or log[last.position - 1] is not last:
            self._begin()  # the log has lost its tail
            last = self._last
        assert last is not None
        for each in log[last.position :]:
            if each.stream == "organisation":
                self._organisation.apply(decode(self._catalogue, each))
        self._last = log[-1]
        return self._organisation
