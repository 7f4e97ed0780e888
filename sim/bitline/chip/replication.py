"""How many copies of every layer: as small as possible, balanced, or as fast as fits.

A layer of ``positions`` input vectors an image and ``interval`` cycles each is busy ``positions * interval / replicas``
cycles an image. The slowest layer sets the pace, so the fewest replicas for a pace of ``t`` cycles an image are
``ceil(positions * interval / t)`` each, and the best pace under a tile budget is found by bisection.

That counts the cycles in which crossbars are read. Ports and links can make more copies slower than fewer: they carry
them to other chips. So :func:`candidates` lists slower paces too, down to one copy of everything, and the one that
turns out fastest is taken. The list depends on the mapping alone: where a part gets slower, the same choices are there,
each of them no faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from bitline.chip.mapping import LayerMapping, chip_of, read_cycles
from bitline.errors import ConfigError, RangeError
from bitline.hardware import Hardware
from bitline.layers import Operation

__all__ = ["Replication", "candidates", "replicate", "tile_budget"]

_Int = NDArray[np.int64]


class Replication(StrEnum):
    """Named ways to choose replicas; a mapping of layer names to counts is the other."""

    SMALLEST = "smallest"
    """One copy of everything."""
    BALANCED = "balanced"
    """ISAAC's rule: every layer as fast as the fastest unreplicated one, or as near as the tile budget allows."""
    FASTEST = "fastest"
    """Spend the whole tile budget on the slowest layers."""


def _tiles(crossbars: _Int, replicas: _Int, hw: Hardware) -> int:
    hierarchy = chip_of(hw).hierarchy
    imas = -(-crossbars * replicas // hierarchy.crossbars_per_ima.value)
    return int(-(-imas.sum() // hierarchy.imas_per_tile.value))


def tile_budget(mappings: Sequence[LayerMapping], hw: Hardware, tiles: int | None) -> int:
    """Tiles a network may take: ``tiles``, or as many whole chips as one copy of everything needs.

    Raises
    ------
    ConfigError
        One copy of everything does not fit the budget, or needs more than ``max_chips``.
    RangeError
        A budget below one tile.
    """
    chip = chip_of(hw)
    per_chip, most_chips = chip.hierarchy.tiles_per_chip.value, chip.most_chips
    crossbars = np.array([m.crossbars for m in mappings], dtype=np.int64)
    needed = _tiles(crossbars, np.ones_like(crossbars), hw)
    if tiles is not None and tiles < 1:
        raise RangeError(f"tiles must be at least 1, got {tiles}")
    budget = -(-needed // per_chip) * per_chip if tiles is None else tiles
    if most_chips is not None:
        most = most_chips * per_chip
        if needed > most:
            raise ConfigError(
                f"hardware {hw.name}: {chip.chips_limited_by}: one copy of every layer "
                f"needs {needed} tiles, {most_chips} chips of {per_chip} have {most}"
            )
        budget = min(budget, most)
    if needed > budget:
        raise ConfigError(
            f"hardware {hw.name}: the network does not fit: one copy of every layer needs {needed} tiles, "
            f"the budget is {budget}"
        )
    return budget


def replicate(
    mappings: Sequence[LayerMapping],
    positions: Sequence[int],
    intervals: Sequence[int],
    hw: Hardware,
    how: Replication | str | Mapping[str, int] = Replication.BALANCED,
    tiles: int | None = None,
) -> tuple[int, ...]:
    """Choose the replicas of every layer.

    Parameters
    ----------
    mappings, positions, intervals : sequences
        For every matrix layer its mapping, its input vectors an image and the cycles of each.
    hw : Hardware
        Chip hierarchy.
    how : Replication, str or mapping
        A rule, or replicas by layer name (1 for layers not named).
    tiles : int, optional
        Tile budget; by default as many whole chips as one copy of everything needs.

    Raises
    ------
    ConfigError
        An unknown rule or layer name, or a network that does not fit.
    RangeError
        Replicas or a budget below 1.
    """
    budget = tile_budget(mappings, hw, tiles)
    crossbars = np.array([m.crossbars for m in mappings], dtype=np.int64)
    vectors = np.array(positions, dtype=np.int64)
    if isinstance(how, Mapping):
        names = [m.name for m in mappings]
        unknown = [name for name in how if name not in names]
        if unknown:
            raise ConfigError(f"replication names {unknown[0]}, which is no matrix layer of the network")
        if any(count < 1 for count in how.values()):
            raise RangeError("replicas must be at least 1")
        chosen = np.minimum(np.array([how.get(name, 1) for name in names], dtype=np.int64), vectors)
        needed, chip = _tiles(crossbars, chosen, hw), chip_of(hw)
        if tiles is None:
            most = chip.most_chips
            budget = needed if most is None else most * chip.hierarchy.tiles_per_chip.value  # none: nobody set a limit
        if needed > budget:
            raise ConfigError(f"hardware {hw.name}: the replicas asked for need {needed} tiles, the budget is {budget}")
        return tuple(chosen.tolist())
    try:
        rule = Replication(how)
    except ValueError:
        names_text = ", ".join(r.value for r in Replication)
        raise ConfigError(f"replication must be one of {names_text}, or replicas by layer name, got {how}") from None
    if rule is Replication.SMALLEST:
        return (1,) * len(mappings)

    work = vectors * np.array(intervals, dtype=np.int64)
    cap = vectors

    def at_pace(pace: int) -> _Int:
        return np.minimum(-(-work // pace), cap)

    if rule is Replication.BALANCED:
        several = work[vectors > 1]
        fastest = int(several.min()) if several.size else int(work.max())
        fastest = max(fastest, int((work // cap).max()))  # copies do not make a recurrence or a single vector faster
    else:
        fastest = max(1, int(np.max(intervals)))
    slow, fast = max(int(work.max()), fastest), fastest
    while fast < slow:  # the smallest pace in fast..slow that fits; slow always does
        middle = (fast + slow) // 2
        if _tiles(crossbars, at_pace(middle), hw) <= budget:
            slow = middle
        else:
            fast = middle + 1
    return tuple(at_pace(slow).tolist())


def candidates(
    mappings: Sequence[LayerMapping],
    matrix: Sequence[Operation],
    hw: Hardware,
    how: Replication | str | Mapping[str, int] = Replication.BALANCED,
    tiles: int | None = None,
) -> list[tuple[int, ...]]:
    """Replicas of every layer at the pace asked for, and at half of it, a quarter, ... and one copy of everything.

    Parameters
    ----------
    mappings : sequence of LayerMapping
    matrix : sequence of Operation
        The matrix operations, in the same order.
    hw, how, tiles
        As for :func:`replicate`.

    Returns
    -------
    list of tuple of int
        The most copies first. One entry for ``smallest`` and for replicas by layer name.

    Raises
    ------
    ConfigError, RangeError
        As :func:`replicate`.
    """
    # the steps of a recurrent layer follow each other: no second copy could take one of them over
    vectors = [1 if operation.gates else operation.positions for operation in matrix]
    timing = chip_of(hw).timing
    behind = timing.pipeline_overhead_cycles.value + timing.digital_cycles.value  # the least between two steps
    cycles = [
        (read_cycles(mapping, hw) + behind) * operation.positions if operation.gates else read_cycles(mapping, hw)
        for mapping, operation in zip(mappings, matrix, strict=True)
    ]
    found = [replicate(mappings, vectors, cycles, hw, how, tiles)]
    if isinstance(how, Mapping):
        return found
    if Replication(how) is Replication.FASTEST:
        found.append(replicate(mappings, vectors, cycles, hw, Replication.BALANCED, tiles))
    one_copy = (1,) * len(mappings)
    work = np.array(vectors, np.int64) * np.array(cycles, np.int64)
    while found[-1] != one_copy:
        pace = 2 * int((-(-work // np.array(found[-1]))).max())
        found.append(tuple(np.minimum(-(-work // pace), found[-1]).tolist()))
    return found
