"""The shapes of a file's tensors, from which a model's sizes are read and with which its tensors are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..errors import InputError
from ..wording import counted

Shape = tuple[int, ...]
MOST_BLOCKS = 1000  # Wan has 40
LARGEST_SIZE = 1 << 20  # of any layer; the largest of the released models is 46,080


class TensorShapes(Mapping[str, Shape]):
    """Shapes by tensor name. file: the name of their file, for messages."""

    def __init__(self, shapes: Mapping[str, Sequence[int]], file: str = "the weights file"):
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.file = file

    @classmethod
    def of(cls, shapes: Mapping[str, Sequence[int]]) -> TensorShapes:
        """Return `shapes` themselves, or those of a plain mapping."""
        return shapes if isinstance(shapes, cls) else cls(shapes)

    def __getitem__(self, name: str) -> Shape:
        return self._shapes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def sizes(self, name: str, dimensions: int) -> Shape:
        """Return the shape of a tensor from which sizes of the model are read.

        Raises InputError if it is missing, has another number of dimensions, or a size that no layer has.
        """
        if name not in self._shapes:
            raise InputError(f"{self.file} lacks the tensor {name}; download it again")
        shape = self._shapes[name]
        if len(shape) != dimensions or not all(0 < size <= LARGEST_SIZE for size in shape):
            raise InputError(
                f"{self.file} holds the tensor {name} in the shape {shape}, which no model of this kind has; "
                "download it again"
            )
        return shape

    def blocks(self, prefix: str, each: str) -> int:
        """Return how many blocks there are, whose tensors are named prefix + number + "." + more.

        each: the name of a tensor that each has, for messages. Raises InputError if one is missing or is not numbered.
        """
        parts = {name.removeprefix(prefix).split(".")[0] for name in self._shapes if name.startswith(prefix)}
        count = len(parts)
        if not 0 < count <= MOST_BLOCKS:
            raise InputError(f"{self.file} has {count} parts named {prefix}…, which no model has; download it again")
        if missing := {str(number) for number in range(count)} - parts:
            first = f"{prefix}{min(missing, key=int)}.{each}"
            raise InputError(
                f"{self.file} lacks the tensor {first}, or holds those of another model; download it again"
            )
        return count

    def check(self, expected: Mapping[str, Sequence[int]]) -> None:
        """Raise InputError, naming the tensor, if one is missing, superfluous or of another shape than expected."""
        if missing := sorted(expected.keys() - self._shapes.keys()):
            raise InputError(
                f"{self.file} lacks {counted(len(missing), 'tensor')}, first {missing[0]}; download it again"
            )
        if extra := sorted(self._shapes.keys() - expected.keys()):
            raise InputError(
                f"{self.file} has {counted(len(extra), 'tensor')} too many, first {extra[0]}; "
                "it is another model's file"
            )
        for name, shape in expected.items():
            if self._shapes[name] != tuple(shape):
                raise InputError(
                    f"{name} in {self.file} is {self._shapes[name]} where {tuple(shape)} is expected; it is another "
                    "model's file"
                )
