"""Messages for users."""

import pytest

from csametric.errors import UserError


@pytest.mark.parametrize("name", ["two\nlines.png", "red\x1b[31m.png", "bell\x07.png", "not-utf8\udcff.png"])
def test_a_message_is_one_printable_line_whatever_a_file_is_called(name):
    message = str(UserError(f"{name} cannot be read; remove it"))
    assert message.isprintable()
    assert message.encode()


def test_lists_of_torch_become_one_line():
    assert str(UserError("does not fit:\n\tMissing key\n\tsize mismatch")) == "does not fit: Missing key size mismatch"
