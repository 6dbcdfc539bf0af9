"""The methods by name: what each does and costs, its settings, how it is made.

Other packages add methods through the entry-point group `tpt.methods`: an entry
`name = "package.module:Class"` of an installed distribution makes `--method name` work. Neither
torch nor another package is imported before a method is looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tpt.errors import MethodError, describe_error, suggest

if TYPE_CHECKING:
    from tpt.methods.base import Method
    from tpt.prompts import PromptEngine

GROUP = "tpt.methods"
"""The entry-point group in which other packages name their methods."""


@dataclass(frozen=True)
class MethodInfo:
    """What is known about a method before it is made."""

    name: str  # as on the command line
    home: str  # module and class
    title: str  # as in its paper
    paper: str  # arXiv id
    summary: str
    cost: str  # of one image, besides encoding its views
    needs_views: bool = True  # whether by default it reads more than the plain view
    keeps_state: bool = False  # whether by default results depend on other images
    together: int | None = None  # the batch size, if the images of a batch decide together
    gradient: bool = False  # whether it takes optimiser steps
    takes_templates: bool = True  # False if the context itself is tuned
    needs_pictures: bool = False  # whether it encodes them itself, with towers that it tunes

    @property
    def method(self) -> type[Method]:
        """The class; imports torch."""
        found: type[Method] = EntryPoint(self.name, self.home, GROUP).load()
        return found

    @property
    def settings(self) -> type:
        """The frozen dataclass of its settings; the defaults are the published ones."""
        return self.method.Settings

    @property
    def options(self) -> tuple[str, ...]:
        """The names of its settings."""
        return tuple(field.name for field in fields(self.settings))

    def shares_gradient(self, settings: Any) -> bool:
        """Whether every image's first gradient is taken at the start context, which all share."""
        tunes_context = self.gradient and not self.takes_templates and not self.needs_pictures
        return tunes_context and getattr(settings, "reset", "image") == "image"

    def reads_views(self, settings: Any) -> bool:
        """Whether it reads more than the plain view with these settings."""
        return self.needs_views or getattr(settings, "keep", None) is not None

    def split_start(self, templates: Sequence[str]) -> tuple[str | None, Sequence[str]]:
        """(the words that the context starts from, the templates of the method).

        A method that tunes the context starts it from the first template, and has no others. The
        words are None for the default context.
        """
        if templates and not self.takes_templates:
            return templates[0], ()
        return None, templates

    def make(self, engine: PromptEngine, settings: Any, templates: Sequence[str] = ()) -> Method:
        """The method on an engine, with its settings and, if it takes them, templates.

        Raises:
            MethodError: templates for a method that tunes the context.
            PromptError: a template without exactly one `{}`.
        """
        chosen = asdict(settings)
        if self.takes_templates:
            chosen["templates"] = templates
        elif templates:
            raise MethodError(
                f"{self.title} tunes the engine's context, and templates would replace it. Start "
                "the context from the words of one template instead, or use another method."
            )
        return self.method(engine, **chosen)


_TOWERS: dict[str, Any] = {  # of methods that tune layer norms from batch to batch
    "needs_views": False,
    "needs_pictures": True,
    "keeps_state": True,
    "together": 64,
    "gradient": True,
    "takes_templates": False,
}
_BUILT_IN = (
    MethodInfo(
        *("zero_shot", "tpt.methods.zero_shot:ZeroShot", "Zero-shot CLIP", "2103.00020"),
        "predict the plain view; no adaptation",
        "nothing; one view is encoded",
        needs_views=False,
    ),
    MethodInfo(
        *("tpt", "tpt.methods.tpt:TPT", "TPT", "2209.07511"),
        "tune the context until the confident views agree sharply",
        "a text backward pass and a text forward pass",
        gradient=True,
        takes_templates=False,
    ),
    MethodInfo(
        *("vte", "tpt.methods.vte:VTE", "VTE", "2405.14977"),
        "average the features of the confident views",
        "next to nothing",
    ),
    MethodInfo(
        *("zero", "tpt.methods.zero:ZERO", "ZERO", "2405.18330"),
        "let the confident views vote; gives votes, no probabilities",
        "next to nothing",
    ),
    MethodInfo(
        *("mta", "tpt.methods.mta:MTA", "MTA", "2405.02266"),
        "find the mode of the views' features, outliers weighted down",
        "next to nothing",
    ),
    MethodInfo(
        *("tps", "tpt.methods.tps:TPS", "TPS", "2403.12952"),
        "shift the class features until the confident views agree sharply",
        "a gradient through one matrix product",
        gradient=True,
    ),
    MethodInfo(
        *("ctpt", "tpt.methods.ctpt:CTPT", "C-TPT", "2403.14119"),
        "TPT that keeps the class features apart, for calibrated scores",
        "a text backward pass and a text forward pass",
        gradient=True,
        takes_templates=False,
    ),
    MethodInfo(
        *("tda", "tpt.methods.tda:TDA", "TDA", "2403.18293"),
        "correct zero-shot by caches of the stream's own images",
        "next to nothing; one view is encoded, the caches stay in memory",
        needs_views=False,
        keeps_state=True,
    ),
    MethodInfo(
        *("oga", "tpt.methods.oga:OGA", "OGA", "2501.04352"),
        "correct zero-shot by Gaussians of the stream's own images",
        "next to nothing; one view is encoded, the memory stays",
        needs_views=False,
        keeps_state=True,
        together=32,
    ),
    MethodInfo(
        *("stata", "tpt.methods.stata:StatA", "StatA", "2501.03729"),
        "assign a batch of images at once, few classes among many",
        "next to nothing; one view is encoded, the batch is one answer",
        needs_views=False,
        keeps_state=True,
        together=64,
    ),
    MethodInfo(
        *("rtpt", "tpt.methods.rtpt:RTPT", "R-TPT", "2504.11195"),
        "tune on sharp views, answer by those that agree; for attacked pictures",
        "a text backward pass and a text forward pass",
        gradient=True,
        takes_templates=False,
    ),
    MethodInfo(
        *("tent", "tpt.methods.tent:TENT", "TENT", "2006.10726"),
        "sharpen the image tower's layer norms on a stream of corrupted images",
        "a backward pass of the image tower; a copy of the model",
        **_TOWERS,
    ),
    MethodInfo(
        *("batclip", "tpt.methods.batclip:BATCLIP", "BATCLIP", "2412.02837"),
        "tune both towers' layer norms on a stream of corrupted images",
        "a backward pass of both towers; a copy of the model",
        **_TOWERS,
    ),
)

METHODS: Mapping[str, MethodInfo] = MappingProxyType({info.name: info for info in _BUILT_IN})
"""The methods of this package, by name."""


def fold_name(name: str) -> str:
    """A method's name for comparison: lower case, `_` for `-`."""
    key = name.strip().lower().replace("-", "_")
    return {"zeroshot": "zero_shot", "c_tpt": "ctpt", "r_tpt": "rtpt"}.get(key, key)


def find_plugins() -> dict[str, list[EntryPoint]]:
    """The entry points of installed packages by method name; none is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(fold_name(entry.name), []).append(entry)
    return found


def choose_plugin(key: str, entries: Sequence[EntryPoint]) -> MethodInfo:
    """The method of another package, from the entry points under one name.

    Raises:
        MethodError: several packages use the name, or it is one of ours; the entry cannot be
            imported, or is not a subclass of `tpt.methods.Method`.
    """
    from tpt.methods.base import Method

    entry = entries[0]
    if key in METHODS or len(entries) > 1:
        claims = ", ".join(f'"{each.value}"' for each in entries)
        owner = "is one of tpt's own" if key in METHODS else "is claimed by several packages"
        raise MethodError(
            f'The method name "{entry.name}" of {claims} {owner}. Expected a name that no '
            "other method has: rename it in that package, or uninstall one."
        )
    whose = f'"{entry.value}"' + (f" of the package {entry.dist.name}" if entry.dist else "")
    try:
        if entry.pattern.match(entry.value) is None:
            raise ImportError('it is not of the form "module:Class"')
        method = entry.load()
    except (Exception, SystemExit) as error:  # another package's code may raise anything
        raise MethodError(
            f'The method "{entry.name}", {whose}, cannot be imported ({describe_error(error)}). '
            "Repair or uninstall that package, or use another method."
        ) from error
    if not (isinstance(method, type) and issubclass(method, Method)):
        raise MethodError(
            f'The method "{entry.name}", {whose}, is not a subclass of tpt.methods.Method. Repair '
            "or uninstall that package, or use another method."
        )
    return MethodInfo(
        *(entry.name, entry.value, method.title or method.__name__, method.paper),
        *(method.summary, method.cost),
        needs_views=method.reads_views is not False,  # a property depends on the settings
        keeps_state=method.keeps_state is True,
        together=method.together if isinstance(method.together, int) else None,
        gradient=method.gradient,
        takes_templates=method.takes_templates,
        needs_pictures=method.needs_pictures is True,
    )


def list_methods() -> Iterator[MethodInfo | MethodError]:
    """All methods, ours first; the error for a method of another package that does not work."""
    yield from METHODS.values()
    for key, entries in find_plugins().items():
        try:
            yield choose_plugin(key, entries)
        except MethodError as error:
            yield error


def find_method(name: str) -> MethodInfo:
    """The method with this name; capitals and `-` for `_` are accepted.

    Raises:
        MethodError: there is no such method, or it is of another package and does not work.
    """
    key = fold_name(name)
    if key in METHODS:
        return METHODS[key]
    plugins = find_plugins()
    if key in plugins:
        return choose_plugin(key, plugins[key])
    known_names = [*METHODS, *plugins]
    raise MethodError(
        f'Unknown method "{name}".{suggest(key, known_names)} Expected one of '
        f"{', '.join(known_names)}."
    )


def make_settings(name: str, options: Mapping[str, Any]) -> Any:
    """The settings of a method; an option that is missing or None has its default.

    Raises:
        MethodError: an option of another method, or out of its range.
    """
    info = find_method(name)
    given = {key: value for key, value in options.items() if value is not None}
    for option in given:
        if option not in info.options:
            raise _foreign(option, info)
    return info.settings(**given)


def make_method(
    name: str,
    engine: PromptEngine,
    options: Mapping[str, Any] = MappingProxyType({}),
    templates: Sequence[str] = (),
) -> Method:
    """A method on an engine.

    Args:
        options: values for its settings; None for the default.
        templates: an ensemble of hand-crafted sentences that replaces the engine's context.

    Raises:
        MethodError: an unknown method, an option of another method or out of its range, templates
            for a method that tunes the context.
        PromptError: a template without exactly one `{}`.
    """
    return find_method(name).make(engine, make_settings(name, options), templates)


def _foreign(option: str, info: MethodInfo) -> MethodError:
    """The error for an option that this method does not have."""
    flag = "--" + option.replace("_", "-")
    owners = [other.name for other in METHODS.values() if option in other.options]
    if owners:
        return MethodError(
            f"{flag} has no meaning with --method {info.name}; it belongs to {', '.join(owners)}. "
            "Leave it out, or use another method."
        )
    known = {name for other in (info, *METHODS.values()) for name in other.options}
    return MethodError(f'No method has the option "{option}".{suggest(option, sorted(known))}')
