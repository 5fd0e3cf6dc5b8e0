"""What a hostile client sends and what a hostile author of models leaves in a repository, made the same on every run.

Not here: how a server must bear it; see test_hostile_requests.py and test_hostile_models.py.
"""
