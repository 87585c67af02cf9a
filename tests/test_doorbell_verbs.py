"""The conformance suite once more: a Predis whose calls of a few keys go by the doorbell."""

import pytest
from test_conformance import *  # noqa: F403

pytestmark = pytest.mark.gpu


@pytest.fixture
def store(make):
    """In place of conftest's: one system."""

    def store(**options):
        return make("256MiB", doorbell=True, **options)

    store.is_redis = False
    return store
