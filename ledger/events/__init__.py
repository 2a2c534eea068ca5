"""What is recorded: requests, decisions and facts of the organisation, and their catalogue.

Names and stored JSON are for ever. A new shape is a new version of the name with an upcaster.
"""
