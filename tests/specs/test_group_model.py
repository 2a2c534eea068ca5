"""Groups at random: one conflict is open exactly while a group is split and nobody has allowed it.

The model knows who owns which customer and what stands above it, and looks at all of them each
time.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ledger.conflicts import GROUP
from ledger.customer import Admitted
from ledger.deciders import LATEST
from ledger.events import decisions as d
from ledger.events import requests as r
from ledger.store.guards import state_of
from tests.specs.story import Story
from tests.specs.test_groups import check, move, release
from tests.specs.test_model import Guards
from tests.specs.test_ownership import claim, company, register

CUSTOMERS = [f"cus_{number}" for number in range(7)]
PEOPLE = ["per_a", "per_b", "per_deputy", "per_c"]

customers = st.sampled_from(CUSTOMERS)
people = st.sampled_from(PEOPLE)


class GroupMachine(RuleBasedStateMachine):
    """Claims, releases, transfers, new parents and rulings, in no order."""

    @initialize(parents=st.lists(st.integers(0, 6), min_size=7, max_size=7))
    def begin(self, parents: list[int]) -> None:
        self.story: Story = company(
            conflict_kinds=["group"],
            protection_days=0,
            cooldown_days=0,
            daily_claim_limit=None,
            claim_scope="everywhere",
            approval_rules=[],
        )
        # Whom rulings let go on, and which groups were left as they are, by their roots.
        self.allowed: dict[str, frozenset[str]] = {}
        self.left: set[str] = set()
        self.made = 0
        self.guards = Guards(version=LATEST)
        for number, customer in enumerate(CUSTOMERS):
            parent = CUSTOMERS[parents[number]] if parents[number] < number else None
            self.ask(register(customer, parent=parent))

    def ask(self, request: r.Request, by: str = "per_admin") -> None:
        """Decide a request on the whole state, and on just those guards that are asked for."""
        story = self.story.later(minutes=1)
        event = story._event(f"customer-{request.customer}", request, actor=by)
        story.position -= 1
        draft = self.guards.decide(event, story.organisation.at(event.position))
        story.when(request, by=by)
        assert story.draft == draft

    # --- what the model knows ---------------------------------------------------------------------

    def state(self, customer: str) -> Admitted:
        found = self.story.settled.customers[customer]
        assert isinstance(found, Admitted)
        return found

    def root(self, customer: str) -> str:
        parent = self.state(customer).parent
        return customer if parent is None else self.root(parent)

    def owners(self, root: str) -> set[str]:
        owners = (self.state(each).owner for each in CUSTOMERS if self.root(each) == root)
        return {owner for owner in owners if owner is not None}

    def likely(self, customer: str, *, owned: bool) -> str:
        """Return the customer, or one that is owned (or free) where there is any."""
        likely = [each for each in CUSTOMERS if (self.state(each).owner is not None) is owned]
        return likely[CUSTOMERS.index(customer) % len(likely)] if likely else customer

    def members(self, above: str) -> list[str]:
        found: list[str] = []
        for each in CUSTOMERS:
            place: str | None = each
            while place is not None and place != above:
                place = self.state(place).parent
            if place is not None:
                found.append(each)
        return found

    # --- what happens -----------------------------------------------------------------------------

    @rule(customer=customers, person=people)
    def somebody_claims(self, customer: str, person: str) -> None:
        customer = self.likely(customer, owned=False)
        self.ask(claim(person, customer), by=person)
        if isinstance(self.story.decided, d.OwnershipGranted):
            self.left.discard(self.root(customer))

    @rule(customer=customers)
    def the_owner_releases(self, customer: str) -> None:
        customer = self.likely(customer, owned=True)
        owner = self.state(customer).owner
        self.ask(release(customer), by=owner or "per_a")

    @rule(customer=customers, person=people)
    def the_owner_transfers(self, customer: str, person: str) -> None:
        customer = self.likely(customer, owned=True)
        self.made += 1
        request = r.TransferRequested(customer, f"trf_{self.made}", person, "better")
        self.ask(request, by=self.state(customer).owner or "per_a")
        assert self.story.draft is not None
        if any(isinstance(each, d.OwnershipTransferred) for each in self.story.draft.all):
            self.left.discard(self.root(customer))

    @rule(customer=customers, parent=st.one_of(st.none(), customers))
    def it_gets_another_parent(self, customer: str, parent: str | None) -> None:
        before = self.root(customer)
        moving = any(self.state(each).owner for each in self.members(customer))
        self.ask(move(customer, parent))
        after = self.root(customer)
        for each in CUSTOMERS:
            if not self.state(each).children:  # what is no group any more begins anew as one
                self.allowed.pop(each, None)
        if after == before:
            return
        if customer == before:  # it is no group of its own any more
            self.allowed.pop(customer, None)
            self.left.discard(customer)
        if moving:
            self.left.discard(after)

    @rule(customer=customers, what=st.sampled_from(["keep", "dismiss", "allow", "allow"]))
    def somebody_rules(self, customer: str, what: str) -> None:
        roots = [each for each in CUSTOMERS if self.state(each).conflicts]
        if not roots:
            return
        root = roots[CUSTOMERS.index(customer) % len(roots)]
        open_here = self.state(root).conflicts
        ruling = r.RulingGiven(root, open_here[0].conflict, what, "heard")
        self.ask(ruling, by="per_boss")
        if not isinstance(self.story.decided, d.ConflictClosed):
            self.ask(ruling, by="per_head")
        assert isinstance(self.story.decided, d.ConflictClosed)
        if what == "allow":
            self.allowed[root] = frozenset({*open_here[0].parties, *self.owners(root)})
        else:
            self.left.add(root)

    @rule(customer=customers)
    def somebody_has_it_reviewed(self, customer: str) -> None:
        root, owners = self.root(customer), self.owners(self.root(customer))
        is_open = bool(self.state(root).conflicts)
        is_split = len(owners) > 1 and not owners <= self.allowed.get(root, frozenset())
        self.ask(r.GroupReviewRequested(customer))
        if is_split and not is_open:
            assert isinstance(self.story.decided, d.Noted)
            self.left.discard(root)
        else:
            assert isinstance(self.story.decided, d.GroupReviewRefused)

    # --- what must hold ---------------------------------------------------------------------------

    @invariant()
    def one_is_open_exactly_while_a_group_is_split(self) -> None:
        for customer in CUSTOMERS:
            kinds = [each.kind for each in self.state(customer).conflicts]
            if self.root(customer) != customer:
                assert kinds == []
                continue
            owners = self.owners(customer)
            is_split = len(owners) > 1 and not owners <= self.allowed.get(customer, frozenset())
            if not is_split:
                self.left.discard(customer)
            assert kinds == ([GROUP] if is_split and customer not in self.left else []), customer

    @invariant()
    def parties_are_all_who_own_members(self) -> None:
        for customer in CUSTOMERS:
            for each in self.state(customer).conflicts:
                assert self.owners(customer) <= set(each.parties)

    @invariant()
    def groups_count_as_the_customers_say(self) -> None:
        check(self.story)
        for name, each in self.story.settled.groups.items():
            _, stored = self.guards.rows.get(f"group\x1f{name}", (0, None))
            assert (stored or b"null") == state_of(self.story.settled, ("group", name)), each


def test_random_groups() -> None:
    run_state_machine_as_test(
        GroupMachine, settings=settings(max_examples=150, stateful_step_count=50, deadline=None)
    )
