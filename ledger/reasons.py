"""Reason codes of decisions: stable words for programs, one sentence each for people."""

from __future__ import annotations

OWNED_BY_ANOTHER = "owned_by_another"
ALREADY_YOURS = "already_yours"
HOLDING_LIMIT = "holding_limit"
DAILY_LIMIT = "daily_limit"
COOLDOWN = "cooldown"
OUTSIDE_TERRITORY = "outside_territory"
GROUP_OF_ANOTHER = "group_of_another"
CUSTOMER_CLOSED = "customer_closed"
CUSTOMER_NOT_ADMITTED = "customer_not_admitted"
CLAIMANT_LEFT = "claimant_left"
CLAIMANT_UNKNOWN = "claimant_unknown"
HISTORY_OUT_OF_ORDER = "history_out_of_order"
IDENTIFIER_TAKEN = "identifier_taken"
ALREADY_REGISTERED = "already_registered"
PARENT_UNKNOWN = "parent_unknown"
GROUP_CYCLE = "group_cycle"
GROUP_TOO_DEEP = "group_too_deep"
NOT_OWNER = "not_owner"
NOT_MANAGER = "not_manager"
NOT_HEAD = "not_head"
UNKNOWN_ACT = "unknown_act"
ACT_VOIDED = "act_voided"
NOT_YOURS = "not_yours"
DEAL_BY_NON_OWNER = "deal_by_non_owner"
FOLLOW_UP_BY_NON_OWNER = "follow_up_by_non_owner"
CONTACT_UNKNOWN = "contact_unknown"
TOKEN_FOLLOW_UP = "token_follow_up"  # noqa: S105 - of follow-ups, and no secret
NOT_OWNED = "not_owned"
APPROVAL_OPEN = "approval_open"
PROTECTED = "protected"
NO_APPROVER = "no_approver"
ALREADY_ANSWERED = "already_answered"
OWN_CAUSE = "own_cause"
NOT_YOUR_TURN = "not_your_turn"
NOT_ASKED = "not_asked"
APPROVAL_CLOSED = "approval_closed"
OWNERSHIP_CHANGED = "ownership_changed"
NOT_REQUESTER = "not_requester"
REQUESTER_LEFT = "requester_left"
STEP_REFUSED = "step_refused"
DEADLINE_MOVED = "deadline_moved"
DAY_NOT_AHEAD = "day_not_ahead"
HOLD_TOO_LONG = "hold_too_long"
HOLD_NEEDS_HEAD = "hold_needs_head"
DEADLINE_AHEAD = "deadline_ahead"
NOT_OWNER_OR_HEAD = "not_owner_or_head"
ALREADY_COLLABORATES = "already_collaborates"
COLLABORATORS_LIMIT = "collaborators_limit"
SHARES_EXCEEDED = "shares_exceeded"
SHARE_NEEDS_APPROVAL = "share_needs_approval"
SITE_UNKNOWN = "site_unknown"
PERIOD_OVER = "period_over"
UNKNOWN_COLLABORATION = "unknown_collaboration"
COLLABORATION_ENDED = "collaboration_ended"
CONFLICT_CLOSED = "conflict_closed"
NOT_A_PARTY = "not_a_party"
RULED_ON = "ruled_on"
COLLABORATES = "collaborates"
ONE_OWNER = "one_owner"
ALLOWED_BEFORE = "allowed_before"
GROUP_NOT_SPLIT = "group_not_split"
CONFLICT_OPEN = "conflict_open"
CONFLICTS_UNSEEN = "conflicts_unseen"
REVIEW_NEEDS_HEAD = "review_needs_head"
GROUP_JOINED = "group_joined"
GROUP_NOT_AWARDED = "group_not_awarded"
IDENTIFIER_GIVEN_UP = "identifier_given_up"
HANDED_OVER = "handed_over"
NOT_ABOVE_GIVER = "not_above_giver"
NOT_THE_GIVERS = "not_the_givers"
NOT_ORPHANED = "not_orphaned"
STAND_IN_TOO_LONG = "stand_in_too_long"
UNKNOWN_STAND_IN = "unknown_stand_in"
REQUEST_PARKED = "request_parked"

SENTENCES: dict[str, str] = {
    OWNED_BY_ANOTHER: "The customer belongs to somebody else.",
    ALREADY_YOURS: "The customer is the claimant's already.",
    HOLDING_LIMIT: "The holding limit is reached.",
    DAILY_LIMIT: "The limit of claims for this day is reached.",
    COOLDOWN: "A former owner, or who was turned down, must wait before claiming the customer.",
    OUTSIDE_TERRITORY: "The customer is outside the territory in which the person may claim.",
    GROUP_OF_ANOTHER: "Others own the group that the customer is in.",
    CUSTOMER_CLOSED: "The customer is closed.",
    CUSTOMER_NOT_ADMITTED: "The customer was never admitted to the ledger.",
    CLAIMANT_LEFT: "The person has left.",
    CLAIMANT_UNKNOWN: "The person is not known to the organisation.",
    HISTORY_OUT_OF_ORDER: "The row is older than what was decided about the customer before.",
    IDENTIFIER_TAKEN: "Another customer has this identifier.",
    ALREADY_REGISTERED: "The customer was registered before.",
    PARENT_UNKNOWN: "The group parent was never admitted to the ledger.",
    GROUP_CYCLE: "The customer would be its own parent.",
    GROUP_TOO_DEEP: "Groups are not nested so deep.",
    NOT_OWNER: "Only the owner, or a manager over the owner or the customer, may do this.",
    NOT_MANAGER: "Only a manager of the customer's territory may do this.",
    NOT_HEAD: "Only the head of the customer's territory may change what the policy reads.",
    UNKNOWN_ACT: "There is no such follow-up or deal at this customer.",
    ACT_VOIDED: "The follow-up or deal was voided before.",
    NOT_YOURS: "Only who recorded it, or a manager over the customer, may correct it.",
    DEAL_BY_NON_OWNER: "The deal was made by somebody who does not own the customer.",
    FOLLOW_UP_BY_NON_OWNER: "The follow-up was made by somebody who does not own the customer.",
    CONTACT_UNKNOWN: "The follow-up names a contact that the customer does not have.",
    TOKEN_FOLLOW_UP: "The follow-up only repeats one before, by its note or within minutes.",
    NOT_OWNED: "Nobody owns the customer.",
    APPROVAL_OPEN: "Another transfer, release or claim of the customer awaits approval.",
    PROTECTED: "The owner is protected against transfers that others ask for.",
    NO_APPROVER: "Nobody is entitled to approve it.",
    ALREADY_ANSWERED: "The person has answered before.",
    OWN_CAUSE: "Nobody judges a cause of their own.",
    NOT_YOUR_TURN: "The person is asked at a later step.",
    NOT_ASKED: "The person is not asked.",
    APPROVAL_CLOSED: "Nothing of this id awaits approval at this customer, or no longer.",
    OWNERSHIP_CHANGED: "The ownership ended in another way meanwhile.",
    NOT_REQUESTER: "Only whoever asked for it may withdraw it.",
    REQUESTER_LEFT: "Whoever asks for it has left.",
    STEP_REFUSED: "An approver did not agree.",
    DEADLINE_MOVED: "This is not, or no longer, what falls due next.",
    DAY_NOT_AHEAD: "The day does not lie ahead.",
    HOLD_NEEDS_HEAD: "Only a head over the customer or its owner, who is not the owner, holds it.",
    HOLD_TOO_LONG: "The hold is longer than the policy allows.",
    DEADLINE_AHEAD: "The deadline still lay ahead.",
    NOT_OWNER_OR_HEAD: "Only the owner, or a head over the owner or the customer, may do this.",
    ALREADY_COLLABORATES: "The person collaborates there already, or it awaits an answer.",
    COLLABORATORS_LIMIT: "No more people may collaborate at the customer.",
    SHARES_EXCEEDED: "More of the credit would be given away than there is.",
    SHARE_NEEDS_APPROVAL: "The policy allows no share so large, and nobody to approve it.",
    SITE_UNKNOWN: "The customer does not have this site.",
    PERIOD_OVER: "The period is over before it begins.",
    UNKNOWN_COLLABORATION: "There is no such collaboration at this customer.",
    COLLABORATION_ENDED: "The collaboration has ended before.",
    CONFLICT_CLOSED: "There is no such conflict at this customer, or it is closed.",
    NOT_A_PARTY: "The person is no party of the conflict, or is its owner.",
    RULED_ON: "A conflict at the customer was ruled on meanwhile.",
    COLLABORATES: "The other parties collaborate by now.",
    ONE_OWNER: "The members of the group are no longer under different owners.",
    ALLOWED_BEFORE: "Only those own members of the group whom an earlier ruling lets go on.",
    GROUP_NOT_SPLIT: "The customer is in no group whose members are under different owners.",
    CONFLICT_OPEN: "The conflict of this group is open already.",
    CONFLICTS_UNSEEN: "The policy, or the decider in force, sees no conflicts of this kind.",
    REVIEW_NEEDS_HEAD: "Only a head over the root of the group, or an administrator, may do this.",
    GROUP_JOINED: "The group has become part of another.",
    GROUP_NOT_AWARDED: "A group goes to nobody as a whole: its members are transferred each.",
    IDENTIFIER_GIVEN_UP: "The customer does not have the identifier any more.",
    HANDED_OVER: "What somebody held was handed over meanwhile.",
    NOT_ABOVE_GIVER: "Only a manager above the giver, or an administrator, may order it.",
    NOT_THE_GIVERS: "The customer is not the giver's.",
    NOT_ORPHANED: "The owner of the customer has not left.",
    STAND_IN_TOO_LONG: "Nobody stands in for so long, by the policy.",
    UNKNOWN_STAND_IN: "There is no such stand-in at this customer now.",
    REQUEST_PARKED: "The customer waits for a request that could not be decided yet.",
}
"""What each code means, as one sentence for people."""
