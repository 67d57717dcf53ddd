"""What a disk refuses, in words, with the remedy that fits."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from luthier import InputError
from luthier.files import REMEDY, disk_errors


@pytest.mark.parametrize(
    ("number", "message", "first"),
    [
        (errno.ENOSPC, "no space left on the disk of /store", "Free some space: "),
        (errno.EDQUOT, "no space left on the disk of /store", "Free some space: "),
        (errno.EACCES, "cannot write to /store: ", "Mend its permissions."),
        (errno.EPERM, "cannot write to /store: ", "Mend its permissions."),
        (errno.EROFS, "cannot write to /store: ", "Mount it for writing."),
        (errno.ENOTDIR, "/store is not usable as a directory: ", "Move what is in its way."),
    ],
)
def test_each_refusal_has_its_own_remedy(number: int, message: str, first: str) -> None:
    with pytest.raises(InputError) as raised, disk_errors(Path("/store"), REMEDY):
        raise OSError(number, os.strerror(number), "/store/runs")
    assert raised.value.message.startswith(message)
    assert raised.value.message.endswith(" (/store/runs)")
    assert raised.value.remedy.startswith(first)
    assert raised.value.remedy.endswith(" Or set LUTHIER_HOME to another directory.")
    assert ("space" in raised.value.remedy) == (number in (errno.ENOSPC, errno.EDQUOT))


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(ConnectionResetError), disk_errors(Path("/store"), REMEDY):
        raise ConnectionResetError(errno.ECONNRESET, "reset")
