"""What a pickle file may hold, found by reading its instructions without running them."""

import pickle
import pickletools
from typing import Any


# Of CIFAR's archives the largest has 155 million bytes. Their tuples are the states of arrays.
MOST_BYTES = 2**29
DEEPEST = 16
SETS = ("EMPTY_SET", "ADDITEMS", "FROZENSET")
MEMO = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET")

_MARK = object()


def check_instructions(data: bytes) -> None:
    """
    Lengths that the file does not have, places in the memo that nothing was put to, containers that are nested deeply
    or hold each other more often than the file is long: what makes reading a short file take all memory, hours, or the
    whole process.

    Raises:
        `pickle.UnpicklingError` or `ValueError`: the file has one of them, or is no pickle file.
    """
    if len(data) > MOST_BYTES:
        raise pickle.UnpicklingError(f"{len(data)} bytes are more than an archive of images has")
    # Of every value on the stack: how deep it is nested, and with how many values in it, counted as often as met.
    stack: list[Any] = []
    memo: dict[int, tuple[int, int]] = {}
    for instruction, argument, _ in pickletools.genops(data):
        if instruction.name in SETS:
            raise pickle.UnpicklingError("a set has no place in an archive of images")
        if instruction.name in MEMO:
            _use_memo(instruction.name, argument, stack, memo)
            continue
        inside = _taken(instruction.stack_before, stack)
        depth, size = 1 + max((of[0] for of in inside), default=0), 1 + sum(of[1] for of in inside)
        if depth > DEEPEST or size > max(len(data), 1000):
            raise pickle.UnpicklingError("values are nested too deeply, or held too often")
        after = instruction.stack_after
        stack += [_MARK if kind is pickletools.markobject else (depth, size) for kind in after]


def check_value(value: Any, most: int) -> None:
    """
    Args:
        value: as read, of lists, tuples and dictionaries and of what is in them.
        most (`int`): values that may be met on the way through all of it.

    Raises:
        `pickle.UnpicklingError`: there are more, as where containers hold each other, or themselves.
    """
    left, met = [value], 0
    while left:
        value = left.pop()
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        met += 1 + len(inside)
        if met > most:
            raise pickle.UnpicklingError("values are held too often")
        left += (entry for entry in inside if isinstance(entry, dict | list | tuple))


def _use_memo(name: str, argument: int | None, stack: list[Any], memo: dict[int, tuple[int, int]]) -> None:
    if "GET" in name:
        if argument not in memo:
            raise pickle.UnpicklingError(f"nothing was put to place {argument} of the memo")
        stack.append(memo[argument])
        return
    place = len(memo) if argument is None else argument
    # Python makes room for all places up to this one.
    if place > 2 * len(memo) + 1000 or not stack or stack[-1] is _MARK:
        raise pickle.UnpicklingError(f"place {place} of the memo has no value, or nothing before it")
    memo[place] = stack[-1]


def _taken(wanted: list[Any], stack: list[Any]) -> list[tuple[int, int]]:
    """What an instruction takes off the stack, without marks."""
    names = [kind for kind in wanted if kind not in (pickletools.markobject, pickletools.stackslice)]
    taken = []
    if pickletools.markobject in wanted and pickletools.stackslice in wanted:
        while stack and stack[-1] is not _MARK:
            taken.append(stack.pop())
        if not stack:
            raise pickle.UnpicklingError("an instruction has no mark to go back to")
        stack.pop()
    for _ in names:
        if not stack:
            raise pickle.UnpicklingError("an instruction has nothing to work on")
        value = stack.pop()
        taken += [] if value is _MARK else [value]
    return taken
