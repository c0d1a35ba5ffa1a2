"""Hook of mkdocs.yml: pages from outside docs/, the links to them, and the flags of the commands."""

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
# In the site these are at the same place as in the repository, and docs/ is the root.
FOLDERS = ("proofs/results", "benchmarks/results")  # pages and their pictures
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "tests/goldens/README.md")
FRONT = {"README.md": "index.md"}  # both would be the front page
_LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")
_COMMANDS = re.compile(r"<!-- commands: (.*?) -->")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are outside docs/."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).iterdir())]
    for path in [*found, *(ROOT / name for name in PAGES)]:
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the flags of commands, and make links by the repository's layout links by the site's."""
    place = page.file.src_uri
    is_outside = place in PAGES or place.startswith(FOLDERS)
    folder = posixpath.dirname(place if is_outside else f"docs/{place}")

    def resolve(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1])).removeprefix("docs/")
        for name in (FRONT.get(target, target), f"{target}/index.md"):
            if files.get_file_from_path(name):
                return posixpath.relpath(name, posixpath.dirname(place) or ".")
        return link[1]

    if is_outside:
        markdown = _without_links_to_source(markdown, folder)
    markdown = _COMMANDS.sub(
        lambda found: "\n".join(line for name in found[1].split() for line in _command(name)),
        markdown,
    )
    return _LINK.sub(resolve, markdown)


def _without_links_to_source(markdown: str, folder: str) -> str:
    """Turn links to folders and files that are no pages into their text."""

    def plain(link: re.Match[str]) -> str:
        target = (ROOT / folder / link["target"].partition("#")[0]).resolve()
        is_source = target.exists() and target.suffix not in (".md", ".png")
        return link["text"] if is_source and "docs" not in target.parts else link[0]

    return re.sub(r"(?<!!)\[(?P<text>[^]]*)\]\((?P<target>[^)#\s:]+)\)", plain, markdown)


def _command(module: str) -> Iterator[str]:
    """Yield the section of a command: its docstring, and a table of its flags."""
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    name = module.removesuffix(".__main__")
    title = "main.py" if name == "main" else f"python -m {name}"
    yield from (f"### `{title}`", "", "```text", ast.get_docstring(tree) or "", "```", "")
    rows = [row for node in ast.walk(tree) if isinstance(node, ast.Call) for row in _flag(node)]
    if rows:
        yield from ("| flag | meaning |", "|---|---|", *rows, "")


def _flag(call: ast.Call) -> Iterator[str]:
    """Yield the row of a call that defines a flag."""
    method = ast.unparse(call.func).rpartition(".")[2]
    texts = [x.value for x in call.args if isinstance(x, ast.Constant) and isinstance(x.value, str)]
    given = {x.arg: x.value.value for x in call.keywords if isinstance(x.value, ast.Constant)}
    if method.startswith("DEFINE_"):
        name, meaning = f"--{texts[0]}", texts[-1]
    elif method == "add_argument" and texts:
        name, meaning = texts[-1], str(given.get("help", ""))
        meaning = meaning.replace("%(default)s", f"default: {given.get('default')!s}")
    else:
        return
    yield f"| `{name}` | {meaning.replace('|', chr(92) + '|')} |"
