"""The processes that follow the feed: feeds, enforcer, projector."""
