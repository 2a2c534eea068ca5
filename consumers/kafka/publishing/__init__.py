"""What subscribers outside are told: public decisions, and who owns each customer now."""
