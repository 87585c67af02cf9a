"""The conformance suite once more: a Predis without a doorbell, whose calls of a few keys are launches."""

import pytest
from test_conformance import *  # noqa: F403

pytestmark = pytest.mark.gpu


@pytest.fixture
def store(make):
    """In place of conftest's: one system."""

    def store(**options):
        return make("256MiB", doorbell=False, **options)

    store.is_redis = False
    return store
