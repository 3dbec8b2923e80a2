"""All techniques: those in the folders of ``engine/techniques``, where a module ``config`` adds the
techniques that it defines, and those of other installed packages.

A package adds a technique with an entry point in the group ``compression_explorer.techniques``,
such as ``name = "package.config:Class"``; ``package.method`` registers its hooks, and
``package.tables`` declares its tables and result views, if it has any. ``tests/example_technique``
is an example.
"""

import logging
import pkgutil
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import Annotated, Union

from pydantic import Field

from engine.config.technique import Technique

PACKAGE = "engine.techniques"
ENTRY_POINTS = "compression_explorer.techniques"


def config_modules() -> list[ModuleType]:
    """Configs of all techniques, none of which imports torch."""
    return own_modules("config")


def own_modules(name: str) -> list[ModuleType]:
    """Modules with this name in the folders of ``engine/techniques``."""
    folders = import_module(PACKAGE).__path__
    names = [module.name for module in pkgutil.walk_packages(folders, f"{PACKAGE}.")]
    return [import_module(module) for module in names if module.endswith(f".{name}")]


def techniques_in(module: ModuleType) -> list[type[Technique]]:
    """Techniques that a module defines, without their base classes."""
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    return [
        cls
        for cls in classes
        if issubclass(cls, Technique) and cls.__module__ == module.__name__ and technique_name(cls)
    ]


def technique_name(cls: type[Technique]) -> str:
    """Name of a technique in recipes; empty for a base class."""
    default = cls.model_fields["technique"].default
    return default if isinstance(default, str) else ""


def installed_techniques(taken: set[str]) -> Iterator[type[Technique]]:
    """Techniques of other packages. Those that cannot be used are skipped, with a warning in the
    log.
    """
    for point in entry_points(group=ENTRY_POINTS):
        try:
            cls = point.load()
            if not (isinstance(cls, type) and issubclass(cls, Technique) and technique_name(cls)):
                raise TypeError("it is not a technique with a default name")
            if technique_name(cls) in taken:
                raise ValueError(f"the name {technique_name(cls)!r} is taken")
        except Exception as error:  # code of another package
            reason = f"{type(error).__name__}: {error}"
            logging.getLogger(__name__).warning("Skipped %s: %s", point.value, reason)
            continue
        taken.add(technique_name(cls))
        yield cls


BUILT_IN_TECHNIQUES = [cls for module in config_modules() for cls in techniques_in(module)]
ALL_TECHNIQUES: tuple[type[Technique], ...] = tuple(
    sorted(
        [
            *BUILT_IN_TECHNIQUES,
            *installed_techniques({technique_name(cls) for cls in BUILT_IN_TECHNIQUES}),
        ],
        key=lambda cls: cls.list_position,
    )
)
TECHNIQUES: dict[str, type[Technique]] = {technique_name(cls): cls for cls in ALL_TECHNIQUES}
# a union of a tuple's members cannot be written with |
Step = Annotated[Union[ALL_TECHNIQUES], Field(discriminator="technique")]  # noqa: UP007


def technique_modules(name: str) -> list[ModuleType]:
    """Modules with this name in the folders of all techniques and families, and next to the configs
    of installed techniques.
    """
    return [*own_modules(name), *installed_modules(name)]


def installed_modules(name: str) -> Iterator[ModuleType]:
    """Modules with this name next to the configs of installed techniques, where there are any.
    Those that cannot be imported are skipped, with a warning in the log.
    """
    installed = [cls for cls in ALL_TECHNIQUES if not cls.__module__.startswith(f"{PACKAGE}.")]
    for package in dict.fromkeys(cls.__module__.rpartition(".")[0] for cls in installed):
        module = f"{package}.{name}"
        try:
            if find_spec(module):
                yield import_module(module)
        except Exception as error:  # code of another package
            logging.getLogger(__name__).warning("%s cannot be imported: %s", module, error)
