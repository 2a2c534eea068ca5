"""All read models of this version of guishu."""

from __future__ import annotations

from projections.approvals import Approvals
from projections.base import Projection, Unsealer
from projections.claims import Claims
from projections.collaborators import Collaborators
from projections.conflicts import Conflicts
from projections.customers import Customers
from projections.deadlines import Deadlines
from projections.deals import Deals
from projections.follow_ups import FollowUps
from projections.hand_overs import HandOvers
from projections.holdings import Holdings
from projections.intervals import Intervals
from projections.ownership import Ownership
from projections.people import People
from projections.stand_ins import StandIns
from projections.territory_figures import TerritoryFigures
from projections.timeline import Timeline


def all_projections(unsealer: Unsealer) -> tuple[Projection, ...]:
    """Return every projection; ``unsealer`` opens the names and notes that they show."""
    # Those that look something up in their tables come first: in a pipeline they wait for all that
    # was sent before. What is written without a look is made while the server is busy.
    return (
        TerritoryFigures(),
        FollowUps(unsealer),
        Deals(),
        Approvals(),
        Deadlines(),
        Customers(unsealer),
        Timeline(unsealer),
        Collaborators(),
        Conflicts(),
        HandOvers(unsealer),
        StandIns(),
        Ownership(),
        Intervals(),
        Claims(),
        Holdings(),
        People(unsealer),
    )
