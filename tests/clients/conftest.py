"""The servers that the tests ask, one for each repository, and the ways to ask them."""

from pathlib import Path

import pytest

import wire
from server import StartedWeir, Weir

ROOT = Path(__file__).resolve().parents[2]


def _serving(models):
    """The environment's server if it serves these models, else one of our own."""
    named = Weir.of_environment()
    if named and named.serves(models):
        yield named
        return
    with StartedWeir(models) as weir:
        yield weir


@pytest.fixture(scope="session")
def weir():
    """Serves the bundled models: digits, breast_cancer, tickets, simple."""
    yield from _serving(ROOT / "models")


@pytest.fixture(scope="session")
def weir_fixtures():
    """Serves the tests' models: one identity for each data type, slow, and others that are hard to batch."""
    yield from _serving(ROOT / "tests" / "models")


@pytest.fixture(scope="session")
def weir_broken():
    """Serves the models that must be refused, and `ok`."""
    yield from _serving(ROOT / "tests" / "models_broken")


@pytest.fixture
def http(weir):
    with wire.Http(weir.http) as connection:
        yield connection


@pytest.fixture
def http_fixtures(weir_fixtures):
    with wire.Http(weir_fixtures.http) as connection:
        yield connection


@pytest.fixture(params=["json", "binary", "grpc"])
def way(request):
    """Each way to ask for an inference: a class to be made with a server."""
    # Not above: see wire_grpc.py on the messages that only one client may bring.
    from wire_grpc import WAYS

    return WAYS[request.param]
