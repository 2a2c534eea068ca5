"""The write side of guishu: what can be asked, what is decided, and how it is recorded."""
