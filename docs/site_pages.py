"""MkDocs hook that adds the pages that are not files in docs/, and rewrites links for the site.

It adds:

- README.md as the home page, and the other documents of the repository's root;
- the API reference: the public names by topic, then one page per module of the package;
- a list of the design decisions.

Links in the documents are relative to the file that contains them, so that they work in the repository. The hook turns them
into links between the site's pages.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = "csametric"
ROOT_PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")  # the file that a Markdown link leads to, without its #anchor


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and expand the folders in the navigation."""
    pages = {page: (ROOT / source).read_text() for source, page in ROOT_PAGES.items()}
    pages["index.md"] = "---\nhide: [navigation]\n---\n" + pages["index.md"]  # the tabs are enough on the home page
    pages |= reference_pages()
    pages["decisions/index.md"] = list_of_decisions(files)
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    config.nav = expand_folders(config.nav or [], sorted(file.src_uri for file in files.documentation_pages()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    if page.file.src_uri.startswith("reference/"):
        return markdown
    return LINK.sub(lambda link: site_link(link[1], page.file.src_uri), markdown)


def site_link(link: str, page: str) -> str:
    """Return a link of the repository as a link of the site.

    Args:
        link: the target, relative to the file that contains it.
        page: the source of the site's page, such as "guides/layer.md".

    Returns:
        The target relative to the page, or `link` itself if the file does not exist.

    >>> site_link("CONTRIBUTING.md", "index.md")
    'contributing.md'
    """
    sources = {uri: source for source, uri in ROOT_PAGES.items()}
    source = sources.get(page, f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    if not (ROOT / target).exists():
        return link
    if link.endswith("/"):
        target += "/index.md"
    target = ROOT_PAGES.get(target, target.removeprefix("docs/"))
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def list_of_decisions(files: Files) -> str:
    """Return a page that lists the design decisions, with a link to each."""
    decisions = sorted(file.src_uri for file in files if file.src_uri.startswith("decisions/"))
    lines = []
    for uri in decisions:
        title = (ROOT / "docs" / uri).read_text().splitlines()[0].removeprefix("# ")
        lines.append(f"- [{title}]({Path(uri).name})")
    introduction = "One page per decision: the context, the decision, and what else was tried."
    return "\n\n".join(["# Design decisions", introduction, "\n".join(lines)])


def expand_folders(nav: list[Any], pages: list[str]) -> list[Any]:
    """Replace every entry that ends in a slash by the pages of that folder; its subfolders become sections."""
    expanded: list[Any] = []
    for entry in nav:
        if isinstance(entry, str) and entry.endswith("/"):
            expanded.extend(section(entry, pages))
        elif isinstance(entry, dict):
            title, value = next(iter(entry.items()))
            if isinstance(value, str) and value.endswith("/"):
                value = section(value, pages)
            elif isinstance(value, list):
                value = expand_folders(value, pages)
            expanded.append({title: value})
        else:
            expanded.append(entry)
    return expanded


def section(folder: str, pages: list[str]) -> list[Any]:
    """Return the navigation of a folder: its index, its pages, then one section per subfolder."""
    names = [page.removeprefix(folder) for page in pages if page.startswith(folder)]
    entries: list[Any] = [folder + name for name in names if "/" not in name and name != "index.md"]
    if "index.md" in names:
        entries.insert(0, folder + "index.md")
    subfolders = sorted({name.split("/")[0] for name in names if "/" in name})
    return entries + [{subfolder: section(f"{folder}{subfolder}/", pages)} for subfolder in subfolders]


def reference_pages() -> dict[str, str]:
    """Return the pages of the API reference as {page name: Markdown}."""
    package = griffe.load(PACKAGE, search_paths=[ROOT / "src"], docstring_parser="google", allow_inspection=False)
    assert isinstance(package, griffe.Module)
    pages = {"reference/index.md": public_names(package) + "\n## All modules\n\n" + table_of_modules(package)}
    for module in all_modules(package):
        name = module.path.removeprefix(f"{PACKAGE}.").replace(".", "/")
        page = f"---\ntitle: {module.name}\n---\n::: {module.path}\n"
        if module.is_init_module:
            page += "\n## Modules\n\n" + table_of_modules(module)
        pages[f"reference/{name}{'/index' if module.is_init_module else ''}.md"] = page
    return pages


def modules_in(package: griffe.Module) -> list[griffe.Module]:
    """Return the direct submodules of a package, sorted by name."""
    members = package.members.values()
    modules = [member for member in members if isinstance(member, griffe.Module) and member.name != "__main__"]
    return sorted(modules, key=lambda module: module.name)


def all_modules(package: griffe.Module) -> list[griffe.Module]:
    """Return all modules below a package, subpackages included."""
    modules = []
    for module in modules_in(package):
        modules += [module, *all_modules(module)]
    return modules


def public_names(package: griffe.Module) -> str:
    """Return a page of the names in `csametric.__all__`, grouped by subpackage."""
    names_of_topic: dict[str, list[str]] = {}
    for name in package.exports or ():
        topic = package[str(name)].target_path.split(".")[1]
        names_of_topic.setdefault(topic, []).append(str(name))
    text = f"# API reference\n\nThe public names, imported by `from {PACKAGE} import ...`. All modules are listed below.\n"
    for topic, names in sorted(names_of_topic.items()):
        text += f"\n## {topic.capitalize()}\n\n{summary(package[topic])}\n\n"
        for name in sorted(names):
            text += f"::: {PACKAGE}.{name}\n    options:\n      heading_level: 3\n\n"
    return text


def table_of_modules(package: griffe.Module) -> str:
    """Return a table of the direct submodules: a link and the first paragraph of the docstring."""
    rows = [f"| [{module.name}][{module.path}] | {summary(module)} |" for module in modules_in(package)]
    return "\n".join(["| Module | Contents |", "|---|---|", *rows]) + "\n"


def summary(module: griffe.Module) -> str:
    """Return the first paragraph of a module's docstring, on one line."""
    paragraph = module.docstring.value.split("\n\n")[0] if module.docstring else ""
    return " ".join(paragraph.split())
