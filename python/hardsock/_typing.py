"""What this package needs of ``typing``, which takes as long to import as the half of it.

For checkers of types these are the names of ``typing``. A program gets what does the same there,
so that neither ``import hardsock`` nor the first connection pays for what only checkers read:

- ``TYPE_CHECKING``: checkers take a variable of this name for true.
- ``Literal``: loads the one of ``typing`` when somebody evaluates an annotation.
- ``NamedTuple``: makes of the body of a class what that of ``typing`` makes of it, but looks at no
  annotation and compiles nothing: a tenth of the time for each class.

The modules that ``import hardsock`` and the first ``connect`` bring in take them from here;
tests/py/test_import.py says which, and what is not to come in with them.
"""

from __future__ import annotations

from _collections import _tuplegetter  # type: ignore[import-not-found]

TYPE_CHECKING = False

if TYPE_CHECKING:
    from collections.abc import Iterable
    from inspect import Signature
    from typing import Any

    from typing_extensions import Self

__all__ = ["TYPE_CHECKING", "Literal", "NamedTuple"]


class _OnDemand:
    def __getitem__(self, values: object) -> object:
        import typing

        return typing.Literal[values]


class _SignatureOfFields:
    """``inspect.signature`` of a record: known when it is asked for."""

    def __get__(self, record: object, cls: type[_Record]) -> Signature:
        from inspect import Parameter, Signature

        return Signature(
            [
                Parameter(
                    field,
                    Parameter.POSITIONAL_OR_KEYWORD,
                    default=cls._field_defaults.get(field, Parameter.empty),
                    annotation=cls.__annotations__[field],
                )
                for field in cls._fields
            ]
        )


class _Record(tuple):  # type: ignore[type-arg]
    """What all records have, under the names that ``collections.namedtuple`` gives them."""

    __slots__ = ()
    __signature__ = _SignatureOfFields()

    if TYPE_CHECKING:
        _fields: tuple[str, ...]
        _field_defaults: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if kwargs or len(args) != len(cls._fields):
            args = cls._in_order(args, kwargs)
        return tuple.__new__(cls, args)

    @classmethod
    def _in_order(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        try:
            bound = cls.__signature__.bind(*args, **kwargs)
        except TypeError as exc:
            raise TypeError(f"{cls.__name__}(): {exc}") from None
        bound.apply_defaults()
        return bound.args

    @classmethod
    def _make(cls, values: Iterable[Any]) -> Self:
        return cls(*values)

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self))  # noqa: B905  # strict= costs, and they are as many

    def _replace(self, **changes: Any) -> Self:
        return type(self)(**{**self._asdict(), **changes})

    __replace__ = _replace

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self._asdict().items())
        return f"{type(self).__name__}({values})"


class _Maker(type):
    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
        if not bases:
            return super().__new__(cls, name, bases, body)
        fields = tuple(body["__annotations__"])
        defaults = {field: body[field] for field in fields if field in body}
        getters = {f: _tuplegetter(i, f"Alias for field number {i}") for i, f in enumerate(fields)}
        own = {"__slots__": (), "__match_args__": fields, "_fields": fields}
        return type(name, (_Record,), {**body, **own, "_field_defaults": defaults, **getters})


if TYPE_CHECKING:
    from typing import Literal as Literal
    from typing import NamedTuple as NamedTuple
else:
    Literal = _OnDemand()

    class NamedTuple(metaclass=_Maker):
        """The base that a record names; its class has ``_Record`` instead."""
