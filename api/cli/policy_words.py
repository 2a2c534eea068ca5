"""A policy in words: what it allows, whom it asks, what falls due when. One line a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from api.cli.resolve import Names
from ledger.approval_rules import ApprovalDeadlines, ApprovalRule, ApproverRule, StepRule
from ledger.conditions import Condition
from ledger.policy import Policy
from ledger.recycling_rules import RecycleRule, RecycleWarning, Recycling

Line = tuple[str, str]
"""What a rule is about, and what it says."""

_SCOPES = {
    "own_territory": "in one's own territory",
    "subtree": "in one's own territory and those below it",
    "everywhere": "everywhere",
}
_CHANGED_BY = {
    "head": "the head of the customer's territory or of one above",
    "manager": "a manager of the customer's territory or of one above",
    "anyone": "anybody",
}
_PURPOSES = {
    "transfer": "a transfer",
    "release": "a release",
    "collaboration": "a larger share of the credit",
    "claim": "a claim from outside",
}
_WHERE = {
    "same": "inside one territory",
    "different": "across territories",
}
_TERRITORY_OF = {
    "releasing": "the releasing territory",
    "receiving": "the receiving territory",
    "customer": "the customer's territory",
}


def policy_lines(policy: Policy, names: Names) -> list[Line]:
    """Return what a policy says, in the order in which people ask for it."""
    return [
        *_limits(policy),
        *_territories(policy, names),
        *_approvals(policy, names),
        *_deadlines(policy.approval_deadlines),
        *_recycling(policy.recycling, names),
        *_conflicts(policy),
        *_collaboration(policy),
    ]


# --- claiming ------------------------------------------------------------------------------------


def _limits(policy: Policy) -> Iterator[Line]:
    if policy.holding_limit is None:
        yield "holding", "no limit"
    else:
        won = "" if policy.won_customers_count else ", those with a won deal not counted"
        yield "holding", f"at most {_count(policy.holding_limit, 'customer')} a person{won}"
    daily = policy.daily_claim_limit
    yield "claims a day", "no limit" if daily is None else f"at most {daily} a person"
    outside = "from elsewhere refused"
    if policy.claims_may_await:
        outside = "from elsewhere awaiting approval"
    everywhere = policy.claim_scope == "everywhere"
    scope = _SCOPES[policy.claim_scope]
    yield "claims", scope if everywhere else f"{scope}; {outside}"
    yield "cooldown", _days_or(policy.cooldown_days, "none", "until a former owner claims again")
    yield "protection", _days_or(policy.protection_days, "none", "of a new owner from transfers")


def _territories(policy: Policy, names: Names) -> Iterator[Line]:
    for rule in policy.territory_rules:
        where = _conditions(rule.conditions)
        yield "territory", f"{names.territory(rule.territory)}: where {where}"
    yield (
        "guarded changes",
        f"what rules read, and the territory, changed by {_CHANGED_BY[policy.guarded_changes_by]}",
    )
    late = policy.late_follow_up_days
    yield (
        "late follow-ups",
        "judged by who owns the customer when they are entered"
        if late == 0
        else f"up to {_count(late, 'day')} late judged by who owned the customer then",
    )


# --- approval ------------------------------------------------------------------------------------


def _approvals(policy: Policy, names: Names) -> Iterator[Line]:
    if not policy.approval_rules:
        yield "approval", "nothing needs any"
    for rule in policy.approval_rules:
        if rule.purposes == ("claim",) and not policy.claims_may_await:
            continue  # asked of nobody, for such claims are refused
        steps = "; then ".join(_step(each, names) for each in rule.steps)
        yield "approval", f"{_cause(rule)}: by {steps}"


def _cause(rule: ApprovalRule) -> str:
    words = [" or ".join(_PURPOSES[each] for each in rule.purposes)]
    if rule.territories != "any":
        words.append(_WHERE[rule.territories])
    if rule.value_at_least is not None:
        bound = rule.value_at_least
        words.append(f"of a deal of {bound.currency} {bound.amount:,f} or more")
    if rule.conditions:
        words.append(f"where {_conditions(rule.conditions)}")
    return " ".join(words)


def _step(step: StepRule, names: Names) -> str:
    approvers = [_approver(each, names) for each in step.approvers]
    if len(approvers) == 1:
        return approvers[0]
    if step.needed == "all":
        return " and ".join(approvers)
    if step.needed in ("any", 1):
        return " or ".join(approvers)
    return f"{step.needed} of {', '.join(approvers)}"


def _approver(approver: ApproverRule, names: Names) -> str:
    match approver.kind:
        case "head":
            return f"the head of {_TERRITORY_OF[approver.of]}"
        case "common_head":
            return "the head above both territories"
        case "role":
            return f"anybody with the role {approver.role}"
        case "person":
            return names.person(approver.person)
        case _:
            return f"the {approver.kind}"


def _deadlines(figures: ApprovalDeadlines) -> Iterator[Line]:
    told = [
        f"{what} {'never' if days is None else 'after ' + _count(days, 'day')}"
        for what, days in (
            ("reminded", figures.remind_days),
            ("passed on upwards", figures.pass_on_days),
            ("expires", figures.expire_days),
        )
    ]
    yield "no answer", ", ".join(told)


# --- recycling -----------------------------------------------------------------------------------


def _recycling(recycling: Recycling, names: Names) -> Iterator[Line]:
    if not recycling.rules:
        yield "recycling", "nothing is recycled"
        return
    kind = "working " if recycling.days == "working" else ""
    for number, rule in enumerate(recycling.rules):
        which = which_words(rule, names) or ("all others" if number else "all customers")
        own = "" if rule.warnings is None else f"; {_warnings(rule.warnings, kind)}"
        yield "recycling", f"{which}: {_figures(rule, kind)}{own}"
    yield "warnings", _warnings(recycling.warnings, kind)
    minutes = recycling.token_follow_up_minutes
    near = f", or within {_count(minutes, 'minute')} of the last" if minutes else ""
    yield "resets nothing", f"a follow-up with the same note again{near}"
    yield "hold", f"at most {_count(recycling.hold_days_max, 'day')}"


def which_words(rule: RecycleRule, names: Names) -> str:
    """Return which customers a recycling rule is for; nothing where it is for all."""
    words = []
    if rule.territories:
        words.append(f"in {', '.join(names.territory(each) for each in rule.territories)}")
    if rule.conditions:
        words.append(f"where {_conditions(rule.conditions)}")
    if rule.won_deals_min is not None:
        words.append(f"with {_count(rule.won_deals_min, 'won deal')} or more")
    return " ".join(words)


def _figures(rule: RecycleRule, kind: str) -> str:
    found = [
        f"{_count(days, f'{kind}day')} without {what}"
        for days, what in ((rule.follow_up_days, "a follow-up"), (rule.deal_days, "a won deal"))
        if days is not None
    ]
    return " or ".join(found) or "never"


def _warnings(warnings: Sequence[RecycleWarning], kind: str) -> str:
    told = [
        f"{_count(each.days_before, f'{kind}day')} before it goes the {' and the '.join(each.to)}"
        for each in warnings
    ]
    return ", ".join(told) or "nobody is warned"


# --- conflicts and collaborators -----------------------------------------------------------------


def _conflicts(policy: Policy) -> Iterator[Line]:
    kinds = ", ".join(each.replace("_", " ") for each in policy.conflict_kinds) or "none"
    yield "conflicts", kinds
    if "competing_claims" in policy.conflict_kinds:
        hours = _count(policy.conflict_window_hours, "hour")
        yield "competing", f"another claim within {hours} of the grant"
    imported = "open conflicts too" if policy.conflicts_in_imports else "open no conflicts"
    yield "imports", imported


def _collaboration(policy: Policy) -> Iterator[Line]:
    share = policy.collaborator_share_max
    free = (
        "any share of the credit without approval"
        if share is None
        else f"up to {share:f} % of the credit without approval"
    )
    yield "collaborators", f"at most {policy.collaborators_max} at a customer; {free}"
    yield "stand-ins", f"at most {_count(policy.stand_in_days_max, 'day')}"


# --- words ---------------------------------------------------------------------------------------


def _conditions(conditions: Sequence[Condition]) -> str:
    return " and ".join(
        f"{each.attribute} {each.operator.replace('_', ' ')} "
        f"{each.value if isinstance(each.value, str) else ', '.join(each.value)}"
        for each in conditions
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _days_or(days: int, nothing: str, what: str) -> str:
    return f"{_count(days, 'day')} {what}" if days else nothing
