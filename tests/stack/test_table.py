"""The documentation says of every host what the tests show."""

from tests.stack import table
from tests.stack.hosts import HOSTS


def test_the_page_is_made_from_the_table():
    assert table.PAGE.read_text(encoding="utf-8") == table.page()


def test_every_host_has_a_row_and_every_refusal_a_cell():
    page = table.page()
    for name, host in HOSTS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
        assert row.count("refused") == len(host.refused)
        assert row.count("| yes") == len(table.COLUMNS) - len(host.refused)
