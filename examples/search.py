"""A search by meaning over the documentation of Python's own standard library.

    slipway run examples/search.py --query "parse command line options"

`extract` reads the docstrings of one module and is mapped over all of them; `index` turns them into vectors (TF-IDF,
then a truncated SVD) and keeps these in a volume; `search` loads them once per worker and ranks.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pickle
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import slipway

image = slipway.Image.debian_slim().pip_install("scikit-learn")
volume = slipway.Volume.from_name("stdlib-index", create_if_missing=True)
app = slipway.App("search", image=image)

INDEX = Path("/index/index.pickle")
DIMENSIONS = 200  # of the space that documents, modules and queries are projected to

Document = tuple[str, str, str, str]  # module, name within it ("" for the module), first line, the rest

# Importing these opens a browser, prints a poem, needs a screen, or brings in the tests.
UNFIT = {"antigravity", "this", "idlelib", "test", "turtle", "turtledemo"}


@app.local_entrypoint()
def main(query: str = "parse command line options") -> None:
    names = [name for name in sorted(sys.stdlib_module_names) if not name.startswith("_") and name not in UNFIT]
    documents: list[Document] = []
    for found in extract.map(names):
        documents += found
    print(index.remote(documents))
    print(f"\nThe five best for {query!r}:")
    for score, name, summary in search.remote(query):
        print(f"  {score:.2f}  {name:<34} {summary}")


# --- extract: one module in, its documented objects out -----------------------------------------------


@app.function()
def extract(name: str) -> list[Document]:
    """The documented objects of a module and its submodules; none of a module that is for another system."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated modules say so when they are imported
        try:
            return [document for module in modules_of(name) for document in documents_of(module)]
        except ImportError as error:
            print(f"skipped: {error}")
            return []


def modules_of(name: str) -> Iterator[ModuleType]:
    top = importlib.import_module(name)
    yield top
    for entry in pkgutil.iter_modules(getattr(top, "__path__", ()), prefix=f"{name}."):
        last = entry.name.rpartition(".")[2]
        if last.startswith("_") or last == "tests":  # importing __main__ would run it
            continue
        try:
            yield importlib.import_module(entry.name)
        except ImportError:  # a part for another system
            continue


def documents_of(module: ModuleType) -> Iterator[Document]:
    name = module.__name__
    if isinstance(module.__doc__, str):
        yield name, "", *split(module.__doc__)
    for key, value in public(module):
        owner = str(getattr(value, "__module__", name))
        if owner.lstrip("_") != name and key not in getattr(module, "__all__", ()):
            continue  # imported from elsewhere, and documented there
        yield name, key, *split(value.__doc__)
        for method, attribute in public(value) if inspect.isclass(value) else ():
            if method in vars(value):
                yield name, f"{key}.{method}", *split(attribute.__doc__)


def public(thing: Any) -> Iterator[tuple[str, Any]]:
    """Functions and classes with a public name and a docstring."""
    for key in sorted(vars(thing)):
        value = getattr(thing, key, None)
        if key.startswith("_") or not (inspect.isroutine(value) or inspect.isclass(value)):
            continue
        if isinstance(value.__doc__, str) and value.__doc__.strip():
            yield key, value


def split(doc: str) -> tuple[str, str]:
    first, _, rest = inspect.cleandoc(doc).partition("\n")
    return first.strip(), rest.strip()


# --- index: documents in, vectors in the volume out ---------------------------------------------------


@app.function(volumes={"/index": volume})
def index(documents: list[Document]) -> str:
    """Project every document, and every module as a whole, to a space of few dimensions; save all of it."""
    import numpy as np
    from scipy.sparse import vstack
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    by_module: dict[str, list[Document]] = {}
    for document in documents:
        by_module.setdefault(document[0], []).append(document)
    texts = [
        f"{name or module} {name or module} {first} {first} {rest[:1500]}" for module, name, first, rest in documents
    ]
    wholes = [whole(module, parts) for module, parts in by_module.items()]

    tfidf = TfidfVectorizer(analyzer=stems, sublinear_tf=True, min_df=2)
    terms = tfidf.fit_transform(texts + wholes)
    svd = TruncatedSVD(DIMENSIONS, random_state=0).fit(terms)
    order = {module: position for position, module in enumerate(by_module)}
    saved = {
        "documents": [document[:3] for document in documents],
        "module_of": np.array([order[document[0]] for document in documents]),
        "tfidf": tfidf,
        "svd": svd,
        "terms": vstack([terms]).tocsr().astype(np.float32),
        "space": unit(svd.transform(terms)).astype(np.float32),
    }
    fresh = INDEX.with_suffix(".new")
    fresh.write_bytes(pickle.dumps(saved))
    fresh.replace(INDEX)  # a search never sees half an index
    return f"indexed {len(documents)} documents of {len(by_module)} modules, {INDEX.stat().st_size >> 20} MiB"


def whole(module: str, parts: list[Document]) -> str:
    """A module as one text: its own documentation, then the names and first lines of what is in it."""
    heads = [f"{first} {first} {first} {rest[:3000]}" for _, name, first, rest in parts if not name]
    lines = [f"{name} {first}" for _, name, first, _ in parts if name and "." not in name]
    return " ".join([module, module, module, *heads, *lines])


def unit(vectors: Any) -> Any:
    """Rows of length one, so that a product of two is the cosine of their angle."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


COMMON = (  # words that say nothing about what a thing is for
    " a an and are argument arguments as at be been but by can class default do does else false for from given has "
    "have if in instance into is it its may method must none not object of on one only optional or other otherwise "
    "raise raises return returned returns see self should so some such than that the their them then there these they "
    "this to true use used uses using value was when where which while will with you your "
)
ENDINGS = re.compile(r"(?<=...)(izations?|ations?|ions?|ings?|ers?|ors?|ies|ied|ed|es|able|ible|ly|s|e)$")


def stems(text: str) -> list[str]:
    """The words of a text without their endings; camelCase and snake_case come apart."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).lower()
    return [stem(word) for word in re.findall(r"[a-z]+[0-9]*", spaced) if len(word) > 1 and f" {word} " not in COMMON]


def stem(word: str) -> str:
    word = ENDINGS.sub("", word)
    doubled = len(word) > 3 and word[-1] == word[-2] and word[-1] not in "ls"  # zipp(ed), but compress
    return word[:-1] if doubled else word


# --- search: a query in, the five best hits out -------------------------------------------------------


@app.function(volumes={"/index": volume})
def search(query: str) -> list[tuple[float, str, str]]:
    """The best hit of each of the five best modules: score, name, first line of its documentation."""
    import numpy as np

    saved = load(INDEX.stat().st_mtime_ns)
    terms = saved["tfidf"].transform([query]).astype(np.float32)
    place = unit(saved["svd"].transform(terms))[0]
    same_words = (saved["terms"] @ terms.T).toarray()[:, 0]
    same_sense = saved["space"] @ place
    scores = (same_words + same_sense) / 2
    count = len(saved["documents"])
    total = 0.3 * scores[:count] + 0.7 * scores[count:][saved["module_of"]]

    best: dict[str, tuple[float, str, str]] = {}
    for position in np.argsort(-total):
        module, name, first = saved["documents"][position]
        best.setdefault(module.partition(".")[0], (float(total[position]), f"{module}.{name}".rstrip("."), first))
        if len(best) == 5:
            break
    return list(best.values())


@functools.cache
def load(version: int) -> Any:
    """The index as it was saved at `version`; a worker keeps it, and reads it again only when it is written anew."""
    print(f"loading {INDEX}")
    return pickle.loads(INDEX.read_bytes())  # noqa: S301 - written by `index`
