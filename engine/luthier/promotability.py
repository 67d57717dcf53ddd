"""What speaks against a promotion, and which promotion a rollback restores."""

from __future__ import annotations

from collections.abc import Sequence

from luthier.champion_history import HistoryEntry, released
from luthier.core_stages import CHAMPION
from luthier.errors import InputError
from luthier.runs import Run


def check_replaced(name: str, champion: HistoryEntry | None, replacing: int | None) -> None:
    """Refuse to replace another champion than the one that a challenger was compared with."""
    number = champion.number if champion else 0
    if replacing is not None and replacing != number:
        was = f"number {replacing}" if replacing else "none"
        is_now = f"number {number}, of the run {champion.run}" if champion else "none"
        raise InputError(
            f"the champion {name!r} changed meanwhile: it was {was} and is {is_now}",
            "Nothing was promoted. Compare with the champion that there is now.",
        )


def objections(run: Run, name: str, champion: HistoryEntry | None, entry: HistoryEntry) -> list[str]:
    """What the gates of a run say against promoting it."""
    found = [f"{gate.step}: {gate.reason}" for gate in run.gates if not gate.passed]
    found += [f"{step}: its gate was not judged, since the run stopped before it" for step in run.data.unjudged]
    against = [f"{gate.step}.{gate.metric}" for gate in run.gates if gate.subject == CHAMPION]
    known = (entry.artifact, run.data.champion)
    if against and champion and name == run.data.recipe and champion.artifact not in known:
        found.append(
            f"{', '.join(dict.fromkeys(against))}: judged before number {champion.number}, of the run {champion.run}, "
            "was champion; run the recipe again, which takes the rest from the store"
        )
    return found


def find_earlier(
    name: str, champion: HistoryEntry | None, past: Sequence[HistoryEntry], to: int | str | None
) -> HistoryEntry:
    """The promotion that a rollback restores."""
    gone = released(past)
    promoted = [each for each in past if each.event == "promoted"]
    look = f"See: luthier registry history {name}"
    if to is None:
        if champion is None:
            raise InputError(f"there is no champion {name!r} to go back from", f"Name one: --to NUMBER. {look}")
        before = [
            each
            for each in promoted
            if each.number < champion.promotion and each.artifact != champion.artifact and each.number not in gone
        ]
        if not before:
            raise InputError(f"there is no champion {name!r} before number {champion.promotion} to go back to", look)
        return before[-1]
    wanted = str(to)
    found = [each for each in promoted if wanted in (str(each.number), each.run)]
    found = found or [each for each in promoted if each.run.startswith(wanted)]
    if wanted.isdecimal() and not found:
        restored = next((each.restores for each in past if str(each.number) == wanted and each.restores), 0)
        found = [each for each in promoted if each.number == restored]
    if len({each.run for each in found}) != 1:
        what = f"{wanted!r} stands for several" if found else f"no promotion of {name!r} has the number or the run {to}"
        raise InputError(what, look)
    if found[-1].number in gone:
        remedy = f"If its run is still there, promote it again: luthier registry promote {found[-1].run}"
        raise InputError(f"number {found[-1].number} of {name!r} was forgotten", remedy)
    return found[-1]
