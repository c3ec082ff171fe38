"""What the doctor sees of the machine."""

from __future__ import annotations

import fcntl
import pwd
from pathlib import Path


def other_users(shared: Path, uid: int) -> tuple[str, ...]:
    """Users but `uid` whose living processes hold the middleware's shared memory below `shared`.

    Fast DDS makes its segments writable for their owner only, and what goes through them to a
    process of another user is lost without a word. It locks the file NAME_el while it uses NAME.
    """
    owners = set()
    for file in shared.glob("fast*_el"):
        try:
            owner = file.stat().st_uid
            if owner == uid:
                continue
            with open(file, "rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            owners.add(owner)
        except OSError:
            continue  # gone by now, or not ours to look at
    return tuple(sorted(_name(owner) for owner in owners))


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
