"""Images as declarations: with absolute paths, found modules, secrets' slots and source texts."""

from __future__ import annotations

import base64
from pathlib import Path

from attrs import evolve, field, frozen

from slipway.dsl.declaration import (
    AddLocal,
    Base,
    DockerfileCommands,
    Fault,
    FromDockerfile,
    FromRegistry,
    ImageDecl,
    MicromambaInstall,
    PipInstall,
    RunFunction,
    SecretDecl,
    SourceDecl,
    Step,
    UvSync,
)
from slipway.dsl.errors import Error, InvalidError
from slipway.dsl.image import Image
from slipway.dsl.items import Item, step_name
from slipway.dsl.own import cloudpickle

from .context import Lines, find_context, read_dockerfile
from .identity import NoText, canonical_text, plain_globals, source_text
from .notes import fault_of
from .sources import absolute, code_of, module_name, module_of, python_sources, resolved
from .values import Slots

MOST_ARGUMENTS = 2 << 20


@frozen(kw_only=True, eq=False)
class Images:
    """The images of one app, each once, in the order in which functions ask for them."""

    slots: Slots
    file: Path  # of the app
    python: str
    names: dict[int, str]  # id of an image -> the variable that holds it
    decls: list[ImageDecl] = field(factory=list)
    faults: list[Fault] = field(factory=list)
    _index: dict[int, int] = field(factory=dict)
    _held: list[Image] = field(factory=list)

    def index(self, image: Image) -> int:
        """Which of the declaration's images this is."""
        known = self._index.get(id(image))
        if known is None:
            known = self._index[id(image)] = len(self.decls)
            self._held.append(image)
            self.decls.append(self._decl(image))
        return known

    def _decl(self, image: Image) -> ImageDecl:
        name = self._name(image)
        self._ignored(name, image.base.KIND, image.ignored, image)
        steps = []
        for number, item in enumerate(image.items, start=1):
            self._ignored(name, step_name(item.step), item.ignored, image)
            try:
                steps.append(self._step(item, name, number))
            except Error as error:
                self.faults.append(fault_of(error, f"image {name}, step {number}", item.step.origin))
        return ImageDecl(name=name, base=self._base(image, name), steps=tuple(steps), origin=image.base.origin)

    def _name(self, image: Image) -> str:
        wanted = self.names.get(id(image)) or (f"image-{len(self.decls) + 1}" if self.decls else "default")
        taken = {decl.name for decl in self.decls}
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}-{number}"
        return name

    def _base(self, image: Image, name: str) -> Base:
        base, secrets = image.base, self.slots.all(image.secrets)
        if isinstance(base, FromRegistry):
            registry = image.registry_secret
            return evolve(base, secret=None if registry is None else self.slots.decl(registry))
        if isinstance(base, FromDockerfile):
            try:
                return self._dockerfile(image, base, secrets, name)
            except Error as error:
                self.faults.append(fault_of(error, f"image {name}", base.origin))
                return base
        return evolve(base, python_version=base.python_version or self.python)

    def _dockerfile(self, image: Image, base: FromDockerfile, secrets: tuple[SecretDecl, ...], name: str) -> Base:
        path = absolute(base.path)
        text = read_dockerfile(path, base.origin)
        folder = Path(absolute(base.context_dir or "."))
        lines = Lines(text=text, origin=base.origin, address=f"image {name}", file=Path(path))
        found = find_context(lines, folder, image.ignore)
        self.faults.extend(found.faults)
        return evolve(
            base,
            path=path,
            context_dir=str(folder),
            text=text,
            context=() if found.source is None else (found.source,),
            registry_secret=None if image.registry_secret is None else self.slots.decl(image.registry_secret),
            secrets=secrets,
        )

    def _lines(self, step: DockerfileCommands, item: Item, image: str) -> DockerfileCommands:
        """With what it copies: the files that were named one by one, and of the folder what the lines name."""
        folders = [source for source in step.context if source.is_dir]
        files = tuple(resolved(source) for source in step.context if not source.is_dir)
        lines = Lines(text="\n".join(step.commands), origin=step.origin, address=image)
        folder = Path(absolute(folders[0].local if folders else "."))
        found = find_context(lines, folder, item.ignore, elsewhere=[source.remote for source in files])
        self.faults.extend(found.faults)
        return evolve(step, context=(*(() if found.source is None else (found.source,)), *files))

    def _step(self, item: Item, image: str, position: int) -> Step:
        step = evolve(item.step, options=evolve(item.step.options, secrets=self.slots.all(item.secrets)))
        if isinstance(step, PipInstall):
            project = None if step.pyproject is None else resolved(step.pyproject)
            return evolve(step, requirements=tuple(map(resolved, step.requirements)), pyproject=project)
        if isinstance(step, UvSync):
            return evolve(step, project=evolve(step.project, local=absolute(step.project.local)))
        if isinstance(step, MicromambaInstall) and step.spec_file is not None:
            return evolve(step, spec_file=resolved(step.spec_file))
        if isinstance(step, DockerfileCommands):
            return self._lines(step, item, f"image {image}, step {position}")
        if isinstance(step, AddLocal):
            ignore = () if item.ignore is None else item.ignore
            found = python_sources(item.modules, ignore, step.origin, self.file)
            return evolve(step, sources=(*(resolved(source, ignore) for source in step.sources), *found))
        if isinstance(step, RunFunction):
            return self._run_function(step, item, image)
        return step

    def _run_function(self, step: RunFunction, item: Item, image: str) -> RunFunction:
        function = item.function
        assert function is not None, "Image.run_function puts it there"
        texts, left_out = plain_globals(function)
        if left_out:
            self.faults.append(
                Fault(
                    severity="note",
                    address=f"image {image}",
                    summary=f"a change of {', '.join(left_out)} won't rebuild the layer of {function.__name__}",
                    found="not a plain value, so it has no text that is the same everywhere",
                    hint="Give it to the function as an argument of plain values, or use force_build=True once.",
                    origin=step.origin,
                )
            )
        module = module_of(function)
        code = SourceDecl()
        if module is not None and item.include_source:
            code = code_of(module, step.origin)
        arguments, payload = _arguments(step, item)
        return evolve(
            step,
            module=step.module if module is None else module_name(module),
            source=source_text(function),
            globals=texts,
            arguments=arguments,
            payload=payload,
            code=code,
        )

    def _ignored(self, image: str, step: str, names: tuple[str, ...], said: Image) -> None:
        for name in names:
            summary = f"{name}= of {step} has no effect here"
            self.faults.append(
                Fault(severity="note", address=f"image {image}", summary=summary, origin=said.base.origin)
            )


def _arguments(step: RunFunction, item: Item) -> tuple[str, str]:
    """The arguments of a build function: the text that is their identity, and the pickle that carries them."""
    if not item.args and not item.kwargs:
        return "", ""
    try:
        text = canonical_text((item.args, dict(item.kwargs)))
    except NoText as error:
        raise InvalidError(
            f"{step.origin}: Image.run_function: an argument is {error.what}, and only plain values have an identity",
            hint="Give it strings, numbers, lists and dicts, and make the rest inside of the function.",
        ) from None
    data = cloudpickle.dumps((item.args, dict(item.kwargs)))
    if len(data) > MOST_ARGUMENTS:
        raise InvalidError(
            f"{step.origin}: Image.run_function: the arguments take {len(data) >> 20} MiB, and at most 2 are allowed",
            hint="Add big things to the image as files, with add_local_file(..., copy=True).",
        )
    return text, base64.b64encode(data).decode("ascii")
