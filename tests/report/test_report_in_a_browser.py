"""The report as people meet it: in Chromium, on a phone and on a desk, by day and night, by keyboard, on paper."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.browser import Visit, chromium, needs_chromium, visit

pytestmark = needs_chromium

A4 = 718  # pixels between the margins of a page
LOOKS = {"light-phone": (390, False), "dark-phone": (390, True), "light-desk": (1440, False), "dark-desk": (1440, True)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def page(report: Path) -> Path:
    return report


@pytest.fixture(scope="module")
def phone(browser: Any, page: Path) -> Iterator[Visit]:
    """Loaded once, as plotly alone takes seconds; in light colours, and put into others by the system's change."""
    with visit(browser, page, width=390) as seen:
        yield seen


@pytest.fixture(scope="module")
def desk(browser: Any, page: Path) -> Iterator[Visit]:
    """Loaded once, in dark colours."""
    with visit(browser, page, width=1440, dark=True) as seen:
        yield seen


def put_back(seen: Visit, *, dark: bool) -> None:
    """As after loading: no theme chosen, nothing focused and Tab at the beginning, the pointer on nothing."""

    def follow_the_system(*, dark: bool) -> None:
        """The page names and draws itself anew when the system changes, so the choice of a theme is gone by then."""
        seen.page.emulate_media(media="screen", color_scheme="dark" if dark else "light")
        seen.page.wait_for_function(
            "named => document.getElementById('theme').textContent == named", arg="Light" if dark else "Dark"
        )

    chosen, system_is_dark = seen.page.evaluate(
        "() => { const chosen = document.documentElement.dataset.theme; delete document.documentElement.dataset.theme;"
        " const first = document.createElement('a'); first.tabIndex = -1; document.body.prepend(first); first.focus();"
        " first.remove(); scrollTo(0, 0); return [chosen, matchMedia('(prefers-color-scheme: dark)').matches]; }"
    )
    if chosen and system_is_dark == dark:
        follow_the_system(dark=not dark)
    follow_the_system(dark=dark)
    seen.page.mouse.move(0, 0)
    seen.page.wait_for_function("getComputedStyle(document.getElementById('hint')).display == 'none'")


@pytest.fixture(params=LOOKS.values(), ids=LOOKS)
def look(request: pytest.FixtureRequest, phone: Visit, desk: Visit) -> tuple[Visit, int, bool]:
    """The page at a width, light or dark."""
    width, dark = request.param
    seen = phone if width == 390 else desk
    put_back(seen, dark=dark)
    return seen, width, dark


@pytest.fixture
def by_day(desk: Visit) -> Visit:
    put_back(desk, dark=False)
    return desk


@pytest.fixture
def by_night(desk: Visit) -> Visit:
    put_back(desk, dark=True)
    return desk


@pytest.fixture
def to_print(by_night: Visit) -> Iterator[Visit]:
    """On paper all is unfolded, which nobody folds again."""
    by_night.page.evaluate("window.unfolded = [...document.querySelectorAll('details[open]')]")
    yield by_night
    by_night.page.emulate_media(media="screen")
    by_night.page.set_viewport_size({"width": 1440, "height": 900})
    by_night.page.evaluate(
        "() => { dispatchEvent(new Event('afterprint'));"
        " for (const one of document.querySelectorAll('details')) one.open = window.unfolded.includes(one); }"
    )


OF_COLOURS = ("color-contrast", "link-in-text-block")  # the rules of axe that look at colours


def violations(seen: Visit, rules: Sequence[str] = ()) -> list[tuple[str, str, list[str]]]:
    """axe-core: contrast of every text, names of every control, order of headings, alternatives of pictures."""
    from axe_playwright_python.sync_playwright import Axe

    response = (
        Axe()
        .run(seen.page, options={"resultTypes": ["violations"]} | ({"runOnly": list(rules)} if rules else {}))
        .response
    )
    assert response["passes"]
    return [
        (one["id"], one["help"], [node["html"][:160] for node in one["nodes"][:3]]) for one in response["violations"]
    ]


def colours(seen: Visit) -> list[str]:
    """Those of every element."""
    found = seen.page.evaluate(
        "[...document.body.querySelectorAll('*')].map(at => { const style = getComputedStyle(at);"
        " return [at.tagName, style.color, style.backgroundColor, style.backgroundImage, style.borderTopColor,"
        " style.fill, style.stroke, style.opacity].join(); })"
    )
    return list(found)


class TestThePage:
    def test_it_is_drawn_whole_without_a_complaint_or_a_network(self, look: tuple[Visit, int, bool]):
        seen, width, _ = look
        assert seen.complaints == []
        assert [url for url in seen.fetched if not url.startswith(("file:", "data:", "blob:"))] == []
        charts = seen.page.locator(".chart:visible")
        assert charts.count() >= 5
        drawn = charts.evaluate_all("all => all.map(at => at.querySelectorAll('.trace, .scatterlayer path').length)")
        assert all(drawn), drawn
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width
        assert seen.page.evaluate("[...document.images].every(one => one.loading == 'lazy' || one.naturalWidth > 0)")

    def test_everybody_can_read_it(self, look: tuple[Visit, int, bool]):
        seen, _, dark = look
        assert not violations(seen, OF_COLOURS if dark else ())
        if dark:  # and so it is by choice, on a system that is light
            of_the_system = colours(seen)
            put_back(seen, dark=False)
            assert colours(seen) != of_the_system
            seen.page.get_by_role("button", name="Switch to dark colours").click()
            seen.page.evaluate("document.activeElement.blur()")
            seen.page.mouse.move(0, 0)
            assert colours(seen) == of_the_system

    def test_the_theme_is_the_systems_until_somebody_chooses(self, by_night: Visit):
        seen = by_night
        ground = "getComputedStyle(document.body).backgroundColor"
        axis = "getComputedStyle(document.querySelector('#cmc .xtick text')).fill"
        quiet = {"light": "rgb(93, 96, 102)", "dark": "rgb(167, 171, 177)"}
        assert seen.page.evaluate(axis) == quiet["dark"]
        dark = seen.page.evaluate(ground)
        seen.page.get_by_role("button", name="Switch to light colours").click()
        light = seen.page.evaluate(ground)
        assert dark != light
        assert seen.page.evaluate(axis) == quiet["light"]  # charts follow
        seen.page.get_by_role("button", name="Switch to dark colours").click()
        assert seen.page.evaluate(ground) == dark


class TestTheKeyboard:
    def test_everything_that_can_be_used_is_reached_in_order_and_shows_it(self, by_day: Visit):
        seen = by_day
        wanted = seen.page.evaluate(
            "[...document.querySelectorAll('a[href], button, select, summary, [tabindex=\"0\"]')]"
            ".filter(at => at.checkVisibility()).length"
        )
        reached, outlined = [], []
        for _ in range(wanted):
            seen.page.keyboard.press("Tab")
            name, outline = seen.page.evaluate(
                "(at => [at.tagName + '#' + (at.id || at.textContent.trim().slice(0, 30)),"
                " getComputedStyle(at).outlineStyle])(document.activeElement)"
            )
            reached.append(name)
            outlined.append(outline)
        assert reached[0].startswith("A#Skip to the content")
        assert not [name for name in reached if name.startswith("BODY")], reached
        assert {"BUTTON#theme", "SELECT#training-run", "SELECT#map-colour", "DIV#map"} <= set(reached)
        assert set(outlined) == {"solid"}

    def test_arrows_step_through_the_map_and_show_the_photo(self, by_day: Visit):
        seen = by_day
        seen.page.locator("#map").focus()
        seen.page.keyboard.press("ArrowRight")
        card = seen.page.locator("#hint")
        assert card.is_visible()
        first = card.inner_text()
        assert "background-image: url" in card.locator(".shot").get_attribute("style")
        seen.page.keyboard.press("ArrowLeft")
        seen.page.keyboard.press("ArrowUp")
        assert card.inner_text() != first
        assert seen.page.locator("#live").text_content()
        seen.page.keyboard.press("Escape")
        assert not card.is_visible()

    def test_pointing_at_a_photo_shows_it(self, by_day: Visit):
        seen = by_day
        seen.page.locator("#map").scroll_into_view_if_needed()
        seen.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")  # scrolled
        at = seen.page.locator("#map .scatterlayer .points path").first.bounding_box()
        seen.page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
        seen.page.wait_for_selector("#hint", state="visible")

    def test_another_run_has_other_curves(self, by_day: Visit):
        seen = by_day
        shape = "document.querySelector('#training-0 .scatterlayer path.js-line').getAttribute('d')"
        before = seen.page.evaluate(shape)
        names = seen.page.locator("#training-run option").all_inner_texts()
        shown = seen.page.input_value("#training-run")
        seen.page.select_option("#training-run", next(name for name in names if name != shown))
        assert seen.page.evaluate(shape) != before
        seen.page.select_option("#training-run", shown)
        assert seen.page.evaluate(shape) == before


class TestOnPaper:
    def test_it_prints_light_whole_and_without_what_only_a_screen_can_use(self, to_print: Visit, tmp_path: Path):
        seen = to_print
        seen.page.pdf(path=tmp_path / "report.pdf", format="A4")
        seen.page.emulate_media(media="print")
        assert not seen.page.locator("nav").is_visible()
        assert not seen.page.locator("#theme").is_visible()
        assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        seen.page.set_viewport_size({"width": A4, "height": 1000})
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        seen.page.wait_for_function("document.querySelector('#cmc .main-svg').getBoundingClientRect().width < 700")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= A4
        cells = seen.page.locator("th:visible, td:visible")
        tall = cells.evaluate_all("all => Math.max(...all.map(at => at.offsetHeight / at.offsetWidth))")
        assert tall < 3  # no column of single letters
        assert (tmp_path / "report.pdf").stat().st_size > 50_000


def test_a_page_without_photos_has_none(browser: Any, bare_report: Path):
    with visit(browser, bare_report, width=1440) as seen:
        assert seen.complaints == []
        assert seen.page.evaluate("[...document.images].length") == 0
        seen.page.locator("#map").focus()
        seen.page.keyboard.press("ArrowRight")
        assert seen.page.locator("#hint").is_visible()
        assert not seen.page.locator("#hint .shot").is_visible()
