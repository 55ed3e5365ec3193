"""Each test says for itself how its host divides."""

import pytest

from tests import reference


@pytest.fixture(autouse=True)
def _host_divides_once():
    reference.HOST_DIVISOR[0] = 1
