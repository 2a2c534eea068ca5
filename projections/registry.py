"""All read models of this version of guishu."""

from __future__ import annotations

from projections.base import Projection, Unsealer
from projections.claims import Claims
from projections.customers import Customers
from projections.deals import Deals
from projections.follow_ups import FollowUps
from projections.holdings import Holdings
from projections.intervals import Intervals
from projections.ownership import Ownership
from projections.people import People
from projections.territory_figures import TerritoryFigures
from projections.timeline import Timeline


def all_projections(unsealer: Unsealer) -> tuple[Projection, ...]:
    """Return every projection; ``unsealer`` opens the names and notes that they show."""
    return (
        Customers(unsealer),
        People(unsealer),
        Ownership(),
        Intervals(),
        Claims(),
        Timeline(unsealer),
        FollowUps(unsealer),
        Deals(),
        Holdings(),
        TerritoryFigures(),
    )
