"""The page in a real browser: Debian's chromium, headless, without a network."""

import csv
import io
import shutil
import time
from pathlib import Path

import pytest

from dcae_bench.base.files import REPOSITORY
from dcae_bench.report.leaderboard import write_leaderboard
from dcae_bench.report.page import write_report

pytestmark = pytest.mark.long

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURED = "#run-rec-measured"


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (Debian, Ubuntu: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as made:
        # A container's root cannot start chromium's sandbox; the page is our own file.
        running = made.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser):
    """Opens a page and notes every complaint and every request that leaves the page."""
    contexts, complaints = [], []

    def note(kind, text):
        complaints.append(f"{kind}: {text[:300]}")

    def open_page(path: Path, *, width: int = 1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: note(said.type, said.text))
        page.on("pageerror", lambda error: note("error", str(error)))
        local = ("data:", "blob:", path.as_uri())
        page.on("request", lambda asked: asked.url.startswith(local) or note("request", asked.url))
        page.on("dialog", lambda shown: (note("dialog", shown.message), shown.dismiss()))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def column(page, number: int, table: str = MEASURED) -> list[str]:
    return page.locator(f"{table} tbody tr td:nth-child({number})").all_inner_texts()


def head(page, label: str, table: str = MEASURED) -> int:
    labels = page.locator(f"{table} thead th").evaluate_all("all => all.map(one => one.dataset.label)")
    return labels.index(label) + 1


def test_a_table_is_sorted_with_the_mouse_and_with_the_keyboard(opened, page):
    shown = opened(page)
    number = head(shown, "PSNR")
    values = sorted(column(shown, number), key=float)
    title = shown.locator(f"{MEASURED} thead th:nth-child({number})")
    title.click()
    shown.locator(f"{MEASURED} th[aria-sort=ascending]").wait_for()
    assert column(shown, number) == values
    title.locator("[role=button]").press("Enter")
    shown.locator(f"{MEASURED} th[aria-sort=descending]").wait_for()
    assert column(shown, number) == values[::-1]


def test_a_table_is_filtered_and_its_columns_are_hidden_and_copied(opened, page):
    shown = opened(page, permissions=["clipboard-read", "clipboard-write"])
    box = shown.locator(MEASURED)
    box.get_by_role("searchbox").fill("dc-ae")
    assert set(column(shown, head(shown, "autoencoder"))) == {"dc-ae-f32c32"}
    box.get_by_role("button", name="Columns").click()
    shown.locator(".dt-button-collection").get_by_text("SSIM").click()
    shown.keyboard.press("Escape")
    assert not any("SSIM" in text for text in box.locator("thead th").all_inner_texts())
    copied = {}
    for format in ("CSV", "Markdown", "LaTeX"):
        box.get_by_role("button", name=f"Copy {format}").click()
        shown.get_by_text(f"Copied as {format}").wait_for()
        copied[format] = shown.evaluate("navigator.clipboard.readText()")
    rows = list(csv.reader(io.StringIO(copied["CSV"])))
    assert len(rows) == 3 and "SSIM ↑" not in rows[0] and "record" not in rows[0] and "22.60" in rows[1] + rows[2]
    assert copied["Markdown"].splitlines()[1].startswith("| --- |") and len(copied["Markdown"].splitlines()) == 4
    assert "PSNR $\\uparrow$" in copied["LaTeX"] and copied["LaTeX"].endswith("\\end{tabular}")


def test_a_cell_opens_its_record_by_click_and_by_keyboard(opened, page):
    shown = opened(page)
    number = head(shown, "SSIM")
    shown.locator(f"{MEASURED} tbody tr:first-child td:nth-child({number})").click()
    record = shown.locator("dialog#record")
    record.wait_for()
    assert record.locator("tr.asked td").first.inner_text() == "SSIM"
    text = record.inner_text()
    for fact in (
        "reconstruction/photos-v1",
        "95% interval 0.6 to 0.7",
        "a" * 64,
        "d" * 64,
        "Testium 9000",
        "dcae-bench evaluate",
    ):
        assert fact in text
    shown.keyboard.press("Escape")
    record.wait_for(state="hidden")
    link = shown.locator(f"{MEASURED} a.open").nth(1)
    link.focus()
    shown.keyboard.press("Enter")
    record.wait_for()
    record.get_by_role("button", name="Close").click()
    record.wait_for(state="hidden")
    shown.locator("#run-rec-differences tbody td").nth(3).click()
    record.wait_for()
    assert record.locator("nav button").count() == 2  # both records of a difference


def test_footnotes_are_tooltips_and_text(opened, page):
    shown = opened(page)
    mark = shown.locator(f"{MEASURED} a.note").first
    note = shown.locator(mark.get_attribute("href")).inner_text()
    mark.focus()
    assert shown.locator("#tip").inner_text() == note and "<script>" in note
    shown.keyboard.press("Escape")
    assert not shown.locator("#tip").is_visible()


def test_slider_zoom_and_choice_move_all_images_together(opened, page):
    shown = opened(page)
    compare = shown.locator(".compare").first
    half = compare.locator(".shot.shown .half")
    assert half.count() == 2
    edge = "all => all.map(one => getComputedStyle(one).clipPath)"
    before = half.evaluate_all(edge)
    slider = compare.locator("[data-wipe]")
    slider.focus()
    for _ in range(30):
        shown.keyboard.press("ArrowRight")
    after = half.evaluate_all(edge)
    assert len(set(after)) == 1 and after != before and "70%" in after[0]
    view = compare.locator(".shot.shown .view").first
    view.focus()
    shown.keyboard.press("+")
    shown.keyboard.press("ArrowLeft")
    pane = compare.locator(".shot.shown .pane").first
    assert pane.evaluate("one => getComputedStyle(one).transform") == "matrix(2, 0, 0, 2, 0, 0)"
    assert compare.evaluate("one => one.style.getPropertyValue('--x')") == "45%"
    compare.locator("[data-shot]:is(select)").select_option(index=1)
    assert compare.locator(".shot.shown").get_attribute("data-title") == "image 2"


def test_charts_are_drawn_and_saved(opened, page):
    shown = opened(page)
    figure = shown.locator("#run-rec-quality-1")
    figure.scroll_into_view_if_needed()
    figure.locator(".drawn svg").wait_for()
    for end, start in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with shown.expect_download() as saved:
            figure.get_by_role("button", name=f"Save {end.upper()}").click()
        assert saved.value.suggested_filename == f"run-rec-quality-1.{end}"
        assert Path(saved.value.path()).read_bytes().startswith(start)


def test_without_scripts_tables_charts_images_and_footnotes_are_read(opened, page):
    shown = opened(page, java_script_enabled=False)
    assert column(shown, 4)[0] == "sd-vae-f32c32"
    for what in (
        f"{MEASURED} li",
        "#run-rec-quality-1 img",
        ".shot:nth-child(3) .view >> nth=0",
        "#headline .verdict >> nth=0",
    ):
        assert shown.locator(what).first.is_visible(), what
    assert not shown.locator(".saves").first.is_visible() and not shown.locator(".controls").first.is_visible()
    link = shown.locator(f"{MEASURED} a.open").first.get_attribute("href")
    assert shown.locator(f"tr{link}").count() == 1


def test_the_run_is_printed_whole(opened, page):
    shown = opened(page)
    assert len(shown.pdf(format="A4")) > 50_000
    assert shown.locator(".block:not(.committed) details:not([open]), .missing details:not([open])").count() == 0
    assert shown.locator("#records-list:not([open])").count() == 1


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """The page of a fresh clone, with the time it took."""
    folder = tmp_path_factory.mktemp("clone") / "results"
    folder.mkdir()
    (folder / "reference").symlink_to(REPOSITORY / "results/reference")
    started = time.monotonic()
    write_report(folder, folder / "report.html")
    return folder / "report.html", time.monotonic() - started


@pytest.mark.parametrize("width", [1280, 375])
def test_the_committed_evidence_makes_a_page_that_fits(opened, evidence, width):
    path, seconds = evidence
    assert path.stat().st_size < 5_000_000 and seconds < 30
    shown = opened(path, width=width)
    for section in ("reconstruction", "generation", "throughput", "ablation", "provenance"):
        shown.locator(f"#{section}").scroll_into_view_if_needed()
    for box in shown.locator("main details:not([open]) > summary").all():
        if box.is_visible():
            box.click()
    assert shown.evaluate("document.documentElement.scrollWidth") == width
    ids = shown.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
    assert len(set(ids)) == len(ids)
    dangling = (
        "[...document.querySelectorAll('a[href^=\"#\"]')].filter(one => !document.getElementById(one.hash.slice(1)))"
    )
    assert shown.evaluate(f"{dangling}.map(one => one.hash)") == []


@pytest.mark.parametrize("width", [1280, 375])
def test_a_leaderboard_is_sorted_opens_records_and_fits(opened, bundles, tmp_path, width):
    write_leaderboard(bundles, tmp_path)
    shown = opened(tmp_path / "index.html", width=width)
    table = "#speed-0"
    number = head(shown, "images/s", table)
    values = column(shown, number, table)
    shown.locator(f"{table} thead th:nth-child({number})").click()
    shown.locator(f"{table} th[aria-sort=ascending]").wait_for()
    assert len(values) == 2 and column(shown, number, table) == values[::-1], "the best stood first"
    shown.locator(f"{table} tbody td:nth-child({number})").first.click()
    assert "forward" in shown.locator("#record-title").inner_text()
    assert "bundle b4" in shown.locator("#record-body").inner_text()
    shown.keyboard.press("Escape")
    shown.locator(f"{table} tbody a[href='#b4']").first.click()
    assert shown.url.endswith("#b4")
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
